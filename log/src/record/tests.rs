//! Records: what is written is read, and nothing else is ever taken for one.

use proptest::prelude::*;

use super::*;

const ID: RequestId =
    RequestId { session: SessionId { partition: 3, opened: 1 << 40 }, number: 17 };
const RESULT: SessionResult = SessionResult {
    session_partition: 3,
    session_opened: 9,
    number: 4,
    epoch: 2,
    seq: 1 << 35,
    answered: 1,
    result: -5,
};

fn build(body: &Body<'_>) -> Vec<u8> {
    let len = HEADER_BYTES + body.archived_len();
    let mut out = vec![0; len];
    let (head, rest) = out.split_first_chunk_mut::<HEADER_BYTES>().unwrap();
    let meta = Meta { seq: 1 << 33, epoch: 6, commit: (1 << 33) - 5, answered: Answered::Length };
    Header::fill(head, &meta, 11, body.kind());
    body.write(rest);
    let crc = crc32fast::hash(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out[..4].copy_from_slice(&(len as u32).to_le_bytes());
    out
}

fn bodies<'a>(key: &'a [u8], value: &'a [u8], results: &'a [SessionResult]) -> Vec<Body<'a>> {
    let put = |expires_ms, id| Body::Put { key, value, expires_ms, id };
    vec![
        put(0, None),
        put(123_456, None),
        put(0, Some(ID)),
        put(123_456, Some(ID)),
        Body::Remove { key, id: None },
        Body::Remove { key, id: Some(ID) },
        Body::Clear,
        Body::SessionOpen { client: (1 << 127) + 42 },
        Body::SessionEnd { session: ID.session },
        Body::Sessions { results },
        Body::TakeOver,
    ]
}

fn assert_same(record: &Record<'_>, body: &Body<'_>) {
    assert_eq!(record.header().kind, body.kind());
    let fields = record.fields();
    match *body {
        Body::Put { key, value, expires_ms, id } => {
            assert_eq!((fields.key, fields.value), (key, value));
            assert_eq!((fields.expires_ms, fields.id), (expires_ms, id));
        }
        Body::Remove { key, id } => {
            assert_eq!((fields.key, fields.id), (key, id));
            assert!(fields.value.is_empty());
        }
        Body::SessionOpen { client } => assert_eq!(record.session_client(), Some(client)),
        Body::SessionEnd { session } => assert_eq!(record.ended_session(), Some(session)),
        Body::Sessions { results } => assert!(record.session_results().eq(results.iter().copied())),
        Body::Clear | Body::TakeOver => assert!(record.body().is_empty()),
    }
    let key = match body {
        Body::Put { key, .. } | Body::Remove { key, .. } => *key,
        _ => &[],
    };
    assert_eq!(key_of(record.bytes()), key);
}

#[test]
fn every_kind_comes_back_as_it_was_written() {
    for (key, value) in [(&b"key"[..], &b"value"[..]), (b"", b""), (b"k", b""), (b"", b"v")] {
        for results in [&[RESULT, RESULT][..], &[]] {
            for body in bodies(key, value, results) {
                let bytes = build(&body);
                let record = Unchecked::new(&bytes).check().unwrap();
                assert_same(&record, &body);
                assert_same(&Unchecked::new(&bytes).check_crc().unwrap(), &body);
                let header = record.header();
                assert_eq!(record.version(), Version { epoch: 6, seq: 1 << 33 });
                assert_eq!((header.commit(), header.partition), ((1 << 33) - 5, 11));
                assert_eq!(header.answered, Answered::Length);
            }
        }
    }
}

#[test]
fn sizes_are_what_the_format_says() {
    let (key, value) = ([1; 16], [2; 64]);
    let sizes: Vec<usize> = bodies(&key, &value, &[]).iter().map(|b| build(b).len()).collect();
    assert_eq!(sizes[..4], [128, 136, 144, 152]);
    assert_eq!(sizes[4..9], [56, 72, 32, 48, 44]);
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    for body in bodies(b"a key", b"some value", &[RESULT]) {
        let bytes = build(&body);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Unchecked::new(&damaged).check().is_err(), "{body:?} bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(Unchecked::new(&bytes[..cut]).check().is_err(), "{body:?} cut at {cut}");
        }
    }
}

