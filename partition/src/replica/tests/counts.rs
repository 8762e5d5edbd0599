//! The log's count of live bytes against a walk over all records: each is dead exactly once.
//!
//! What a cleaning may leave behind without a look rests on it (`log/src/log/count.rs`).

use firebrick_log::segment::SegmentKind;
use firebrick_log::{Durability, Kind, Loc, Record, SegmentCount};
use proptest::collection::vec;
use proptest::prelude::*;

use super::World;
use crate::hash::hash_key;
use crate::op::{Answer, Condition, Expiry, Numbered, Op, RequestId, SessionId};
use crate::replica::Replica;

fn counts(replica: &Replica, kind: SegmentKind, loc: Loc, record: &Record<'_>) -> bool {
    let prepared = replica.pending.iter().any(|p| p.loc == loc);
    match record.header().kind {
        k if k.is_put() => {
            let hash = hash_key(record.fields().key);
            prepared || replica.index.find(hash, |bits| bits == loc.to_bits()).is_some()
        }
        Kind::Remove | Kind::RemoveId | Kind::Clear => prepared || kind == SegmentKind::Settled,
        Kind::SessionOpen | Kind::SessionEnd => true,
        Kind::Sessions => replica.sessions_record.loc == Some(loc),
        _ => prepared,
    }
}

/// Compares every count with the records.
pub(super) fn recount(replica: &mut Replica) {
    // What a Clear hides counts until it was walked.
    while replica.discard_some() {}
    let (mut live_puts, mut prepared) = (0, 0);
    for counted in replica.log.segment_counts() {
        let mut found = SegmentCount { live_bytes: 0, live_puts: 0, unjudged: 0, ..counted };
        for (loc, record) in replica.log.records_of(counted.name) {
            let kind = record.header().kind;
            let live = counts(replica, counted.name.kind, loc, &record);
            found.live_bytes += if live { record.stride() as u64 } else { 0 };
            found.live_puts += u64::from(live && kind.is_put());
            let decided =
                kind.is_put() || kind == Kind::TakeOver || (kind == Kind::Sessions && !live);
            found.unjudged += u64::from(!decided);
            let waits = replica.pending.iter().any(|p| p.loc == loc);
            prepared += u64::from(waits && kind.is_put());
        }
        assert_eq!(counted, found);
        live_puts += found.live_puts;
    }
    assert_eq!(live_puts, replica.keys() + prepared, "a key is in the index and in no segment");
}

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, len: u16, expires: bool, numbered: bool },
    Remove { key: u8, numbered: bool },
    Clear,
    Session,
    End,
    Pass { ms: u16 },
    Clean { bytes: u16, idle: bool },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..40u8;
    prop_oneof![
        14 => (key(), 0..900u16, prop::bool::weighted(0.2), any::<bool>()).prop_map(
            |(key, len, expires, numbered)| Step::Put { key, len, expires, numbered }),
        8 => (key(), any::<bool>()).prop_map(|(key, numbered)| Step::Remove { key, numbered }),
        1 => Just(Step::Clear),
        1 => Just(Step::Session),
        1 => Just(Step::End),
        2 => (0..200u16).prop_map(|ms| Step::Pass { ms }),
        6 => (1..6_000u16, any::<bool>()).prop_map(|(bytes, idle)| Step::Clean { bytes, idle }),
        1 => Just(Step::Crash),
    ]
}

/// The session in use and its last number.
type Session = Option<(SessionId, u32)>;

fn number(session: &mut Session, numbered: bool) -> Option<Numbered> {
    let (session, number) = session.as_mut().filter(|_| numbered)?;
    *number += 1;
    let id = RequestId { session: *session, number: *number };
    Some(Numbered { id, answered_to: *number - 1 })
}

fn run(world: &mut World, session: &mut Session, n: usize, step: &Step) {
    match *step {
        Step::Put { key, len, expires, numbered } => {
            let value = vec![n as u8; usize::from(len)];
            let at = world.now.unix_ms + 50;
            let expiry = if expires { Expiry::At(at) } else { Expiry::Never };
            let op =
                Op::Put { value: &value, expiry, condition: Condition::Always, want_old: false };
            world.ask(&[key], op, number(session, numbered));
        }
        Step::Remove { key, numbered } => {
            let op = Op::Remove { condition: Condition::Always, want_old: false };
            world.ask(&[key], op, number(session, numbered));
        }
        Step::Clear => drop(world.get(b"", Op::Clear)),
        Step::Session => match world.get(b"", Op::OpenSession { client: n as u128 }).get() {
            Answer::Session { session: opened } => *session = Some((opened, 0)),
            other => panic!("{other:?}"),
        },
        Step::End => {
            if let Some((session, _)) = session.take() {
                world.get(b"", Op::EndSession { session });
            }
        }
        Step::Pass { ms } => world.now.unix_ms += u64::from(ms),
        Step::Clean { bytes, idle } => {
            let (now, bytes) = (world.now, usize::from(bytes));
            let budget = super::Budget { clean_bytes: bytes, expire_entries: 16, idle };
            for _ in 0..4 {
                world.replica.tick(now, budget, &mut world.out);
            }
        }
        Step::Crash => world.crash(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_record_is_dead_exactly_once(steps in vec(step(), 1..300)) {
        let mut world = World::new(Durability::Memory);
        let mut session = None;
        for (n, step) in steps.iter().enumerate() {
            run(&mut world, &mut session, n, step);
            recount(&mut world.replica);
        }
        world.crash();
        recount(&mut world.replica);
        // What is not live goes: as far as segments that are half live allow.
        for _ in 0..20 {
            world.clean();
            recount(&mut world.replica);
        }
    }
}

/// A segment whose puts were all written again goes without a judgement, and nothing else does.
#[test]
fn what_was_overwritten_goes_without_a_look() {
    let mut world = World::new(Durability::Memory);
    let put = |world: &mut World, key: &[u8]| {
        let op = Op::Put {
            value: &[1; 300],
            expiry: Expiry::Never,
            condition: Condition::Always,
            want_old: false,
        };
        assert!(matches!(world.get(key, op).get(), Answer::Done { .. }));
    };
    put(&mut world, b"kept");
    for n in 0..1000u32 {
        put(&mut world, &(n % 8).to_le_bytes());
    }
    for _ in 0..20 {
        world.clean();
    }
    recount(&mut world.replica);
    let stats = world.replica.stats();
    assert!(stats.log.segments <= 4 && stats.log.freed_bytes > 200 << 10, "{stats:?}");
    // The first segment's one live record, and what was live when its segment's turn came.
    assert!(stats.log.moved_records <= 20, "{stats:?}");
    world.crash();
    assert_eq!(world.replica.keys(), 9);
    assert!(matches!(world.get(b"kept", Op::Look).get(), Answer::Seen { .. }));
}
