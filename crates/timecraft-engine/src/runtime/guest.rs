//! One guest, on its own thread.

use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use sha2::{Digest, Sha256};
use wasmer::{ExternType, Instance, Module, RuntimeError, Store};
use wasmer_vm::interrupt_registry;

use super::artifact::{ArtifactCache, ArtifactSource};
use super::engine::{Compiler, GuestMemory};
use super::gate::{self, Counters, Gate, Halted};
use super::interrupt::{Watchdog, ignore_foreign_signals, only_within};
use super::module::{self, ModuleError, ModuleInfo};
use super::trap;
use crate::calls::SocketAbi;
use crate::{End, Halt, Kill, KillSwitch, System};

/// Bounds that the engine enforces; the host has its own.
#[derive(Clone, Debug)]
pub struct Limits {
    pub memory_bytes: u64,
    pub stack_bytes: usize,
    /// CPU time of the guest's thread.
    pub cpu_ns: Option<u64>,
    pub wall_ns: Option<u64>,
}

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// File with the wasm bytes.
    pub wasm: PathBuf,
    /// SHA-256 of the wasm bytes, hex.
    pub digest: String,
    pub cache: ArtifactCache,
    /// Exported function to call. A reactor's `_initialize` is called before any other but itself.
    pub function: String,
    pub limits: Limits,
    pub compiler: Compiler,
    /// Socket calls that the module may import.
    pub sockets: SocketAbi,
    /// Whether to hash linear memory at the end.
    pub memory_digest: bool,
}

/// Why a run, live or replayed, is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The process ended.
    End(End),
    /// It was stopped without having ended: a replay that can't go on, a log that can't be written.
    Halt(Halt),
}

/// What there is to know about a guest that is over.
#[derive(Clone, Debug)]
pub struct Finished {
    pub ending: Ending,
    /// Frames at the last host call or trap, innermost first.
    pub backtrace: Vec<String>,
    pub load_ns: u64,
    pub instantiate_ns: u64,
    pub run_ns: u64,
    pub cpu_ns: u64,
    pub calls: u64,
    pub memory_bytes_peak: u64,
    pub artifact: ArtifactSource,
    /// SHA-256, hex; empty unless asked for.
    pub memory_digest: String,
    /// Operators executed, if the build counts them.
    pub operators: Option<u64>,
}

impl Finished {
    /// For a guest whose host panicked.
    fn broken(panic: &Panic, artifact: ArtifactSource) -> Self {
        Finished {
            ending: Ending::Halt(Halt::Log(format!("internal error: {}", panic_message(panic)))),
            backtrace: Vec::new(),
            load_ns: 0,
            instantiate_ns: 0,
            run_ns: 0,
            cpu_ns: 0,
            calls: 0,
            memory_bytes_peak: 0,
            artifact,
            memory_digest: String::new(),
            operators: None,
        }
    }
}

