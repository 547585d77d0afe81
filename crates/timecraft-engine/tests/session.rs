//! Sessions as wholes, where a log and an engine meet.

#![cfg(feature = "runtime")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sha2::{Digest, Sha256};
use timecraft_engine::calls::SocketAbi;
use timecraft_engine::host::HostConfig;
use timecraft_engine::runtime::{ArtifactCache, Compiler, GuestConfig, Limits, to_wasm};
use timecraft_engine::session::{LogOptions, ResumeConfig, RunConfig, SessionError, resume};
use timecraft_log::{CALL_START, Head, LogConfig, OnFull};

fn guest(dir: &Path, wat: &str) -> GuestConfig {
    let path = dir.join("module.wasm");
    let wasm = to_wasm(wat.as_bytes()).unwrap();
    std::fs::write(&path, &wasm).unwrap();
    GuestConfig {
        wasm: path,
        digest: format!("{:x}", Sha256::digest(&wasm)),
        cache: ArtifactCache::new(dir.join("artifacts"), 1 << 20),
        function: "_start".into(),
        limits: Limits { memory_bytes: 1 << 20, stack_bytes: 1 << 20, cpu_ns: None, wall_ns: None },
        compiler: Compiler::default(),
        sockets: SocketAbi::Auto,
        memory_digest: false,
    }
}

#[test]
fn a_process_whose_records_were_lost_is_not_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let log = LogConfig {
        log_bytes_max: Some(4 << 10),
        on_full: OnFull::Continue,
        ..LogConfig::new(dir.path().join("log"), [7; 16])
    };
    let (mut ring, handle) = timecraft_log::start(log.clone(), Arc::new(AtomicBool::new(false))).unwrap();
    let noise: Vec<u8> = (0..2000u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    while handle.failure().is_none() {
        let head = Head { call: CALL_START, errno: 0, time_ns: 0 };
        ring.append(&head, &[0, 0], std::iter::empty(), std::iter::once((0, noise.as_slice()))).unwrap();
    }
    // As if the host had died now.
    drop((ring, handle));
    let run = RunConfig {
        guest: guest(dir.path(), r#"(module (func (export "_start")))"#),
        host: HostConfig::default(),
        log: Some(LogOptions { config: LogConfig { epoch: 1, ..log }, manifest: Vec::new(), bytes_per_s_max: None }),
        trace: None,
        chaos: None,
    };
    let refused = resume(ResumeConfig { run, scratch_dir: dir.path().into() }).unwrap_err();
    assert!(matches!(refused, SessionError::RecordsLost(seq) if seq < 100), "{refused}");
}
