//! Logs: recovery, summary, records as text and output.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Mutex;

use pyo3::prelude::*;
use timecraft_engine::calls::CALLS;
use timecraft_engine::reference::Trees;
use timecraft_engine::strace::{self, Timestamps};
use timecraft_engine::view::{self, LogView, TraceOptions};
use timecraft_engine::{End, Kill};

use crate::error;
use crate::source::LogPlace;

#[pyclass(frozen, module = "timecraftd._native")]
pub(crate) struct RecoveryReport(timecraft_log::RecoveryReport);

#[pymethods]
impl RecoveryReport {
    #[getter]
    fn records_recovered(&self) -> u64 {
        self.0.records_from_ring
    }

    #[getter]
    fn bytes_cut(&self) -> u64 {
        self.0.bytes_cut
    }

    #[getter]
    fn last_seq(&self) -> Option<u64> {
        self.0.last_seq
    }

    #[getter]
    fn ended(&self) -> bool {
        self.0.ended
    }
}

#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // Python's arguments arrive as values
pub(crate) fn recover_log(py: Python<'_>, log_dir: PathBuf) -> PyResult<RecoveryReport> {
    let report = py.detach(|| timecraft_log::recover(&log_dir));
    report.map(RecoveryReport).map_err(|error| error::log(&error))
}

#[pyclass(frozen, module = "timecraftd._native")]
pub(crate) struct LogInfo(view::LogSummary);

#[pymethods]
impl LogInfo {
    #[getter]
    fn records(&self) -> u64 {
        self.0.records
    }

    #[getter]
    fn last_seq(&self) -> Option<u64> {
        self.0.last_seq
    }

    #[getter]
    fn segments(&self) -> u64 {
        self.0.segments
    }

    #[getter]
    fn blocks(&self) -> u64 {
        self.0.blocks
    }

    #[getter]
    fn bytes_stored(&self) -> u64 {
        self.0.bytes_stored
    }

    #[getter]
    fn bytes_raw(&self) -> Option<u64> {
        self.0.bytes_raw
    }

    #[getter]
    fn start_unix_ns(&self) -> u64 {
        self.0.start_unix_ns
    }

    #[getter]
    fn last_time_ns(&self) -> u64 {
        self.0.last_time_ns
    }

    #[getter]
    fn epochs(&self) -> u64 {
        self.0.epochs
    }

    #[getter]
    fn end(&self) -> Option<(&'static str, u32, String)> {
        self.0.end.as_ref().map(|end| match end {
            End::Exit(code) => ("exit", *code, String::new()),
            End::Trap { message } => ("trap", 134, message.clone()),
            End::Killed(Kill::Signal(signal)) => {
                ("killed", 128 + u32::from(*signal), format!("killed by signal {signal}"))
            }
            End::Killed(Kill::Limit(reason)) => ("limit", 137, reason.clone()),
        })
    }

    #[getter]
    fn incomplete_from(&self) -> Option<u64> {
        self.0.incomplete_from
    }
}

#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // as above
pub(crate) fn log_info(py: Python<'_>, log: LogPlace) -> PyResult<LogInfo> {
    let source = log.into_source()?;
    py.detach(|| view::summarize(source)).map(LogInfo).map_err(|error| error::log(&error))
}

#[pyclass(frozen, module = "timecraftd._native")]
pub(crate) struct LogReader(Mutex<LogView>);

impl LogReader {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        read: impl FnOnce(&mut LogView) -> Result<T, timecraft_log::LogError> + Send,
    ) -> PyResult<T> {
        let result = py.detach(|| read(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)));
        result.map_err(|error| error::log(&error))
    }
}

/// First number, number behind the last if there is anything behind, and what is wrong.
type Gap = (u64, Option<u64>, String);

fn gap(gap: &timecraft_log::Gap) -> Gap {
    (gap.first_seq, gap.next_seq, gap.error.to_string())
}

#[pyclass(frozen, module = "timecraftd._native")]
pub(crate) struct LogCheck(timecraft_log::Verified);

#[pymethods]
impl LogCheck {
    #[getter]
    fn records(&self) -> u64 {
        self.0.records
    }

    #[getter]
    fn segments(&self) -> u64 {
        self.0.segments
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes
    }

    #[getter]
    fn gaps(&self) -> Vec<Gap> {
        self.0.gaps.iter().map(gap).collect()
    }

    #[getter]
    fn incomplete_from(&self) -> Option<u64> {
        self.0.first_lost_seq
    }
}

