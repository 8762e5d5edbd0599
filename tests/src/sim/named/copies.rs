//! Copies whose learner fails.

use firebrick_partition::keeper::{Entry, Group};

use super::super::entries::later;
use super::super::machine::Crash;
use super::super::message::Node;
use super::super::mistake::Mistake;
use super::super::plan::Plan;
use super::super::script::{Script, Story, group};
use super::SILENT_MS;
use crate::check::Call;

/// A group of two and a brick that lost everything, which is about to be copied to; it.
fn with_a_learner(mistake: Mistake) -> Result<(Script, usize), String> {
    let mut s = Script::begin(Plan { mistake, ..Plan::scripted(3) })?;
    for n in 0..20 {
        s.put(0, &format!("r{n}"), &"x".repeat(500))?;
    }
    let last = s.group()[2];
    let partition = s.partition;
    s.down(last, Crash::Lost);
    s.until("it is taken out", |world| group(world, partition).len() == 2)?;
    Ok((s, last))
}

/// Until its promotion is on its way through the keepers' log.
fn until_its_promotion(s: &mut Script) -> Story {
    s.until("a learner", |world| {
        let copies = |g: &Group| !g.replicas.learners.is_empty() && g.replicas.is_active();
        world.sim.keeper.state.groups().any(|(_, group)| copies(group))
    })?;
    s.world.grip.hold_entries = true;
    s.until("its promotion", |world| {
        world.sim.keeper.flying.iter().any(|f| matches!(f.entry, Entry::Promote { .. }))
    })
}

/// Number 23: A learner stops reading in the middle of its copy: no write waits for it, and it is given up.
pub fn a_learner_that_stops_reading_delays_no_write() -> Story {
    let (mut s, last) = with_a_learner(Mistake::None)?;
    s.hold(None, Some(Node::Brick(last)), &["CopyData"]);
    s.up(last);
    s.until("a copy", |world| !world.grip.held.is_empty())?;
    s.hold(None, Some(Node::Brick(last)), &["Prepare", "Commit", "CopyListing"]);
    for n in 0..100 {
        let write = s.call(0, "r0", Call::Put { value: format!("{n}").as_str().into() });
        s.within(20, write)?;
        s.run(5)?;
    }
    s.end()
}

/// Number 25: A learner whose vote is required falls silent after the primary's report: it is promoted as the process
/// that it was or not at all, and no write is blocked for good.
pub fn a_required_learner_that_falls_silent_blocks_nothing_for_good(mistake: Mistake) -> Story {
    for dies in [Crash::Kill, Crash::Lost] {
        for restarts in [false, true] {
            let (mut s, last) = with_a_learner(mistake)?;
            s.up(last);
            until_its_promotion(&mut s)?;
            s.down(last, dies);
            if restarts {
                s.up(last);
            }
            let write = s.call(0, "r0", Call::Put { value: "1".into() });
            s.run(30)?;
            s.let_go();
            s.within(SILENT_MS, write)?;
            s.end()?;
        }
    }
    // It lives, and the keepers hear it: only the primary does not.
    let (mut s, last) = with_a_learner(mistake)?;
    s.up(last);
    until_its_promotion(&mut s)?;
    s.world.grip.hold_entries = false;
    let promotion = std::mem::take(&mut s.world.grip.entries);
    let primary = s.group()[0];
    s.lose(Some(Node::Brick(last)), Some(Node::Brick(primary)), &[]);
    let write = s.call(0, "r0", Call::Put { value: "1".into() });
    s.run(30)?;
    for id in promotion {
        later(&mut s.world, id);
    }
    s.within(SILENT_MS, write)?;
    s.end()
}

/// Number 10: A learner is made a replica before the primary knows: what the primary acks alone until then the learner
/// has too, or it neither serves nor leads.
pub fn a_learner_has_all_that_was_acked_when_it_becomes_a_member() -> Story {
    let (mut s, last) = with_a_learner(Mistake::None)?;
    let partition = s.partition;
    let primary = s.group()[0];
    s.up(last);
    until_its_promotion(&mut s)?;
    // From now on the learner hears the keepers, and nothing of what is written.
    s.lose(Some(Node::Brick(primary)), Some(Node::Brick(last)), &[]);
    s.lose(Some(Node::Keeper), Some(Node::Brick(primary)), &[]);
    s.world.grip.hold_entries = false;
    for id in std::mem::take(&mut s.world.grip.entries) {
        later(&mut s.world, id);
    }
    let write = s.call(0, "r0", Call::Put { value: "1".into() });
    s.until("it is a member", |world| group(world, partition).contains(&last))?;
    s.run(20)?;
    for _ in 0..100 {
        s.read_at(2, "r0", last);
        s.run(2)?;
    }
    s.let_go();
    s.within(SILENT_MS, write)?;
    s.end()
}