/// A good checksum says nothing about the archive: whoever makes one can write any body.
#[test]
fn a_checksum_over_a_crafted_body_does_not_make_it_a_record() {
    for body in bodies(b"a key", b"some value", &[RESULT, RESULT]) {
        let bytes = build(&body);
        for at in HEADER_BYTES..bytes.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut crafted = bytes.clone();
                crafted[at] = byte;
                let crc = crc32fast::hash(&crafted[8..]);
                crafted[4..8].copy_from_slice(&crc.to_le_bytes());
                let checks = [Unchecked::check, Unchecked::check_crc];
                for record in
                    checks.into_iter().filter_map(|check| check(Unchecked::new(&crafted)).ok())
                {
                    // Whatever it says, it is inside.
                    let fields = record.fields();
                    assert!(fields.key.len() + fields.value.len() <= crafted.len());
                    assert!(record.session_results().count() <= crafted.len());
                }
            }
        }
    }
}

fn rounds(n: u32) -> ProptestConfig {
    let cases = if cfg!(miri) { 4 } else { n };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(rounds(2000))]

    #[test]
    fn random_bytes_are_no_record_and_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), fix in any::<bool>(), kind in 1u8..12) {
        prop_assert!(Unchecked::new(&bytes).check().is_err());
        let _ = key_of(&bytes);
        if fix && bytes.len() >= HEADER_BYTES {
            // A random body behind a header that is right in everything.
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            bytes[26] = kind;
            bytes[27] = RECORD_VERSION;
            let crc = crc32fast::hash(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            if let Ok(record) = Unchecked::new(&bytes).check_crc() {
                prop_assert!(record.fields().key.len() <= bytes.len());
            }
            prop_assert!(key_of(&bytes).len() <= bytes.len());
        }
    }

    #[test]
    fn a_put_is_what_rkyv_makes_of_it(
        key in proptest::collection::vec(any::<u8>(), 0..100),
        value in proptest::collection::vec(any::<u8>(), 0..2000),
        expires_ms in prop_oneof![Just(0), any::<u64>()],
        id in proptest::option::of((any::<u32>(), any::<u64>(), any::<u32>())),
    ) {
        let id = id.map(|(partition, opened, number)| RequestId { session: SessionId { partition, opened }, number });
        let body = Body::Put { key: &key, value: &value, expires_ms, id };
        let (mut ours, mut theirs) = (vec![0; body.archived_len()], vec![0; body.archived_len()]);
        body.write(&mut ours);
        super::body::archive_put((&key, &value), expires_ms, id, &mut theirs);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn any_key_and_value_come_back(key in proptest::collection::vec(any::<u8>(), 0..100), value in proptest::collection::vec(any::<u8>(), 0..2000), which in 0usize..6, cut in any::<proptest::sample::Index>()) {
        let body = bodies(&key, &value, &[])[which];
        let bytes = build(&body);
        prop_assert_eq!(bytes.len(), HEADER_BYTES + body.archived_len());
        assert_same(&Unchecked::new(&bytes).check().unwrap(), &body);
        prop_assert!(Unchecked::new(&bytes[..cut.index(bytes.len())]).check().is_err());
    }
}

/// A `Sessions` record that is written a piece at a time has the bytes of one that is archived whole.
#[test]
fn a_sessions_record_in_pieces_is_the_same() {
    for n in [0usize, 1, 3, 65] {
        let result = |i: usize| SessionResult {
            session_partition: i as u32,
            session_opened: u64::MAX - i as u64,
            number: 7 * i as u32,
            epoch: 0x0102_0304,
            seq: 0x0506_0708_090a_0b0c,
            answered: 2,
            result: -(i as i64),
        };
        let results: Vec<SessionResult> = (0..n).map(result).collect();
        let body = Body::Sessions { results: &results };
        let mut whole = vec![0; body.archived_len()];
        body.write(&mut whole);
        let mut pieces = vec![0; n * SessionResult::BYTES];
        super::write_results(&results, &mut pieces);
        pieces.extend(super::sessions_root(n));
        assert_eq!(pieces, whole);
    }
}
