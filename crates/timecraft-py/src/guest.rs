//! Guests under way.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use timecraft_engine::session::{self, Session, SessionError};

use crate::error;
use crate::module::source_name;
use crate::spec::{ReplaySpec, ResumeSpec, RunSpec};

/// How long a wait goes without looking for Python's signals.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

#[pyclass(frozen, module = "timecraftd._native")]
pub(crate) struct Guest(Session);

#[pymethods]
impl Guest {
    fn begin(&self) {
        self.0.begin();
    }

    #[pyo3(signature = (timeout_s=None))]
    fn wait(&self, py: Python<'_>, timeout_s: Option<f64>) -> PyResult<Option<Outcome>> {
        self.0.begin();
        let deadline = match timeout_s.map(Duration::try_from_secs_f64) {
            None => None,
            Some(Ok(timeout)) => Instant::now().checked_add(timeout),
            Some(Err(_)) => return Err(error::argument("timeout_s is not a duration in seconds")),
        };
        loop {
            let left =
                deadline.map_or(SIGNAL_CHECK, |at| at.saturating_duration_since(Instant::now()).min(SIGNAL_CHECK));
            if let Some(outcome) = py.detach(|| self.0.wait(left)) {
                return Ok(Some(Outcome(outcome)));
            }
            py.check_signals()?;
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Ok(None);
            }
        }
    }

    fn fileno(&self) -> RawFd {
        self.0.over().as_raw_fd()
    }

    fn kill(&self, signal: u8) {
        self.0.kill(signal);
    }

    fn hold(&self, held: bool) {
        self.0.hold(held);
    }

    fn interrupt(&self) -> bool {
        self.0.interrupt()
    }

    fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes()
    }

    fn stats(&self) -> BTreeMap<&'static str, u64> {
        self.0.stats().into_iter().collect()
    }
}

#[pyclass(frozen, module = "timecraftd._native")]
pub(crate) struct Outcome(session::Outcome);

#[pymethods]
impl Outcome {
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind.name()
    }

    #[getter]
    fn code(&self) -> u32 {
        self.0.code
    }

    #[getter]
    fn message(&self) -> &str {
        &self.0.message
    }

    #[getter]
    fn backtrace(&self) -> Vec<String> {
        self.0.backtrace.clone()
    }

    #[getter]
    fn last_seq(&self) -> Option<u64> {
        self.0.last_seq
    }

    #[getter]
    fn memory_digest(&self) -> &str {
        &self.0.memory_digest
    }

    #[getter]
    fn stats(&self) -> BTreeMap<&'static str, u64> {
        self.0.stats.iter().copied().collect()
    }

    #[getter]
    fn artifact(&self) -> &'static str {
        source_name(self.0.artifact)
    }

    fn __repr__(&self) -> String {
        format!("Outcome(kind={:?}, code={}, message={:?})", self.0.kind.name(), self.0.code, self.0.message)
    }
}

#[pyfunction]
pub(crate) fn count_calls(guests: Vec<PyRef<'_, Guest>>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for guest in guests {
        guest.0.meter().add_to(&mut sums);
    }
    sums
}

fn started(session: Result<Session, SessionError>) -> PyResult<Guest> {
    session.map(Guest).map_err(|error| error::session(&error))
}

#[pyfunction]
pub(crate) fn run(py: Python<'_>, spec: RunSpec) -> PyResult<Guest> {
    let config = spec.into_config()?;
    started(py.detach(|| session::run(config)))
}

#[pyfunction]
pub(crate) fn replay(py: Python<'_>, spec: ReplaySpec) -> PyResult<Guest> {
    let config = spec.into_config()?;
    started(py.detach(|| session::replay(config)))
}

#[pyfunction]
pub(crate) fn resume(py: Python<'_>, spec: ResumeSpec) -> PyResult<Guest> {
    let config = spec.into_config()?;
    started(py.detach(|| session::resume(config)))
}
