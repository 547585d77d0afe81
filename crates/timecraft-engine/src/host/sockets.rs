//! Sockets.

use super::arguments::Arguments;
use super::{Host, Outcome};
use crate::{Errno, Memory};

impl Host {
    pub(super) fn sock_accept(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn sock_recv(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn sock_send(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }

    pub(super) fn sock_shutdown(&mut self, _args: Arguments<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }
}
