use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use firebrick_partition::keeper::{Heartbeat, LeaseAnswer};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::rig::LONG;
use crate::keeper::Finder;
use crate::keeper::net::{Admin, Answer, Ask, Handler, Hello, Links, Refusal, Why, serve};
use crate::keeper::node::pass_on;

/// A brick whose answers the test makes.
struct Fake<F>(F);

impl<F: Fn(bool) -> Option<Answer> + Send + Sync + 'static> Handler for Fake<F> {
    fn me(&self) -> (u64, u32) {
        (77, 3)
    }
    async fn answer(&self, _: Hello, relayed: bool, _: Ask, _: Vec<u8>) -> Answer {
        match (self.0)(relayed) {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

/// A brick that gets questions, and whether they were relayed.
async fn brick<F>(at: &str, answer: F) -> (String, JoinHandle<()>)
where
    F: Fn(bool) -> Option<Answer> + Send + Sync + 'static,
{
    let listener = TcpListener::bind(at).await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    (at, tokio::spawn(serve(listener, Arc::new(Fake(answer)))))
}

fn links() -> Links {
    let links = Links::default();
    links.set_me(77, 9);
    links
}

fn lease() -> Answer {
    Answer::Lease(LeaseAnswer::Register)
}

const BRIEF: Duration = Duration::from_millis(250);

#[tokio::test]
async fn who_alone_does_not_reach_the_leader_asks_through_another_keeper() {
    let leader = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let leader = leader.to_string();
    let passed = Arc::new(AtomicU32::new(0));
    let (count, named) = (Arc::clone(&passed), leader.clone());
    let (keeper, _serving) = brick("127.0.0.1:0", move |relayed| {
        if relayed {
            return Some(Answer::NotLeader { leader: Some(named.clone()) });
        }
        count.fetch_add(1, Ordering::Relaxed);
        Some(lease())
    })
    .await;
    let finder = Finder::new(links(), [leader.clone(), keeper]);
    let beat = Ask::Heartbeat(Heartbeat::default());
    assert!(finder.ask(&beat, BRIEF).await.is_err(), "it does not know yet");
    for _ in 0..5 {
        let answer = finder.ask(&beat, BRIEF).await;
        assert!(matches!(answer, Ok(Answer::Lease(_))), "{answer:?}");
    }
    // What an operator asks goes the same way.
    assert!(finder.clone().ask(&Ask::Overview, BRIEF).await.is_ok());
    assert_eq!(passed.load(Ordering::Relaxed), 6);

    let (_, _serving) = brick(&leader, |_| Some(lease())).await;
    let end = Instant::now() + LONG;
    loop {
        let before = passed.load(Ordering::Relaxed);
        assert!(finder.ask(&beat, BRIEF).await.is_ok());
        if passed.load(Ordering::Relaxed) == before {
            break;
        }
        assert!(Instant::now() < end, "it asks the leader no more, which is in reach again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn bricks_that_are_no_keepers_are_passed_over_at_once() {
    let mut places = Vec::new();
    let mut serving = Vec::new();
    for n in 0..21 {
        let leads = n == 20;
        let answer =
            move |_| Some(if leads { lease() } else { Answer::NotLeader { leader: None } });
        let (at, task) = brick("127.0.0.1:0", answer).await;
        places.push(at);
        serving.push(task);
    }
    let finder = Finder::new(links(), places);
    let beat = Ask::Heartbeat(Heartbeat::default());
    let mut asked = 1;
    while finder.ask(&beat, BRIEF).await.is_err() {
        asked += 1;
    }
    assert_eq!(asked, 3, "a pause after each costs more than a lease");
    assert!(finder.ask(&beat, BRIEF).await.is_ok(), "it is the first guess now");
}

#[tokio::test]
async fn a_change_that_was_passed_on_and_got_no_answer_is_in_doubt() {
    for (ask, expected) in [
        (Ask::Admin(Admin::DropTable { name: "t".into(), id: None }), true),
        (Ask::Heartbeat(Heartbeat::default()), false),
    ] {
        let came = Arc::new(Notify::new());
        let comes = Arc::clone(&came);
        let (leader, serving) = brick("127.0.0.1:0", move |_| {
            comes.notify_one();
            None
        })
        .await;
        let passing = tokio::spawn(async move { pass_on(&links(), (3, leader), ask).await });
        came.notified().await;
        serving.abort();
        let answer = passing.await.unwrap();
        let in_doubt = matches!(answer, Answer::Declined(Refusal { why: Why::InDoubt, .. }));
        assert_eq!(in_doubt, expected, "{answer:?}");
    }
}
