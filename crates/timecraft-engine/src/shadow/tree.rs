//! Names and files as the log tells them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::ShadowError;
use super::scratch::{Bytes, Scratch};

/// Names whose existence the guest has learnt that are kept in mind. More only makes a call in flight clearer.
const SEEN_MAX: usize = 65_536;
/// Symbolic links followed in one path, as Linux has it.
const LINKS_MAX: usize = 40;

/// A path in a mount, without `.`, `..`, doubled slashes or known symbolic links. Empty: the mount's root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub mount: usize,
    pub path: Vec<u8>,
}

pub(super) type FileId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Unknown,
    Directory,
    Regular,
    /// A device, pipe or socket: it has no content to compare.
    Special,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Exact(u64),
    AtLeast(u64),
}

/// Bytes appended to a file whose size the log hasn't told yet, and thus at unknown offsets.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub bytes: Bytes,
    pub len: u64,
}

/// A file or directory that the guest has opened or changed.
#[derive(Debug)]
pub(super) struct Node {
    pub names: BTreeSet<Name>,
    pub kind: Kind,
    /// Descriptors that refer to it.
    pub opens: u32,
    pub size: Size,
    /// Only while the size isn't exact; the size is then what it was before the tail.
    pub tail: Option<Tail>,
    pub body: Bytes,
    /// Whether all content is known: what lies outside the known bytes, up to the size, is zero.
    pub complete: bool,
    /// Whether the guest has changed the content.
    pub written: bool,
    /// Why the content can't be told from the log.
    pub doubt: Option<&'static str>,
}

/// Where a write landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landed {
    /// The write's end, from the start of the file.
    At(u64),
    /// The write's end, from the start of the tail.
    Tail(u64),
}

const MIXED: &str = "it was appended to at a size that the log doesn't tell, and written to elsewhere";

impl Node {
    pub(super) fn new(name: Name) -> Self {
        Node {
            names: BTreeSet::from([name]),
            kind: Kind::Unknown,
            opens: 0,
            size: Size::AtLeast(0),
            tail: None,
            body: Bytes::default(),
            complete: false,
            written: false,
            doubt: None,
        }
    }

    fn forget(&mut self, scratch: &mut Scratch) {
        self.body.clip(scratch, 0);
        if let Some(mut tail) = self.tail.take() {
            tail.bytes.clip(scratch, 0);
        }
    }

    pub(super) fn doubt(&mut self, scratch: &mut Scratch, why: &'static str) {
        self.forget(scratch);
        self.written = true;
        self.complete = false;
        self.doubt = Some(why);
    }

    /// Whether content is to be kept; notes that there is some.
    fn keeps(&mut self) -> bool {
        self.written = true;
        self.doubt.is_none() && self.kind != Kind::Special
    }

    pub(super) fn write(&mut self, scratch: &mut Scratch, offset: u64, data: &[u8]) -> Result<(), ShadowError> {
        if data.is_empty() {
            return Ok(());
        }
        // The size is followed even where the content isn't kept: offsets of later appends depend on it.
        let end = offset.saturating_add(data.len() as u64);
        match &mut self.size {
            Size::Exact(size) => *size = end.max(*size),
            Size::AtLeast(least) => {
                let overlaps = end > *least && self.tail.is_some();
                *least = end.max(*least);
                if overlaps {
                    self.doubt(scratch, MIXED);
                }
            }
        }
        if !self.keeps() {
            return Ok(());
        }
        self.body.write(scratch, offset, data)
    }

    pub(super) fn append(&mut self, scratch: &mut Scratch, data: &[u8]) -> Result<Option<Landed>, ShadowError> {
        if let Size::Exact(size) = self.size {
            self.write(scratch, size, data)?;
            return Ok(Some(Landed::At(size + data.len() as u64)));
        }
        if !self.keeps() {
            return Ok(None);
        }
        let tail = self.tail.get_or_insert_default();
        tail.bytes.write(scratch, tail.len, data)?;
        tail.len += data.len() as u64;
        Ok(Some(Landed::Tail(tail.len)))
    }

