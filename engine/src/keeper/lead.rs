//! What the leader of the keepers does: it answers heartbeats, and proposes what should happen next.
//!
//! Two rules keep leases safe. A batch of heartbeats is answered only after a check of the leadership with a
//! majority that began after the last of them had come; and what is known of leases (`Leases`) is of one
//! leadership: the check tells which one it is of, and so does each proposal.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use firebrick_partition::keeper::{Applied, Entry, Planner, plan};
use openraft::{BasicNode, ServerState};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::net::Answer;
use super::node::{Beat, Node, lock};
use super::types::{NodeId, Proposal, Term};
use crate::clock::boot_ns;

/// Heartbeats answered after one check.
const BATCH_MAX: usize = 256;
/// A check that took longer tells nothing in time.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two looks of the planner, at most.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Entries of the planner that are under way.
const PLANNED_MAX: usize = 32;
/// Before a leadership that could not be begun is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// For a change of the keepers, and for the mark of a new leader.
const KEEPERS_TIMEOUT: Duration = Duration::from_secs(20);
/// For new keepers to get the log. (What came of it is not lost: the next try goes on from there.)
const LEARNER_TIMEOUT: Duration = Duration::from_secs(3);
/// Before a change of the keepers is tried again.
const KEEPERS_AGAIN: Duration = Duration::from_millis(500);

/// Leads whenever Raft says so, until Raft ends.
pub(super) async fn lead(node: Arc<Node>) {
    let mut metrics = node.raft.server_metrics();
    loop {
        let leads = metrics.wait_for(|metrics| metrics.state == ServerState::Leader).await.is_ok();
        if !leads {
            return;
        }
        // When this is applied, everything that an earlier leader (or process) proposed is settled.
        let mark = Proposal { term: None, entry: None };
        let Ok(Ok(marked)) = timeout(KEEPERS_TIMEOUT, node.raft.client_write(mark)).await else {
            sleep(AGAIN).await;
            continue;
        };
        let term = marked.log_id.leader_id;
        {
            let state = node.shown.lock();
            lock(&node.leases).lead(boot_ns(), &state.keepers);
            node.leading.send_replace(Some(term));
        }
        steer(&node, term).await;
        node.leading.send_replace(None);
    }
}

