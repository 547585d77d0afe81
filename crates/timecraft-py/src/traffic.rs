//! What connections carried, as text.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use timecraft_engine::timemachine::connections::Given;
use timecraft_engine::timemachine::form::{Form, Stamp};
use timecraft_engine::timemachine::protocol::Side;
use timecraft_engine::timemachine::{Filter, Layer, Options, Traffic, Window};

use crate::error;
use crate::source::LogPlace;

/// The dataclass of `timecraftd/recorder/logs.py`.
#[derive(FromPyObject)]
pub(crate) struct TrafficQuery {
    layer: String,
    form: String,
    timestamps: String,
    verbose: bool,
    color: bool,
    host: Option<String>,
    port: Option<u16>,
    side: Option<String>,
    from_ns: Option<u64>,
    until_ns: Option<u64>,
    is_unix: bool,
    last_ns: Option<u64>,
    given: Vec<GivenSocket>,
}

#[derive(FromPyObject)]
struct GivenSocket {
    fd: u32,
    listens: bool,
    name: String,
}

/// What a word of a query stands for.
fn choice<T: Copy>(word: &str, choices: &[(&str, T)]) -> PyResult<T> {
    let found = choices.iter().find(|(name, _)| *name == word);
    found.map(|(_, value)| *value).ok_or_else(|| error::argument(format!("unknown choice {word:?}")))
}

impl TrafficQuery {
    fn into_parts(self) -> PyResult<(Layer, Options, Window)> {
        let layer = choice(&self.layer, &[("network", Layer::Network), ("request", Layer::Request)])?;
        let form = choice(&self.form, &[("text", Form::Text), ("json", Form::Json), ("yaml", Form::Yaml)])?;
        let stamps = [("none", Stamp::None), ("relative", Stamp::Relative), ("absolute", Stamp::Absolute)];
        let sides = [("client", Side::Client), ("server", Side::Server)];
        let host: Option<IpAddr> = match self.host {
            Some(host) => {
                let parsed = host.parse().map_err(|_| error::argument(format!("{host:?} is no IP address")))?;
                Some(parsed)
            }
            None => None,
        };
        let side = self.side.map(|side| choice(&side, &sides)).transpose()?;
        let filter = Filter { host, port: self.port, side };
        let given = self.given.into_iter();
        let given = given.map(|GivenSocket { fd, listens, name }| Given { fd, listens, name }).collect();
        let stamp = choice(&self.timestamps, &stamps)?;
        let options = Options { form, stamp, verbose: self.verbose, color: self.color, filter, given };
        let window =
            Window { from_ns: self.from_ns, until_ns: self.until_ns, is_unix: self.is_unix, last_ns: self.last_ns };
        Ok((layer, options, window))
    }
}

#[pyclass(frozen, module = "timecraftd._native")]
pub(crate) struct TrafficReader(Mutex<Traffic>);

impl TrafficReader {
    fn lock(&self) -> MutexGuard<'_, Traffic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(clippy::needless_pass_by_value)] // Python's arguments arrive as values
#[pymethods]
impl TrafficReader {
    #[new]
    fn new(py: Python<'_>, log: LogPlace, query: TrafficQuery) -> PyResult<Self> {
        let (layer, options, window) = query.into_parts()?;
        let source = log.into_source()?;
        let opened = py.detach(|| Traffic::open(source, layer, options, window));
        opened.map(|traffic| TrafficReader(Mutex::new(traffic))).map_err(|error| error::log(&error))
    }

    fn read(&self, py: Python<'_>, bytes_max: usize) -> PyResult<Option<Cow<'static, [u8]>>> {
        let text = py.detach(|| self.lock().read(bytes_max)).map_err(|error| error::log(&error))?;
        Ok(text.map(|text| Cow::Owned(text.into_bytes())))
    }

    fn finish(&self, py: Python<'_>) -> Cow<'static, [u8]> {
        Cow::Owned(py.detach(|| self.lock().finish()).into_bytes())
    }

    #[getter]
    fn ended(&self, py: Python<'_>) -> bool {
        py.detach(|| self.lock().ended())
    }

    #[getter]
    fn is_over(&self, py: Python<'_>) -> bool {
        py.detach(|| self.lock().is_over())
    }

    #[getter]
    fn notes(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.lock().notes())
    }
}