    /// The guest truncates or extends the file.
    pub(super) fn resize(&mut self, scratch: &mut Scratch, size: u64) {
        self.written = true;
        if let Some(mut tail) = self.tail.take() {
            tail.bytes.clip(scratch, 0);
            if matches!(self.size, Size::AtLeast(least) if size > least) {
                self.doubt(scratch, MIXED);
            }
        }
        if size == 0 {
            self.complete = self.kind != Kind::Special;
            self.doubt = None;
        }
        self.body.clip(scratch, size);
        self.size = Size::Exact(size);
    }

    /// `fd_allocate`: the file is at least so long now.
    pub(super) fn allocate(&mut self, scratch: &mut Scratch, end: u64) {
        self.written = true;
        match &mut self.size {
            Size::Exact(size) => *size = end.max(*size),
            Size::AtLeast(least) if self.tail.is_some() => {
                if end > *least {
                    self.doubt(scratch, MIXED);
                }
            }
            Size::AtLeast(least) => *least = end.max(*least),
        }
    }

    /// A result told the file's size. Returns where the tail began, if that got known by it.
    pub(super) fn learn_size(&mut self, scratch: &mut Scratch, size: u64) -> Result<Option<u64>, ShadowError> {
        let mut base = None;
        if let Some(mut tail) = self.tail.take() {
            let start = size.saturating_sub(tail.len);
            let Size::AtLeast(least) = self.size else { unreachable!("a tail exists only while the size is unknown") };
            if start < least || size < tail.len {
                tail.bytes.clip(scratch, 0);
                self.doubt(scratch, "somebody else has made it shorter meanwhile");
                self.size = Size::Exact(size);
                return Ok(None);
            }
            let mut buffer = vec![0; tail.len.min(1 << 20) as usize];
            let mut at = 0;
            while at < tail.len {
                let count = buffer.len().min((tail.len - at) as usize);
                tail.bytes.read(scratch, at, &mut buffer[..count])?;
                self.body.write(scratch, start + at, &buffer[..count])?;
                at += count as u64;
            }
            tail.bytes.clip(scratch, 0);
            base = Some(start);
        } else if let Size::Exact(before) = self.size {
            // Somebody else's doing: what they appended isn't known.
            self.complete &= size <= before;
            self.body.clip(scratch, size);
        } else {
            self.body.clip(scratch, size);
        }
        self.size = Size::Exact(size);
        Ok(base)
    }

    /// Whether the file could be made anew from the log, and how long it is.
    pub(super) fn rebuildable(&self) -> Option<u64> {
        match self.size {
            Size::Exact(size) if self.doubt.is_none() && self.kind != Kind::Special => {
                (self.complete || (self.written && self.body.known().covers(0, size))).then_some(size)
            }
            _ => None,
        }
    }
}

/// All that the log tells of names.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<FileId, Node>,
    names: BTreeMap<Name, FileId>,
    /// Symbolic links that the guest has made.
    links: BTreeMap<Name, Vec<u8>>,
    /// Whether names existed when the guest last learnt it.
    seen: BTreeMap<Name, bool>,
    next: FileId,
}

fn beneath(name: &Name) -> Name {
    let mut path = name.path.clone();
    if !path.is_empty() {
        path.push(b'/');
    }
    Name { mount: name.mount, path }
}

fn keys_beneath<V>(map: &BTreeMap<Name, V>, name: &Name) -> Vec<Name> {
    let prefix = beneath(name);
    let within = |key: &Name| key.mount == prefix.mount && key.path.starts_with(&prefix.path);
    let range = map.range(prefix.clone()..).map(|(key, _)| key);
    range.take_while(|key| within(key)).filter(|key| **key != prefix).cloned().collect()
}

impl Tree {
    pub(super) fn node(&self, id: FileId) -> &Node {
        &self.nodes[&id]
    }

