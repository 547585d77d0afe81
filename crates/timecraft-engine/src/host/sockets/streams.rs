//! Socket calls on standard streams that happen to be sockets.

use rustix::net::{RecvFlags, Shutdown};

use super::{RECV_PEEK, RECV_WAITALL, SHUTDOWN_RD, SHUTDOWN_WR};
use crate::abi::{fdflags, rights};
use crate::host::arguments::Arguments;
use crate::host::streams::{Manner, Stream};
use crate::host::table::{Entry, Kind};
use crate::host::transfer::{gather, iovecs, scatter};
use crate::host::{Host, Outcome};
use crate::{Errno, Memory};

impl Entry {
    /// The socket behind a descriptor.
    fn socket(&self) -> Result<&Stream, Errno> {
        match &self.kind {
            Kind::Stream(stream) if stream.manner == Manner::Socket => Ok(stream),
            _ => Err(Errno::Notsock),
        }
    }
}

impl Host {
    pub(super) fn stream_accept(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(2), 4)?;
        let entry = self.table.get(args.u32(0))?;
        entry.socket()?;
        entry.require(rights::SOCK_ACCEPT)?;
        Err(Errno::Notsup.into())
    }

    pub(super) fn stream_recv(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(4), 4)?;
        memory.check(args.u32(5), 2)?;
        let entry = self.table.get(args.u32(0))?;
        let stream = entry.socket()?;
        entry.require(rights::FD_READ)?;
        let flags = match args.u32(3) {
            0 => RecvFlags::empty(),
            RECV_PEEK => RecvFlags::PEEK,
            flags if flags & !(RECV_PEEK | RECV_WAITALL) == 0 => return Err(Errno::Notsup.into()),
            _ => return Err(Errno::Inval.into()),
        };
        let total = iovecs(args.u32(1), args.u32(2), memory, &mut self.scratch.regions)?;
        let (kill, nonblock) = (&self.kill, entry.flags & fdflags::NONBLOCK != 0);
        let count = scatter(memory, &mut self.scratch, total, |bytes| stream.receive(bytes, flags, nonblock, kill))?;
        memory.write_u32(args.u32(4), count)?;
        memory.write(args.u32(5), &0u16.to_le_bytes())?;
        Ok(())
    }

    pub(super) fn stream_send(&mut self, args: Arguments<'_>, memory: &mut Memory<'_>) -> Outcome {
        memory.check(args.u32(4), 4)?;
        let entry = self.table.get(args.u32(0))?;
        let stream = entry.socket()?;
        entry.require(rights::FD_WRITE)?;
        if args.u32(3) != 0 {
            return Err(Errno::Inval.into());
        }
        iovecs(args.u32(1), args.u32(2), memory, &mut self.scratch.regions)?;
        let (kill, nonblock) = (&self.kill, entry.flags & fdflags::NONBLOCK != 0);
        let count = gather(memory, &mut self.scratch, |bytes| stream.write(bytes, nonblock, kill))?;
        memory.write_u32(args.u32(4), count as u32)?;
        Ok(())
    }

    pub(super) fn stream_shutdown(&mut self, args: Arguments<'_>) -> Outcome {
        let entry = self.table.get(args.u32(0))?;
        let stream = entry.socket()?;
        let how = match args.u32(1) {
            SHUTDOWN_RD => Shutdown::Read,
            SHUTDOWN_WR => Shutdown::Write,
            both if both == SHUTDOWN_RD | SHUTDOWN_WR => Shutdown::Both,
            _ => return Err(Errno::Inval.into()),
        };
        entry.require(rights::SOCK_SHUTDOWN)?;
        Ok(rustix::net::shutdown(stream.fd(), how)?)
    }
}
