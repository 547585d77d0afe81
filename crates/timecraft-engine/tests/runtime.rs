//! The engine around guests: limits, interrupts, traps, the artifact cache.

#![cfg(feature = "runtime")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use timecraft_engine::calls::SocketAbi;
use timecraft_engine::runtime::{
    ArtifactCache, ArtifactSource, Compiler, Ending, Finished, Guest, GuestConfig, Instrument, Limits, ModuleError,
    Prepared, inspect, to_wasm,
};
use timecraft_engine::{Call, End, Errno, Halt, Kill, KillSwitch, Memory, System};

/// A world in which every call succeeds, and `proc_exit` exits.
struct Nothing(Arc<AtomicU64>);

impl System for Nothing {
    fn call(&mut self, call: Call, args: &[u64], _memory: &mut Memory<'_>) -> Result<Errno, Halt> {
        self.0.fetch_add(1, Ordering::Relaxed);
        if call == Call::ProcExit { Err(Halt::Exit(args[0] as u32)) } else { Ok(Errno::Success) }
    }

    fn end(&mut self, _end: &End) -> Result<(), Halt> {
        Ok(())
    }
}

struct Bench {
    dir: tempfile::TempDir,
    calls: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Self {
        Bench { dir: tempfile::tempdir().unwrap(), calls: Arc::default() }
    }

    fn config(&self, wat: &str) -> Result<GuestConfig, ModuleError> {
        let wasm = to_wasm(wat.as_bytes())?;
        let path = self.dir.path().join("module.wasm");
        std::fs::write(&path, &wasm).unwrap();
        Ok(GuestConfig {
            wasm: path,
            digest: format!("{:x}", Sha256::digest(&wasm)),
            cache: ArtifactCache::new(self.dir.path().join("artifacts"), 1 << 30),
            function: "_start".into(),
            limits: Limits { memory_bytes: 1 << 30, stack_bytes: 1 << 20, cpu_ns: None, wall_ns: None },
            compiler: Compiler::default(),
            sockets: SocketAbi::Auto,
            memory_digest: false,
        })
    }

    fn start(&self, config: GuestConfig) -> Result<Guest, ModuleError> {
        let kill = Arc::new(KillSwitch::new().unwrap());
        let system = Box::new(Nothing(Arc::clone(&self.calls)));
        let guest = Guest::start(Prepared::new(config)?, system, kill, |_, _| {}).unwrap();
        guest.begin();
        Ok(guest)
    }

    fn run(&self, wat: &str) -> Result<Finished, ModuleError> {
        let guest = self.start(self.config(wat)?)?;
        Ok(guest.wait(Duration::from_mins(1)).expect("the guest ends"))
    }
}

const EXIT: &str = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
const YIELD: &str = r#"(import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))"#;

#[test]
fn exit_codes_are_the_guests_own() {
    let bench = Bench::new();
    let finished =
        bench.run(&format!(r#"(module {EXIT} (func (export "_start") (call $exit (i32.const 42))))"#)).unwrap();
    assert_eq!(finished.ending, Ending::End(End::Exit(42)));
    let finished = bench.run(r#"(module (func (export "_start")))"#).unwrap();
    assert_eq!(finished.ending, Ending::End(End::Exit(0)));
}

#[test]
fn a_trap_tells_what_and_where() {
    let bench = Bench::new();
    let wat =
        r#"(module (func $inner (unreachable)) (func $outer (call $inner)) (func (export "_start") (call $outer)))"#;
    let finished = bench.run(wat).unwrap();
    let Ending::End(End::Trap { message }) = finished.ending else { panic!("{finished:?}") };
    let backtrace = &finished.backtrace;
    assert!(message.starts_with("unreachable instruction executed\n  at inner (+0x"), "{message}");
    assert!(backtrace[0].starts_with("inner (+0x"), "{backtrace:?}");
    assert!(backtrace[1].starts_with("outer (+0x"), "{backtrace:?}");
}

#[test]
fn a_halted_guest_shows_where_it_was() {
    let bench = Bench::new();
    let wat =
        format!(r#"(module {EXIT} (func $leave (call $exit (i32.const 1))) (func (export "_start") (call $leave)))"#);
    let finished = bench.run(&wat).unwrap();
    assert!(finished.backtrace[0].starts_with("leave"), "{:?}", finished.backtrace);
}

#[test]
fn endless_recursion_is_a_trap() {
    let bench = Bench::new();
    let wat = r#"(module (func $f (call $f) (call $f)) (func (export "_start") (call $f)))"#;
    let finished = bench.run(wat).unwrap();
    let Ending::End(End::Trap { message }) = finished.ending else { panic!("{finished:?}") };
    assert!(message.starts_with("stack overflow"), "{message}");
}

#[test]
fn names_of_rust_functions_are_demangled() {
    let bench = Bench::new();
    let wat = r#"(module (func $_ZN4core9panicking5panic17h0123456789abcdefE (unreachable))
        (func (export "_start") (call $_ZN4core9panicking5panic17h0123456789abcdefE)))"#;
    let finished = bench.run(wat).unwrap();
    assert!(finished.backtrace[0].starts_with("core::panicking::panic (+0x"), "{:?}", finished.backtrace);
}

/// Guests that never return to the host, or spend their time in the engine's helper functions.
const SPINNING: [&str; 5] = [
    r#"(module (func (export "_start") (loop (br 0))))"#,
    r#"(module (memory 1) (func (export "_start")
        (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536))
            (drop (memory.grow (i32.const 0))) (br 0))))"#,
    r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
        (func (export "_start") (loop (drop (call $yield)) (br 0))))"#,
    r#"(module (memory 8192) (func (export "_start")
        (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x20000000)) (br 0))))"#,
    r#"(module (memory 8192) (func (export "_start")
        (loop (memory.copy (i32.const 8) (i32.const 0) (i32.const 0x1ffffff0)) (br 0))))"#,
];

