//! The ring by itself: wrap-around, refusals, waiting, and files that hold anything.

mod support;

use proptest::prelude::*;
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{PROCESS, Record, any_record, no_regions, sample};
use timecraft_log::{
    ARGS_MAX, AppendError, Head, LogError, RECORD_BYTES_MAX, REGIONS_MAX, Ring, RingIdentity, RingReader, RingWriter,
};

const HEAD: Head = Head { call: 1, errno: 0, time_ns: 0 };
const CAPACITY: usize = 64 << 10;
const IDENTITY: RingIdentity = RingIdentity { process: PROCESS, epoch: 3, digest: false };

fn ring(path: &Path, capacity: usize) -> (RingWriter, RingReader) {
    Ring::create(path, capacity, &IDENTITY).unwrap().split(0, Arc::new(AtomicBool::new(true)))
}

/// Appends records of 4 KiB until there is no more room; the ring's `cancel` is set.
fn fill(writer: &mut RingWriter) -> u64 {
    let data = [7; 4000];
    loop {
        if let Err(error) = writer.append(&HEAD, &[], [(0, &data[..])].into_iter(), no_regions()) {
            assert_eq!(error, AppendError::Cancelled);
            return writer.next_seq();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn records_survive_wrap_around(records in prop::collection::vec((any_record(9000), any::<bool>()), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        let (mut writer, mut reader) = ring(&path, CAPACITY);
        let mut waiting: Vec<&Record> = Vec::new();
        for (record, drain) in &records {
            if *drain || waiting.len() > 1 {
                for expected in waiting.drain(..) {
                    prop_assert_eq!(&Record::of(&reader.next().unwrap()), expected);
                }
                prop_assert!(reader.next().is_none());
                reader.release(reader.position());
            }
            prop_assert!(record.append_to(&mut writer).is_ok());
            waiting.push(record);
        }
        let image = Ring::open(&path).unwrap().unwrap();
        prop_assert_eq!(image.identity(), &IDENTITY);
        let left: Vec<Record> = image.records().map(|view| Record::of(&view)).collect();
        prop_assert_eq!(left.iter().collect::<Vec<_>>(), waiting);
    }

    #[test]
    fn a_hostile_file_never_panics(
        flips in prop::collection::vec((0usize..400, any::<u8>()), 1..6),
        cut in 0usize..2000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        let (mut writer, _reader) = ring(&path, CAPACITY);
        for i in 0..20 {
            sample(i).append_to(&mut writer).unwrap();
        }
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, value) in flips {
            // The header, then the records.
            bytes[if at < 200 { at * 2 } else { (64 << 10) + at - 200 }] = value;
        }
        if cut < 1000 {
            bytes.truncate(bytes.len() - cut * 100);
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(Some(image)) = Ring::open(&path) {
            for view in image.records() {
                let _ = Record::of(&view);
            }
        }
    }
}

#[test]
fn what_exceeds_a_limit_is_refused_and_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut reader) = ring(&dir.path().join("ring"), 8 << 20);
    let args = [0; ARGS_MAX + 1];
    let refused = writer.append(&HEAD, &args, no_regions(), no_regions());
    assert_eq!(refused, Err(AppendError::TooManyArgs(ARGS_MAX + 1)));
    let many = std::iter::repeat_n((0, &[][..]), REGIONS_MAX + 1);
    let refused = writer.append(&HEAD, &[], many, no_regions());
    assert_eq!(refused, Err(AppendError::TooManyRegions(REGIONS_MAX + 1)));
    let data = vec![0; RECORD_BYTES_MAX];
    let refused = writer.append(&HEAD, &[], no_regions(), [(0, &data[..])].into_iter());
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
    assert!(reader.next().is_none());
    let fits = &data[..RECORD_BYTES_MAX - 40];
    assert_eq!(writer.append(&HEAD, &[], no_regions(), [(0, fits)].into_iter()), Ok(0));
    assert_eq!(reader.next().unwrap().ring_bytes(), RECORD_BYTES_MAX);
}

#[test]
fn regions_that_change_between_the_walks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut reader) = ring(&dir.path().join("ring"), CAPACITY);
    let walks = Cell::new(0);
    let changing = [0].iter().map(|_| {
        walks.set(walks.get() + 1);
        (0, &[0u8; 64][..walks.get() * 9])
    });
    assert_eq!(writer.append(&HEAD, &[], changing, no_regions()), Err(AppendError::UnstableRegions));
    assert!(reader.next().is_none());
}

#[test]
fn a_full_ring_takes_records_again_once_released() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut reader) = ring(&dir.path().join("ring"), CAPACITY);
    let before = fill(&mut writer);
    assert!(before >= 15, "{before}");
    while reader.next().is_some() {}
    assert_eq!(fill(&mut writer), before, "read, but not released");
    reader.release(reader.position());
    assert_eq!(fill(&mut writer), 2 * before);
}

#[test]
fn a_waiting_producer_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    let ring = Ring::create(&dir.path().join("ring"), CAPACITY, &IDENTITY).unwrap();
    let (mut writer, mut reader) = ring.split(0, Arc::clone(&cancel));
    let count = 20_000;
    let producer = std::thread::spawn(move || (0..count).all(|i| sample(i).append_to(&mut writer) == Ok(i)));
    let mut seen = 0;
    while seen < count {
        match reader.next() {
            Some(view) => {
                assert_eq!(Record::of(&view), sample(seen));
                seen += 1;
            }
            None => std::thread::yield_now(),
        }
        reader.release(reader.position());
    }
    assert!(producer.join().unwrap());
    cancel.store(true, Ordering::Relaxed);
}

#[test]
fn a_capacity_that_cannot_be_mapped_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for capacity in [0, 4096, CAPACITY + 4096, 2 << 30] {
        let made = Ring::create(&dir.path().join("ring"), capacity, &IDENTITY);
        assert!(matches!(made, Err(LogError::Config(_))), "{capacity}");
    }
}
