//! Reads and writes.

use rustix::fs::OFlags;
use rustix::io::Errno as Os;

use super::arguments::Arguments;
use super::quota::Quota;
use super::table::{Entry, Kind, OpenFile};
use super::{Host, Outcome, Scratch, Stop};
use crate::abi::bounds::IOVECS_MAX;
use crate::abi::{fdflags, filetype, rights, size};
use crate::memory::Region;
use crate::{Errno, KillSwitch, Memory};

/// The guest's list of buffers, cut to what the call may transfer. All are checked, those beyond the cut too.
pub(super) fn iovecs(ptr: u32, count: u32, memory: &mut Memory<'_>, regions: &mut Vec<Region>) -> Result<u32, Errno> {
    if count > IOVECS_MAX {
        return Err(Errno::Inval);
    }
    regions.clear();
    let (mut total, max) = (0, memory.transfer_max());
    let list = memory.sent(ptr, count * size::IOVEC)?;
    regions.extend(list.chunks_exact(size::IOVEC as usize).map(|iovec| Region {
        ptr: u32::from_le_bytes([iovec[0], iovec[1], iovec[2], iovec[3]]),
        len: u32::from_le_bytes([iovec[4], iovec[5], iovec[6], iovec[7]]),
    }));
    for region in regions {
        memory.check(region.ptr, region.len)?;
        region.len = region.len.min(max - total);
        total += region.len;
    }
    Ok(total)
}

/// Hands the guest's bytes to `write` in one piece, noted as sent.
pub(super) fn gather<T>(
    memory: &mut Memory<'_>,
    scratch: &mut Scratch,
    write: impl FnOnce(&[u8]) -> Result<T, Stop>,
) -> Result<T, Stop> {
    match scratch.regions[..] {
        [] => write(&[]),
        [one] => write(memory.sent(one.ptr, one.len)?),
        ref several => {
            scratch.bytes.clear();
            for region in several.iter().filter(|region| region.len > 0) {
                scratch.bytes.extend_from_slice(memory.sent(region.ptr, region.len)?);
            }
            write(&scratch.bytes)
        }
    }
}

/// Has `read` fill the guest's buffers; it says how many bytes it has filled.
pub(super) fn scatter(
    memory: &mut Memory<'_>,
    scratch: &mut Scratch,
    total: u32,
    read: impl FnOnce(&mut [u8]) -> Result<usize, Stop>,
) -> Result<u32, Stop> {
    match scratch.regions[..] {
        [] => Ok(read(&mut [])? as u32),
        [one] => {
            let count = read(memory.buffer(one.ptr, one.len)?)? as u32;
            memory.filled(one.ptr, count);
            Ok(count)
        }
        ref several => {
            if scratch.bytes.len() < total as usize {
                scratch.bytes.resize(total as usize, 0);
            }
            let count = read(&mut scratch.bytes[..total as usize])?;
            let mut rest = &scratch.bytes[..count];
            for region in several {
                let (head, tail) = rest.split_at(rest.len().min(region.len as usize));
                memory.write(region.ptr, head)?;
                rest = tail;
            }
            Ok(count as u32)
        }
    }
}

impl Host {
    pub(super) fn fd_read(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(3), 4)?;
        let entry = self.table.get(args.u32(0))?;
        entry.require_readable(rights::FD_READ)?;
        if entry.is_socket() {
            return self.socket_read(args, memory);
        }
        let total = iovecs(args.u32(1), args.u32(2), memory, &mut self.scratch.regions)?;
        let kill = &self.kill;
        let count = scatter(memory, &mut self.scratch, total, |bytes| entry.read(bytes, kill))?;
        if let Some(input) = entry.input() {
            input.read(count, memory);
        }
        memory.write_u32(args.u32(3), count)?;
        Ok(())
    }

    pub(super) fn fd_pread(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(4), 4)?;
        let entry = self.table.get(args.u32(0))?;
        entry.require_readable(rights::FD_READ | rights::FD_SEEK)?;
        let fd = entry.fd()?;
        let offset = file_offset(args.u64(3))?;
        let total = iovecs(args.u32(1), args.u32(2), memory, &mut self.scratch.regions)?;
        let count = scatter(memory, &mut self.scratch, total, |bytes| {
            Ok(retry(|| rustix::io::pread(fd, &mut *bytes, offset))?)
        })?;
        if let Some(input) = entry.input() {
            input.read_at(offset, memory);
        }
        memory.write_u32(args.u32(4), count)?;
        Ok(())
    }

    pub(super) fn fd_write(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(3), 4)?;
        let entry = self.table.get(args.u32(0))?;
        entry.require_writable(rights::FD_WRITE)?;
        if entry.is_socket() {
            return self.socket_write(args, memory);
        }
        iovecs(args.u32(1), args.u32(2), memory, &mut self.scratch.regions)?;
        let (kill, quota, resumption) = (&self.kill, &mut self.quota, &mut self.resumption);
        let count = gather(memory, &mut self.scratch, |bytes| {
            if !resumption.is_over() && entry.flags & fdflags::APPEND != 0 {
                let done = resumption.append_done(entry.fd()?, bytes)?;
                return Ok(done + entry.write(&bytes[done..], kill, quota)?);
            }
            entry.write(bytes, kill, quota)
        })?;
        memory.write_u32(args.u32(3), count as u32)?;
        Ok(())
    }

    pub(super) fn fd_pwrite(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(4), 4)?;
        let entry = self.table.get(args.u32(0))?;
        entry.require_writable(rights::FD_WRITE | rights::FD_SEEK)?;
        let fd = entry.fd()?;
        let offset = file_offset(args.u64(3))?;
        iovecs(args.u32(1), args.u32(2), memory, &mut self.scratch.regions)?;
        let quota = &mut self.quota;
        let count = gather(memory, &mut self.scratch, |bytes| {
            let put = || Ok(retry(|| rustix::io::pwrite(fd, bytes, offset))?);
            match &entry.kind {
                Kind::File(file) if entry.flags & fdflags::APPEND != 0 => {
                    file.without_append(|| file.growing(quota, Position::Offset(offset), bytes.len(), put))
                }
                Kind::File(file) => file.growing(quota, Position::Offset(offset), bytes.len(), put),
                _ => put(),
            }
        })?;
        memory.write_u32(args.u32(4), count as u32)?;
        Ok(())
    }
}