#[test]
fn a_spinning_guest_is_interrupted_within_100_ms() {
    for wat in SPINNING {
        let bench = Bench::new();
        let guest = bench.start(bench.config(wat).unwrap()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let asked = Instant::now();
        guest.kill(Kill::Signal(15));
        guest.kill(Kill::Signal(9));
        let finished = guest.wait(Duration::from_secs(10)).expect("the guest ends");
        let took = asked.elapsed();
        assert_eq!(finished.ending, Ending::End(End::Killed(Kill::Signal(15))), "{wat}");
        assert!(took < Duration::from_millis(100), "{took:?} for {wat}");
    }
}

#[test]
fn a_signal_from_outside_is_no_interrupt() {
    let bench = Bench::new();
    let guest = bench.start(bench.config(SPINNING[0]).unwrap()).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let sent = std::process::Command::new("kill").args(["-USR1", &std::process::id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert!(guest.wait(Duration::from_millis(50)).is_none(), "it runs on");
    guest.kill(Kill::Signal(15));
    assert!(guest.wait(Duration::from_secs(10)).is_some());
}

#[test]
fn a_panic_of_the_host_ends_the_wait() {
    let bench = Bench::new();
    let prepared = Prepared::new(bench.config(r#"(module (func (export "_start")))"#).unwrap()).unwrap();
    let kill = Arc::new(KillSwitch::new().unwrap());
    let guest = Guest::start(prepared, Nothing(Arc::default()), kill, |_, _| panic!("a bug")).unwrap();
    guest.begin();
    let finished = guest.wait(Duration::from_secs(10)).expect("the guest ends");
    assert_eq!(finished.ending, Ending::Halt(Halt::Log("internal error: a bug".into())));
}

#[test]
fn time_limits_end_a_guest() {
    for (cpu_ns, wall_ns, flag) in [(Some(50_000_000), None, "--cpu"), (None, Some(50_000_000), "--timeout")] {
        let bench = Bench::new();
        let mut config = bench.config(SPINNING[0]).unwrap();
        config.limits.cpu_ns = cpu_ns;
        config.limits.wall_ns = wall_ns;
        let finished = bench.start(config).unwrap().wait(Duration::from_secs(10)).expect("the guest ends");
        let Ending::End(End::Killed(Kill::Limit(reason))) = finished.ending else { panic!("{finished:?}") };
        assert!(reason.contains(flag) && reason.contains("50ms"), "{reason}");
    }
}

#[test]
fn memory_grows_to_the_limit_and_no_further() {
    let bench = Bench::new();
    let wat = format!(
        r#"(module {EXIT} (memory 1) (func (export "_start")
            (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (call $exit (memory.size))))"#
    );
    let mut config = bench.config(&wat).unwrap();
    config.limits.memory_bytes = 10 * 65536;
    let finished = bench.start(config).unwrap().wait(Duration::from_secs(10)).unwrap();
    assert_eq!(finished.ending, Ending::End(End::Exit(10)));
    let mut config = bench.config(r#"(module (memory 32768) (func (export "_start")))"#).unwrap();
    config.limits.memory_bytes = 1 << 20;
    let error = bench.start(config).unwrap_err();
    assert_eq!(error, ModuleError::Memory { needed: 2 << 30, limit: 1 << 20 });
}

#[test]
fn a_table_grows_to_its_limit_and_no_further() {
    let bench = Bench::new();
    let wat = |table: &str, by: u32| {
        format!(
            r#"(module {EXIT} (table {table} funcref) (func (export "_start")
                (call $exit (table.grow (ref.null func) (i32.const {by})))))"#
        )
    };
    let refused = Ending::End(End::Exit(u32::MAX));
    assert_eq!(bench.run(&wat("1", (1 << 20) - 1)).unwrap().ending, Ending::End(End::Exit(1)));
    assert_eq!(bench.run(&wat("1", 1 << 20)).unwrap().ending, refused);
    assert_eq!(bench.run(&wat("1 4000000", 1 << 20)).unwrap().ending, refused);
    let Ending::End(End::Trap { message }) = bench.run(&wat("2000000", 0)).unwrap().ending else { panic!() };
    assert!(message.contains("2000000 elements"), "{message}");
}

#[test]
fn a_reactor_is_initialized_before_its_functions() {
    let bench = Bench::new();
    let wat = format!(
        r#"(module {EXIT} (global $set (mut i32) (i32.const 1))
            (func (export "_initialize") (global.set $set (i32.add (global.get $set) (i32.const 1))))
            (func (export "_start") (call $exit (global.get $set)))
            (func (export "run") (call $exit (global.get $set))))"#
    );
    for (function, code) in [("run", 2), ("_initialize", 0), ("_start", 1)] {
        let config = GuestConfig { function: function.into(), ..bench.config(&wat).unwrap() };
        let finished = bench.start(config).unwrap().wait(Duration::from_secs(10)).unwrap();
        assert_eq!(finished.ending, Ending::End(End::Exit(code)), "{function}");
    }
    let wat = r#"(module (func (export "_initialize") (param i32)) (func (export "run")))"#;
    let config = GuestConfig { function: "run".into(), ..bench.config(wat).unwrap() };
    let error = bench.start(config).unwrap_err();
    assert_eq!(error, ModuleError::WrongFunction { name: "_initialize".into(), found: "func (i32)".into() });
}

#[test]
fn what_happens_in_the_start_section_counts() {
    let bench = Bench::new();
    let finished =
        bench.run(r#"(module (memory 2) (func $f (unreachable)) (start $f) (func (export "_start")))"#).unwrap();
    let Ending::End(End::Trap { message }) = finished.ending else { panic!("{:?}", finished.ending) };
    assert!(message.starts_with("unreachable instruction executed\n  at f (+0x"), "{message}");
    assert_eq!(finished.memory_bytes_peak, 2 << 16);
    let wat = format!(r#"(module {EXIT} (func $f (call $exit (i32.const 9))) (start $f) (func (export "_start")))"#);
    assert_eq!(bench.run(&wat).unwrap().ending, Ending::End(End::Exit(9)));
}

#[test]
fn artifacts_that_others_can_write_are_not_run() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let wat = r#"(module (func (export "_start")))"#;
    let source = || bench.run(wat).unwrap().artifact;
    assert_eq!((source(), source()), (ArtifactSource::Compiled, ArtifactSource::Cached));
    let path = std::fs::read_dir(bench.dir.path().join("artifacts")).unwrap().next().unwrap().unwrap().path();
    for mode in [0o664, 0o646] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!((source(), source()), (ArtifactSource::Recompiled, ArtifactSource::Cached), "{mode:o}");
    }
}

#[test]
fn artifacts_are_cached_checked_and_bounded() {
    let bench = Bench::new();
    let wat = r#"(module (func (export "_start")))"#;
    let source = |config: GuestConfig| bench.start(config).unwrap().wait(Duration::from_secs(10)).unwrap().artifact;
    assert_eq!(source(bench.config(wat).unwrap()), ArtifactSource::Compiled);
    assert_eq!(source(bench.config(wat).unwrap()), ArtifactSource::Cached);
    let dir = bench.dir.path().join("artifacts");
    let path = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    for damage in [bytes.len() / 2, 3, 9] {
        bytes[damage] ^= 0x40;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(source(bench.config(wat).unwrap()), ArtifactSource::Recompiled, "byte {damage}");
    }
    std::fs::write(&path, b"").unwrap();
    assert_eq!(source(bench.config(wat).unwrap()), ArtifactSource::Recompiled);
    let mut config = bench.config(r#"(module (func $other) (func (export "_start")))"#).unwrap();
    config.cache = ArtifactCache::new(&dir, 10);
    assert_eq!(source(config), ArtifactSource::Compiled);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "the older artifact made room");
    let mut config = bench.config(wat).unwrap();
    config.cache = ArtifactCache::new("/proc/nowhere", 1 << 20);
    assert_eq!(source(config), ArtifactSource::Compiled, "a cache that can't be written costs speed only");
}

#[test]
fn many_guests_share_a_cache_at_once() {
    let bench = Bench::new();
    let config =
        bench.config(&format!(r#"(module {EXIT} (func (export "_start") (call $exit (i32.const 7))))"#)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let finished = bench.start(config.clone()).unwrap().wait(Duration::from_mins(1)).unwrap();
                assert_eq!(finished.ending, Ending::End(End::Exit(7)));
            });
        }
    });
}

