//! Traps for people: a message and the guest's backtrace with demangled names.

use symbolic_common::Name;
use symbolic_demangle::{Demangle, DemangleOptions};
use wasmer::{FrameInfo, RuntimeError};
use wasmer_types::TrapCode;

/// Frames of a backtrace that are kept: the innermost ones, where the fault is.
const FRAMES_MAX: usize = 64;

/// The message for a trap, in words that name what the guest did.
pub(super) fn message(error: &RuntimeError) -> String {
    match error.clone().to_trap() {
        Some(TrapCode::StackOverflow) => "stack overflow: raise --stack if the recursion is meant".into(),
        Some(TrapCode::HeapAccessOutOfBounds) => "memory access out of bounds".into(),
        Some(TrapCode::UnreachableCodeReached) => "unreachable instruction executed".into(),
        Some(code) => code.message().to_owned(),
        None => error.message(),
    }
}

/// The guest's frames, innermost first, such as `main.main (module.wasm+0x1f2c)`.
pub(super) fn backtrace(frames: &[FrameInfo]) -> Vec<String> {
    let mut lines: Vec<_> = frames.iter().take(FRAMES_MAX).map(frame).collect();
    if frames.len() > FRAMES_MAX {
        lines.push(format!("... {} more frames", frames.len() - FRAMES_MAX));
    }
    lines
}

fn frame(frame: &FrameInfo) -> String {
    let name = frame.function_name().map_or_else(|| format!("function {}", frame.func_index()), demangle);
    format!("{name} (+{:#x})", frame.module_offset())
}

/// A function's name as in its source: Rust's and C++'s names are demangled, Go's are plain.
fn demangle(name: &str) -> String {
    Name::from(name).try_demangle(DemangleOptions::name_only()).into_owned()
}
