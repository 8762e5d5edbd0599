//! Whatever is sent arrives as it was, and whatever arrives is never a panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Hello, Known, Limits, Message, Welcome, decode};
use crate::maps::{
    BrickEntry, Durability, GroupDelta, MapDelta, Maps, Replicas, TableMap, TableOptions,
};
use crate::op::{
    Answer, Condition, ExpireWhen, Expiry, Failure, Numbered, Op, Request, RequestId, Route,
    SessionId, Version,
};

fn version() -> impl Strategy<Value = Version> {
    (any::<u32>(), any::<u64>()).prop_map(|(epoch, seq)| Version { epoch, seq })
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::Always),
        Just(Condition::Absent),
        Just(Condition::Present),
        version().prop_map(Condition::Version),
    ]
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![Just(Expiry::Never), Just(Expiry::Keep), any::<u64>().prop_map(Expiry::At)]
}

fn session() -> impl Strategy<Value = SessionId> {
    (any::<u32>(), any::<u64>()).prop_map(|(partition, opened)| SessionId { partition, opened })
}

/// Bytes are leaked: a strategy cannot lend them, and the tests are short.
fn bytes() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..40).prop_map(|b| &*b.leak())
}

fn op() -> impl Strategy<Value = Op<'static>> {
    prop_oneof![
        Just(Op::Get),
        Just(Op::Look),
        (bytes(), expiry(), condition(), any::<bool>()).prop_map(
            |(value, expiry, condition, want_old)| Op::Put { value, expiry, condition, want_old }
        ),
        (condition(), any::<bool>())
            .prop_map(|(condition, want_old)| Op::Remove { condition, want_old }),
        any::<i64>().prop_map(|by| Op::Increment { by }),
        (-1e18..1e18f64).prop_map(|by| Op::IncrementFloat { by }),
        Just(Op::IncrementFloat { by: f64::INFINITY }),
        bytes().prop_map(|value| Op::Append { value }),
        (any::<u32>(), bytes()).prop_map(|(offset, value)| Op::SetRange { offset, value }),
        (any::<u64>(), any::<[bool; 4]>()).prop_map(|(at_ms, [nx, xx, gt, lt])| Op::Expire {
            at_ms,
            when: ExpireWhen { nx, xx, gt, lt }
        }),
        (any::<u64>(), any::<u32>()).prop_map(|(cursor, count)| Op::Scan { cursor, count }),
        Just(Op::Count),
        any::<u64>().prop_map(|cursor| Op::RandomKey { cursor }),
        Just(Op::Clear),
        any::<u128>().prop_map(|client| Op::OpenSession { client }),
        session().prop_map(|session| Op::EndSession { session }),
    ]
}

fn request() -> impl Strategy<Value = Request<'static>> {
    let numbered =
        (session(), any::<u32>(), any::<u32>()).prop_map(|(session, number, answered_to)| {
            Numbered { id: RequestId { session, number }, answered_to }
        });
    (any::<[u32; 4]>(), proptest::option::of(numbered), bytes(), op()).prop_map(
        |([table, partition, epoch, fingerprint], numbered, key, op)| Request {
            route: Route { table, partition, epoch, fingerprint },
            numbered,
            key,
            op,
        },
    )
}

fn answer() -> impl Strategy<Value = Answer<'static>> {
    prop_oneof![
        (bytes(), version(), any::<u64>()).prop_map(|(value, version, expires_ms)| Answer::Value {
            value,
            version,
            expires_ms
        }),
        (any::<u32>(), version(), any::<u64>())
            .prop_map(|(len, version, expires_ms)| { Answer::Seen { len, version, expires_ms } }),
        Just(Answer::Absent),
        version().prop_map(|version| Answer::Done { version }),
        (any::<bool>(), any::<bool>(), bytes(), version()).prop_map(
            |(applied, existed, value, version)| Answer::Old { applied, existed, value, version }
        ),
        (any::<i64>(), version()).prop_map(|(value, version)| Answer::Integer { value, version }),
        (bytes(), version()).prop_map(|(value, version)| Answer::Float { value, version }),
        (any::<u64>(), version()).prop_map(|(len, version)| Answer::Length { len, version }),
        version().prop_map(|current| Answer::Refused { current }),
        (any::<u64>(), bytes()).prop_map(|(cursor, packed)| Answer::Keys { cursor, packed }),
        bytes().prop_map(|key| Answer::Key { key }),
        any::<u64>().prop_map(|count| Answer::Count { count }),
        session().prop_map(|session| Answer::Session { session }),
        any::<[u32; 4]>().prop_map(|[table, partition, epoch, fingerprint]| Answer::StaleRoute {
            route: Route { table, partition, epoch, fingerprint }
        }),
        (1..=14u8).prop_map(|b| Answer::Failed(Failure::parse(b).unwrap())),
    ]
}

