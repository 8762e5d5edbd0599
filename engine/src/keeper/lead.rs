//! What the leader of the keepers does: it answers heartbeats, and proposes what should happen next.
//!
//! Two rules keep leases safe. A batch of heartbeats is answered only after a check of the leadership with a
//! majority that began after the last of them had come; and what is known of leases (`Leases`) is of one
//! leadership: the check tells which one it is of, and so does each proposal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use firebrick_partition::keeper::{Applied, Entry, Planner, plan};
use openraft::{BasicNode, RaftMetrics, ServerState};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::net::{Answer, Refusal, Why};
use super::node::{Beat, Node, lock};
use super::types::{NodeId, Proposal, Term};
use crate::clock::boot_ns;

/// Heartbeats answered after one check.
const BATCH_MAX: usize = 256;
/// A check that took longer tells nothing in time.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two looks of the planner, at most.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After a look of the planner, in times of how long it took.
const LOOK_REST: u32 = 4;
/// A shorter rest is none.
const REST_MIN: Duration = Duration::from_millis(2);
/// Entries of the planner that are under way.
const PLANNED_MAX: usize = 32;
/// Before a leadership that could not be begun is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// For a change of the keepers, and for the mark of a new leader.
const KEEPERS_TIMEOUT: Duration = Duration::from_secs(20);
/// For new keepers to get the log. (What came of it is not lost: the next try goes on from there.)
const LEARNER_TIMEOUT: Duration = Duration::from_secs(3);
/// Entries that a new keeper may lack.
const BEHIND_MAX: u64 = 64;
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
        let began = Instant::now();
        look(node, term, &mut planner, &places);
        let rest = (began.elapsed() * LOOK_REST).min(LOOK_EVERY);
        if changing.as_ref().is_none_or(JoinHandle::is_finished) {
            changing = follow_keepers(node);
        }
        // A look at a large cluster takes a while, and each heartbeat asks for one: this thread has more to do.
        if rest > REST_MIN {
            sleep(rest).await;
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
    let named = wanted(node);
    let ids: BTreeSet<NodeId> = named.keys().copied().collect();
    let metrics = node.raft.metrics();
    let membership = Arc::clone(&metrics.borrow().membership_config);
    let membership = membership.membership();
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let is_joint = membership.get_joint_config().len() > 1;
    if ids.is_empty() || (voters == ids && !is_joint) {
        return None;
    }
    let node = Arc::clone(node);
    let new: Vec<_> = named.into_iter().filter(|(id, _)| !voters.contains(id)).collect();
    Some(tokio::spawn(async move {
        if !have_the_log(&node, new).await {
            return sleep(KEEPERS_AGAIN).await;
        }
        // (Others may be wanted by now, and one of these gone.)
        if !wanted(&node).into_keys().eq(ids.iter().copied()) {
            return;
        }
        let change = node.raft.change_membership(ids, false);
        if let Ok(Err(error)) = timeout(KEEPERS_TIMEOUT, change).await {
            node.notices.say(format!("the keepers cannot be changed now: {error}"));
            sleep(KEEPERS_AGAIN).await;
        }
    }))
}

/// The keepers that the state names, and where they are.
fn wanted(node: &Node) -> BTreeMap<NodeId, String> {
    let state = node.shown.lock();
    let bricks = state.keepers.keepers().iter().filter_map(|id| state.keepers.brick(*id));
    bricks.map(|brick| (NodeId::from(brick.id), brick.control.clone())).collect()
}

/// Brings the log to bricks that are to be keepers, to all at once: one that is down holds up nobody else's copy, and is
/// asked for again soon. Whether all have it. (Openraft's own wait takes one that was never reached for one that has it
/// while the log is short, and with its vote nothing would be agreed on any more.)
async fn have_the_log(node: &Arc<Node>, new: Vec<(NodeId, String)>) -> bool {
    let mut adding = JoinSet::new();
    for (id, addr) in new {
        let node = Arc::clone(node);
        adding.spawn(async move {
            let learns =
                node.raft.metrics().borrow().membership_config.membership().get_node(&id).is_some();
            if !learns {
                let added = node.raft.add_learner(id, BasicNode { addr: addr.clone() }, false);
                match timeout(LEARNER_TIMEOUT, added).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        let text =
                            format!("brick {id} at {addr} cannot become a keeper now: {error}");
                        node.notices.say(text);
                        return false;
                    }
                    Err(_) => return false,
                }
            }
            let has = |metrics: &RaftMetrics<NodeId, BasicNode>| has_the_log(metrics, id);
            node.raft.wait(Some(LEARNER_TIMEOUT)).metrics(has, "it has the log").await.is_ok()
        });
    }
    let mut all = true;
    while let Some(added) = adding.join_next().await {
        all &= added.unwrap_or(false);
    }
    all
}

/// It has said that it has the log, up to a few entries.
fn has_the_log(metrics: &RaftMetrics<NodeId, BasicNode>, id: NodeId) -> bool {
    let has = metrics.replication.as_ref().and_then(|has| has.get(&id)?.as_ref());
    has.is_some_and(|has| metrics.last_log_index.is_none_or(|last| last <= has.index + BEHIND_MAX))
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
    ) -> JoinHandle<Result<(Applied, u64), Refusal>> {
        let node = Arc::clone(self);
        tokio::spawn(async move {
            let _place = place;
            let ticket = {
                let state = node.shown.lock();
                let mut leases = lock(&node.leases);
                if node.leading() != Some(term) {
                    let text = "this keeper leads no more; try again";
                    return Err(Refusal::new(Why::NotNow, text));
                }
                leases.proposed(boot_ns(), &state.keepers, &entry)
            };
            let text = "a lease on which it rests is not over yet; try again";
            let ticket = ticket.ok_or_else(|| Refusal::new(Why::NotNow, text))?;
            let proposal = Proposal { term: Some(term), entry: Some(entry) };
            let written = node.raft.client_write(proposal).await;
            lock(&node.leases).settled(ticket);
            node.look.notify_one();
            let written = written.map_err(|error| {
                let text = format!("it may or may not have been agreed on: {error}; see status");
                Refusal::new(Why::InDoubt, text)
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
