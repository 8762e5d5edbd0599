use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::{BasicNode, CommittedLeaderId, EntryPayload, LogId, Vote};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::keeper::machine::Machine;
use crate::keeper::net::{Answer, Ask, Handler, Hello, Links, serve};
use crate::keeper::network::Network;
use crate::keeper::types::{Keeping, LogEntry, NodeId};
use crate::notices::Notices;

/// What openraft gives a try.
const TRY: Duration = Duration::from_millis(50);

/// A keeper that takes long to take entries.
struct Slow(AtomicU32);

impl Handler for Slow {
    fn me(&self) -> (u64, u32) {
        (77, 3)
    }
    async fn answer(&self, _: Hello, _: bool, ask: Ask, _: Vec<u8>) -> Answer {
        let Ask::Append(rpc) = ask else { return Answer::Refused("not that".into()) };
        if !rpc.entries.is_empty() {
            self.0.fetch_add(1, Ordering::Relaxed);
            sleep(4 * TRY).await;
        }
        Answer::Append(AppendEntriesResponse::Success)
    }
}

fn at(index: u64) -> LogId<NodeId> {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

fn entries(indexes: std::ops::Range<u64>) -> AppendEntriesRequest<Keeping> {
    let behind = indexes.start.checked_sub(1).map(at);
    let entry = |index| LogEntry { log_id: at(index), payload: EntryPayload::Blank };
    AppendEntriesRequest {
        vote: Vote::new_committed(1, 1),
        prev_log_id: behind,
        entries: indexes.map(entry).collect(),
        leader_commit: None,
    }
}

#[tokio::test]
async fn entries_that_take_longer_than_a_try_are_sent_once_and_the_next_try_waits_for_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let slow = Arc::new(Slow(AtomicU32::new(0)));
    tokio::spawn(serve(listener, Arc::clone(&slow)));
    let links = Links::default();
    links.set_me(77, 1);
    let folder = tempfile::tempdir().unwrap();
    let (_, shown) = Machine::open(folder.path(), Notices::heard().0).unwrap();
    let mut peer = Network::new(links, shown).new_client(3, &BasicNode { addr }).await;

    // Openraft asks anew for what is there by then.
    let mut tries = 0;
    let response = loop {
        tries += 1;
        assert!(tries < 10, "they do not arrive");
        let rpc = if tries == 1 { entries(1..3) } else { entries(1..5) };
        let tried = peer.append_entries(rpc, RPCOption::new(TRY));
        if let Ok(response) = timeout(TRY, tried).await {
            break response.unwrap();
        }
    };
    assert_eq!(response, AppendEntriesResponse::PartialSuccess(Some(at(2))));
    assert_eq!(slow.0.load(Ordering::Relaxed), 1, "each try sends them anew");
    let rest = peer.append_entries(entries(3..5), RPCOption::new(TRY)).await.unwrap();
    assert_eq!(rest, AppendEntriesResponse::Success);
}