fn maps() -> Maps {
    let options =
        TableOptions { durability: Durability::Async { ms: 20 }, partitions: 8, replicas: 3 };
    let table = TableMap::on_one_brick(3, "default", options, 17, 1, 2, 5).unwrap();
    Maps {
        version: 9,
        tables: vec![table.clone(), TableMap { id: 4, ..table }],
        bricks: vec![BrickEntry { id: 1, name: "north".into(), ..BrickEntry::default() }],
    }
}

/// What may become of `maps`.
fn delta() -> MapDelta {
    let Maps { tables, .. } = maps();
    let (partition, replicas) = tables[0].groups.iter().next().unwrap();
    let replicas = Replicas { epoch: replicas.epoch + 1, ..replicas.clone() };
    MapDelta {
        since: Some(9),
        version: 12,
        tables: vec![TableMap { id: 5, ..tables[0].clone() }],
        groups: vec![GroupDelta { table: 3, partition, replicas }],
        dropped: vec![4],
        bricks: None,
    }
}

/// Decodes and uses what came out.
fn touch(payload: &[u8]) -> bool {
    match decode(payload) {
        Ok(Message::Map { maps, .. }) => {
            let changes = maps.to_changes().unwrap();
            let mut whole = self::maps();
            for maps in [&mut whole, &mut Maps::default()] {
                if changes.apply_to(maps).is_ok() {
                    let _ = crate::maps::Routes::new(maps, 1);
                }
            }
            true
        }
        Ok(message) => !format!("{message:?}").is_empty(),
        Err(error) => error.to_string().is_empty(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_request_arrives_as_it_was_sent(slot: u32, sent in request()) {
        let mut out = b"what was there before".to_vec();
        let before = out.len();
        super::request(&mut out, slot, &sent);
        let got = decode(&out[before..]).unwrap();
        let expected = Message::Request { slot, request: sent };
        prop_assert_eq!(format!("{got:?}"), format!("{expected:?}"));
    }

    #[test]
    fn an_answer_arrives_as_it_was_sent(slot: u32, sent in answer()) {
        let mut out = vec![1];
        super::answer(&mut out, slot, &sent);
        match decode(&out[1..]).unwrap() {
            Message::Answer { slot: s, answer } => prop_assert_eq!((s, answer), (slot, sent)),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn random_bytes_are_an_error_or_a_message(bytes in vec(any::<u8>(), 0..200), kind in 0..32u8) {
        touch(&bytes);
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        touch(&bytes);
    }

    /// Near misses find more than noise does: a good message, cut short or with a few bytes changed.
    #[test]
    fn damaged_messages_never_panic(
        sent in request(), back in answer(), which in 0..3u8,
        cut: prop::sample::Index, hits in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut out = Vec::new();
        match which {
            0 => super::request(&mut out, 7, &sent),
            1 => super::answer(&mut out, 7, &back),
            _ => super::map(&mut out, 7, 1, delta()),
        }
        for (at, byte) in hits {
            let at = at.index(out.len());
            out[at] = byte;
        }
        touch(&out);
        out.truncate(cut.index(out.len() + 1));
        touch(&out);
    }
}

/// Messages of each kind, many of the common ones.
fn corpus() -> Vec<Vec<u8>> {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut all = Vec::new();
    for slot in 0..400 {
        let (mut one, mut back) = (Vec::new(), Vec::new());
        let sent = request().new_tree(&mut runner).expect("a request").current();
        super::request(&mut one, slot, &sent);
        let sent = answer().new_tree(&mut runner).expect("an answer").current();
        super::answer(&mut back, slot, &sent);
        all.extend([one, back]);
        let mut between = Vec::new();
        let sent = replicas::peer().new_tree(&mut runner).expect("a message").current();
        super::peer::encode(&mut between, slot, &sent);
        all.push(between);
    }
    for _ in 0..40 {
        let mut rare = vec![Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        super::hello(
            &mut rare[0],
            1,
            &Hello { client: "test", features: 5, brick: 3, incarnation: 9 },
        );
        let limits = Limits { key_bytes: 1, value_bytes: 2, in_flight: 3 };
        let (name, brick, incarnation, map_version) = ("b1", 7, 99, 12);
        let welcome = Welcome {
            name,
            brick,
            incarnation,
            cores: 4,
            core: 2,
            map_version,
            features: 0,
            limits,
        };
        super::welcome(&mut rare[1], 2, &welcome);
        super::control(&mut rare[2], 3, "{}");
        super::map(&mut rare[3], 4, 1, MapDelta::whole(maps()));
        all.append(&mut rare);
    }
    all
}

/// Near misses of good messages, and good ones: an error or a message, and no panic by looking at it.
#[test]
#[ignore = "a million cases: run by scripts/test"]
fn a_million_damaged_messages_never_panic() {
    let good = corpus();
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 8) as usize % below
    };
    let (mut bytes, mut messages) = (Vec::new(), 0);
    for case in 0..1_100_000 {
        bytes.clone_from(&good[next(good.len())]);
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(8) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][next(5)],
                2 => {
                    let other = &good[next(good.len())];
                    let len = (1 + next(12)).min(bytes.len() - at).min(other.len());
                    bytes[at..at + len].copy_from_slice(&other[other.len() - len..]);
                }
                3 => bytes[at] = next(256) as u8,
                _ => bytes[at] ^= 1 << next(8),
            }
        }
        // To print what came out shows that all of it can be read, and is slow.
        let message = if case % 8 == 0 { touch(&bytes) } else { decode(&bytes).is_ok() };
        messages += usize::from(message);
    }
    assert!(messages > 100_000, "only {messages} were messages");
}