/// Until this leadership ends.
async fn steer(node: &Arc<Node>, term: Term) {
    let mut metrics = node.raft.server_metrics();
    let mut changed = node.shown.watch();
    let mut planner = Planner::default();
    let places = Arc::new(Semaphore::new(PLANNED_MAX));
    let mut changing: Option<JoinHandle<()>> = None;
    loop {
        {
            let metrics = metrics.borrow_and_update();
            let vote = metrics.vote.leader_id();
            let still = metrics.state == ServerState::Leader
                && (vote.term, vote.node_id) == (term.term, term.node_id);
            if !still {
                return;
            }
        }
        changed.borrow_and_update();
        look(node, term, &mut planner, &places);
        if changing.as_ref().is_none_or(JoinHandle::is_finished) {
            changing = follow_keepers(node);
        }
        tokio::select! {
            ended = metrics.changed() => if ended.is_err() { return },
            _ = changed.changed() => {}
            () = node.look.notified() => {}
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// Proposes what the planner finds, as far as there are places.
fn look(node: &Arc<Node>, term: Term, planner: &mut Planner, places: &Arc<Semaphore>) {
    let entries = {
        let state = node.shown.lock();
        plan(boot_ns(), &state.keepers, &mut lock(&node.leases), planner)
    };
    for entry in entries {
        let Ok(place) = Arc::clone(places).try_acquire_owned() else { return };
        drop(node.propose(term, entry, Some(place)));
    }
}

/// Makes Raft's voters those that the keepers' state names; one change at a time.
fn follow_keepers(node: &Arc<Node>) -> Option<JoinHandle<()>> {
    let wanted: Vec<(NodeId, String)> = {
        let state = node.shown.lock();
        let wanted = state.keepers.keepers().iter();
        wanted
            .filter_map(|id| state.keepers.brick(*id))
            .map(|b| (u64::from(b.id), b.control.clone()))
            .collect()
    };
    let ids: BTreeSet<NodeId> = wanted.iter().map(|(id, _)| *id).collect();
    let metrics = node.raft.metrics();
    let membership = Arc::clone(&metrics.borrow().membership_config);
    let membership = membership.membership();
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let is_joint = membership.get_joint_config().len() > 1;
    if ids.is_empty() || (voters == ids && !is_joint) {
        return None;
    }
    let node = Arc::clone(node);
    let new: Vec<_> = wanted.into_iter().filter(|(id, _)| !voters.contains(id)).collect();
    Some(tokio::spawn(async move {
        if !have_the_log(&node, new).await {
            return sleep(KEEPERS_AGAIN).await;
        }
        let change = node.raft.change_membership(ids, false);
        if let Ok(Err(error)) = timeout(KEEPERS_TIMEOUT, change).await {
            node.notices.say(format!("the keepers cannot be changed now: {error}"));
            sleep(KEEPERS_AGAIN).await;
        }
    }))
}

/// Brings the log to bricks that are to be keepers, to all at once: one that is down holds up nobody else's copy, and is
/// asked for again soon. Whether all have it.
async fn have_the_log(node: &Arc<Node>, new: Vec<(NodeId, String)>) -> bool {
    let mut adding = JoinSet::new();
    for (id, at) in new {
        let node = Arc::clone(node);
        adding.spawn(async move {
            let added = node.raft.add_learner(id, BasicNode { addr: at.clone() }, true);
            match timeout(LEARNER_TIMEOUT, added).await {
                Ok(Ok(_)) => true,
                Ok(Err(error)) => {
                    node.notices
                        .say(format!("brick {id} at {at} cannot become a keeper now: {error}"));
                    false
                }
                Err(_) => false,
            }
        });
    }
    let mut all = true;
    while let Some(added) = adding.join_next().await {
        all &= added.unwrap_or(false);
    }
    all
}

impl Node {
    /// A check that began now: this keeper leads, in this leadership, and what was agreed on before is applied.
    pub(super) async fn check(&self) -> Option<Term> {
        let term = self.leading()?;
        let read = timeout(CHECK_TIMEOUT, self.raft.ensure_linearizable()).await;
        let read = read.ok()?.ok()??;
        // What was read is at least this leadership's mark, if it is still the same one.
        (read.leader_id == term && self.leading() == Some(term)).then_some(term)
    }

    /// Proposes an entry that was decided in this leadership, on a task of its own, so that what rests on it is told
    /// when it is settled, whoever gives up waiting. The version of the maps that shows it comes with the answer.
    pub(super) fn propose(
        self: &Arc<Self>,
        term: Term,
        entry: Entry,
        place: Option<OwnedSemaphorePermit>,
    ) -> JoinHandle<Result<(Applied, u64), String>> {
        let node = Arc::clone(self);
        tokio::spawn(async move {
            let _place = place;
            let ticket = {
                let state = node.shown.lock();
                let mut leases = lock(&node.leases);
                if node.leading() != Some(term) {
                    return Err("this keeper leads no more; try again".into());
                }
                leases.proposed(boot_ns(), &state.keepers, &entry)
            };
            let ticket = ticket.ok_or("a lease on which it rests is not over yet; try again")?;
            let proposal = Proposal { term: Some(term), entry: Some(entry) };
            let written = node.raft.client_write(proposal).await;
            lock(&node.leases).settled(ticket);
            node.look.notify_one();
            let written = written.map_err(|error| {
                format!("it may or may not have been agreed on: {error}; see status")
            })?;
            if let Applied::Led { loss: Some(text), .. } = &written.data {
                node.notices.say(text.clone());
            }
            Ok((written.data, node.shown.lock().keepers.version()))
        })
    }
}

/// Answers heartbeats, a batch at a time.
pub(super) async fn answer_beats(node: Arc<Node>, mut waiting: mpsc::Receiver<Beat>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        {
            let state = node.shown.lock();
            let mut leases = lock(&node.leases);
            if node.leading().is_some() {
                for (beat, _) in &batch {
                    leases.heartbeat(boot_ns(), &state.keepers, beat);
                }
            }
        }
        // It begins after the last of the batch has come.
        let checked = node.check().await;
        for (beat, waits) in batch.drain(..) {
            let _ = waits.send(answer(&node, &beat, checked));
        }
        node.look.notify_one();
    }
}

fn answer(
    node: &Node,
    beat: &firebrick_partition::keeper::Heartbeat,
    checked: Option<Term>,
) -> Answer {
    let state = node.shown.lock();
    let mut leases = lock(&node.leases);
    if checked.is_none() || node.leading() != checked {
        return Answer::NotLeader { leader: None };
    }
    let (brick, incarnation, since) = (beat.brick, beat.incarnation, beat.version);
    let granted = leases.answer(boot_ns(), &state.keepers, brick, incarnation, since);
    granted.map_or_else(|| Answer::Refused("no lease now".into()), Answer::Lease)
}