#[test]
fn a_counting_build_runs_the_same_program() {
    let bench = Bench::new();
    let wat = format!(
        r#"(module {EXIT} {YIELD} (func (export "_start") (local $i i32)
        (loop (drop (call $yield)) (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if 0 (i32.lt_u (local.get $i) (i32.const 100))))
        (call $exit (i32.const 3))))"#
    );
    let mut config = bench.config(&wat).unwrap();
    config.compiler = Compiler { instrument: Instrument::Count, ..Compiler::default() };
    let finished = bench.start(config).unwrap().wait(Duration::from_secs(10)).unwrap();
    assert_eq!(finished.ending, Ending::End(End::Exit(3)));
    assert!(finished.operators.unwrap() > 800, "{:?}", finished.operators);
    assert_eq!(finished.calls, 101);
}

#[test]
fn unusable_modules_are_explained() {
    let bench = Bench::new();
    let error = |wat: &str| bench.run(wat).unwrap_err().to_string();
    assert!(error("\u{7f}ELF").contains("not a WebAssembly module"));
    assert!(error("").contains("empty"));
    assert!(error("(module (func $f (call $g)))").contains("text format"));
    let message = error(r#"(module (import "wasi_snapshot_preview1" "fd_wrte" (func)) (import "env" "foo" (func)))"#);
    assert!(message.contains("fd_wrte (closest known: wasi_snapshot_preview1.fd_write), env.foo"), "{message}");
    let message = error(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i64))))"#);
    assert!(message.contains("as func (i64) (it is func (i32, i32, i32, i32) -> i32 here)"), "{message}");
    let many = (0..60).map(|i| format!(r#"(import "env" "f{i}" (func))"#)).collect::<Vec<_>>();
    assert!(error(&format!("(module {})", many.concat())).ends_with("env.f48, env.f49, and 10 more"));
    assert!(error(r#"(module (memory 1 2 shared) (func (export "_start")))"#).contains("threads"));
    let relaxed = r#"(module (func (export "_start")
        (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))))"#;
    assert!(error(relaxed).contains("relaxed SIMD"), "{}", error(relaxed));
    let message = error(r#"(module (func (export "run")) (func (export "two") (param i32)))"#);
    assert!(message.contains(r#"no function "_start"; it exports run, two"#), "{message}");
    assert!(error(r#"(module (func (export "_start") (param i32)))"#).contains("takes parameters"));
    assert!(error(r#"(module (memory (export "_start") 1))"#).contains("no function but a memory"));
    let wasm = to_wasm(br#"(module (func (export "_start") (nop) (nop)))"#).unwrap();
    assert!(matches!(inspect(&wasm[..wasm.len() - 3]), Err(ModuleError::Damaged(_))));
    assert!(matches!(to_wasm(&wasm[..6]), Err(ModuleError::Damaged(_))));
    assert_eq!(to_wasm(b"\0asm\x0d\0\x01\0"), Err(ModuleError::Component));
}

/// Cost of a call through the gate. Printed, not judged: machines are noisy.
#[test]
fn host_call_cost() {
    let bench = Bench::new();
    let wat = format!(
        r#"(module {YIELD} (func (export "_start") (local $i i32)
        (loop (drop (call $yield)) (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if 0 (i32.lt_u (local.get $i) (i32.const 10000000))))))"#
    );
    let finished = bench.run(&wat).unwrap();
    println!("host call: {} ns", finished.run_ns / 10_000_000);
}

#[test]
fn a_module_that_is_not_what_its_digest_says_is_not_compiled() {
    let bench = Bench::new();
    let config = bench.config("(module (func (export \"_start\")))").unwrap();
    assert!(!config.cache.has(config.compiler, &config.digest));
    let good = std::fs::read(&config.wasm).unwrap();
    std::fs::write(&config.wasm, to_wasm(b"(module (func (export \"_start\") unreachable))").unwrap()).unwrap();
    let refused = Prepared::new(config.clone()).unwrap_err();
    assert!(matches!(&refused, ModuleError::Damaged(reason) if reason.contains("digest")), "{refused}");
    std::fs::write(&config.wasm, good).unwrap();
    Prepared::new(config.clone()).unwrap();
    assert!(config.cache.has(config.compiler, &config.digest));
}
