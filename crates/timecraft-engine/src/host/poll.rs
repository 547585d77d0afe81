//! Waiting.

use super::arguments::Arguments;
use super::{Host, Outcome};
use crate::{Errno, Memory};

impl Host {
    pub(super) fn poll_oneoff(&mut self, _args: Arguments<'_>, _memory: &mut Memory<'_>) -> Outcome {
        Err(Errno::Nosys.into())
    }
}
