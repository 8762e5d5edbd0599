//! Over a million damaged records, manifests and first pages: an error, or what was written; never a
//! panic. Cheap cases: something good, with a few bytes changed, cut off or mixed with another.

use crate::manifest::{Incarnation, Listed, Manifest};
use crate::record::{
    Answered, Body, HEADER_BYTES, Header, Meta, RECORD_VERSION, Record, RequestId, SessionId,
    SessionResult, Unchecked, Version, key_of,
};
use crate::segment::{SegmentHead, SegmentKind, SegmentName};

/// The same cases each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Changes a few bytes, moves a few from another, or cuts.
    fn damage(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(3) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(8) {
                0 => bytes.truncate(at),
                1 => {
                    let from = self.below(other.len());
                    let len = (other.len() - from).min(bytes.len() - at).min(1 + self.below(12));
                    bytes[at..at + len].copy_from_slice(&other[from..from + len]);
                }
                2 => bytes[at] = self.next() as u8,
                3 => bytes[at] = *[0, 1, 0x7f, 0x80, 0xff].get(self.below(5)).unwrap_or(&0),
                _ => bytes[at] ^= 1 << self.below(8),
            }
        }
    }
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn records() -> Vec<Vec<u8>> {
    let id = Some(RequestId { session: SessionId { partition: 3, opened: 1 << 40 }, number: 17 });
    let result = SessionResult {
        session_partition: 3,
        session_opened: 9,
        number: 4,
        epoch: 2,
        seq: 1 << 35,
        answered: 1,
        result: -5,
    };
    let three = [result; 3];
    let mut bodies = vec![
        Body::Clear,
        Body::TakeOver,
        Body::SessionOpen { client: 1 << 100 },
        Body::SessionEnd { session: SessionId { partition: 1, opened: 2 } },
        Body::Sessions { results: &[] },
        Body::Sessions { results: &three },
    ];
    for (key, value) in [(&b""[..], &b""[..]), (b"key", b"value"), (&[7; 40], &[8; 90])] {
        for id in [None, id] {
            bodies.push(Body::Put { key, value, expires_ms: 0, id });
            bodies.push(Body::Put { key, value, expires_ms: 99, id });
            bodies.push(Body::Remove { key, id });
        }
    }
    let build = |body: &Body<'_>| {
        let len = HEADER_BYTES + body.archived_len();
        let mut out = vec![0; len];
        let (head, rest) = out.split_first_chunk_mut::<HEADER_BYTES>().expect("a header");
        let meta = Meta { seq: 1 << 33, epoch: 6, commit: 1 << 33, answered: Answered::Length };
        Header::fill(head, &meta, 11, body.kind());
        body.write(rest);
        seal(&mut out, len as u32);
        out
    };
    bodies.iter().map(build).collect()
}

/// A length and the checksum that goes with it, as far as there are bytes.
fn seal(bytes: &mut [u8], len: u32) {
    if bytes.len() >= HEADER_BYTES {
        put_u32(bytes, 0, len);
        let end = (len as usize).clamp(8, bytes.len());
        let crc = crc32fast::hash(&bytes[8..end]);
        put_u32(bytes, 4, crc);
    }
}

/// Whatever it says, it is inside.
fn look(record: &Record<'_>, bytes: &[u8]) {
    let fields = record.fields();
    assert!(record.bytes().len() <= bytes.len());
    assert!(fields.key.len() + fields.value.len() <= record.body().len());
    assert!(record.session_results().count() <= record.body().len());
    let _ = (record.ended_session(), record.session_client(), record.header().commit());
}

#[test]
#[ignore = "a million cases: run by scripts/test"]
fn a_million_damaged_records_are_an_error_or_what_was_written() {
    let good = records();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut bytes, mut taken) = (Vec::new(), 0);
    for _ in 0..1_100_000 {
        let was = &good[random.below(good.len())];
        bytes.clone_from(was);
        let other = random.below(good.len());
        random.damage(&mut bytes, &good[other]);
        let sealed = random.below(2) == 0 && bytes.len() >= HEADER_BYTES;
        if sealed {
            // Whoever can make a checksum can write any header and any body.
            let len = bytes.len() as u32 - [0, 0, 0, 1, 8][random.below(5)].min(bytes.len() as u32);
            bytes[27] = RECORD_VERSION;
            if random.below(2) == 0 {
                bytes[26] = 1 + random.below(11) as u8;
            }
            seal(&mut bytes, len);
        }
        assert!(key_of(&bytes).len() <= bytes.len());
        let shaped = Unchecked::new(&bytes).check_crc();
        let checked = Unchecked::new(&bytes).check();
        if let Ok(record) = &shaped {
            look(record, &bytes);
        }
        if let Ok(record) = &checked {
            look(record, &bytes);
            assert!(shaped.is_ok(), "rkyv takes what the shape refuses: {bytes:02x?}");
            assert!(sealed || record.bytes() == &was[..], "not what was written: {bytes:02x?}");
            taken += 1;
        }
    }
    assert!(taken > 50_000, "only {taken} passed the checksum");
}

fn manifests() -> Vec<Manifest> {
    let small = Manifest::new(1, 2, Incarnation::default());
    let mut full = small.clone();
    full.history = (1..20).map(|n| Version { epoch: n, seq: u64::from(n) * 10 }).collect();
    full.ancestors = vec![4, 5];
    let listed = |n| Listed { name: SegmentName { kind: SegmentKind::Settled, n }, end: 4096 * n };
    full.settled = (1..9).map(listed).collect();
    (full.complete, full.intact, full.lowest) = (true, true, 7);
    vec![small, full]
}

#[test]
#[ignore = "a million cases: run by scripts/test"]
fn a_million_damaged_manifests_and_first_pages_are_refused_or_whole() {
    let manifests = manifests();
    let encoded: Vec<Vec<u8>> = manifests.iter().map(Manifest::encode).collect();
    let name = SegmentName { kind: SegmentKind::Tail, n: 77 };
    let head = SegmentHead { partition: 9, name, made_at_seq: 1 << 50, bytes: 1 << 20 };
    let page = head.encode();
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut bytes = Vec::new();
    for case in 0..1_100_000 {
        let sealed = random.below(2) == 0;
        if case % 2 == 0 {
            bytes.clear();
            bytes.extend_from_slice(&page);
            random.damage(&mut bytes, &encoded[1]);
            if sealed && bytes.len() >= 48 {
                let crc = crc32fast::hash(&bytes[..44]);
                put_u32(&mut bytes, 44, crc);
            }
            if let Ok(found) = SegmentHead::decode(&bytes) {
                assert!(sealed || found == head, "{bytes:02x?}");
                assert_eq!(SegmentName::parse(&found.name.to_string()), Some(found.name));
            }
            continue;
        }
        let which = random.below(2);
        bytes.clone_from(&encoded[which]);
        random.damage(&mut bytes, &encoded[1 - which]);
        if sealed && bytes.len() >= 20 {
            let len = bytes.len() as u32;
            put_u32(&mut bytes, 12, len);
            let crc = crc32fast::hash(&bytes[20..]);
            put_u32(&mut bytes, 16, crc);
        }
        if let Ok(found) = Manifest::decode(&bytes) {
            assert!(sealed || found == manifests[which], "{bytes:02x?}");
            let _ = found.epoch_of(random.next());
        }
    }
}
