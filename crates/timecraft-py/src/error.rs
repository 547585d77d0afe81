//! Rust's errors as the classes of `timecraftd.errors`. The matches are exhaustive on purpose: a new error has to be
//! given a class.

use pyo3::{PyErr, Python};
use timecraft_engine::confine::ConfineError;
use timecraft_engine::host::HostError;
use timecraft_engine::runtime::ModuleError;
use timecraft_engine::session::SessionError;

use crate::source::Raised;

mod python {
    pyo3::import_exception!(timecraftd.errors, EngineError);
    pyo3::import_exception!(timecraftd.errors, LogDamagedError);
    pyo3::import_exception!(timecraftd.errors, LogError);
    pyo3::import_exception!(timecraftd.errors, LogVersionError);
    pyo3::import_exception!(timecraftd.errors, ModuleError);
    pyo3::import_exception!(timecraftd.errors, MountError);
    pyo3::import_exception!(timecraftd.errors, StateBusyError);
}

pub(crate) fn module(error: &ModuleError) -> PyErr {
    match error {
        ModuleError::Compile(_) => python::EngineError::new_err(error.to_string()),
        ModuleError::NotWasm(_)
        | ModuleError::Damaged(_)
        | ModuleError::Component
        | ModuleError::Unsupported(_)
        | ModuleError::UnknownImports(_)
        | ModuleError::NoFunction { .. }
        | ModuleError::NotFunction { .. }
        | ModuleError::WrongFunction { .. }
        | ModuleError::Memory { .. } => python::ModuleError::new_err(error.to_string()),
    }
}

pub(crate) fn log(error: &timecraft_log::LogError) -> PyErr {
    use timecraft_log::LogError as E;
    let message = error.to_string();
    match error {
        E::Fetch(reason) => match reason.downcast_ref::<Raised>() {
            Some(raised) => Python::attach(|py| raised.error.clone_ref(py)),
            None => python::LogError::new_err(message),
        },
        E::VersionNewer { .. } => python::LogVersionError::new_err(message),
        E::Corrupt { .. } | E::LostMark(_) => python::LogDamagedError::new_err(message),
        E::Busy(_) => python::StateBusyError::new_err(message),
        // `LogError` is open for additions; what is added is about logs all the same.
        _ => python::LogError::new_err(message),
    }
}

fn host(error: &HostError) -> PyErr {
    let message = error.to_string();
    match error {
        HostError::Mount { .. } => python::MountError::new_err(message),
        HostError::Nul { .. }
        | HostError::TooLong { .. }
        | HostError::OpenFiles { .. }
        | HostError::Sockets { .. }
        | HostError::Socket { .. }
        | HostError::System { .. }
        | HostError::Restore { .. } => python::EngineError::new_err(message),
    }
}

pub(crate) fn session(error: &SessionError) -> PyErr {
    match error {
        SessionError::Module(error) => module(error),
        SessionError::Host(error) => host(error),
        SessionError::Log(error) => log(error),
        SessionError::NotRecorded | SessionError::RecordsLost(_) | SessionError::System(_) => {
            python::EngineError::new_err(error.to_string())
        }
    }
}

pub(crate) fn confine(error: &ConfineError) -> PyErr {
    python::EngineError::new_err(error.to_string())
}

/// An argument from our own Python code that can't be used.
pub(crate) fn argument(message: impl Into<String>) -> PyErr {
    pyo3::exceptions::PyValueError::new_err(message.into())
}
