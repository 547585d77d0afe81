//! The guest's descriptors.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::directories::Listing;
use super::sockets::{Socket, SocketDirectory};
use super::streams::Stream;
use crate::{Errno, Memory};

/// What a descriptor refers to.
#[derive(Debug)]
pub(super) enum Kind {
    /// Standard stream: a descriptor from outside, of any type.
    Stream(Stream),
    Directory(Directory),
    File(OpenFile),
    /// A socket that the guest has opened or accepted.
    Socket(Box<Socket>),
    /// A directory whose names are sockets.
    SocketDirectory(SocketDirectory),
}

#[derive(Debug)]
pub(super) struct Directory {
    pub fd: OwnedFd,
    /// Index into the host's mounts.
    pub mount: usize,
    /// Whether it is the mount's root as given at the start, which `fd_prestat_get` names.
    pub preopen: bool,
    /// What `fd_readdir` walks through: the directory as it was when cookie 0 was asked for.
    pub listing: Option<Listing>,
}

#[derive(Debug)]
pub(super) struct OpenFile {
    pub fd: OwnedFd,
    /// Index into the host's mounts; none for a file that was rebuilt from a log, and lies in no mount.
    pub mount: Option<usize>,
    pub filetype: u8,
    /// Only of a file in an immutable mount.
    pub input: Option<Box<Input>>,
}

/// Where what is read from a file comes from, for the log.
#[derive(Debug)]
pub(super) struct Input {
    mount: u32,
    path: Vec<u8>,
    /// The file's, followed here to spare the question to the kernel.
    position: Cell<u64>,
}

impl Input {
    pub fn new(mount: usize, path: Vec<u8>) -> Self {
        Input { mount: mount as u32, path, position: Cell::new(0) }
    }

    /// Notes that the position was moved.
    pub fn moved_to(&self, position: u64) {
        self.position.set(position);
    }

    /// Notes that `count` bytes were read at the position.
    pub fn read(&self, count: u32, memory: &mut Memory<'_>) {
        let position = self.position.get();
        self.position.set(position + u64::from(count));
        self.read_at(position, memory);
    }

    /// Notes that bytes were read at an offset.
    pub fn read_at(&self, offset: u64, memory: &mut Memory<'_>) {
        memory.refer(self.mount, offset, &self.path);
    }
}

/// One descriptor.
#[derive(Debug)]
pub(super) struct Entry {
    pub kind: Kind,
    pub rights_base: u64,
    pub rights_inheriting: u64,
    /// `abi::fdflags`.
    pub flags: u16,
}

impl Entry {
    /// The kernel's descriptor of what is a file in the widest sense. A socket has none, or several: what files can
    /// do, it can't. A directory of sockets is ours alone.
    #[inline]
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        match &self.kind {
            Kind::Stream(stream) => Ok(stream.fd()),
            Kind::Directory(directory) => Ok(directory.fd.as_fd()),
            Kind::File(file) => Ok(file.fd.as_fd()),
            Kind::Socket(_) => Err(Errno::Spipe),
            Kind::SocketDirectory(_) => Err(Errno::Notsup),
        }
    }

    /// Where its bytes come from, if they never change.
    #[inline]
    pub fn input(&self) -> Option<&Input> {
        match &self.kind {
            Kind::File(file) => file.input.as_deref(),
            _ => None,
        }
    }

    /// Fails unless the descriptor has all of the rights.
    #[inline]
    pub fn require(&self, rights: u64) -> Result<(), Errno> {
        if self.rights_base & rights == rights { Ok(()) } else { Err(Errno::Notcapable) }
    }
}

/// Descriptors by number. A new one takes the lowest free number, as POSIX has it and guests rely on.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Option<Entry>>,
    /// No slot below is free.
    lowest_free: usize,
    open: usize,
    open_max: usize,
    /// How many of the open are sockets.
    sockets: usize,
    sockets_max: usize,
}

