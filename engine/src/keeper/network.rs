//! How Raft's messages reach another keeper: through [`Links`], to where the keepers' state says that brick is.

use std::future::Future;
use std::time::Duration;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, LogId, OptionalSend, Snapshot, Vote};
use tokio::task::JoinHandle;

use super::machine::Shown;
use super::net::{Answer, Ask, Lane, LinkError, Links};
use super::types::{Keeping, NodeId};

/// One part of a snapshot that travels.
const PART_BYTES: usize = 1 << 20;
/// For entries to be answered. Then they are sent again, on a new connection if this one has been silent.
const ENTRIES_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Before a keeper that cannot be reached is tried again.
const BACKOFF: Duration = Duration::from_millis(50);

type Rpc<T> = Result<T, RPCError<NodeId, BasicNode, RaftError<NodeId>>>;

/// Makes clients for openraft.
pub(crate) struct Network {
    links: Links,
    shown: Shown,
}

impl Network {
    pub(crate) fn new(links: Links, shown: Shown) -> Self {
        Self { links, shown }
    }
}

/// The way to one keeper.
pub(crate) struct Peer {
    links: Links,
    shown: Shown,
    target: NodeId,
    /// Where it was when it became a keeper.
    first_at: String,
    sending: Option<Sending>,
}

/// Entries on their way. Openraft gives each try the time between two heartbeats, and then tries again: on a slow link, or
/// to a slow disk, large ones would never arrive if each try sent them anew. So the next try waits for those of the one before.
struct Sending {
    vote: Vote<NodeId>,
    behind: Option<LogId<NodeId>>,
    last: LogId<NodeId>,
    answer: JoinHandle<Result<Answer, LinkError>>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

impl RaftNetworkFactory<Keeping> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Peer {
        let (links, shown) = (self.links.clone(), self.shown.clone());
        Peer { links, shown, target, first_at: node.addr.clone(), sending: None }
    }
}

impl Peer {
    /// A brick that restarted may be elsewhere: it registered with its new address.
    fn at(&self) -> String {
        let state = self.shown.lock();
        let brick = state.keepers.brick(self.target as u32);
        brick.map_or_else(|| self.first_at.clone(), |brick| brick.control.clone())
    }

    async fn ask(
        &self,
        lane: Lane,
        ask: Ask,
        tail: &[u8],
        within: Duration,
    ) -> Result<Answer, Unreachable> {
        let asked =
            self.links.ask(&self.at(), self.target as u32, lane, (false, ask), tail, within).await;
        asked.map_err(|error| Unreachable::new(&error))
    }
}

/// What a keeper answers that cannot do what it was asked: it is stopping, most likely.
fn unexpected(answer: &Answer) -> Unreachable {
    let text = match answer {
        Answer::Refused(why) => why.clone(),
        _ => "it answered something else than was asked".to_owned(),
    };
    Unreachable::new(&LinkError { text, sent: true })
}

impl RaftNetwork<Keeping> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Keeping>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<NodeId>> {
        let Some(last) = rpc.entries.last().map(|entry| entry.log_id) else {
            let asked = self.ask(Lane::Raft, Ask::Append(rpc), &[], option.hard_ttl());
            return Ok(append_response(asked.await?)?);
        };
        let is_it =
            |s: &Sending| (s.vote, s.behind) == (rpc.vote, rpc.prev_log_id) && s.last <= last;
        let sending = match self.sending.take_if(|sending| is_it(sending)) {
            Some(sending) => sending,
            None => self.send(last, rpc),
        };
        let sending = self.sending.insert(sending);
        let answer = (&mut sending.answer).await;
        let sent = sending.last;
        self.sending = None;
        let answer = answer.map_err(|error| Unreachable::new(&error))?;
        match append_response(answer.map_err(|error| Unreachable::new(&error))?)? {
            // More has come behind them meanwhile.
            AppendEntriesResponse::Success if sent < last => {
                Ok(AppendEntriesResponse::PartialSuccess(Some(sent)))
            }
            response => Ok(response),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<NodeId>> {
        match self.ask(Lane::Raft, Ask::Vote(rpc), &[], option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            other => Err(unexpected(&other).into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<NodeId>,
        snapshot: Snapshot<Keeping>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<Keeping, Fatal<NodeId>>> {
        let send = self.send_parts(vote, &snapshot, option.hard_ttl());
        tokio::select! {
            sent = send => sent.map_err(StreamingError::Unreachable),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// What a keeper answers to entries, or to a heartbeat.
fn append_response(answer: Answer) -> Result<AppendEntriesResponse<NodeId>, Unreachable> {
    match answer {
        Answer::Append(response) => Ok(response),
        other => Err(unexpected(&other)),
    }
}

impl Peer {
    /// Heartbeats, votes and checks of the leadership do not wait behind entries: those have another lane.
    fn send(&self, last: LogId<NodeId>, rpc: AppendEntriesRequest<Keeping>) -> Sending {
        let (links, at, to) = (self.links.clone(), self.at(), self.target as u32);
        let (vote, behind) = (rpc.vote, rpc.prev_log_id);
        let answer = tokio::spawn(async move {
            let question = (false, Ask::Append(rpc));
            links.ask(&at, to, Lane::Bulk, question, &[], ENTRIES_TIMEOUT).await
        });
        Sending { vote, behind, last, answer }
    }

    async fn send_parts(
        &self,
        vote: Vote<NodeId>,
        snapshot: &Snapshot<Keeping>,
        within: Duration,
    ) -> Result<SnapshotResponse<NodeId>, Unreachable> {
        let bytes = &snapshot.snapshot;
        let mut offset = 0;
        loop {
            let end = bytes.len().min(offset + PART_BYTES);
            let last = end == bytes.len();
            let meta = snapshot.meta.clone();
            let ask = Ask::Snapshot { vote, meta, offset: offset as u64, last };
            match self.ask(Lane::Bulk, ask, &bytes[offset..end], within).await? {
                Answer::Snapshot(Some(response)) => return Ok(response),
                Answer::Snapshot(None) if !last => offset = end,
                other => return Err(unexpected(&other)),
            }
        }
    }
}
