//! Modules and the build that runs them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pyo3::prelude::*;
use timecraft_engine::runtime::{self, ArtifactCache, ArtifactSource, BuildInfo, Compiler, Nans};

use crate::error;

#[pyclass(frozen, module = "timecraftd._native")]
pub(crate) struct ModuleInfo(runtime::ModuleInfo);

#[pymethods]
impl ModuleInfo {
    #[getter]
    fn imports(&self) -> Vec<(String, String, String)> {
        self.0.imports.clone()
    }

    #[getter]
    fn exports(&self) -> Vec<(String, String)> {
        self.0.exports.clone()
    }

    #[getter]
    fn memory_min_bytes(&self) -> u64 {
        self.0.memory_min_bytes
    }

    #[getter]
    fn memory_max_bytes(&self) -> Option<u64> {
        self.0.memory_max_bytes
    }

    #[getter]
    fn functions(&self) -> usize {
        self.0.functions
    }
}

#[pyfunction]
pub(crate) fn to_wasm(py: Python<'_>, source: &[u8]) -> PyResult<Vec<u8>> {
    py.detach(|| runtime::to_wasm(source)).map_err(|error| error::module(&error))
}

#[pyfunction]
pub(crate) fn inspect_module(py: Python<'_>, wasm: &[u8]) -> PyResult<ModuleInfo> {
    py.detach(|| runtime::inspect(wasm)).map(ModuleInfo).map_err(|error| error::module(&error))
}

#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // Python's arguments arrive as values
pub(crate) fn compile_module(
    py: Python<'_>,
    wasm_path: PathBuf,
    digest: &str,
    artifact_dir: PathBuf,
    artifact_bytes_max: u64,
) -> PyResult<&'static str> {
    let cache = ArtifactCache::new(artifact_dir, artifact_bytes_max);
    let source = py.detach(|| runtime::compile(&cache, &wasm_path, digest));
    source.map(source_name).map_err(|error| error::module(&error))
}

#[pyfunction]
#[pyo3(signature = (digest, artifact_dir, nans="canonical"))]
#[allow(clippy::needless_pass_by_value)] // as above
pub(crate) fn is_compiled(digest: &str, artifact_dir: PathBuf, nans: &str) -> PyResult<bool> {
    let compiler = Compiler { nans: self::nans(nans)?, ..Compiler::default() };
    Ok(ArtifactCache::new(artifact_dir, 0).has(compiler, digest))
}

pub(crate) fn source_name(source: ArtifactSource) -> &'static str {
    match source {
        ArtifactSource::Cached => "cached",
        ArtifactSource::Compiled => "compiled",
        ArtifactSource::Recompiled => "recompiled",
    }
}

#[pyfunction]
#[pyo3(signature = (nans="canonical"))]
pub(crate) fn build_info(nans: &str) -> PyResult<BTreeMap<&'static str, String>> {
    let build = BuildInfo::current(self::nans(nans)?);
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    Ok(BTreeMap::from([
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("profile", profile.to_owned()),
        ("engine", build.engine.to_owned()),
        ("engine_version", build.engine_version.to_owned()),
        ("compiler", build.compiler.to_owned()),
        ("target", build.target),
        ("cpu_features", build.cpu_features),
        ("flags", build.flags.to_owned()),
        ("log_format", timecraft_log::FORMAT_VERSION.to_string()),
    ]))
}

pub(crate) fn nans(name: &str) -> PyResult<Nans> {
    match name {
        "canonical" => Ok(Nans::Canonical),
        "native" => Ok(Nans::Native),
        other => Err(error::argument(format!("unknown kind of NaNs {other:?}"))),
    }
}
