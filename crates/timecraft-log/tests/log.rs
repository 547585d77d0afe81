//! Whole logs: written, read, followed, searched.

mod support;

use support::{PROCESS, Record, read_all, read_log, sample, samples, small_config, start, write_log};
use timecraft_log::{BlockFilter, Compression, LogConfig, LogError, LogReader, OnFull, Output};

#[test]
fn what_was_written_is_read() {
    for compression in [Compression::None, Compression::Lz4] {
        let dir = tempfile::tempdir().unwrap();
        write_log(LogConfig { compression, ..LogConfig::new(dir.path(), PROCESS) }, &samples(10_000));
        assert!(read_log(dir.path()) == samples(10_000));
        assert!(!dir.path().join("ring").exists() && !dir.path().join("ring.buf").exists());
    }
}
