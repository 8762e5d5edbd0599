//! `sync` tables: nothing is answered, and nothing is seen, before the disk has it.

use std::collections::BTreeMap;

use firebrick_log::segment::{Bound, SegmentHead, SegmentName};
use firebrick_log::storage::{Opened, Source};
use firebrick_log::{Ask, Durability, FlushOp};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Action, Actions, World, leaf, route};
use crate::hash::hash_key;
use crate::op::{Answer, Condition, Expiry, Op, Request};
use crate::replica::{Outcome, Reads, Replica};

/// A disk: what was written, by segment.
#[derive(Default)]
struct Disk {
    files: BTreeMap<SegmentName, Vec<u8>>,
    flying: Vec<FlushOp>,
}

impl Disk {
    /// Takes the writes that the replica wants.
    fn take(&mut self, out: &mut Actions) {
        for action in out.list.extract_if(.., |a| matches!(a, Action::Log(_))) {
            match action {
                Action::Log(Ask::Write(op)) => self.flying.push(op),
                other => panic!("{other:?}"),
            }
        }
    }

    /// One write arrives and is answered.
    fn land(&mut self, world: &mut World) -> bool {
        self.take(&mut world.out);
        if self.flying.is_empty() {
            return false;
        }
        let op = self.flying.remove(0);
        let (start, end) = (op.offset as usize, op.offset as usize + op.len as usize);
        let file = self.files.entry(op.segment).or_insert_with(|| {
            // The storage thread writes the first page before a segment is used.
            // SAFETY: the segment's memory begins `offset` bytes before what is to be written.
            let head = unsafe { std::slice::from_raw_parts(op.ptr.sub(start), 4096) };
            let bytes = SegmentHead::decode(head).expect("a segment's first page").bytes;
            let mut file = head.to_vec();
            file.resize(bytes as usize, 0);
            file
        });
        // SAFETY: the log keeps these bytes mapped until the write is answered, below.
        let bytes = unsafe { std::slice::from_raw_parts(op.ptr, op.len as usize) };
        file[start..end].copy_from_slice(bytes);
        world.replica.on_written(world.now, op.id, Ok(op.len as usize), &mut world.out);
        true
    }
}

fn put(value: &[u8]) -> Op<'_> {
    Op::Put { value, expiry: Expiry::Never, condition: Condition::Always, want_old: false }
}

fn settle(world: &mut World, disk: &mut Disk) {
    world.replica.poll(world.now, &mut world.out);
    while disk.land(world) {}
}

fn serving() -> (World, Disk) {
    let mut world = World::new(Durability::Sync);
    let mut disk = Disk::default();
    assert!(!world.replica.is_serving(), "the take-over record is not flushed");
    settle(&mut world, &mut disk);
    assert!(world.replica.is_serving());
    (world, disk)
}

#[test]
fn a_write_is_answered_and_seen_only_when_it_is_flushed() {
    let (mut world, mut disk) = serving();
    assert!(world.ask(b"k", put(b"new"), None).is_none());
    let token = world.token;
    assert_eq!(world.get(b"k", Op::Get).get(), Answer::Absent);
    // A conditional write is decided against the prepared record, and its refusal waits for it.
    let absent = Op::Put {
        value: b"other",
        expiry: Expiry::Never,
        condition: Condition::Absent,
        want_old: false,
    };
    assert!(world.ask(b"k", absent, None).is_none());
    let refused = world.token;
    // A connection with a write in flight reads it after its commit.
    let request = Request { route: route(1), numbered: None, key: b"k", op: Op::Get };
    let own = world.replica.execute_with(
        world.now,
        99,
        hash_key(b"k"),
        &request,
        Reads::Own,
        &mut world.out,
    );
    assert_eq!(own, Outcome::Later);
    assert!(world.replies().is_empty());
    settle(&mut world, &mut disk);
    let replies = world.replies();
    let of = |token: u64| replies.iter().find(|r| r.0 == token).expect("answered").1.get();
    assert!(matches!(of(token), Answer::Done { .. }));
    assert!(matches!(of(refused), Answer::Refused { current } if current.seq == 2));
    assert!(matches!(of(99), Answer::Value { value: b"new", .. }));
    assert!(matches!(world.get(b"k", Op::Get).get(), Answer::Value { value: b"new", .. }));
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u16),
    Remove(u8),
    Clear,
    Get(u8),
    Land,
    PowerFailure,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..6u8, 0..1500u16).prop_map(|(k, l)| Step::Put(k, l)),
        3 => (0..6u8).prop_map(Step::Remove),
        1 => Just(Step::Clear),
        4 => (0..6u8).prop_map(Step::Get),
        5 => Just(Step::Land),
        1 => Just(Step::PowerFailure),
    ]
}

