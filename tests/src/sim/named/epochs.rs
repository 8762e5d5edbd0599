//! Who is in the group, who leads it, and what a change of that may break.

use firebrick_partition::keeper::Entry;
use firebrick_partition::maps::Intent;

use super::super::clock::MS;
use super::super::faults::{drain, fault};
use super::super::machine::Crash;
use super::super::message::Node;
use super::super::mistake::Mistake;
use super::super::plan::{Fault, Plan};
use super::super::script::{Script, Story, group};
use super::super::world::World;
use super::SILENT_MS;
use crate::check::Call;

/// Number 15: A, B, C die within 50 ms, C's host for good: A or B leads when it is back.
pub fn a_group_that_died_is_led_by_whoever_kept_everything(mistake: Mistake) -> Story {
    for back in [&[0][..], &[1], &[1, 0]] {
        let mut s = Script::begin(Plan { mistake, ..Plan::scripted(3) })?;
        s.put(0, "r0", "0")?;
        let members = s.group();
        s.down(members[0], Crash::Kill);
        s.run(20)?;
        s.down(members[1], Crash::Kill);
        s.run(20)?;
        s.down(members[2], Crash::Lost);
        s.run(1_000)?;
        for &at in back {
            s.up(members[at]);
            s.run(5)?;
        }
        let read = s.call(1, "r0", Call::Get);
        s.within(SILENT_MS, read)?;
        let write = s.call(0, "r0", Call::Put { value: "1".into() });
        s.within(SILENT_MS, write)?;
        s.end()?;
    }
    Ok(())
}

/// One replica on one of two machines, which is asked to be emptied; it and the other.
fn a_move(mistake: Mistake) -> Result<(Script, usize, usize), String> {
    let mut s = Script::begin(Plan { replicas: 1, mistake, ..Plan::scripted(2) })?;
    s.put(0, "r0", "0")?;
    let from = s.group()[0];
    drain(&mut s.world, from, true);
    let partition = s.partition;
    s.until("the copy is a member", |world| {
        let group = world.sim.keeper.state.group(partition).map(|g| &g.replicas);
        group.is_some_and(|g| g.members.len() == 2 && g.is_active())
    })?;
    Ok((s, from, 1 - from))
}

/// Number 16: A partition moves away from a brick that does not hear of it: that brick does not answer on.
pub fn a_partition_moves_away_from_a_brick_that_does_not_know(mistake: Mistake) -> Story {
    let (mut s, from, to) = a_move(mistake)?;
    let partition = s.partition;
    s.put(0, "r0", "1")?;
    s.lose(Some(Node::Keeper), Some(Node::Brick(from)), &[]);
    s.lose(Some(Node::Client(2)), None, &["FetchMaps"]);
    s.until("the intent", |world| {
        intent(world, partition) != Intent::None || group(world, partition) == [to]
    })?;
    let write = s.call(0, "r0", Call::Put { value: "2".into() });
    for _ in 0..100 {
        s.read_at(2, "r0", from);
        s.run(2)?;
    }
    s.let_go();
    s.within(SILENT_MS, write)?;
    s.until("it is out of the group", |world| group(world, partition) == [to])?;
    drain(&mut s.world, from, false);
    s.end()
}

/// Number 16: The keepers' leader dies between the confirmation and the entry: the move goes on, and no request fails.
pub fn the_keepers_leader_dies_between_confirmation_and_entry(mistake: Mistake) -> Story {
    let (mut s, _, to) = a_move(mistake)?;
    let partition = s.partition;
    s.until("the intent", |world| intent(world, partition) != Intent::None)?;
    s.world.grip.hold_entries = true;
    s.until("the entry", |world| {
        let leaves = |e: &Entry| matches!(e, Entry::Leave { .. } | Entry::StepDown { .. });
        world.sim.keeper.flying.iter().any(|f| leaves(&f.entry))
    })?;
    fault(&mut s.world, Fault::KeeperFalls { for_ns: 50 * MS, entries_lost: true });
    s.world.grip.entries.clear();
    s.world.grip.hold_entries = false;
    let mut writes = Vec::new();
    for n in 0..50 {
        writes.push(s.call(0, "r0", Call::Put { value: format!("{n}").as_str().into() }));
        s.run(20)?;
    }
    for id in writes {
        s.within(SILENT_MS, id)?;
    }
    // Said again to the next leader, not asked for again after the longest hold.
    if s.group() != [to] {
        return Err(format!("the group is {:?}", s.group()));
    }
    s.end()
}

