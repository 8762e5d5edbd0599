//! The bytes of docs/formats.md. Later versions of the program read them: no field changes its place without a new format.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use firebrick_log::manifest::{Incarnation, Listed, Manifest};
use firebrick_log::segment::{SegmentHead, SegmentKind, SegmentName};
use firebrick_log::*;

/// Fields of so many bytes, little endian.
fn le(fields: &[(usize, u64)]) -> Vec<u8> {
    fields.iter().flat_map(|&(len, value)| value.to_le_bytes()[..len].to_vec()).collect()
}

fn crc(bytes: &[u8]) -> u64 {
    u64::from(crc32fast::hash(bytes))
}

#[test]
fn a_record_has_the_bytes_of_its_diagram() {
    let mut log = Log::in_heap(config(Durability::Memory));
    let loc = log.append(&Meta { epoch: 3, ..meta(9, 7) }, &put(b"key", b"value"), Room::Write);
    let written = log.record(loc.unwrap()).unwrap().bytes().to_vec();
    let header =
        [(8, 9), (4, 3), (4, u64::from(PARTITION)), (2, 2), (1, 1), (1, 1), (1, 0), (3, 0)];
    let back = |bytes: i64| (4, bytes as u64);
    // Pointers count from where they lie.
    let root = le(&[back(-8), (4, 3), back(-13), (4, 5)]);
    let rest = [&le(&header)[..], b"keyvalue", &root].concat();
    assert_eq!(written, [le(&[(4, 56), (4, crc(&rest))]), rest].concat());
}

#[test]
fn kinds_of_records_have_their_numbers() {
    let known = [
        Kind::Put,
        Kind::PutX,
        Kind::PutId,
        Kind::PutXId,
        Kind::Remove,
        Kind::RemoveId,
        Kind::Clear,
        Kind::SessionOpen,
        Kind::SessionEnd,
        Kind::Sessions,
        Kind::TakeOver,
    ];
    for byte in 0..=u8::MAX {
        let kind = usize::from(byte).checked_sub(1).and_then(|at| known.get(at));
        assert_eq!(Kind::parse(byte), kind.copied(), "{byte}");
    }
}

#[test]
fn a_segments_first_page_has_the_bytes_of_its_diagram() {
    for (kind, number) in [(SegmentKind::Tail, 1), (SegmentKind::Settled, 2)] {
        let name = SegmentName { kind, n: 5 };
        let head = SegmentHead { partition: 7, name, made_at_seq: 1 << 40, bytes: 1 << 20 };
        let fields = le(&[(4, 1), (4, 7), (8, 5), (8, 1 << 40), (8, 1 << 20), (1, number), (3, 0)]);
        let page = [&b"FBSEGMNT"[..], &fields].concat();
        assert_eq!(head.encode().to_vec(), [&page[..], &le(&[(4, crc(&page))])].concat());
    }
}

#[test]
fn a_manifest_has_the_bytes_of_its_diagram() {
    let version = |epoch, seq| Version { epoch, seq };
    let settled = SegmentName { kind: SegmentKind::Settled, n: 24 };
    let tail = SegmentName { kind: SegmentKind::Tail, n: 26 };
    let manifest = Manifest {
        table: 1,
        partition: 2,
        incarnation: Incarnation { boot_id: [3; 16], nonce: 4, nonce_before: 5, brick: 6 },
        complete: false,
        intact: true,
        dropped: 7,
        history: vec![version(16, 17), version(18, 19)],
        ancestors: vec![20],
        lowest: 8,
        below: version(9, 10),
        next_tail: 11,
        next_settled: 12,
        flushed: version(13, 14),
        settled: vec![Listed { name: settled, end: 25 }, Listed { name: tail, end: 27 }],
    };
    let identity = [(8, 4), (8, 5), (8, 6), (8, 7), (8, 8), (8, 9), (8, 10), (8, 11), (8, 12)];
    let counts = [(8, 13), (8, 14), (4, 2), (4, 1), (4, 2), (4, 0)];
    let lists = [(4, 16), (8, 17), (4, 18), (8, 19), (4, 20), (8, 2), (8, 24), (8, 25), (8, 1)];
    let rest = [
        le(&[(4, 1), (4, 2), (4, 2)]),
        vec![3; 16],
        le(&identity),
        le(&counts),
        le(&lists),
        le(&[(8, 26), (8, 27)]),
    ]
    .concat();
    let head = le(&[(4, 1), (4, rest.len() as u64 + 20), (4, crc(&rest))]);
    let file = [&b"FBMANIFE"[..], &head, &rest].concat();
    assert_eq!(manifest.encode(), file);
    assert_eq!(Manifest::decode(&file), Ok(manifest));
}
