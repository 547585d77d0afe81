//! The guest's world and the engine that runs guests in it.
//!
//! [`System`] is the one narrow gate between a guest and everything else (DESIGN.md section 1). The host implementation
//! ([`host::Host`]) sits beneath it; [`recorder::Recorder`], [`replayer::Replayer`], [`tracer::Tracer`] and
//! [`chaos::Chaos`] are decorators over it that know nothing of each other.

pub mod abi;
pub mod calls;
pub mod chaos;
pub mod clock;
#[cfg(feature = "runtime")]
pub mod confine;
pub mod host;
pub mod kill;
pub mod memory;
pub mod meter;
pub mod network;
pub mod output;
pub mod recorder;
pub mod reference;
pub mod replayer;
pub mod restore;
pub mod resumer;
#[cfg(feature = "runtime")]
pub mod runtime;
#[cfg(feature = "runtime")]
pub mod session;
pub mod shadow;
pub mod strace;
pub mod system;
pub mod timemachine;
pub mod tracer;
pub mod view;

pub use abi::Errno;
pub use calls::Call;
pub use kill::KillSwitch;
pub use memory::Memory;
pub use system::{End, Halt, Kill, System};