#[test]
fn rare_messages_arrive() {
    let mut out = Vec::new();
    super::hello(&mut out, 1, &Hello { client: "test", features: 5, brick: 3, incarnation: 9 });
    let Ok(Message::Hello { slot: 1, hello }) = decode(&out) else { panic!("no hello") };
    assert_eq!(hello, Hello { client: "test", features: 5, brick: 3, incarnation: 9 });

    out.clear();
    let sent = Welcome {
        name: "b1",
        brick: 7,
        incarnation: 99,
        cores: 4,
        core: 2,
        map_version: 12,
        features: 0,
        limits: Limits { key_bytes: 1, value_bytes: 2, in_flight: 3 },
    };
    super::welcome(&mut out, 2, &sent);
    let Ok(Message::Welcome { slot: 2, welcome }) = decode(&out) else { panic!("no welcome") };
    assert_eq!(welcome, sent);

    out.clear();
    super::control(&mut out, 3, "{\"status\":{}}");
    let Ok(Message::Control { slot: 3, json }) = decode(&out) else { panic!("no control") };
    assert_eq!(json, "{\"status\":{}}");

    out.clear();
    let known = Known { cluster: u64::MAX, version: 7 };
    super::fetch_map(&mut out, 5, known);
    let Ok(Message::FetchMap { slot: 5, known: got }) = decode(&out) else { panic!("no question") };
    assert_eq!(got, known);

    out.clear();
    super::map(&mut out, 4, 77, MapDelta::whole(maps()));
    let Ok(Message::Map { slot: 4, maps: got }) = decode(&out) else { panic!("no map") };
    assert_eq!((got.cluster(), got.to_changes().unwrap()), (77, MapDelta::whole(maps())));
}

/// The layout is a format: these bytes may only change with the version that the fabric's handshake exchanges.
#[test]
fn the_layout_of_a_get_is_fixed() {
    let route = Route { table: 1, partition: 2, epoch: 3, fingerprint: 4 };
    let mut out = Vec::new();
    super::request(&mut out, 9, &Request { route, numbered: None, key: b"key", op: Op::Get });
    let mut bytes = vec![3, 1, 0, 0, 9, 0, 0, 0];
    bytes.extend_from_slice(b"key");
    bytes.extend_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
    bytes.extend_from_slice(&(-19i32).to_le_bytes());
    bytes.extend_from_slice(&[3, 0, 0, 0]);
    bytes.extend_from_slice(&(-24i32).to_le_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 0]);
    assert_eq!(out, bytes);
}

/// A request and an answer have one shape: what a pointer does not name, or names twice, is no message.
#[test]
fn bytes_that_no_field_names_are_refused() {
    let put = Op::Put {
        value: b"value",
        expiry: Expiry::Never,
        condition: Condition::Always,
        want_old: false,
    };
    let mut sent = Vec::new();
    let route = Route::default();
    super::request(&mut sent, 9, &Request { route, numbered: None, key: b"key", op: put });
    let mut answered = Vec::new();
    let answer = Answer::Value { value: b"value", version: Version::default(), expires_ms: 0 };
    super::answer(&mut answered, 9, &answer);
    for whole in [sent, answered] {
        assert!(decode(&whole).is_ok());
        // Before the first slice, between two, before the root.
        for at in [8, 11, 16] {
            let mut longer = whole.clone();
            longer.insert(at, b'x');
            assert!(decode(&longer).is_err(), "a byte more at {at}");
            let mut shorter = whole.clone();
            shorter.remove(at - 1);
            assert!(decode(&shorter).is_err(), "a byte less before {at}");
        }
    }
}