/// The history of each key's values: what was asked for in order, how much of it is acked.
#[derive(Default)]
struct History {
    /// (token, key or all, value)
    writes: Vec<(u64, Option<u8>, Option<Vec<u8>>)>,
    acked: usize,
}

impl History {
    fn value(&self, key: u8, upto: usize) -> Option<Vec<u8>> {
        let said = |w: &&(u64, Option<u8>, Option<Vec<u8>>)| w.1.is_none_or(|k| k == key);
        self.writes[..upto].iter().rev().find(said).and_then(|w| w.2.clone())
    }
}

fn acks(world: &mut World, history: &mut History) {
    for (token, answer) in world.replies() {
        let at = history.writes.iter().position(|w| w.0 == token);
        match answer.get() {
            Answer::Done { .. } => {
                history.acked = history.acked.max(at.map_or(0, |at| at + 1));
            }
            // A remove that met nothing: it says that what it rests on is committed, no more.
            Answer::Absent => {}
            other => panic!("{other:?}"),
        }
    }
}

fn value_of(world: &mut World, key: u8) -> Option<Vec<u8>> {
    match world.get(&[key], Op::Get).get() {
        Answer::Value { value, .. } => Some(value.to_vec()),
        Answer::Absent => None,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What was acked survives the loss of everything that the disk does not have, and reads show a
    /// state that only commits move.
    #[test]
    fn acked_writes_survive_a_power_failure(steps in vec(step(), 1..150)) {
        let (mut world, mut disk) = serving();
        let mut history = History::default();
        for (n, step) in steps.into_iter().enumerate() {
            if n % 4 == 0 {
                super::counts::recount(&mut world.replica);
            }
            let mut write = |world: &mut World, key: Option<u8>, op: Op<'_>, value: Option<Vec<u8>>| {
                let name = key.map(|k| vec![k]).unwrap_or_default();
                let answer = world.ask(&name, op, None);
                assert!(answer.is_none(), "answered before the flush: {answer:?}");
                history.writes.push((world.token, key, value));
            };
            match step {
                Step::Put(key, len) => {
                    let value = vec![n as u8; usize::from(len)];
                    write(&mut world, Some(key), put(&value), Some(value.clone()));
                }
                Step::Remove(key) => {
                    let op = Op::Remove { condition: Condition::Always, want_old: false };
                    let upto = history.writes.len();
                    let answer = world.ask(&[key], op, None);
                    if history.value(key, upto).is_some() {
                        prop_assert!(answer.is_none());
                    }
                    history.writes.push((world.token, Some(key), None));
                    if answer.is_some() {
                        // Absent, and nothing in doubt about it: no record, so nothing to be acked.
                        history.writes.pop();
                    }
                }
                Step::Clear => write(&mut world, None, Op::Clear, None),
                Step::Get(key) => {
                    acks(&mut world, &mut history);
                    let expected = history.value(key, history.acked);
                    prop_assert_eq!(value_of(&mut world, key), expected);
                }
                Step::Land => {
                    world.replica.poll(world.now, &mut world.out);
                    disk.land(&mut world);
                    acks(&mut world, &mut history);
                }
                Step::PowerFailure => {
                    acks(&mut world, &mut history);
                    power_failure(&mut world, &mut disk);
                    let kept = (history.acked..=history.writes.len()).find(|&upto| {
                        (0..6).all(|k| value_of(&mut world, k) == history.value(k, upto))
                    });
                    prop_assert!(kept.is_some(), "an acked write is gone");
                    let upto = kept.unwrap_or(0);
                    history.writes.truncate(upto);
                    history.acked = upto;
                }
            }
        }
    }
}

fn power_failure(world: &mut World, disk: &mut Disk) {
    let (out, fresh) =
        (&mut world.out, firebrick_log::Log::in_heap(super::config(Durability::Sync)));
    out.list.clear();
    disk.flying.clear();
    let old = std::mem::replace(&mut world.replica, Replica::new(fresh, leaf()));
    let manifest = old.into_log().crash().manifest;
    let segments = disk.files.values().filter_map(|file| Bound::from_image(file).ok()).collect();
    let opened =
        Opened { manifest, segments, source: Source::Disk, notes: Vec::new(), damaged: Vec::new() };
    world.restart(opened, Durability::Sync);
    settle(world, disk);
    assert!(world.replica.is_serving());
}
