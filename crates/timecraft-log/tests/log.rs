//! Whole logs: written, read, followed, searched.

mod support;

use proptest::prelude::*;
use std::time::Duration;
use support::{PROCESS, Record, any_record, read_all, read_log, sample, samples, small_config, start, write_log};
use timecraft_log::{
    BlockFilter, CALL_START, Compression, DIGEST_LEN, LogConfig, LogError, LogReader, Output, digest_sent, recover,
};

#[test]
fn what_was_written_is_read() {
    for compression in [Compression::None, Compression::Lz4] {
        let dir = tempfile::tempdir().unwrap();
        write_log(LogConfig { compression, ..LogConfig::new(dir.path(), PROCESS) }, &samples(10_000));
        assert!(read_log(dir.path()) == samples(10_000));
        assert!(!dir.path().join("ring").exists() && !dir.path().join("ring.buf").exists());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn any_log_round_trips(records in prop::collection::vec(any_record(3000), 1..100)) {
        let dir = tempfile::tempdir().unwrap();
        write_log(small_config(dir.path()), &records);
        prop_assert!(read_log(dir.path()) == records);
    }
}

#[test]
fn many_segments_are_one_log() {
    let dir = tempfile::tempdir().unwrap();
    write_log(small_config(dir.path()), &samples(5_000));
    let mut reader = LogReader::open(dir.path()).unwrap();
    assert!(reader.segments().len() > 5, "{} segments", reader.segments().len());
    assert!(reader.segments().iter().all(|segment| segment.sealed));
    assert_eq!(reader.last_seq().unwrap(), Some(4_999));
    let (found, error) = read_all(&mut reader);
    assert!(error.is_none() && found.len() == 5_000);
    let mut next_seq = 0;
    for block in reader.blocks() {
        let block = block.unwrap();
        assert_eq!(block.base_seq, next_seq);
        next_seq = block.last_seq() + 1;
    }
    assert_eq!(next_seq, 5_000);
}

#[test]
fn every_record_is_found_by_number_and_by_time() {
    let dir = tempfile::tempdir().unwrap();
    write_log(small_config(dir.path()), &samples(2_000));
    let mut reader = LogReader::open(dir.path()).unwrap();
    for seq in (0..2_000).rev().chain((0..2_000).step_by(37)) {
        reader.seek(seq).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().seq(), seq);
    }
    for seq in (0..2_000u64).rev().step_by(13) {
        for time_ns in [seq * 1_000, (seq * 1_000).saturating_sub(999)] {
            reader.seek_time(time_ns).unwrap();
            assert_eq!(reader.next().unwrap().unwrap().seq(), seq);
        }
    }
    reader.seek(5_000).unwrap();
    assert!(reader.next().unwrap().is_none());
    reader.seek_time(u64::MAX).unwrap();
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn times_that_are_equal_over_blocks_are_found_at_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let records: Vec<Record> =
        (0..1_000).map(|i| Record { time_ns: if i < 100 { 5 } else { 9 }, ..sample(i) }).collect();
    write_log(small_config(dir.path()), &records);
    let mut reader = LogReader::open(dir.path()).unwrap();
    for (time_ns, seq) in [(0, 0), (5, 0), (6, 100), (9, 100)] {
        reader.seek_time(time_ns).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().seq(), seq);
    }
}

#[test]
fn a_filter_skips_blocks_and_no_match() {
    let dir = tempfile::tempdir().unwrap();
    let records: Vec<Record> = (0..3_000).map(|i| Record { call: (i / 1_000) as u16, ..sample(i) }).collect();
    write_log(small_config(dir.path()), &records);
    let mut reader = LogReader::open(dir.path()).unwrap();
    reader.set_filter(Some(BlockFilter::of_calls(&[1])));
    let (found, error) = read_all(&mut reader);
    assert!(error.is_none());
    assert_eq!(found.iter().filter(|(_, record)| record.call == 1).count(), 1_000);
    assert!(found.len() < 1_200, "{} read", found.len());
}

