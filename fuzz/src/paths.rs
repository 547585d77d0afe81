//! Paths made of names, dots, slashes and symbolic links.

use timecraft_engine::Call;
use timecraft_engine::host::Host;

use crate::input::Input;
use crate::world::{READ_ONLY, SECRET, WRITABLE, World, call};

/// Nothing here leads out of the temporary directory in a few steps, should a check fail: absolute ones begin anew.
const PARTS: &[&str] =
    &["a", "b", "dir", "..", ".", "", "up", "link", "out", "abs", "proc", "outside", "new", "a/", "b/.", "//", "\0"];
const OPERATIONS_MAX: usize = 16;
const PARTS_MAX: usize = 5;

const PATH_1: usize = 0;
const PATH_2: usize = 1024;
const IOVEC: usize = 2048;
const RESULT: u64 = 2064;
const BUFFER: usize = 4096;
const MEMORY_BYTES: usize = 8192;

/// Makes calls on paths out of bytes, and looks for what must not be seen.
pub fn path_resolve(data: &[u8]) {
    let (world, mut host) = World::new();
    let mut input = Input::new(data);
    let mut memory = vec![0; MEMORY_BYTES];
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        operation(&mut host, &mut input, &mut memory);
        let seen = memory[BUFFER..].windows(SECRET.len()).any(|bytes| bytes == SECRET);
        assert!(!seen, "the guest has read what lies outside");
    }
    world.check();
}

fn operation(host: &mut Host, input: &mut Input<'_>, memory: &mut [u8]) {
    let mut fd = || if input.byte() % 4 == 0 { READ_ONLY } else { WRITABLE };
    let (fd_1, fd_2) = (fd(), fd());
    let (ptr_1, len_1) = put(memory, PATH_1, &path(input));
    let (ptr_2, len_2) = put(memory, PATH_2, &path(input));
    let follow = u64::from(input.byte() % 2);
    let buffer = BUFFER as u64;
    let (which, args): (Call, Vec<u64>) = match input.below(10) {
        0 => (Call::PathCreateDirectory, vec![fd_1, ptr_1, len_1]),
        1 => (Call::PathFilestatGet, vec![fd_1, follow, ptr_1, len_1, buffer]),
        2 => (Call::PathLink, vec![fd_1, follow, ptr_1, len_1, fd_2, ptr_2, len_2]),
        3 => (Call::PathReadlink, vec![fd_1, ptr_1, len_1, buffer, 1024, RESULT]),
        4 => (Call::PathRemoveDirectory, vec![fd_1, ptr_1, len_1]),
        5 => (Call::PathRename, vec![fd_1, ptr_1, len_1, fd_2, ptr_2, len_2]),
        6 => (Call::PathSymlink, vec![ptr_1, len_1, fd_2, ptr_2, len_2]),
        7 => (Call::PathUnlinkFile, vec![fd_1, ptr_1, len_1]),
        _ => return open_and_use(host, input, memory, [fd_1, follow, ptr_1, len_1]),
    };
    let _ = call(host, which, &args, memory);
}

/// Opens a path, reads or writes what it leads to, lists it, and closes it.
fn open_and_use(host: &mut Host, input: &mut Input<'_>, memory: &mut [u8], place: [u64; 4]) {
    let [fd, follow, ptr, len] = place;
    let writes = input.byte() % 2 == 1;
    let oflags = u64::from(input.byte() % 16);
    let rights = 1 << 1 | 1 << 14 | if writes { 1 << 6 } else { 0 }; // read, readdir, write
    let opened = call(host, Call::PathOpen, &[fd, follow, ptr, len, oflags, rights, rights, 0, RESULT], memory);
    if opened != Ok(timecraft_engine::Errno::Success) {
        return;
    }
    let fd = u64::from(u32::from_le_bytes(std::array::from_fn(|at| memory[RESULT as usize + at])));
    memory[IOVEC..IOVEC + 4].copy_from_slice(&(BUFFER as u32).to_le_bytes());
    memory[IOVEC + 4..IOVEC + 8].copy_from_slice(&64u32.to_le_bytes());
    let _ = call(host, Call::FdRead, &[fd, IOVEC as u64, 1, RESULT], memory);
    let _ = call(host, Call::FdReaddir, &[fd, BUFFER as u64, 1024, 0, RESULT], memory);
    if writes {
        let _ = call(host, Call::FdWrite, &[fd, IOVEC as u64, 1, RESULT], memory);
    }
    let _ = call(host, Call::FdClose, &[fd], memory);
}

fn path(input: &mut Input<'_>) -> String {
    let parts: Vec<_> = (0..=input.below(PARTS_MAX)).map(|_| PARTS[input.below(PARTS.len())]).collect();
    parts.join("/")
}

fn put(memory: &mut [u8], at: usize, path: &str) -> (u64, u64) {
    memory[at..at + path.len()].copy_from_slice(path.as_bytes());
    (at as u64, path.len() as u64)
}
