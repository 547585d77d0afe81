//! Records through blocks: whatever goes in comes out, and nothing else is taken for a block.

mod support;

use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use support::{PROCESS, Record, any_record, samples};
use timecraft_log::{BLOCK_HEADER_LEN, BlockEncoder, BlockInfo, Compression, Ring, RingIdentity, decode_block};

const FIRST_SEQ: u64 = 7;

/// One block with all of `records`.
fn block_of(records: &[Record], compression: Compression) -> (BlockInfo, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let identity = RingIdentity { process: PROCESS, epoch: 0, digest: false };
    let ring = Ring::create(&dir.path().join("ring"), 1 << 20, &identity).unwrap();
    let (mut writer, mut reader) = ring.split(FIRST_SEQ, Arc::new(AtomicBool::new(false)));
    let mut encoder = BlockEncoder::new(compression, 1 << 20, FIRST_SEQ, 0);
    for record in records {
        record.append_to(&mut writer).unwrap();
        encoder.push(&reader.next().unwrap());
    }
    encoder.finish().unwrap()
}

/// As `block_of`, header and all.
fn bytes_of(records: &[Record], compression: Compression) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    support::write_log(
        timecraft_log::LogConfig { compression, ..timecraft_log::LogConfig::new(dir.path(), PROCESS) },
        records,
    );
    std::fs::read(dir.path().join("000000.tcl")).unwrap()[timecraft_log::SEGMENT_HEADER_LEN..].to_vec()
}

fn decoded(info: &BlockInfo, stored: &[u8]) -> Vec<Record> {
    let mut decoder = timecraft_log::BlockDecoder::default();
    decoder.begin(info, stored).unwrap();
    let mut found = Vec::new();
    while let Some(view) = decoder.next().unwrap() {
        assert_eq!(view.seq(), FIRST_SEQ + found.len() as u64);
        found.push(Record::of(&view));
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn blocks_round_trip(records in prop::collection::vec(any_record(100), 1..40), lz4: bool) {
        let compression = if lz4 { Compression::Lz4 } else { Compression::None };
        let (info, stored) = block_of(&records, compression);
        prop_assert_eq!(info.last_seq(), FIRST_SEQ + records.len() as u64 - 1);
        prop_assert_eq!(info.first_time_ns, records[0].time_ns);
        for record in &records {
            prop_assert!(info.call_filter & 1 << (record.call % 64) != 0);
        }
        prop_assert_eq!(decoded(&info, &stored), records);
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let refused = decode_block(&bytes, |_| {}).is_err();
        prop_assert!(refused);
    }

    /// Past the checksums, as a fuzzer would go: a body of any bytes under a header that fits it.
    #[test]
    fn arbitrary_bodies_never_panic(
        body in prop::collection::vec(prop_oneof![0u8..64, any::<u8>()], 1..300),
        record_count in 1u32..20,
    ) {
        let len = body.len() as u32;
        let stored_crc = crc32c::crc32c(&body);
        let info = BlockInfo { stored_len: len, raw_len: len, record_count, stored_crc, ..BlockInfo::default() };
        let mut decoder = timecraft_log::BlockDecoder::default();
        decoder.begin(&info, &body).unwrap();
        while let Ok(Some(view)) = decoder.next() {
            let _ = Record::of(&view);
        }
    }
}

#[test]
fn a_block_in_a_file_decodes_by_itself() {
    let bytes = bytes_of(&samples(50), Compression::Lz4);
    let mut found = Vec::new();
    let info = decode_block(&bytes, |view| found.push(Record::of(view))).unwrap();
    assert_eq!(found, samples(50));
    assert_eq!(info.record_count, 50);
    let end = BLOCK_HEADER_LEN + info.stored_len as usize;
    assert!(decode_block(&bytes[..end - 1], |_| {}).is_err());
}

/// The goal of the encoding: a loop of clock reads with honest jitter.
#[test]
fn a_clock_read_takes_few_bytes() {
    let mut time_ns = 5_000_000;
    let mut jitter = 1u64;
    let records: Vec<Record> = (0..10_000)
        .map(|_| {
            jitter = jitter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            time_ns += 70 + (jitter >> 33) % 61;
            let clock = (1_700_000_000_000_000_000 + time_ns).to_le_bytes().to_vec();
            Record { call: 5, errno: 0, time_ns, args: vec![1, 0, 4096], written: vec![(4096, clock)], sent: vec![] }
        })
        .collect();
    let (info, stored) = block_of(&records, Compression::Lz4);
    let bytes = stored.len() + BLOCK_HEADER_LEN;
    assert!(bytes <= 3 * records.len(), "{bytes} bytes");
    assert_eq!(decoded(&info, &stored), records);
}

/// The hash tells contents apart, not times, and does not depend on where blocks end.
#[test]
fn the_chain_pins_content() {
    let records = samples(20);
    let chain = |records: &[Record]| block_of(records, Compression::None).0.chain;
    let mut later = records.clone();
    for record in &mut later {
        record.time_ns += 1;
    }
    assert_eq!(chain(&records), chain(&later));
    let mut other = records.clone();
    other[3].args[0] += 1;
    assert_ne!(chain(&records), chain(&other));
}
