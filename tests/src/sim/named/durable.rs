//! Disks, room, and what is left of a log.

use firebrick_partition::maps::Durability;

use super::super::level::Level;
use super::super::machine::Crash;
use super::super::message::Node;
use super::super::mistake::Mistake;
use super::super::plan::Plan;
use super::super::script::{Script, Story, group, tail};
use super::SILENT_MS;
use crate::check::{Back, Call};

/// Number 18: `sync`: all power fails when the backups have flushed a record and the primary has not. It was not acked.
pub fn what_the_primary_did_not_flush_is_not_acked() -> Story {
    let mut s = Script::begin(Plan { durability: Durability::Sync, ..Plan::scripted(3) })?;
    s.put(0, "r0", "0")?;
    s.run(50)?;
    let members = s.group();
    s.world.grip.stalled.insert(members[0]);
    s.call(0, "r0", Call::Put { value: "1".into() });
    s.run(20)?;
    for &at in &members {
        s.down(at, Crash::Power);
    }
    s.world.grip.stalled.clear();
    // What the client still asks for is not heard.
    s.lose(Some(Node::Client(0)), None, &[]);
    s.up(members[0]);
    s.run(2_500)?;
    s.end()
}

/// Number 18: `sync`: a process is killed with memory ahead of its disk, the next one acks what it found, and power
/// fails.
pub fn a_new_process_counts_nothing_as_flushed(mistake: Mistake) -> Story {
    let plan = Plan { durability: Durability::Sync, replicas: 1, mistake, ..Plan::scripted(2) };
    let mut s = Script::begin(plan)?;
    s.put(0, "r0", "0")?;
    s.run(50)?;
    let only = s.group()[0];
    s.world.grip.stalled.insert(only);
    // (More than a block of the disk, which is written whole.)
    let value = "1".repeat(9_000);
    let write = s.call(0, "r0", Call::Put { value: value.as_str().into() });
    s.run(20)?;
    if !s.is_open(write) {
        return Err("it was acked before its flush".to_owned());
    }
    s.down(only, Crash::Kill);
    s.world.grip.stalled.clear();
    s.up(only);
    s.within(SILENT_MS, write)?;
    s.down(only, Crash::Power);
    s.up(only);
    s.run(1_000)?;
    s.expect(1, "r0", only, &value)?;
    s.end()
}

/// Number 19: One replica cannot store a prepared record: its vote is missed, the write completes on the rest and is
/// never reported as failed.
pub fn a_replica_that_cannot_store_leaves_and_the_write_completes(mistake: Mistake) -> Story {
    let plan = Plan { ration: Some((2, 3)), mistake, ..Plan::scripted(3) };
    let mut s = Script::begin(plan)?;
    let partition = s.partition;
    // The primary does not hear how little room there is.
    s.lose(Some(Node::Brick(2)), None, &["Voted"]);
    let mut writes = Vec::new();
    for n in 0..30 {
        let value = "x".repeat(4_000);
        writes.push(s.call(0, &format!("rf{n}"), Call::Put { value: value.as_str().into() }));
    }
    for write in writes {
        s.within(SILENT_MS, write)?;
    }
    s.let_go();
    if s.world.sim.cover.count("a segment is refused") == 0
        || group(&s.world, partition).contains(&2)
    {
        return Err("it had room after all".to_owned());
    }
    s.down(2, Crash::Kill);
    s.world.machines[2].limits.segments = None;
    s.up(2);
    s.end()
}

/// Numbers 19 and 31: The smallest replica is full: writes are refused before anything is prepared, removes are not, and
/// writes resume when there is room.
pub fn a_full_store_can_be_emptied_and_takes_writes_again() -> Story {
    let plan = Plan { small: Some((2, 512 << 10)), ..Plan::scripted(3) };
    let mut s = Script::begin(plan)?;
    let value = "x".repeat(4_000);
    let mut stored = 0;
    for n in 0..200 {
        let write = s.call(0, &format!("rf{n}"), Call::Put { value: value.as_str().into() });
        // (Tried again and again; the last try may be on its way when the client gives up.)
        match s.answered(write)? {
            Some(Back::Failed) | None => break,
            Some(_) => stored += 1,
        }
    }
    if !(20..200).contains(&stored) || s.group().len() != 3 {
        return Err(format!("{stored} writes were stored; the group is {:?}", s.group()));
    }
    // Another client, that has no session yet, empties it.
    s.world.restart_client(1);
    s.run(20)?;
    for n in 0..stored {
        let remove = s.call(1, &format!("rf{n}"), Call::Remove);
        s.within(SILENT_MS, remove)?;
    }
    s.run(2_000)?;
    for n in 0..10 {
        let write = s.call(0, &format!("rf{n}"), Call::Put { value: value.as_str().into() });
        s.within(2 * SILENT_MS, write)?;
    }
    s.end()
}

/// Lengths for [`what_was_truncated_does_not_come_back`]: one of them ends where an old record begins.
pub const FILLS: [usize; 8] = [136, 144, 152, 160, 168, 176, 184, 192];

/// Number 21: A backup truncates, gets some records, and is killed: what lay behind them does not come back. `len`: so
/// long a value ends where an old record begins.
pub fn what_was_truncated_does_not_come_back(len: usize) -> Story {
    let mut s = Script::begin(Plan::scripted(3))?;
    s.put(0, "r0", "0")?;
    let members = s.group();
    let (old, next, last) = (members[0], members[1], members[2]);
    let partition = s.partition;
    // The last one gets records of the first that nobody else has.
    s.cut(old, next);
    let value = |c: &str| c.repeat(64);
    let before = tail(&s.world, partition, last);
    for n in 0..12 {
        s.call(0, &format!("r{}", n % 3), Call::Put { value: value("a").as_str().into() });
    }
    s.until("they are there", |world| tail(world, partition, last) >= before + 12)?;
    s.lose(Some(Node::Client(0)), None, &[]);
    s.cut_off(old);
    s.until("it is out", |world| !group(world, partition).contains(&old))?;
    s.until("the next one leads", |world| world.leads(next, partition))?;
    // A take-over record, one that fills up to an old record, and then the last one hears no more.
    s.put(1, "r0", &"b".repeat(len))?;
    s.lose(Some(Node::Brick(next)), Some(Node::Brick(last)), &["Prepare"]);
    for n in 0..6 {
        s.call(1, &format!("r{}", n % 3), Call::Put { value: value("c").as_str().into() });
    }
    s.run(5)?;
    s.down(last, Crash::Kill);
    s.up(last);
    s.run(50)?;
    s.let_go();
    s.mend();
    s.run(500)?;
    for n in 0..3 {
        s.read_at(2, &format!("r{n}"), last);
    }
    s.run(100)?;
    s.end()
}
