//! The trampolines: from the guest's imports to [`System::call`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmer::{Function, Imports, RuntimeError, Store};

use super::engine::GuestMemory;
use crate::calls::ValType;
use crate::memory::Notes;
use crate::{Call, Halt, KillSwitch, Memory, System};

/// What others may look at while the guest runs.
#[derive(Debug, Default)]
pub struct Counters {
    /// Host calls so far.
    pub calls: AtomicU64,
    /// Size of linear memory at the last host call, bytes.
    pub memory_bytes: AtomicU64,
}

/// The guest's side of the gate. It lives on the heap, at one address, for as long as the store whose functions point
/// to it; only the guest's thread touches it.
pub(super) struct Gate<S> {
    pub(super) system: S,
    /// Why the guest was ended, once it was.
    pub(super) halt: Option<Halt>,
    memory: GuestMemory,
    notes: Notes,
    kill: Arc<KillSwitch>,
    counters: Arc<Counters>,
    calls: u64,
}

/// Carries a [`Halt`] through wasm frames; the halt itself stays in the gate.
#[derive(Debug, thiserror::Error)]
#[error("the guest was ended")]
pub(super) struct Halted;

impl<S: System> Gate<S> {
    pub(super) fn new(system: S, memory: GuestMemory, kill: Arc<KillSwitch>, counters: Arc<Counters>) -> Self {
        Gate { system, halt: None, memory, notes: Notes::default(), kill, counters, calls: 0 }
    }

    #[inline]
    fn enter(&mut self, call: Call, args: &[u64]) -> Result<i32, RuntimeError> {
        let bytes = guest_bytes(&self.memory);
        self.calls += 1;
        self.counters.calls.store(self.calls, Ordering::Relaxed);
        self.counters.memory_bytes.store(bytes.len() as u64, Ordering::Relaxed);
        let mut memory = Memory::new(bytes, &mut self.notes);
        match self.system.call(call, args, &mut memory) {
            Ok(errno) if !self.kill.is_requested() => Ok(errno as i32),
            Ok(_) => Err(self.halt(self.kill.reason().map_or(Halt::Replay, Halt::Killed))),
            Err(halt) => Err(self.halt(halt)),
        }
    }

    #[cold]
    fn halt(&mut self, halt: Halt) -> RuntimeError {
        self.halt = Some(halt);
        RuntimeError::user(Box::new(Halted))
    }
}

/// The guest's linear memory; empty for a guest without.
#[allow(unsafe_code)]
pub(super) fn guest_bytes(memory: &GuestMemory) -> &'static mut [u8] {
    let definition = memory.definition();
    if definition.is_null() {
        return &mut [];
    }
    // SAFETY: the definition and the pages it points to live as long as the instance. The only thread that runs the
    // guest is inside this call, so nothing else reads, writes or grows the memory while the slice is in use; callers
    // drop it before they return to the guest.
    unsafe {
        let definition = &*definition;
        std::slice::from_raw_parts_mut(definition.base, definition.current_length)
    }
}

/// A pointer to the gate that wasmer's closures can hold: they must be `Send`, though a store never changes threads.
struct GatePtr<S>(*mut Gate<S>);

impl<S> Clone for GatePtr<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for GatePtr<S> {}

#[allow(unsafe_code)]
// SAFETY: dereferenced on the guest's thread alone (see `Gate`).
unsafe impl<S> Send for GatePtr<S> {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl<S> Sync for GatePtr<S> {}

impl<S: System> GatePtr<S> {
    #[inline]
    #[allow(unsafe_code)]
    fn enter(self, call: Call, args: &[u64]) -> Result<i32, RuntimeError> {
        // SAFETY: the gate outlives the store (`guest::run` drops the store first), and host calls don't nest, so
        // this is the only reference.
        unsafe { (*self.0).enter(call, args) }
    }
}

macro_rules! value {
    (I32) => {
        i32
    };
    (I64) => {
        i64
    };
}

macro_rules! widen {
    ($value:ident I32) => {
        u64::from($value as u32)
    };
    ($value:ident I64) => {
        $value as u64
    };
}

/// One arm per distinct parameter list: wasmer's fast path for host functions is one native function per signature.
macro_rules! typed_function {
    ($store:expr, $gate:expr, $call:expr; $([$($name:ident: $type:ident),*])*) => {
        match ($call.spec().types().as_slice(), $call.spec().returns) {
            $(([$(ValType::$type),*], true) => {
                let (gate, call) = ($gate, $call);
                Some(Function::new_typed($store, move |$($name: value!($type)),*| {
                    gate.enter(call, &[$(widen!($name $type)),*])
                }))
            })*
            ([ValType::I32], false) => {
                let (gate, call) = ($gate, $call);
                Some(Function::new_typed($store, move |code: i32| {
                    gate.enter(call, &[widen!(code I32)]).map(|_| ())
                }))
            }
            _ => None,
        }
    };
}

/// Host functions for the given calls. `gate` must stay where it is until the store is dropped.
pub(super) fn imports<S: System + 'static>(store: &mut Store, gate: *mut Gate<S>, calls: &[Call]) -> Imports {
    let mut imports = Imports::new();
    let gate = GatePtr(gate);
    for call in calls {
        let function = function(store, gate, *call);
        imports.define(call.spec().module, call.spec().name, function);
    }
    imports
}

fn function<S: System + 'static>(store: &mut Store, gate: GatePtr<S>, call: Call) -> Function {
    typed_function!(store, gate, call;
        []
        [a: I32]
        [a: I32, b: I32]
        [a: I32, b: I32, c: I32]
        [a: I32, b: I32, c: I32, d: I32]
        [a: I32, b: I32, c: I32, d: I32, e: I32]
        [a: I32, b: I32, c: I32, d: I32, e: I32, f: I32]
        [a: I32, b: I32, c: I32, d: I32, e: I32, f: I32, g: I32]
        [a: I32, b: I32, c: I32, d: I32, e: I32, f: I32, g: I32, h: I32]
        [a: I32, b: I64]
        [a: I32, b: I64, c: I32]
        [a: I32, b: I64, c: I64]
        [a: I32, b: I64, c: I32, d: I32]
        [a: I32, b: I64, c: I64, d: I32]
        [a: I32, b: I32, c: I64, d: I32]
        [a: I32, b: I32, c: I32, d: I64, e: I32]
        [a: I32, b: I32, c: I32, d: I32, e: I64, f: I64, g: I32]
        [a: I32, b: I32, c: I32, d: I32, e: I32, f: I64, g: I64, h: I32, i: I32]
    )
    .unwrap_or_else(|| unreachable!("no trampoline for {}: gate::tests covers the table", call.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::CALLS;

    #[test]
    fn every_call_has_a_trampoline() {
        let mut store = Store::default();
        for spec in CALLS {
            function(&mut store, GatePtr::<Box<dyn System>>(std::ptr::null_mut()), spec.call);
        }
    }
}