/// An offset that the kernel takes (it has it signed).
pub(super) fn file_offset(offset: u64) -> Result<u64, Errno> {
    if i64::try_from(offset).is_ok() { Ok(offset) } else { Err(Errno::Inval) }
}

/// Does it again as long as a signal to this process gets in the way, which is no business of the guest.
pub(super) fn retry<T>(mut operation: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match operation() {
            Err(Os::INTR) => {}
            done => return done,
        }
    }
}

impl Entry {
    /// Rights and kind for reading bytes. The kind comes first: a directory is no file, whatever its rights.
    fn require_readable(&self, rights: u64) -> Result<(), Errno> {
        match self.kind {
            Kind::Directory(_) | Kind::SocketDirectory(_) => Err(Errno::Isdir),
            // As POSIX says of a descriptor that isn't open for reading, and as the WASI test suite wants it.
            _ if self.rights_base & rights::FD_READ == 0 => Err(Errno::Badf),
            _ => self.require(rights),
        }
    }

    /// Rights and kind for writing bytes.
    fn require_writable(&self, rights: u64) -> Result<(), Errno> {
        match self.kind {
            Kind::Directory(_) | Kind::SocketDirectory(_) => Err(Errno::Badf),
            _ if self.rights_base & rights::FD_WRITE == 0 => Err(Errno::Badf),
            _ => self.require(rights),
        }
    }

    fn read(&self, bytes: &mut [u8], kill: &KillSwitch) -> Result<usize, Stop> {
        if let Kind::Stream(stream) = &self.kind {
            return stream.read(bytes, self.flags & fdflags::NONBLOCK != 0, kill);
        }
        let fd = self.fd()?;
        Ok(retry(|| rustix::io::read(fd, &mut *bytes))?)
    }

    fn write(&self, bytes: &[u8], kill: &KillSwitch, quota: &mut Quota) -> Result<usize, Stop> {
        match &self.kind {
            Kind::Stream(stream) => stream.write(bytes, self.flags & fdflags::NONBLOCK != 0, kill),
            Kind::Directory(_) | Kind::Socket(_) | Kind::SocketDirectory(_) => Err(Errno::Badf.into()),
            Kind::File(file) => {
                let put = || Ok(retry(|| rustix::io::write(&file.fd, bytes))?);
                let at = if self.flags & fdflags::APPEND != 0 { Position::End } else { Position::Current };
                file.growing(quota, at, bytes.len(), put)
            }
        }
    }
}

/// Where a write begins.
#[derive(Clone, Copy)]
enum Position {
    Current,
    End,
    Offset(u64),
}

impl OpenFile {
    /// Writes at an offset, as POSIX has it, where Linux would append.
    fn without_append<T>(&self, put: impl FnOnce() -> Result<T, Stop>) -> Result<T, Stop> {
        let status = rustix::fs::fcntl_getfl(&self.fd)?;
        rustix::fs::fcntl_setfl(&self.fd, status.difference(OFlags::APPEND))?;
        let done = put();
        rustix::fs::fcntl_setfl(&self.fd, status)?;
        done
    }

    /// Writes by `put` under the quota.
    fn growing(
        &self,
        quota: &mut Quota,
        at: Position,
        bytes: usize,
        put: impl FnOnce() -> Result<usize, Stop>,
    ) -> Result<usize, Stop> {
        if !quota.is_limited() || self.filetype != filetype::REGULAR_FILE {
            return put();
        }
        let before = rustix::fs::fstat(&self.fd)?.st_size as u64;
        let start = match at {
            Position::End => before,
            Position::Offset(offset) => offset,
            Position::Current => rustix::fs::tell(&self.fd)?,
        };
        quota.check(start.saturating_add(bytes as u64).saturating_sub(before))?;
        let count = put()?;
        quota.charge(start.saturating_add(count as u64).saturating_sub(before));
        Ok(count)
    }
}