impl Table {
    pub fn new(open_max: u32, sockets_max: u32) -> Self {
        let (open_max, sockets_max) = (open_max as usize, sockets_max as usize);
        Table { slots: Vec::new(), lowest_free: 0, open: 0, open_max, sockets: 0, sockets_max }
    }

    /// An empty table with the same limits.
    pub fn emptied(&self) -> Self {
        Table::new(self.open_max as u32, self.sockets_max as u32)
    }

    #[inline]
    pub fn get(&self, fd: u32) -> Result<&Entry, Errno> {
        self.slots.get(fd as usize).and_then(Option::as_ref).ok_or(Errno::Badf)
    }

    #[inline]
    pub fn get_mut(&mut self, fd: u32) -> Result<&mut Entry, Errno> {
        self.slots.get_mut(fd as usize).and_then(Option::as_mut).ok_or(Errno::Badf)
    }

    /// Fails if no further descriptor may be opened. To be asked before the effect that makes one.
    pub fn check_room(&self) -> Result<(), Errno> {
        if self.open < self.open_max { Ok(()) } else { Err(Errno::Mfile) }
    }

    /// Fails if no further socket may be opened. To be asked before the effect that makes one.
    pub fn check_room_for_socket(&self) -> Result<(), Errno> {
        self.check_room()?;
        if self.sockets < self.sockets_max { Ok(()) } else { Err(Errno::Mfile) }
    }

    pub fn insert(&mut self, entry: Entry) -> Result<u32, Errno> {
        self.check_room()?;
        self.sockets += usize::from(entry.is_socket());
        let fd = (self.lowest_free..self.slots.len()).find(|&fd| self.slots[fd].is_none());
        let fd = fd.unwrap_or(self.slots.len());
        if fd == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[fd] = Some(entry);
        self.open += 1;
        self.lowest_free = fd + 1;
        Ok(fd as u32)
    }

    /// Puts a descriptor at a number of choice, which must be free.
    pub fn insert_at(&mut self, fd: u32, entry: Entry) -> Result<(), Errno> {
        self.check_room()?;
        let fd = fd as usize;
        // Numbers are lowest-free, so that none is ever above the limit, and the table no longer than it.
        if fd >= self.open_max {
            return Err(Errno::Mfile);
        }
        if fd >= self.slots.len() {
            self.slots.resize_with(fd + 1, || None);
        }
        if self.slots[fd].is_some() {
            return Err(Errno::Exist);
        }
        self.sockets += usize::from(entry.is_socket());
        self.slots[fd] = Some(entry);
        self.open += 1;
        Ok(())
    }

    pub fn remove(&mut self, fd: u32) -> Result<Entry, Errno> {
        let entry = self.slots.get_mut(fd as usize).and_then(Option::take).ok_or(Errno::Badf)?;
        self.open -= 1;
        self.sockets -= usize::from(entry.is_socket());
        self.lowest_free = self.lowest_free.min(fd as usize);
        Ok(entry)
    }

    /// Moves a descriptor over another, which is closed. Both must be open.
    pub fn renumber(&mut self, from: u32, to: u32) -> Result<(), Errno> {
        self.get(from)?;
        self.get(to)?;
        if from != to {
            self.remove(to)?;
            let entry = self.remove(from)?;
            self.sockets += usize::from(entry.is_socket());
            self.slots[to as usize] = Some(entry);
            self.open += 1;
            // `to` is taken again; where the search begins need only not be above a free slot.
            self.lowest_free = self.lowest_free.min(from as usize);
        }
        Ok(())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Entry)> {
        self.slots.iter_mut().enumerate().filter_map(|(fd, slot)| slot.as_mut().map(|entry| (fd as u32, entry)))
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> {
        self.slots.iter().enumerate().filter_map(|(fd, slot)| slot.as_ref().map(|entry| (fd as u32, entry)))
    }
}
