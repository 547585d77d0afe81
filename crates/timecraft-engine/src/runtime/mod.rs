//! Runs guests on wasmer: compile or load, link to the [`System`](crate::System), limit, interrupt, explain traps.

mod artifact;
mod engine;
mod gate;
mod guest;
mod interrupt;
mod module;
mod trap;

pub use artifact::{ArtifactCache, ArtifactSource};
pub use engine::{BuildInfo, Compiler, Instrument, Nans};
pub use gate::Counters;
pub use guest::{Ending, Finished, Guest, GuestConfig, Limits, Prepared, compile};
pub use module::{ModuleError, ModuleInfo, inspect, to_wasm};