#[test]
fn kinds_of_the_replicated_cluster_are_reserved() {
    for byte in 0..=255 {
        let payload = [byte, 0, 0, 0, 0, 0, 0, 0];
        let known = super::Kind::parse(byte);
        assert_eq!(known.is_some(), matches!(byte, 1..=8 | 16..=29));
        if byte >= 16 {
            assert!(decode(&payload).is_err());
        }
        assert!(known.is_none_or(|k| k as u8 == byte));
    }
}

mod layout;
mod replicas {
    use super::super::peer::{History, Peer, Vote, Why, encode, pack_history};
    use super::super::{Message, decode};
    use super::{bytes, version};
    use proptest::prelude::*;

    fn vote() -> impl Strategy<Value = Vote> {
        let flags = any::<(bool, bool, bool)>();
        (any::<[u64; 4]>(), flags).prop_map(|([seq, held, commit, room], (below, gap, whole))| {
            Vote { seq, held, commit, room, below, gap, whole }
        })
    }

    pub(super) fn peer() -> impl Strategy<Value = Peer<'static>> {
        let why = prop_oneof![
            Just(Why::NoSpace),
            Just(Why::Sick),
            Just(Why::Behind),
            Just(Why::NoCopy),
            Just(Why::Again)
        ];
        let history = proptest::collection::vec(version(), 0..9).prop_map(|list| {
            let mut packed = Vec::new();
            pack_history(&list, &mut packed);
            History::new(packed.leak())
        });
        let words = any::<([u64; 3], [u32; 5])>();
        prop_oneof![
            (words, version(), bytes()).prop_map(|((w, d), before, records)| Peer::Prepare {
                epoch: d[0],
                commit: w[0],
                before,
                records
            }),
            words.prop_map(|(w, d)| Peer::Commit { epoch: d[0], commit: w[0] }),
            (words, vote()).prop_map(|((_, d), vote)| Peer::Voted { epoch: d[0], vote }),
            (words, why).prop_map(|((_, d), why)| Peer::Refused { epoch: d[0], why }),
            words.prop_map(|(_, d)| Peer::AskCommit { epoch: d[0] }),
            (words, version(), any::<bool>(), history).prop_map(
                |((w, d), tail, learn, history)| Peer::TakeOver {
                    epoch: d[0],
                    tail,
                    commit: w[0],
                    dropped: w[1],
                    learn,
                    history
                }
            ),
            (words, vote()).prop_map(|((w, d), vote)| Peer::TailIs {
                epoch: d[0],
                agreed: w[0],
                vote
            }),
            words.prop_map(|(w, d)| Peer::CopyStart {
                epoch: d[0],
                copy: d[1],
                have: w[0],
                s0: w[1]
            }),
            words.prop_map(|(w, d)| Peer::CopyListing {
                epoch: d[0],
                copy: d[1],
                dropped: w[0],
                bytes: w[1]
            }),
            (words, any::<bool>()).prop_map(|((_, d), again)| Peer::CopyRead {
                epoch: d[0],
                copy: d[1],
                from: d[2],
                upto: d[3],
                again
            }),
            (words, bytes()).prop_map(|((w, d), records)| Peer::CopyData {
                epoch: d[0],
                copy: d[1],
                piece: d[2],
                left: w[0],
                records
            }),
            words.prop_map(|(_, d)| Peer::CopyDone { epoch: d[0], copy: d[1] }),
        ]
    }

    proptest! {
        #[test]
        fn messages_between_replicas_arrive_as_they_were(sent in peer(), id in any::<u32>()) {
            let mut out = Vec::new();
            encode(&mut out, id, &sent);
            match decode(&out) {
                Ok(Message::Peer { partition, peer }) => prop_assert_eq!((partition, peer), (id, sent)),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        /// Cut or changed anywhere, a message is an error or another message, never a panic.
        #[test]
        fn damaged_messages_between_replicas_are_no_panic(
            sent in peer(), cut in any::<u16>(), flip in any::<(u16, u8)>(),
        ) {
            let mut out = Vec::new();
            encode(&mut out, 1, &sent);
            let at = usize::from(flip.0) % out.len();
            out[at] ^= flip.1;
            let _ = decode(&out);
            out.truncate(usize::from(cut) % (out.len() + 1));
            if let Ok(Message::Peer { peer: Peer::Prepare { records, .. }, .. }) = decode(&out) {
                assert!(super::super::peer::records(records).count() <= records.len());
            }
        }
    }
}
