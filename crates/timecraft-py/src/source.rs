//! Where logs are: directories, and what Python fetches from elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use timecraft_log::{FetchError, LogSource, SegmentStart, SegmentStore, StoredSegment};

use crate::spec::process;

/// A directory, or the dataclass of `timecraftd/model.py`.
#[derive(FromPyObject)]
pub(crate) enum LogPlace {
    Dir(PathBuf),
    Source(LogSourceSpec),
}

#[derive(FromPyObject)]
pub(crate) struct LogSourceSpec {
    dir: PathBuf,
    process_id: String,
    store: Option<Py<PyAny>>,
    next_seq: Option<u64>,
}

/// A segment as Python tells of it.
#[derive(FromPyObject)]
struct StoredSpec {
    number: u32,
    size: u64,
    base_seq: u64,
    next_seq: u64,
    base_time_ns: u64,
    last_time_ns: u64,
    epoch: u32,
    index_offset: u64,
}

impl LogPlace {
    pub(crate) fn into_source(self) -> PyResult<LogSource> {
        Ok(match self {
            LogPlace::Dir(dir) => LogSource::from(&dir),
            LogPlace::Source(spec) => {
                let process = process(&spec.process_id)?;
                let store = spec.store.map(|object| Arc::new(PythonStore { object, process }) as Arc<dyn SegmentStore>);
                LogSource { dir: spec.dir, store, next_seq: spec.next_seq }
            }
        })
    }
}

/// What Python raised: its text for messages, and itself to be raised again.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Raised {
    text: String,
    pub(crate) error: PyErr,
}

#[derive(Debug)]
struct PythonStore {
    object: Py<PyAny>,
    process: [u8; 16],
}

impl PythonStore {
    fn ask<T>(&self, ask: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>) -> Result<T, FetchError> {
        Python::attach(|py| {
            ask(self.object.bind(py)).map_err(|error| {
                let text = error.value(py).to_string();
                Arc::new(Raised { text, error }) as FetchError
            })
        })
    }
}

impl SegmentStore for PythonStore {
    fn segments(&self) -> Result<Vec<StoredSegment>, FetchError> {
        let found: Vec<StoredSpec> = self.ask(|store| store.call_method0("segments")?.extract())?;
        let known = found.into_iter().map(|spec| StoredSegment {
            start: SegmentStart {
                process: self.process,
                number: spec.number,
                epoch: spec.epoch,
                base_seq: spec.base_seq,
                base_time_ns: spec.base_time_ns,
                chain: 0,
            },
            len: spec.size,
            index_offset: spec.index_offset,
            next_seq: spec.next_seq,
            last_time_ns: spec.last_time_ns,
        });
        Ok(known.collect())
    }

    fn fetch(&self, number: u32, offset: u64, len: usize) -> Result<Vec<u8>, FetchError> {
        // Copied once: the bytes become ours, and nothing of Python's stays behind in readers.
        self.ask(|store| {
            let fetched = store.call_method1("fetch", (number, offset, len))?;
            Ok(fetched.extract::<PyBackedBytes>()?.to_vec())
        })
    }

    fn name(&self, number: u32) -> String {
        let named = self.ask(|store| store.call_method1("name", (number,))?.extract());
        named.unwrap_or_else(|_| format!("stored segment {number}"))
    }
}
