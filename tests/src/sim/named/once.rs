//! Exactly once, and answers that rest on what is not committed.

use super::super::level::Level;
use super::super::machine::Crash;
use super::super::message::Node;
use super::super::mistake::Mistake;
use super::super::plan::Plan;
use super::super::script::{Script, Story, group};
use super::{BLOCKED_MS, SILENT_MS};
use crate::check::{Back, Call};

/// Number 17: An increment that waits for a dead replica is asked for again and again: it counts once.
pub fn an_increment_that_waits_for_a_dead_replica_counts_once() -> Story {
    let mut s = Script::begin(Plan::scripted(3))?;
    let members = s.group();
    s.lose(Some(Node::Brick(members[0])), Some(Node::Brick(members[2])), &["Prepare"]);
    let add = s.call(0, "c0", Call::Increment { by: 1 });
    s.run(1)?;
    s.down(members[2], Crash::Kill);
    match s.within(BLOCKED_MS, add)? {
        Back::Integer { value: 1, .. } => {}
        other => return Err(format!("it was answered {other}")),
    }
    if s.world.sim.cover.count("a request is tried again") == 0 {
        return Err("nothing was tried again".to_owned());
    }
    s.expect(1, "c0", members[1], "1")?;
    s.end()
}

/// Number 17: A put-if-absent that is refused because of a record that take-over drops is not told so.
pub fn a_refusal_waits_for_what_it_rests_on() -> Story {
    let mut s = Script::begin(Plan::scripted(3))?;
    let members = s.group();
    let (old, partition) = (members[0], s.partition);
    for &at in &members[1..] {
        s.cut(old, at);
        // The client of the put is heard by nobody else, ever.
        s.lose(Some(Node::Client(0)), Some(Node::Brick(at)), &[]);
    }
    s.call(0, "r0", Call::Put { value: "dropped".into() });
    s.run(5)?;
    let absent = s.call(1, "r0", Call::PutIfAbsent { value: "mine".into() });
    s.run(5)?;
    s.lose(Some(Node::Client(0)), None, &[]);
    s.cut_off(old);
    s.until("another leads", |world| {
        let members = group(world, partition);
        !members.is_empty() && !members.contains(&old)
    })?;
    s.within(SILENT_MS, absent)?;
    s.expect(2, "r0", members[1], "mine")?;
    s.end()
}

/// Number 17: A client's next process numbers its requests from 1 again: none is taken for an earlier one.
pub fn a_restarted_client_is_another_session(mistake: Mistake) -> Story {
    let mut s = Script::begin(Plan { mistake, ..Plan::scripted(2) })?;
    let mut expected = 0;
    for _ in 0..3 {
        for _ in 0..3 {
            expected += 1;
            let add = s.call(0, "c0", Call::Increment { by: 1 });
            match s.within(SILENT_MS, add)? {
                Back::Integer { value, .. } if value == expected => {}
                other => return Err(format!("increment {expected} was answered {other}")),
            }
        }
        s.world.restart_client(0);
        s.run(20)?;
    }
    s.end()
}
