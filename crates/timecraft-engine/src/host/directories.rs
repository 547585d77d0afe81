//! Reading directories.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom};

use super::arguments::Arguments;
use super::stat::filetype_of;
use super::table::{Entry, Kind};
use super::{Host, Outcome};
use crate::abi::{filetype, rights, size};
use crate::{Errno, Memory};

/// Entries of one directory that can be listed. A listing is kept in memory, so it needs a bound.
const ENTRIES_MAX: usize = 1_000_000;
/// Names of one directory that can be listed, bytes.
const NAMES_BYTES_MAX: usize = 64 << 20;
/// All listings of a guest together, bytes: opening a directory often must not use up the host's memory.
const LISTINGS_BYTES_MAX: usize = 128 << 20;
/// What one `fd_readdir` hands over, bytes: its record must hold it.
const READDIR_BYTES_MAX: u32 = 2 << 20;
/// What one `getdents` takes, bytes.
const DIRENTS_BYTES: usize = 32 << 10;

/// A directory at one point in time, sorted by name.
///
/// The kernel's cookies are whatever the file system finds handy, and its order is any. A snapshot gives both: an
/// order that is the same on every machine, and cookies (positions) that names added or removed later don't shift.
#[derive(Debug, Default)]
pub(super) struct Listing {
    entries: Vec<ListedEntry>,
    names: Vec<u8>,
}

#[derive(Debug)]
struct ListedEntry {
    inode: u64,
    /// Where the name begins in `names`, bytes.
    start: u32,
    len: u16,
    filetype: u8,
}

impl Listing {
    fn read(directory: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut listing = Listing::default();
        let own = rustix::fs::fstat(directory)?.st_ino;
        rustix::fs::seek(directory, SeekFrom::Start(0))?;
        let mut buffer = Vec::with_capacity(DIRENTS_BYTES);
        let mut dirents = RawDir::new(directory, buffer.spare_capacity_mut());
        while let Some(dirent) = dirents.next() {
            let dirent = dirent?;
            let name = dirent.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match dirent.file_type() {
                // Some file systems don't tell.
                FileType::Unknown => rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                kind => kind,
            };
            listing.push(name.to_bytes(), dirent.ino(), filetype_of(kind))?;
        }
        let Listing { entries, names } = &mut listing;
        let name = |entry: &ListedEntry| &names[entry.start as usize..][..usize::from(entry.len)];
        entries.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        listing.push(b".", own, filetype::DIRECTORY)?;
        // What lies above is none of the guest's business.
        listing.push(b"..", 0, filetype::DIRECTORY)?;
        listing.entries.rotate_right(2);
        Ok(listing)
    }

    fn push(&mut self, name: &[u8], inode: u64, filetype: u8) -> Result<(), Errno> {
        if self.entries.len() == ENTRIES_MAX || self.names.len() + name.len() > NAMES_BYTES_MAX {
            return Err(Errno::Overflow);
        }
        let start = self.names.len() as u32;
        self.names.extend_from_slice(name);
        self.entries.push(ListedEntry { inode, start, len: name.len() as u16, filetype });
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<ListedEntry>() + self.names.capacity()
    }

    /// Where the entries from `cookie` on begin.
    fn first(&self, cookie: u64) -> usize {
        usize::try_from(cookie).unwrap_or(usize::MAX).min(self.entries.len())
    }

    /// Size of the entries from `cookie` on, as the guest gets them.
    fn bytes_from(&self, cookie: u64) -> u64 {
        let entries = &self.entries[self.first(cookie)..];
        entries.iter().map(|entry| u64::from(size::DIRENT) + u64::from(entry.len)).sum()
    }

    /// Writes entries from `cookie` on, the last one cut off if it must be; returns how many bytes.
    fn fill(&self, cookie: u64, buffer: &mut [u8]) -> usize {
        let mut used = 0;
        for (index, entry) in self.entries.iter().enumerate().skip(self.first(cookie)) {
            let mut dirent = [0; size::DIRENT as usize];
            dirent[0..8].copy_from_slice(&(index as u64 + 1).to_le_bytes());
            dirent[8..16].copy_from_slice(&entry.inode.to_le_bytes());
            dirent[16..20].copy_from_slice(&u32::from(entry.len).to_le_bytes());
            dirent[20] = entry.filetype;
            let name = &self.names[entry.start as usize..][..usize::from(entry.len)];
            for part in [&dirent[..], name] {
                let count = part.len().min(buffer.len() - used);
                buffer[used..used + count].copy_from_slice(&part[..count]);
                used += count;
            }
            if used == buffer.len() {
                break;
            }
        }
        used
    }
}

impl Host {
    pub(super) fn fd_readdir(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        let (ptr, len, cookie) = (args.u32(1), args.u32(2), args.u64(3));
        memory.check(ptr, len)?;
        memory.check(args.u32(4), 4)?;
        let entry = self.table.get_mut(args.u32(0))?;
        if !matches!(entry.kind, Kind::Directory(_) | Kind::SocketDirectory(_)) {
            return Err(Errno::Notdir.into());
        }
        entry.require(rights::FD_READDIR)?;
        let Kind::Directory(directory) = &mut entry.kind else { return Err(Errno::Notdir.into()) };
        let listing = match directory.listing.take() {
            Some(listing) if cookie != 0 => listing,
            _ => Listing::read(directory.fd.as_fd())?,
        };
        let listing = directory.listing.insert(listing);
        // Less than was asked for would tell the guest that the listing is over.
        if len > READDIR_BYTES_MAX && listing.bytes_from(cookie) > u64::from(READDIR_BYTES_MAX) {
            return Err(Errno::Overflow.into());
        }
        let used = listing.fill(cookie, memory.buffer(ptr, len)?) as u32;
        memory.filled(ptr, used);
        memory.write_u32(args.u32(4), used)?;
        if cookie == 0 {
            self.drop_listings(args.u32(0));
        }
        Ok(())
    }

    /// Drops the listings of other descriptors if all are too much together. What is dropped is read again when it is
    /// wanted, and the same unless the directory has changed.
    fn drop_listings(&mut self, fd: u32) {
        let listings = |(_, entry): (u32, &Entry)| match &entry.kind {
            Kind::Directory(directory) => directory.listing.as_ref().map_or(0, Listing::bytes),
            _ => 0,
        };
        if self.table.iter().map(listings).sum::<usize>() <= LISTINGS_BYTES_MAX {
            return;
        }
        for (other, entry) in self.table.iter_mut() {
            if let Kind::Directory(directory) = &mut entry.kind
                && other != fd
            {
                directory.listing = None;
            }
        }
    }
}
