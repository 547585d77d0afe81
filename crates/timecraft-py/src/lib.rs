//! Python bindings: `timecraftd._native`. Only registration; a file for each class, `error.rs` for all errors.
//! The face is documented in `timecraftd/_native.pyi`.

#![deny(unsafe_code)]

mod confine;
mod error;
mod guest;
mod log;
mod module;
mod network;
mod source;
mod spec;
mod traffic;

#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::confine::confine;
    #[pymodule_export]
    use crate::guest::{Guest, Outcome, count_calls, replay, resume, run};
    #[pymodule_export]
    use crate::log::{LogCheck, LogInfo, LogReader, RecoveryReport, log_info, recover_log, verify_log};
    #[pymodule_export]
    use crate::module::{ModuleInfo, build_info, compile_module, inspect_module, is_compiled, to_wasm};
    #[pymodule_export]
    use crate::network::{NetworkEvent, NetworkPort};
    #[pymodule_export]
    use crate::traffic::TrafficReader;
}