    pub(super) fn node_mut(&mut self, id: FileId) -> &mut Node {
        self.nodes.get_mut(&id).expect("descriptors and names refer to nodes that exist")
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (FileId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    pub(super) fn find(&self, name: &Name) -> Option<FileId> {
        self.names.get(name).copied()
    }

    pub(super) fn find_or_insert(&mut self, name: &Name) -> FileId {
        self.find(name).unwrap_or_else(|| {
            let id = self.next;
            self.next += 1;
            self.nodes.insert(id, Node::new(name.clone()));
            self.names.insert(name.clone(), id);
            id
        })
    }

    /// The name that a path means, seen from a directory; `None` if it leaves the mount or loops.
    pub(super) fn resolve(&self, base: &Name, path: &[u8], follow_last: bool) -> Option<Name> {
        let parts = |path: &[u8]| path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<VecDeque<_>>();
        let mut name = base.clone();
        let mut todo = parts(path);
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." if name.path.is_empty() => return None,
                b".." => {
                    let cut = name.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    name.path.truncate(cut);
                    continue;
                }
                _ => {}
            }
            let parent = name.path.len();
            if parent > 0 {
                name.path.push(b'/');
            }
            name.path.extend_from_slice(&part);
            if (follow_last || !todo.is_empty())
                && let Some(target) = self.links.get(&name)
            {
                links += 1;
                if links > LINKS_MAX || target.starts_with(b"/") {
                    return None;
                }
                name.path.truncate(parent);
                for part in parts(target).into_iter().rev() {
                    todo.push_front(part);
                }
            }
        }
        Some(name)
    }

    pub(super) fn see(&mut self, name: &Name, exists: bool) {
        if self.seen.len() >= SEEN_MAX && !self.seen.contains_key(name) {
            self.seen.pop_first();
        }
        self.seen.insert(name.clone(), exists);
    }

    /// Whether the name exists as far as the guest knows.
    pub(super) fn seen(&self, name: &Name) -> Option<bool> {
        if self.names.get(name).is_some_and(|id| self.nodes[id].written) {
            return Some(true);
        }
        self.seen.get(name).copied()
    }

    /// A name goes: what it led to lives on only under other names and descriptors.
    pub(super) fn remove(&mut self, scratch: &mut Scratch, name: &Name) {
        self.links.remove(name);
        if let Some(id) = self.names.remove(name) {
            self.node_mut(id).names.remove(name);
            self.collect(scratch, id);
        }
        self.see(name, false);
    }

    /// A new name for a node.
    pub(super) fn link(&mut self, scratch: &mut Scratch, id: FileId, name: &Name) {
        self.remove(scratch, name);
        self.names.insert(name.clone(), id);
        self.node_mut(id).names.insert(name.clone());
        self.see(name, true);
    }

    pub(super) fn symlink(&mut self, scratch: &mut Scratch, target: &[u8], name: &Name) {
        self.remove(scratch, name);
        self.links.insert(name.clone(), target.to_vec());
        self.see(name, true);
    }

    /// Moves a name with all beneath it.
    pub(super) fn rename(&mut self, scratch: &mut Scratch, old: &Name, new: &Name) {
        let same = self.find(old).is_some() && self.find(old) == self.find(new);
        if old == new || same {
            return;
        }
        self.remove(scratch, new);
        let moved =
            |name: &Name| Name { mount: new.mount, path: [new.path.as_slice(), &name.path[old.path.len()..]].concat() };
        let with = |mut names: Vec<Name>| {
            names.push(old.clone());
            names
        };
        for name in with(keys_beneath(&self.names, old)) {
            if let Some(id) = self.names.remove(&name) {
                let target = moved(&name);
                let names = &mut self.node_mut(id).names;
                names.remove(&name);
                names.insert(target.clone());
                self.names.insert(target, id);
            }
        }
        for name in with(keys_beneath(&self.links, old)) {
            if let Some(target) = self.links.remove(&name) {
                self.links.insert(moved(&name), target);
            }
        }
        for name in keys_beneath(&self.seen, old).into_iter().chain(keys_beneath(&self.seen, new)) {
            self.seen.remove(&name);
        }
        self.see(old, false);
        self.see(new, true);
    }

    /// Drops a node that nothing needs: no descriptor, and no name or nothing written under it.
    pub(super) fn collect(&mut self, scratch: &mut Scratch, id: FileId) {
        let node = self.node_mut(id);
        if node.opens > 0 || (!node.names.is_empty() && (node.written || node.names.len() > 1)) {
            return;
        }
        node.forget(scratch);
        if let Some(node) = self.nodes.remove(&id) {
            for name in node.names {
                self.names.remove(&name);
            }
        }
    }
}