/// A module that is ready to run.
pub struct Prepared {
    config: GuestConfig,
    module: Module,
    engine: wasmer::Engine,
    memory: GuestMemory,
    calls: Vec<crate::Call>,
    source: ArtifactSource,
    load: Duration,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Prepared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Loads the module (compiling it if it isn't cached) and checks that it can run: imports, function, memory.
    ///
    /// # Errors
    /// [`ModuleError`], before anything has run.
    pub fn new(config: GuestConfig) -> Result<Self, ModuleError> {
        let started = Instant::now();
        let memory = GuestMemory::default();
        let engine = config.compiler.engine(&memory, config.limits.memory_bytes, config.limits.stack_bytes);
        let (module, source) = config.cache.load(&engine, config.compiler, &config.digest, || {
            let (wasm, info) = read_module(&config.wasm, &config.digest)?;
            check(&info, &config)?;
            Ok(wasm)
        })?;
        let calls = check(&describe(&module), &config)?;
        Ok(Prepared { config, module, engine, memory, calls, source, load: started.elapsed() })
    }
}

/// Puts a module's machine code into the cache, if it isn't there.
///
/// # Errors
/// [`ModuleError`] if it is no valid module, or doesn't compile.
pub fn compile(cache: &ArtifactCache, wasm: &Path, digest: &str) -> Result<ArtifactSource, ModuleError> {
    let compiler = Compiler::default();
    let engine = compiler.engine(&GuestMemory::default(), u64::MAX, STACK_BYTES_ANY);
    cache.load(&engine, compiler, digest, || Ok(read_module(wasm, digest)?.0)).map(|(_, source)| source)
}

/// Compiled code doesn't depend on the size of the stack.
const STACK_BYTES_ANY: usize = 1 << 20;

/// The wasm bytes of a file, validated: what makes a module unusable is said before seconds go into compiling it. That
/// they are those of the digest is not checked before: a warm start doesn't need them.
fn read_module(path: &Path, digest: &str) -> Result<(Vec<u8>, ModuleInfo), ModuleError> {
    let damaged = |reason: String| ModuleError::Damaged(format!("{}: {reason}", path.display()));
    let source = std::fs::read(path).map_err(|error| damaged(error.to_string()))?;
    if hex(&Sha256::digest(&source)) != digest {
        return Err(damaged("its bytes don't match its digest".into()));
    }
    let wasm = module::to_wasm(&source)?;
    let info = module::inspect(&wasm)?;
    Ok((wasm, info))
}

fn check(info: &ModuleInfo, config: &GuestConfig) -> Result<Vec<crate::Call>, ModuleError> {
    let calls = module::host_calls(info, config.sockets)?;
    if info.memory_min_bytes > config.limits.memory_bytes {
        return Err(ModuleError::Memory { needed: info.memory_min_bytes, limit: config.limits.memory_bytes });
    }
    for name in entry_points(&config.function, |name| info.exports.iter().any(|(export, _)| export == name)) {
        let name = name.to_owned();
        match info.exports.iter().find(|(export, _)| *export == name) {
            Some((_, ty)) if ty == "func ()" => {}
            Some((_, found)) if !found.starts_with("func") => {
                return Err(ModuleError::NotFunction { name, found: found.clone() });
            }
            Some((_, found)) => return Err(ModuleError::WrongFunction { name, found: found.clone() }),
            None => return Err(ModuleError::NoFunction { name, exported: exported_functions(info) }),
        }
    }
    Ok(calls)
}

/// What a command exports as its beginning, and a reactor as what comes before all else (WASI's application ABI).
const START: &str = "_start";
const INITIALIZE: &str = "_initialize";

/// The functions that a run of `function` calls, in order.
fn entry_points(function: &str, is_exported: impl Fn(&str) -> bool) -> Vec<&str> {
    let is_of_reactor = function != START && function != INITIALIZE && is_exported(INITIALIZE);
    is_of_reactor.then_some(INITIALIZE).into_iter().chain([function]).collect()
}

fn exported_functions(info: &ModuleInfo) -> String {
    const SHOWN_MAX: usize = 10;
    let names: Vec<_> =
        info.exports.iter().filter(|(_, ty)| ty.starts_with("func")).map(|(name, _)| name.as_str()).collect();
    match names.len() {
        0 => "no function at all".into(),
        count if count > SHOWN_MAX => format!("{}, and {} more", names[..SHOWN_MAX].join(", "), count - SHOWN_MAX),
        _ => names.join(", "),
    }
}

/// The same description as [`module::inspect`] gives, from an artifact: the wasm bytes are not read on a warm start.
fn describe(module: &Module) -> ModuleInfo {
    let text = |ty: &ExternType| match ty {
        ExternType::Function(ty) => {
            let list = |types: &[wasmer::Type]| types.iter().copied().map(value_type).collect::<Vec<_>>().join(", ");
            match ty.results() {
                [] => format!("func ({})", list(ty.params())),
                results => format!("func ({}) -> {}", list(ty.params()), list(results)),
            }
        }
        ExternType::Memory(_) => "memory".into(),
        ExternType::Table(_) => "table".into(),
        ExternType::Global(_) => "global".into(),
        ExternType::Tag(_) => "tag".into(),
    };
    let imports =
        module.imports().map(|import| (import.module().to_owned(), import.name().to_owned(), text(import.ty())));
    let exports = module.exports().map(|export| (export.name().to_owned(), text(export.ty())));
    let memory = module.info().memories.values().next();
    ModuleInfo {
        imports: imports.collect(),
        exports: exports.collect(),
        memory_min_bytes: memory.map_or(0, |memory| memory.minimum.bytes().0 as u64),
        memory_max_bytes: memory.and_then(|memory| memory.maximum).map(|pages| pages.bytes().0 as u64),
        functions: module.info().functions.len() - module.info().num_imported_functions,
    }
}

fn value_type(ty: wasmer::Type) -> &'static str {
    match ty {
        wasmer::Type::I32 => "i32",
        wasmer::Type::I64 => "i64",
        wasmer::Type::F32 => "f32",
        wasmer::Type::F64 => "f64",
        wasmer::Type::V128 => "v128",
        wasmer::Type::ExternRef => "externref",
        wasmer::Type::FuncRef => "funcref",
        wasmer::Type::ExceptionRef => "exnref",
    }
}

