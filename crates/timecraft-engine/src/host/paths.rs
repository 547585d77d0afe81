//! Files by path.

use super::arguments::Arguments;
use super::{Host, Outcome};
use crate::{Errno, Memory};

impl Host {
    pub(super) fn path_create_directory(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn path_filestat_get(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn path_filestat_set_times(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn path_link(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn path_open(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn path_readlink(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn path_remove_directory(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn path_rename(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn path_symlink(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn path_unlink_file(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }
}
