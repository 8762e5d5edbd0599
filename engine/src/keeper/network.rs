//! How Raft's messages reach another keeper: through [`Links`], to where the keepers' state says that brick is.

use std::future::Future;
use std::time::Duration;

use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, Snapshot, Vote};

use super::machine::Shown;
use super::net::{Answer, Ask, Lane, LinkError, Links};
use super::types::{Keeping, NodeId};

/// One part of a snapshot that travels.
const PART_BYTES: usize = 1 << 20;
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
}

impl RaftNetworkFactory<Keeping> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Peer {
        let (links, shown) = (self.links.clone(), self.shown.clone());
        Peer { links, shown, target, first_at: node.addr.clone() }
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
        match self.ask(Lane::Raft, Ask::Append(rpc), &[], option.hard_ttl()).await? {
            Answer::Append(response) => Ok(response),
            other => Err(unexpected(&other).into()),
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

impl Peer {
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
