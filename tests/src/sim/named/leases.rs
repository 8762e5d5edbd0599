//! Leases: who may answer, and until when.

use firebrick_partition::keeper::Entry;
use firebrick_partition::op::Answer;
use firebrick_partition::wire::{self, Message as Wire};

use super::super::clock::MS;
use super::super::entries::later;
use super::super::faults::fault;
use super::super::message::{Message, Node};
use super::super::mistake::Mistake;
use super::super::plan::{Fault, Plan};
use super::super::script::{Script, Story, group};
use super::SILENT_MS;
use crate::check::Call;

/// A client that never hears of new maps, and what it reads at a machine until it is answered.
fn read_by_an_old_route(s: &mut Script, at: usize) -> u64 {
    s.lose(Some(Node::Client(2)), None, &["FetchMaps"]);
    s.read_at(2, "r0", at)
}

/// A member stands still for 2 s, in the middle of a turn, is taken out, and is read as it wakes.
fn wakes_up(which: usize, mistake: Mistake) -> Story {
    let mut s = Script::begin(Plan { mistake, ..Plan::scripted(3) })?;
    s.put(0, "r0", "0")?;
    s.run(20)?;
    let sleeper = s.group()[which];
    s.pause(sleeper, 2_000);
    let partition = s.partition;
    s.until("it is taken out", |world| !group(world, partition).contains(&sleeper))?;
    // What is written from here on never was on its way to it.
    s.run(100)?;
    s.put(0, "r0", "1")?;
    s.until("it wakes soon", |world| {
        world.sim.now + 30 * MS > world.machines[sleeper].paused_until
    })?;
    // Asked before it wakes, and again and again while it finds its way back.
    for _ in 0..60 {
        read_by_an_old_route(&mut s, sleeper);
        s.run(2)?;
    }
    s.run(100)?;
    s.end()
}

/// Number 9: A backup pauses for 2 s, is dropped, wakes and gets a lease before it has the map: a client with the
/// old route does not read the old value.
pub fn a_backup_that_slept_does_not_answer_by_an_old_map(mistake: Mistake) -> Story {
    wakes_up(2, mistake)
}

/// Number 9: The same for an old primary. (24: its removal is in the ring of its routes, and a lease behind it.)
pub fn a_primary_that_slept_does_not_answer_by_an_old_map(mistake: Mistake) -> Story {
    wakes_up(0, mistake)
}

/// Number 9: The same when its heartbeat comes between the proposal of its removal and the entry.
pub fn nobody_gets_a_lease_while_it_is_being_removed(mistake: Mistake) -> Story {
    let mut s = Script::begin(Plan { mistake, ..Plan::scripted(3) })?;
    s.put(0, "r0", "0")?;
    let last = s.group()[2];
    // What it sends is not heard for a while; then the entry is on its way, and it is heard again.
    s.lose(Some(Node::Brick(last)), Some(Node::Keeper), &[]);
    s.world.grip.hold_entries = true;
    s.until("its removal", |world| {
        world.sim.keeper.flying.iter().any(|f| matches!(f.entry, Entry::TakeOut { .. }))
    })?;
    s.world.grip.rules.clear();
    s.run(60)?;
    // From here on it hears nothing.
    s.lose(Some(Node::Keeper), Some(Node::Brick(last)), &[]);
    s.lose(Some(Node::Brick(last)), Some(Node::Keeper), &[]);
    s.lose(Some(Node::Client(2)), None, &["FetchMaps"]);
    s.world.grip.hold_entries = false;
    for id in std::mem::take(&mut s.world.grip.entries) {
        later(&mut s.world, id);
    }
    s.run(60)?;
    let write = s.call(0, "r0", Call::Put { value: "1".into() });
    s.within(SILENT_MS, write)?;
    for _ in 0..20 {
        s.read_at(2, "r0", last);
        s.run(2)?;
    }
    s.end()
}

/// Number 24: An increment executes and the lease ends before its answer leaves: the client is not told that
/// nothing happened.
pub fn an_executed_increment_is_never_called_undone(mistake: Mistake) -> Story {
    let mut s = Script::begin(Plan { mistake, ..Plan::scripted(3) })?;
    let primary = s.group()[0];
    // Its lease is about to end, and it stops between executing and answering.
    s.lose(Some(Node::Keeper), Some(Node::Brick(primary)), &["Lease"]);
    s.run(150)?;
    s.world.grip.stop_before_answer = Some((primary, 52 * MS));
    let add = s.call(0, "c0", Call::Increment { by: 1 });
    s.until("it stops", |world| world.grip.stop_before_answer.is_none())?;
    s.hold(Some(Node::Brick(primary)), Some(Node::Client(0)), &["Answer"]);
    s.run(60)?;
    for (_, _, message) in &s.world.grip.held {
        let Message::Answer { bytes, .. } = message else { continue };
        if let Ok(Wire::Answer { answer: Answer::Failed(failure), .. }) = wire::decode(bytes) {
            return Err(format!("the client is told that nothing happened: {failure:?}"));
        }
    }
    s.let_go();
    s.within(SILENT_MS, add)?;
    s.expect(1, "c0", primary, "1")?;
    s.end()
}

/// Numbers 9 and 24: The clock is looked at after the values were read: who slept between looking and reading answers
/// nobody.
pub fn a_lease_is_checked_after_the_read(mistake: Mistake) -> Story {
    wakes_up(1, mistake)
}

/// A lease is counted from before its request: an answer that was long on its way gives little or nothing.
pub fn a_late_answer_gives_no_more_time(mistake: Mistake) -> Story {
    let mut s = Script::begin(Plan { mistake, ..Plan::scripted(3) })?;
    s.put(0, "r0", "0")?;
    let last = s.group()[2];
    let partition = s.partition;
    s.hold(Some(Node::Keeper), Some(Node::Brick(last)), &["Lease"]);
    s.until("an answer", |world| !world.grip.held.is_empty())?;
    s.lose(Some(Node::Brick(last)), Some(Node::Keeper), &[]);
    s.lose(Some(Node::Client(2)), None, &["FetchMaps"]);
    s.until("it is taken out", |world| !group(world, partition).contains(&last))?;
    s.run(100)?;
    s.put(0, "r0", "1")?;
    s.let_go();
    s.lose(Some(Node::Client(2)), None, &["FetchMaps"]);
    fault(&mut s.world, Fault::CutKeeper { a: last, to: true, from: false, for_ns: 2_000 * MS });
    for _ in 0..40 {
        s.read_at(2, "r0", last);
        s.run(2)?;
    }
    s.end()
}