#[derive(Debug)]
struct Slot {
    finished: Mutex<Option<Finished>>,
    changed: Condvar,
    /// Readable once the guest is over, for those who wait for many things.
    over: OwnedFd,
}

impl Slot {
    fn new() -> std::io::Result<Slot> {
        let over = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Slot { finished: Mutex::default(), changed: Condvar::new(), over })
    }

    fn set(&self, finished: Finished) {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = Some(finished);
        self.changed.notify_all();
        // The counter of an eventfd that is written to once can't overflow.
        let _ = rustix::io::write(&self.over, &1_u64.to_ne_bytes());
    }
}

/// A guest on its own thread. Dropping the handle doesn't end a guest that has begun.
#[derive(Debug)]
pub struct Guest {
    /// Taken when the guest begins.
    begin: Mutex<Option<SyncSender<()>>>,
    kill: Arc<KillSwitch>,
    counters: Arc<Counters>,
    slot: Arc<Slot>,
}

impl Guest {
    /// Makes ready a guest in the world that `system` is. It runs once [`Guest::begin`] says so: its owner may have
    /// things to say first that must come before the guest's own output.
    ///
    /// `done` runs on the guest's thread when it is over, before anybody who waits learns of it: it gets the world
    /// back, and may amend what is reported.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start<S, D>(prepared: Prepared, system: S, kill: Arc<KillSwitch>, done: D) -> std::io::Result<Guest>
    where
        S: System + 'static,
        D: FnOnce(S, &mut Finished) + Send + 'static,
    {
        let counters = Arc::new(Counters::default());
        let slot = Arc::new(Slot::new()?);
        let (its_kill, its_counters, its_slot) = (Arc::clone(&kill), Arc::clone(&counters), Arc::clone(&slot));
        let (begin, signal) = sync_channel(1);
        std::thread::Builder::new().name("timecraft-guest".into()).spawn(move || {
            if signal.recv().is_err() {
                return;
            }
            let artifact = prepared.source;
            let over = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let (mut finished, system, store) = run(prepared, system, &its_kill, &its_counters);
                done(system, &mut finished);
                (finished, Some(store))
            }));
            // Whoever waits must learn that it is over, even if that is a bug of ours.
            let (finished, store) = over.unwrap_or_else(|panic| (Finished::broken(&panic, artifact), None));
            its_slot.set(finished);
            // Giving back gigabytes of address space takes milliseconds, for which nobody waits.
            drop(store);
        })?;
        Ok(Guest { begin: Mutex::new(Some(begin)), kill, counters, slot })
    }

    /// Lets the guest run. Once is enough.
    pub fn begin(&self) {
        if let Some(begin) = self.begin.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The channel has room for the one message that is ever sent.
            let _ = begin.send(());
        }
    }

    /// Waits until the guest is over, or for `timeout`.
    pub fn wait(&self, timeout: Duration) -> Option<Finished> {
        let guard = self.slot.finished.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = self
            .slot
            .changed
            .wait_timeout_while(guard, timeout, |finished| finished.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        guard.clone()
    }

    /// A descriptor that is readable once the guest is over.
    pub fn over(&self) -> BorrowedFd<'_> {
        self.slot.over.as_fd()
    }

    /// Ends the guest within 100 ms; the first reason stands.
    pub fn kill(&self, reason: Kill) {
        self.kill.request(reason);
    }

    /// Interrupts the guest: see [`KillSwitch`]. False if it hasn't noticed the last time yet.
    pub fn interrupt(&self) -> bool {
        self.kill.interrupt()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

fn run<S: System + 'static>(
    prepared: Prepared,
    system: S,
    kill: &Arc<KillSwitch>,
    counters: &Arc<Counters>,
) -> (Finished, S, Store) {
    let Prepared { config, module, engine, memory, calls, source, load } = prepared;
    let mut gate = Box::new(Gate::new(system, memory.clone(), Arc::clone(kill), Arc::clone(counters)));
    let mut store = Store::new(engine);
    ignore_foreign_signals();
    let interrupted = Arc::new(AtomicBool::new(false));
    let handler = only_within(code_range(&module), memory.clone(), Arc::clone(&interrupted));
    store.set_trap_handler(Some(handler));
    let imports = gate::imports(&mut store, &raw mut *gate, &calls);

    let started = Instant::now();
    let watchdog = Watchdog::start(store.id(), Arc::clone(kill), &config.limits);
    let registered = interrupt_registry::install(store.id());
    let mut instantiate_ns = 0;
    let mut operators = None;
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        watchdog.as_ref().map_err(|error| RuntimeError::new(format!("no watchdog: {error}")))?;
        let instance = Instance::new(&mut store, &module, &imports).map_err(|error| match error {
            wasmer::InstantiationError::Start(error) => error,
            other => RuntimeError::new(other.to_string()),
        })?;
        instantiate_ns = elapsed_ns(started);
        let result = enter(&mut store, &instance, &config.function);
        operators = super::engine::operators(config.compiler, &mut store, &instance);
        result
    }));
    drop(registered);
    drop(watchdog);

    let run_ns = elapsed_ns(started);
    let (mut ending, backtrace) = ending(result, gate.halt.take(), kill, &interrupted);
    if let Ending::End(end) = &ending
        && let Err(halt) = gate.system.end(end)
    {
        ending = Ending::Halt(halt);
    }
    let bytes = gate::guest_bytes(&memory);
    let finished = Finished {
        ending,
        backtrace,
        load_ns: load.as_nanos() as u64,
        instantiate_ns,
        run_ns,
        cpu_ns: crate::clock::Clock::thread_cpu_ns(&crate::clock::SystemClock),
        calls: counters.calls.load(Ordering::Relaxed),
        memory_bytes_peak: bytes.len() as u64,
        artifact: source,
        memory_digest: if config.memory_digest { hex(&Sha256::digest(&*bytes)) } else { String::new() },
        operators,
    };
    // The store's functions still point to the gate, but nobody can call them any more.
    (finished, gate.system, store)
}

