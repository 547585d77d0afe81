//! A small world for a host: two mounts, and things outside that must stay as they are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use timecraft_engine::host::{Host, HostConfig, HostLimits, Mount};
use timecraft_engine::reference::Reference;
use timecraft_engine::{KillSwitch, Memory, memory::Notes};

/// What no guest may ever see.
pub const SECRET: &[u8] = b"SECRET";
/// Descriptors of the mounts.
pub const WRITABLE: u64 = 3;
pub const READ_ONLY: u64 = 4;

pub struct World {
    folder: TempDir,
    before: BTreeMap<PathBuf, String>,
    pub kill: Arc<KillSwitch>,
}

impl World {
    pub fn new() -> (Self, Host) {
        let folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a temporary directory");
        let root = folder.path();
        for name in ["rw/a", "rw/dir", "ro/a", "outside/dir"] {
            fs::create_dir_all(root.join(name)).expect(name);
        }
        let immutable = b"inside".repeat(20);
        for (name, text) in [("rw/b", &b"inside"[..]), ("ro/b", &immutable[..]), ("outside/b", SECRET), ("b", SECRET)] {
            fs::write(root.join(name), text).expect(name);
        }
        for (name, target) in [
            ("rw/up", ".."),
            ("rw/link", "../outside/b"),
            ("rw/out", "../outside"),
            ("rw/abs", "/"),
            ("rw/proc", "/proc/self/root"),
            ("ro/link", "../b"),
        ] {
            symlink(target, root.join(name)).expect(name);
        }
        let kill = Arc::new(KillSwitch::new().expect("a kill switch"));
        let mount = |name: &str, read_only| Mount {
            host: root.join(name),
            guest: format!("/{name}"),
            read_only,
            immutable: read_only,
        };
        let config = HostConfig {
            args: vec![b"guest".to_vec(), b"argument".to_vec()],
            env: vec![b"A=b".to_vec()],
            mounts: vec![mount("rw", false), mount("ro", true)],
            limits: HostLimits { open_files: 32, disk_bytes: Some(1 << 20), ..HostLimits::default() },
            ..HostConfig::default()
        };
        let host = Host::new(config, Arc::clone(&kill)).expect("a host");
        let before = outside(root);
        (World { folder, before, kill }, host)
    }

    /// Panics if anything outside the writable mount is not as it was.
    pub fn check(&self) {
        assert_eq!(self.before, outside(self.folder.path()), "something outside the writable mount has changed");
    }
}

/// Everything but the writable mount: paths, types and contents.
fn outside(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of ours") {
            let path = entry.expect("an entry").path();
            let stat = fs::symlink_metadata(&path).expect("its type");
            let content = if stat.is_file() { fs::read(&path).expect("its content") } else { Vec::new() };
            found.insert(path.clone(), format!("{:?} {:?}", stat.file_type(), content));
            if stat.is_dir() && path != root.join("rw") {
                pending.push(path);
            }
        }
    }
    found
}

/// Calls the host, and panics if guest memory changed where the call didn't say so, or if it was not what the call
/// refers to.
pub fn call(
    host: &mut Host,
    call: timecraft_engine::Call,
    args: &[u64],
    bytes: &mut [u8],
) -> Result<timecraft_engine::Errno, timecraft_engine::Halt> {
    use timecraft_engine::System;
    let mut expected = bytes.to_vec();
    let mut notes = Notes::default();
    let mut memory = Memory::new(bytes, &mut notes);
    let outcome = host.call(call, args, &mut memory);
    if let Some(reference) = memory.reference() {
        let reference = Reference::decode(reference).expect("a reference that can be read");
        let (_, first) = memory.written().next().expect("what the reference stands for");
        assert_eq!((reference.mount, reference.path, reference.len as usize), (1, &b"b"[..], first.len()));
    }
    for (ptr, written) in memory.written() {
        expected[ptr as usize..ptr as usize + written.len()].copy_from_slice(written);
    }
    assert!(expected == bytes, "{} changed memory that it didn't note", call.name());
    outcome
}
