//! Looking at modules before anything runs: is it wasm, what does it ask for, can we give it.

use std::fmt::Write as _;

use thiserror::Error;
use wasmer::wasmparser::types::TypesRef;
use wasmer::wasmparser::{
    self, BinaryReaderError, Export, ExternalKind, Parser, Payload, TypeRef, Validator, WasmFeatures,
};

use crate::calls::{CALLS, Call, PREVIEW1, SocketAbi, ValType};

/// Why a module can't run. Each message says what is wrong and what to do next.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ModuleError {
    #[error("not a WebAssembly module: {0}; build the program for the target wasip1 (Go: GOOS=wasip1 GOARCH=wasm)")]
    NotWasm(String),
    #[error("the module is truncated or damaged: {0}; copy or build it again")]
    Damaged(String),
    #[error(
        "this is a WebAssembly component (preview 2); only core modules of WASI preview 1 run here: build for wasip1"
    )]
    Component,
    #[error("the module needs {0}, which can't be recorded and replayed exactly; build it without")]
    Unsupported(String),
    #[error("the module imports what this host doesn't offer: {0}")]
    UnknownImports(String),
    #[error("the module exports no function {name:?}; it exports {exported}; choose one with -f")]
    NoFunction { name: String, exported: String },
    #[error("the export {name:?} is no function but a {found}; choose a function with -f")]
    NotFunction { name: String, found: String },
    #[error("the function {name:?} takes parameters or returns results ({found}); only functions without can be run")]
    WrongFunction { name: String, found: String },
    #[error("the module needs {needed} bytes of memory at start, and the limit is {limit}; raise --memory")]
    Memory { needed: u64, limit: u64 },
    #[error("compilation failed: {0}")]
    Compile(String),
}

/// What a module asks for and offers.
#[derive(Clone, Debug, Default)]
pub struct ModuleInfo {
    /// (module, name, type as text), in the module's order.
    pub imports: Vec<(String, String, String)>,
    /// (name, type as text).
    pub exports: Vec<(String, String)>,
    pub memory_min_bytes: u64,
    pub memory_max_bytes: Option<u64>,
    /// Number of functions that the module defines.
    pub functions: usize,
}

const MAGIC: &[u8] = b"\0asm";
const PAGE_BYTES: u64 = 65536;

/// Wasm bytes as they are; text format is assembled.
///
/// # Errors
/// [`ModuleError`] if the source is neither, is a component, or is cut off.
pub fn to_wasm(source: &[u8]) -> Result<Vec<u8>, ModuleError> {
    if source.starts_with(MAGIC) {
        return match source.get(4..8) {
            Some([1, 0, 0, 0]) => Ok(source.to_vec()),
            Some([_, 0, 1, 0]) => Err(ModuleError::Component),
            Some(version) => Err(ModuleError::Damaged(format!("unknown binary version {version:02x?}"))),
            None => Err(ModuleError::Damaged(format!("it ends after {} bytes", source.len()))),
        };
    }
    if source.is_empty() {
        return Err(ModuleError::NotWasm("the file is empty".into()));
    }
    let text = source.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    if !matches!(text, Some(b'(' | b';')) {
        return Err(ModuleError::NotWasm(format!("it starts with {:02x?}", &source[..source.len().min(4)])));
    }
    match wasmer::wat2wasm(source) {
        Ok(wasm) => to_wasm(&wasm),
        Err(error) => Err(ModuleError::NotWasm(format!("text format: {error}"))),
    }
}

/// Validates and describes a module without generating code.
///
/// # Errors
/// [`ModuleError`] if it is invalid or needs what can't be recorded.
pub fn inspect(wasm: &[u8]) -> Result<ModuleInfo, ModuleError> {
    let validated = Validator::new_with_features(features()).validate_all(wasm);
    let types = validated.map_err(|error| explain(wasm, &error))?;
    let types = types.as_ref();
    let mut info = ModuleInfo::default();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(|error| ModuleError::Damaged(error.to_string()))? {
            Payload::ImportSection(section) => {
                for import in section.into_imports().flatten() {
                    let text = describe_import(import.ty, types);
                    info.imports.push((import.module.to_owned(), import.name.to_owned(), text));
                }
            }
            Payload::ExportSection(section) => {
                for export in section.into_iter().flatten() {
                    let text = describe_export(export, types);
                    info.exports.push((export.name.to_owned(), text));
                }
            }
            Payload::MemorySection(section) => {
                if let Some(memory) = section.into_iter().flatten().next() {
                    info.memory_min_bytes = memory.initial * PAGE_BYTES;
                    info.memory_max_bytes = memory.maximum.map(|pages| pages * PAGE_BYTES);
                }
            }
            Payload::FunctionSection(section) => info.functions = section.count() as usize,
            _ => {}
        }
    }
    Ok(info)
}

/// What guests may use: WebAssembly 2.0 without what can't be recorded or replayed exactly (record-replay survey,
/// section 8): threads race, relaxed SIMD differs between machines.
fn features() -> WasmFeatures {
    WasmFeatures::WASM2 | WasmFeatures::EXTENDED_CONST
}

