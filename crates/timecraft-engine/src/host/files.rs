//! Files by descriptor.

use super::arguments::Arguments;
use super::{Host, Outcome};
use crate::{Errno, Memory};

impl Host {
    pub(super) fn fd_advise(&mut self, _args: Arguments<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn fd_allocate(&mut self, _args: Arguments<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn fd_close(&mut self, _args: Arguments<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn fd_datasync(&mut self, _args: Arguments<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn fd_fdstat_set_flags(&mut self, _args: Arguments<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn fd_fdstat_set_rights(&mut self, _args: Arguments<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn fd_filestat_set_size(&mut self, _args: Arguments<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn fd_filestat_set_times(&mut self, _args: Arguments<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn fd_renumber(&mut self, _args: Arguments<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn fd_sync(&mut self, _args: Arguments<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn fd_seek(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn fd_tell(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }
}
