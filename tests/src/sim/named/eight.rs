//! The eight cases from the literature on the original.

use super::super::machine::Crash;
use super::super::message::Node;
use super::super::mistake::Mistake;
use super::super::plan::Plan;
use super::super::script::{Script, Story, commit, tail};
use super::BLOCKED_MS;
use crate::check::{Back, Call};

/// Number 1: Two replicas hold 0 and a client writes 1: both hold 1, and any later read anywhere gives 1.
pub fn a_write_is_read_at_every_replica() -> Story {
    let mut s = Script::begin(Plan::scripted(2))?;
    s.put(0, "r0", "0")?;
    let group = s.group();
    // One is late: until it has the write, nobody is told that it is done.
    s.hold(Some(Node::Brick(group[0])), Some(Node::Brick(group[1])), &["Prepare"]);
    let write = s.call(0, "r0", Call::Put { value: "1".into() });
    s.run(20)?;
    if !s.is_open(write) {
        s.expect(1, "r0", group[1], "1")?;
    }
    s.let_go();
    s.within(BLOCKED_MS, write)?;
    for at in group {
        s.expect(1, "r0", at, "1")?;
    }
    s.end()
}

/// Number 2: Two clients write 2 and 3 at once: all replicas end the same, no read order shows both orders.
pub fn two_writes_at_once_have_one_order() -> Story {
    let mut s = Script::begin(Plan::scripted(3))?;
    s.put(0, "r0", "0")?;
    let group = s.group();
    let (primary, backups) = (Node::Brick(group[0]), &group[1..]);
    // Each backup gets the two in its own time.
    s.hold(Some(primary), Some(Node::Brick(backups[1])), &["Prepare"]);
    let writes = [("2", 0), ("3", 1)]
        .map(|(value, client)| s.call(client, "r0", Call::Put { value: value.into() }));
    for round in 0..20 {
        for &at in &group {
            s.read_at(2 + round % 2, "r0", at);
        }
        s.run(1)?;
        if round == 10 {
            s.let_go();
        }
    }
    for id in writes {
        s.within(BLOCKED_MS, id)?;
    }
    s.end()
}

/// Number 3: A read arrives between prepare and commit: it gives the old value or waits; once any read has given
/// the new value no later one gives the old.
pub fn a_prepared_value_is_never_read_and_then_missed() -> Story {
    let mut s = Script::begin(Plan::scripted(3))?;
    s.put(0, "r0", "0")?;
    s.run(20)?;
    let group = s.group();
    // The last backup votes, and is not told of the commit.
    s.hold(None, Some(Node::Brick(group[2])), &["Commit"]);
    s.put(0, "r0", "1")?;
    s.expect(1, "r0", group[1], "1")?;
    let late = s.read_at(2, "r0", group[2]);
    s.run(40)?;
    if !s.is_open(late) {
        s.expect(2, "r0", group[2], "1")?;
    }
    s.let_go();
    s.within(BLOCKED_MS, late)?;
    s.end()
}

/// Number 4: A replica crashes in the middle of a write: the write completes on the rest, in bounded time.
pub fn a_dead_backup_delays_a_write_by_a_lease() -> Story {
    let mut s = Script::begin(Plan::scripted(3))?;
    s.put(0, "r0", "0")?;
    let group = s.group();
    s.hold(Some(Node::Brick(group[0])), Some(Node::Brick(group[2])), &["Prepare"]);
    let write = s.call(0, "r0", Call::Put { value: "1".into() });
    s.until("a prepare", |world| !world.grip.held.is_empty())?;
    s.down(group[2], Crash::Kill);
    s.run(20)?;
    if !s.is_open(write) {
        return Err("it was acked although a member of the group has it not".to_owned());
    }
    s.within(BLOCKED_MS, write)?;
    s.expect(1, "r0", group[1], "1")?;
    s.end()
}

/// Number 5: A replica crashes just before a read: the read is answered by another replica.
pub fn a_dead_replica_costs_a_read_nothing_but_time(mistake: Mistake) -> Story {
    let mut s = Script::begin(Plan { mistake, ..Plan::scripted(3) })?;
    s.put(0, "r0", "0")?;
    let group = s.group();
    s.down(group[1], Crash::Kill);
    for client in 0..3 {
        for _ in 0..10 {
            let read = s.call(client, "r0", Call::Get);
            s.within(BLOCKED_MS, read)?;
        }
    }
    s.end()
}

/// Number 6: The coordinator crashes before any commit left: the write is decided the same everywhere, and the
/// client's retry applies it at most once.
pub fn a_write_in_doubt_is_decided_once() -> Story {
    for reached in 0..3 {
        let mut s = Script::begin(Plan::scripted(3))?;
        let group = s.group();
        let primary = Node::Brick(group[0]);
        // It reaches nobody, one backup, or both; no vote comes back.
        s.hold(None, Some(primary), &["Voted"]);
        for &at in &group[1 + reached..] {
            s.hold(Some(primary), Some(Node::Brick(at)), &["Prepare"]);
        }
        let before = tail(&s.world, s.partition, group[0]);
        let add = s.call(0, "c0", Call::Increment { by: 1 });
        let (partition, at) = (s.partition, group[reached]);
        s.until("the record", |world| tail(world, partition, at) > before)?;
        s.down(group[0], Crash::Kill);
        s.forget();
        s.within(BLOCKED_MS, add)?;
        s.up(group[0]);
        s.expect(1, "c0", group[1], "1")?;
        s.end()?;
    }
    Ok(())
}

/// Tells one backup that an increment is committed, and not the other; the machines.
fn half_committed() -> Result<(Script, Vec<usize>, u64), String> {
    let mut s = Script::begin(Plan::scripted(3))?;
    s.run(20)?;
    let group = s.group();
    // (Nor does the client hear of it.)
    s.lose(Some(Node::Brick(group[0])), Some(Node::Brick(group[2])), &["Commit"]);
    s.lose(Some(Node::Brick(group[0])), Some(Node::Client(0)), &["Answer"]);
    let before = commit(&s.world, s.partition, group[1]);
    let add = s.call(0, "c0", Call::Increment { by: 1 });
    let (partition, told) = (s.partition, group[1]);
    s.until("a commit", |world| commit(world, partition, told) > before)?;
    if commit(&s.world, partition, group[2]) > before {
        return Err("the other backup knows it too".to_owned());
    }
    Ok((s, group, add))
}

/// Number 7: The coordinator crashes after one replica committed: every replica commits.
pub fn what_one_replica_committed_all_commit() -> Story {
    let (mut s, group, add) = half_committed()?;
    s.down(group[0], Crash::Kill);
    s.let_go();
    match s.within(BLOCKED_MS, add)? {
        Back::Integer { value: 1, .. } => {}
        other => return Err(format!("the increment was answered {other}")),
    }
    s.expect(1, "c0", group[2], "1")?;
    s.end()
}

/// Number 8: As 7, and the replica that knew the commit crashes after serving a read of it: a later read still
/// gives the new value.
pub fn what_was_read_once_stays() -> Story {
    let (mut s, group, _) = half_committed()?;
    s.expect(1, "c0", group[1], "1")?;
    s.down(group[0], Crash::Kill);
    s.down(group[1], Crash::Kill);
    // The last one is asked all the time while it takes over.
    for _ in 0..300 {
        s.read_at(2, "c0", group[2]);
        s.run(1)?;
    }
    s.expect(1, "c0", group[2], "1")?;
    s.end()
}
