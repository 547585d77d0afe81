//! Logs of every format version, written once and read for ever.

#[path = "../examples/make_golden.rs"]
mod make_golden;

use std::path::{Path, PathBuf};

fn golden_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

#[test]
fn golden_logs_are_read_as_they_were_written() {
    let mut seen = 0;
    for version in std::fs::read_dir(golden_root()).unwrap() {
        for dump in std::fs::read_dir(version.unwrap().path()).unwrap() {
            let dump = dump.unwrap().path();
            if dump.extension().is_some_and(|extension| extension == "txt") {
                let expected = std::fs::read_to_string(&dump).unwrap();
                assert!(make_golden::dump(&dump.with_extension("")) == expected, "{}", dump.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 9, "{seen} golden logs");
}

/// A change of what is written is a new format version: bump it and add its golden logs.
#[test]
fn the_current_version_still_writes_its_records() {
    let dir = tempfile::tempdir().unwrap();
    make_golden::make(dir.path());
    let golden = golden_root().join(format!("v{}", timecraft_log::FORMAT_VERSION));
    for name in ["raw", "lz4_segments", "large", "digest", "kept"] {
        let dump = |root: &Path| std::fs::read_to_string(root.join(format!("{name}.txt"))).unwrap();
        assert!(dump(dir.path()) == dump(&golden), "{name}");
    }
    // Uncompressed, the bytes are the format's alone: equal but for where the timer cut a block.
    let raw = |root: &Path| std::fs::read(root.join("raw/000000.tcl")).unwrap();
    assert_eq!(raw(dir.path())[..64], raw(&golden)[..64]);
}