/// Calls the guest's function, and before it what must come first.
fn enter(store: &mut Store, instance: &Instance, function: &str) -> Result<(), RuntimeError> {
    for name in entry_points(function, |name| instance.exports.contains(name)) {
        let function = instance.exports.get_function(name).map_err(|error| RuntimeError::new(error.to_string()))?;
        function.call(store, &[])?;
    }
    Ok(())
}

fn elapsed_ns(since: Instant) -> u64 {
    since.elapsed().as_nanos() as u64
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Where the module's own machine code lies.
fn code_range(module: &Module) -> std::ops::Range<usize> {
    let extents = module.sys_artifact().and_then(wasmer::sys::Artifact::finished_function_extents).unwrap_or_default();
    let start = extents.iter().map(|(_, extent)| extent.ptr.0 as usize).min().unwrap_or(0);
    let end = extents.iter().map(|(_, extent)| extent.ptr.0 as usize + extent.length).max().unwrap_or(0);
    start..end
}

type Panic = Box<dyn std::any::Any + Send>;

/// What the outcome of the guest's function means.
fn ending(
    result: Result<Result<(), RuntimeError>, Panic>,
    halt: Option<Halt>,
    kill: &KillSwitch,
    interrupted: &AtomicBool,
) -> (Ending, Vec<String>) {
    let error = match result {
        Ok(Ok(())) => return (Ending::End(End::Exit(0)), Vec::new()),
        Ok(Err(error)) => error,
        Err(panic) => {
            let message = format!("internal error: {}", panic_message(&panic));
            return (Ending::Halt(Halt::Log(message)), Vec::new());
        }
    };
    let backtrace = trap::backtrace(error.trace());
    if error.is::<Halted>() {
        let ending = match halt {
            Some(Halt::Exit(code)) => Ending::End(End::Exit(code)),
            Some(Halt::Killed(reason)) => Ending::End(End::Killed(reason)),
            Some(halt) => Ending::Halt(halt),
            None => Ending::Halt(Halt::Replay),
        };
        return (ending, backtrace);
    }
    if interrupted.load(Ordering::Relaxed)
        && let Some(reason) = kill.reason()
    {
        return (Ending::End(End::Killed(reason)), backtrace);
    }
    let mut message = trap::message(&error);
    for frame in &backtrace {
        let _ = write!(message, "\n  at {frame}");
    }
    (Ending::End(End::Trap { message }), backtrace)
}

fn panic_message(panic: &Panic) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}
