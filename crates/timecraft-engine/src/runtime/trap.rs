//! Traps for people: a message and the guest's backtrace with demangled names.

use symbolic_common::Name;
use symbolic_demangle::{Demangle, DemangleOptions};
use wasmer::{FrameInfo, RuntimeError};
use wasmer_types::TrapCode;

/// Frames of a backtrace that are kept: the innermost ones, where the fault is.
const FRAMES_MAX: usize = 64;
/// Characters of a function's name that are kept. Names come from the module, and all of a trap must fit into a record.
const NAME_CHARS_MAX: usize = 1024;
/// Bytes of a name that is demangled. Beyond, what a name unfolds to is not worth what it costs.
const MANGLED_BYTES_MAX: usize = 4096;

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

/// A function's name as in its source: Rust's and C++'s names are demangled, Go's are plain. Control characters are
/// shown, not passed on: one line of a trap's message is one frame.
fn demangle(name: &str) -> String {
    let plain = if name.len() > MANGLED_BYTES_MAX {
        name.into()
    } else {
        Name::from(name).try_demangle(DemangleOptions::name_only()).into_owned()
    };
    let mut shown = String::with_capacity(plain.len().min(NAME_CHARS_MAX));
    for character in plain.chars().take(NAME_CHARS_MAX) {
        if character.is_control() { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    if plain.chars().nth(NAME_CHARS_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_demangled_bounded_and_printable() {
        assert_eq!(demangle("_ZN4core9panicking5panic17h0123456789abcdefE"), "core::panicking::panic");
        assert_eq!(demangle("main.(*T).Run"), "main.(*T).Run");
        assert_eq!(demangle("größe\u{1b}[2J\nx"), "größe\\u{1b}[2J\\nx");
        for len in [1024, 1025, 100_000] {
            let expected = "é".repeat(1024) + if len > 1024 { "..." } else { "" };
            assert_eq!(demangle(&"é".repeat(len)), expected);
        }
    }
}
