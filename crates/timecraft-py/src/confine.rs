//! What a worker gives up before it runs guests.

use pyo3::prelude::*;

use crate::error;

#[pyfunction]
pub(crate) fn confine() -> PyResult<()> {
    timecraft_engine::confine::confine().map_err(|error| error::confine(&error))
}