/// Number 23: A and C do not hear each other while both reach the keepers: a write completes without one of them.
pub fn two_that_do_not_hear_each_other_part(mistake: Mistake) -> Story {
    let mut s = Script::begin(Plan { mistake, ..Plan::scripted(3) })?;
    let members = s.group();
    s.cut(members[0], members[2]);
    let write = s.call(0, "r0", Call::Put { value: "1".into() });
    s.within(SILENT_MS, write)?;
    if s.group().len() != 2 {
        return Err(format!("the group is {:?}", s.group()));
    }
    s.mend();
    s.end()
}

/// Number 32: A and C lose their memory and restart while B, which kept everything, is out of the group: the empty
/// ones do not lead, and nothing is lost.
pub fn an_empty_brick_does_not_lead(mistake: Mistake) -> Story {
    let mut s = Script::begin(Plan { mistake, ..Plan::scripted(3) })?;
    s.put(0, "r0", "1")?;
    let members = s.group();
    s.cut_off(members[1]);
    let partition = s.partition;
    s.until("B is out", |world| group(world, partition).len() == 2)?;
    // Before the new epoch is active: what counts is the group with B in it.
    s.down(members[0], Crash::Power);
    s.down(members[2], Crash::Power);
    s.run(5)?;
    s.up(members[0]);
    s.up(members[2]);
    s.run(1_000)?;
    s.mend();
    let read = s.call(1, "r0", Call::Get);
    s.within(2_000, read)?;
    s.end()
}

/// A vote of an earlier epoch is none: C voted for records that were dropped since, and A leads again.
pub fn votes_count_from_zero_in_every_epoch() -> Story {
    let mut s = Script::begin(Plan::scripted(3))?;
    s.put(0, "r0", "0")?;
    let members = s.group();
    let (a, b, c) = (members[0], members[1], members[2]);
    let partition = s.partition;
    // C gets far ahead of what B has: A commits nothing of it.
    s.lose(Some(Node::Brick(a)), Some(Node::Brick(b)), &[]);
    for n in 0..100 {
        let value = format!("[{n}]").as_str().into();
        s.call(if n % 2 == 0 { 0 } else { 3 }, "l0", Call::Append { value });
    }
    s.run(20)?;
    // Those clients are heard no more, until they gave up.
    s.lose(Some(Node::Client(0)), None, &[]);
    s.lose(Some(Node::Client(3)), None, &[]);
    s.cut_off(a);
    s.until("A is out", |world| !group(world, partition).contains(&a))?;
    s.put(1, "r0", "1")?;
    s.run(2_500)?;
    s.let_go();
    s.mend();
    s.until("A is back", |world| group(world, partition).len() == 3)?;
    s.run(300)?;
    for _ in 0..12 {
        let leads = s.group()[0];
        if leads == a {
            break;
        }
        if leads == b {
            // Nothing of the epoch in which A leads reaches C.
            s.lose(Some(Node::Brick(a)), Some(Node::Brick(c)), &[]);
        }
        fault(&mut s.world, Fault::HandOver { partition: 0 });
        s.until("the next primary", |world| {
            let members = group(world, partition);
            members.len() == 3 && members[0] != leads
        })?;
        if s.group()[0] != a {
            s.let_go();
            s.run(300)?;
        }
    }
    if s.group()[0] != a {
        return Err(format!("A does not lead again: {:?}", s.group()));
    }
    let write = s.call(1, "r0", Call::Put { value: "2".into() });
    for _ in 0..60 {
        s.read_at(2, "r0", c);
        s.run(2)?;
    }
    s.within(SILENT_MS, write)?;
    s.end()
}

/// What is asked of a group's member.
fn intent(world: &World, partition: u32) -> Intent {
    world.sim.keeper.state.group(partition).map_or(Intent::None, |g| g.replicas.intent)
}