/// Says whether an invalid module is damaged, or only uses what this runtime refuses.
fn explain(wasm: &[u8], error: &BinaryReaderError) -> ModuleError {
    let refused = [
        (WasmFeatures::THREADS, "threads (shared memory or atomic operations)"),
        (WasmFeatures::RELAXED_SIMD, "relaxed SIMD"),
        (WasmFeatures::TAIL_CALL, "tail calls"),
        (WasmFeatures::EXCEPTIONS, "exception handling"),
        (WasmFeatures::MULTI_MEMORY, "several memories"),
        (WasmFeatures::MEMORY64, "64-bit memory"),
    ];
    for (feature, what) in refused {
        if Validator::new_with_features(features() | feature).validate_all(wasm).is_ok() {
            return ModuleError::Unsupported(what.into());
        }
    }
    ModuleError::Damaged(error.to_string())
}

fn function_type(index: u32, types: TypesRef<'_>) -> String {
    let id = types.core_function_at(index);
    let ty = types[id].unwrap_func();
    signature(ty.params(), ty.results())
}

fn signature(params: &[wasmparser::ValType], results: &[wasmparser::ValType]) -> String {
    let list = |types: &[wasmparser::ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if results.is_empty() {
        return format!("func ({})", list(params));
    }
    format!("func ({}) -> {}", list(params), list(results))
}

fn describe_import(ty: TypeRef, types: TypesRef<'_>) -> String {
    match ty {
        TypeRef::Func(index) | TypeRef::FuncExact(index) => {
            let id = types.core_type_at_in_module(index);
            let ty = types[id].unwrap_func();
            signature(ty.params(), ty.results())
        }
        TypeRef::Memory(memory) => format!("memory {}", memory.initial),
        TypeRef::Table(_) => "table".into(),
        TypeRef::Global(global) => format!("global {}", global.content_type),
        TypeRef::Tag(_) => "tag".into(),
    }
}

fn describe_export(export: Export<'_>, types: TypesRef<'_>) -> String {
    match export.kind {
        ExternalKind::Func | ExternalKind::FuncExact => function_type(export.index, types),
        ExternalKind::Memory => "memory".into(),
        ExternalKind::Table => "table".into(),
        ExternalKind::Global => "global".into(),
        ExternalKind::Tag => "tag".into(),
    }
}

/// Checks that every import is a host call with the right signature, and returns the calls in the imports' order. Of
/// versions with one name, the signature decides.
///
/// # Errors
/// [`ModuleError::UnknownImports`] lists those that don't, each with the closest known name.
pub fn host_calls(info: &ModuleInfo, abi: SocketAbi) -> Result<Vec<Call>, ModuleError> {
    let mut calls: Vec<Call> = Vec::with_capacity(info.imports.len());
    let mut unknown = Vec::new();
    for (module, name, found) in &info.imports {
        let fitting = Call::named(module, name, abi).find(|call| expected_signature(*call) == *found);
        // Imports are linked by name, so that one name can only mean one call.
        let other = |call: &Call| fitting.is_some_and(|fit| fit != *call && fit.name() == call.name());
        match fitting {
            Some(call) if !calls.iter().any(other) => calls.push(call),
            fitting => unknown.push((module, name, found, fitting)),
        }
    }
    if unknown.is_empty() {
        return Ok(calls);
    }
    let shown = unknown.iter().take(UNKNOWN_SHOWN_MAX).map(|(module, name, found, fitting)| match fitting {
        Some(_) => format!("{module}.{name} in two versions at once"),
        None => misfit(module, name, found, abi),
    });
    let mut list = shown.collect::<Vec<_>>().join(", ");
    if unknown.len() > UNKNOWN_SHOWN_MAX {
        let _ = write!(list, ", and {} more", unknown.len() - UNKNOWN_SHOWN_MAX);
    }
    Err(ModuleError::UnknownImports(list))
}

/// Unknown imports that an error lists: a module may have a hundred thousand.
const UNKNOWN_SHOWN_MAX: usize = 50;
/// Longest name that is compared with the known ones, bytes.
const NAME_BYTES_MAX: usize = 64;

/// What is wrong with an import that no call fits.
fn misfit(module: &str, name: &str, found: &str, abi: SocketAbi) -> String {
    let list = |abi| Call::named(module, name, abi).map(expected_signature).collect::<Vec<_>>().join(" or ");
    match (list(abi), list(SocketAbi::Auto)) {
        (_, all) if all.is_empty() => unknown_import(module, name),
        (offered, _) if offered.is_empty() => format!("{module}.{name} (a socket call that -S withholds)"),
        (offered, _) => format!("{module}.{name} as {found} (it is {offered} here)"),
    }
}

/// The text of a call's wasm signature, as [`inspect`] prints it.
fn expected_signature(call: Call) -> String {
    let params: Vec<_> = call
        .spec()
        .types()
        .into_iter()
        .map(|ty| match ty {
            ValType::I32 => wasmparser::ValType::I32,
            ValType::I64 => wasmparser::ValType::I64,
        })
        .collect();
    let results: &[_] = if call.spec().returns { &[wasmer::wasmparser::ValType::I32] } else { &[] };
    signature(&params, results)
}

fn unknown_import(module: &str, name: &str) -> String {
    if module == "wasi_unstable" {
        return format!("{module}.{name} (an obsolete snapshot of WASI: build with a newer toolchain)");
    }
    let closest = CALLS
        .iter()
        .filter(|_| name.len() <= NAME_BYTES_MAX)
        .map(|spec| (strsim::damerau_levenshtein(name, spec.name), spec.name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 3);
    match closest {
        Some((0, known)) => format!("{module}.{name} (known as {PREVIEW1}.{known})"),
        Some((_, known)) => format!("{module}.{name} (closest known: {PREVIEW1}.{known})"),
        None => format!("{module}.{name}"),
    }
}