#[test]
fn a_live_log_can_be_followed() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { flush_interval: Duration::from_millis(1), ..small_config(dir.path()) };
    let (mut ring, handle) = start(config);
    sample(0).append_to(&mut ring).unwrap();
    while handle.stats().next_seq_written < 1 {
        std::thread::yield_now();
    }
    let mut reader = LogReader::open(dir.path()).unwrap();
    let mut seen = 0;
    for i in 1..3_000 {
        sample(i).append_to(&mut ring).unwrap();
        while let Some(view) = reader.next().unwrap() {
            assert_eq!(Record::of(&view), sample(seen));
            seen += 1;
        }
    }
    handle.finish().unwrap();
    while let Some(view) = reader.next().unwrap() {
        assert_eq!(Record::of(&view), sample(seen));
        seen += 1;
    }
    assert_eq!(seen, 3_000);
    assert!(reader.segments().len() > 2);
}

#[test]
fn a_finished_log_is_continued_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    for epoch in 0..3 {
        let (mut ring, handle) = start(LogConfig { epoch, ..small_config(dir.path()) });
        let from = u64::from(epoch) * 100;
        for i in from..from + 100 {
            assert_eq!(sample(i).append_to(&mut ring), Ok(i));
        }
        assert_eq!(handle.finish().unwrap().last_seq, Some(from + 99));
    }
    assert_eq!(read_log(dir.path()), samples(300));
    // The hash runs on over epochs: it is that of the same records written at once.
    let at_once = tempfile::tempdir().unwrap();
    write_log(small_config(at_once.path()), &samples(300));
    let chain = |dir| LogReader::open(dir).unwrap().blocks().last().unwrap().unwrap().chain;
    assert_eq!(chain(dir.path()), chain(at_once.path()));
}

#[test]
fn a_log_has_one_writer_and_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ring, handle) = start(small_config(dir.path()));
    let again = timecraft_log::start(small_config(dir.path()), std::sync::Arc::default());
    assert!(matches!(again, Err(LogError::Busy(_))), "{again:?}");
    assert!(matches!(recover(dir.path()), Err(LogError::Busy(_))));
    sample(0).append_to(&mut ring).unwrap();
    handle.finish().unwrap();
    let other = LogConfig { process: [9; 16], ..small_config(dir.path()) };
    let other = timecraft_log::start(other, std::sync::Arc::default());
    assert!(matches!(other, Err(LogError::OtherProcess(_))), "{other:?}");
}

#[test]
fn a_digest_stands_for_long_output() {
    let dir = tempfile::tempdir().unwrap();
    let long = Record { sent: vec![(1, vec![1; 100]), (300, vec![2; 100])], ..sample(0) };
    let short = Record { sent: vec![(1, vec![1; 64])], ..sample(1) };
    let control = Record { call: CALL_START, ..long.clone() };
    let records = [long.clone(), short.clone(), control.clone()];
    write_log(LogConfig { output: Output::Digest, ..small_config(dir.path()) }, &records);
    let (digest, total) = digest_sent(long.sent.iter().map(|(ptr, bytes)| (*ptr, &bytes[..])));
    let mut reader = LogReader::open(dir.path()).unwrap();
    let view = reader.next().unwrap().unwrap();
    assert!(view.digested());
    assert_eq!(digest.len(), DIGEST_LEN);
    let expected = Record { sent: vec![(total as u32, digest.to_vec())], ..long };
    assert_eq!(Record::of(&view), expected);
    let view = reader.next().unwrap().unwrap();
    assert!(!view.digested());
    assert_eq!(Record::of(&view), short);
    assert_eq!(Record::of(&reader.next().unwrap().unwrap()), control);
}

#[test]
fn records_of_all_sizes_share_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = 1u64;
    let records: Vec<Record> = (0..40)
        .map(|i| {
            let len = [0, 100, 70_000, 900, 1_000_000][i % 5];
            let noise = (0..len).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                if i % 2 == 0 { (state >> 56) as u8 } else { 7 }
            });
            Record { written: vec![(0, noise.collect()), (8, vec![1, 0, 0, 0])], ..sample(i as u64) }
        })
        .collect();
    let config = LogConfig { ring_bytes: 4 << 20, ..LogConfig::new(dir.path(), PROCESS) };
    write_log(config, &records);
    assert!(read_log(dir.path()) == records);
}
