use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use firebrick_partition::maps::MapDelta;
use tokio::sync::Notify;

use super::*;
use crate::counters::Board;
use crate::keeper::tests::rig::FakeCores;
use crate::keeper::{Handler, Hello, Links, serve};

/// A keeper that drops a table and dies before it says so. The next one knows of no such table.
#[derive(Default)]
struct Dies {
    asked: AtomicU32,
    came: Notify,
}

impl Handler for Dies {
    fn me(&self) -> (u64, u32) {
        (77, 3)
    }
    async fn answer(&self, _: Hello, _: bool, ask: Question, _: Vec<u8>) -> Answer {
        match ask {
            Question::Admin(_) if self.asked.fetch_add(1, Ordering::Relaxed) == 0 => {
                self.came.notify_one();
                std::future::pending().await
            }
            Question::Admin(_) => Answer::Declined(Refusal::new(Why::NotFound, "no table")),
            Question::Maps { .. } => Answer::Maps(MapDelta::nothing(7)),
            _ => Answer::Refused("not that".into()),
        }
    }
}

fn change(at: SocketAddr) -> (Change, watch::Sender<u64>) {
    let board = Arc::new(Board::new(1));
    let links = Links::default();
    links.set_me(77, 9);
    let (version, shown) = watch::channel(6);
    let shared = Shared {
        name: "kiln".into(),
        brick_id: 1,
        listen: at,
        resp: None,
        cores: FakeCores::new(&board),
        board,
        routes: std::sync::Mutex::default(),
        node: OnceLock::new(),
        finder: OnceLock::new(),
        statuses: mpsc::channel(1).0,
    };
    let finder = Finder::new(links, [at.to_string()]);
    let turns = Arc::new(Semaphore::new(1));
    (Change { shared: Arc::new(shared), finder, shown, turns }, version)
}

#[tokio::test]
async fn what_was_done_by_a_try_that_got_no_answer_is_answered_behind_its_maps() {
    let keeper = Arc::new(Dies::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(listener, Arc::clone(&keeper)));
    let (change, version) = change(at);
    let asking = tokio::spawn(async move {
        change.perform(Admin::DropTable { name: "t".into(), id: None }).await
    });
    keeper.came.notified().await;
    serving.abort();
    let _ = serving.await;
    let listener = tokio::net::TcpListener::bind(at).await.unwrap();
    tokio::spawn(serve(listener, Arc::clone(&keeper)));
    sleep(5 * AGAIN).await;
    assert_eq!(keeper.asked.load(Ordering::Relaxed), 2);
    assert!(!asking.is_finished(), "the cores have the maps of version 6, with the table");
    version.send_replace(7);
    let answer = asking.await.unwrap();
    assert_eq!((&answer["ok"], &answer["version"]), (&true.into(), &7.into()), "{answer}");
}