#[pyfunction]
#[pyo3(signature = (log, progress=None))]
#[allow(clippy::needless_pass_by_value)] // as above
pub(crate) fn verify_log(py: Python<'_>, log: LogPlace, progress: Option<Py<PyAny>>) -> PyResult<LogCheck> {
    let source = log.into_source()?;
    let mut failure = None;
    let mut tell = |done: u64, all: u64| {
        let told = Python::attach(|py| progress.as_ref().map_or(Ok(()), |tell| tell.call1(py, (done, all)).map(drop)));
        told.map_err(|error| failure = Some(error)).is_ok()
    };
    let found = py.detach(|| timecraft_log::verify(source, &mut tell)).map_err(|error| error::log(&error))?;
    failure.map_or(Ok(LogCheck(found)), Err)
}

/// As in `view::Piece`, with bytes that become Python's.
type Piece = (u64, u8, Cow<'static, [u8]>);

#[allow(clippy::needless_pass_by_value)] // as above
#[pymethods]
impl LogReader {
    #[new]
    #[pyo3(signature = (log, trees=Vec::new(), *, skip_damaged=false))]
    fn new(py: Python<'_>, log: LogPlace, trees: Vec<Option<PathBuf>>, skip_damaged: bool) -> PyResult<Self> {
        let source = log.into_source()?;
        let trees = Trees::new(trees);
        let open = || if skip_damaged { LogView::open_damaged(source, trees) } else { LogView::open(source, trees) };
        Ok(LogReader(Mutex::new(py.detach(open).map_err(|error| error::log(&error))?)))
    }

    fn seek_seq(&self, py: Python<'_>, seq: u64) -> PyResult<()> {
        self.with(py, |view| view.reader().seek(seq))
    }

    fn seek_time(&self, py: Python<'_>, time_ns: u64) -> PyResult<()> {
        self.with(py, |view| view.reader().seek_time(time_ns))
    }

    fn seek_unix_time(&self, py: Python<'_>, unix_ns: u64) -> PyResult<()> {
        self.with(py, |view| view.seek_unix_time(unix_ns))
    }

    fn clock(&self, py: Python<'_>) -> PyResult<Vec<(u64, u64)>> {
        self.with(py, LogView::clock)
    }

    fn time_at(&self, py: Python<'_>, unix_ns: u64) -> PyResult<u64> {
        self.with(py, |view| view.time_at(unix_ns))
    }

    #[pyo3(signature = (records_max, *, json=false, string_bytes_max=32, timestamps="relative", calls=None,
        until_time_ns=None))]
    #[allow(clippy::too_many_arguments)] // Python's keyword arguments
    fn trace(
        &self,
        py: Python<'_>,
        records_max: usize,
        json: bool,
        string_bytes_max: usize,
        timestamps: &str,
        calls: Option<Vec<String>>,
        until_time_ns: Option<u64>,
    ) -> PyResult<Vec<String>> {
        let mut strace = strace::Options { string_bytes_max, ..strace::Options::default() };
        let mut absolute = false;
        match timestamps {
            "none" => {}
            "relative" => strace.timestamps = Timestamps::Relative,
            "absolute" => absolute = true,
            other => return Err(error::argument(format!("unknown timestamps {other:?}"))),
        }
        let calls = calls.iter().flatten().map(|name| call_ids(name)).collect::<PyResult<Vec<_>>>()?.concat();
        let options = TraceOptions { json, strace, absolute, calls, until_time_ns };
        self.with(py, |view| view.trace(records_max, &options))
    }

    fn output(&self, py: Python<'_>, bytes_max: usize) -> PyResult<Vec<Piece>> {
        let pieces = self.with(py, |view| view.output(bytes_max))?;
        Ok(pieces.into_iter().map(|(time_ns, stream, bytes)| (time_ns, stream, Cow::Owned(bytes))).collect())
    }

    #[getter]
    fn ended(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |view| Ok(view.ended()))
    }

    #[getter]
    fn gaps(&self, py: Python<'_>) -> PyResult<Vec<Gap>> {
        self.with(py, |view| Ok(view.reader().gaps().iter().map(gap).collect()))
    }
}

/// All calls of that name: versions of one share it.
fn call_ids(name: &str) -> PyResult<Vec<u16>> {
    let named = CALLS.iter().filter(|spec| spec.name == name);
    let ids: Vec<u16> = named.map(|spec| spec.call as u16).collect();
    if ids.is_empty() { Err(error::argument(format!("no host call is named {name:?}"))) } else { Ok(ids) }
}
