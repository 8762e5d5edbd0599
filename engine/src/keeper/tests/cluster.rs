use std::time::Duration;

use firebrick_partition::keeper::{Heartbeat, LeaseAnswer};

use super::rig::{Host, LONG, TestBrick, until};
use crate::clock::boot_ns;
use crate::keeper::net::{Answer, Ask, Lane, Links};

struct Three {
    hosts: Vec<Host>,
    bricks: Vec<Option<TestBrick>>,
}

/// Three bricks that are all keepers.
fn three() -> Three {
    let mut hosts: Vec<Host> = ["a", "b", "c"].map(Host::new).into();
    let first = hosts[0].start(&[]);
    let at = first.at;
    let mut bricks = vec![Some(first)];
    for host in &mut hosts[1..] {
        bricks.push(Some(host.start(&[at])));
    }
    let three = Three { hosts, bricks };
    let voters = serde_json::json!(["a", "b", "c"]);
    until("three keepers", || three.all().all(|b| b.status()["cluster"]["voters"] == voters));
    three
}

impl Three {
    fn all(&self) -> impl Iterator<Item = &TestBrick> {
        self.bricks.iter().flatten()
    }

    fn brick(&self, at: usize) -> &TestBrick {
        self.bricks[at].as_ref().unwrap()
    }

    /// Where the leader is, once those that are there agree on one of them.
    fn leader(&self) -> usize {
        let mut found = 0;
        until("a leader", || {
            let here: Vec<u64> = self.all().map(|b| u64::from(b.started.brick)).collect();
            let told: Vec<_> = self.all().map(TestBrick::leader).collect();
            let leader = told[0].filter(|leader| here.contains(leader));
            found = leader.unwrap_or(0) as usize;
            leader.is_some() && told.iter().all(|other| *other == leader)
        });
        found - 1
    }

    fn end(&mut self, at: usize) {
        self.bricks[at].take().unwrap().end();
    }

    fn start(&mut self, at: usize) {
        self.bricks[at] = Some(self.hosts[at].start(&[]));
    }
}

#[test]
fn leases_go_on_when_the_leader_dies_and_end_when_a_majority_does() {
    let mut three = three();
    until("leases", || three.all().all(TestBrick::is_leased));
    assert!(three.all().all(|brick| brick.cores.last_lease(0) != u64::MAX), "none without end");
    let dead = three.leader();
    three.end(dead);
    let left: Vec<usize> = (0..3).filter(|at| *at != dead).collect();
    let leases = |three: &Three, at: usize| three.brick(at).cores.leases(0).len();
    let before: Vec<usize> = left.iter().map(|at| leases(&three, *at)).collect();
    until("leases of the new leader", || {
        left.iter().zip(&before).all(|(at, before)| leases(&three, *at) > before + 5)
    });
    let created = three.brick(left[0]).ask("{\"do\":\"table-create\",\"name\":\"t\"}");
    assert_eq!(created["ok"], true, "{created}");
    three.start(dead);
    assert!(three.brick(dead).started.routes.table_named("t").is_some());
    until("a lease of the one that is back", || three.brick(dead).is_leased());

    // Two go: the last one's lease ends, and nothing renews it.
    let last = left[0];
    for at in (0..3).filter(|at| *at != last) {
        three.end(at);
    }
    until("the end of its lease", || !three.brick(last).is_leased());
    let given = leases(&three, last);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(leases(&three, last), given);
    assert_eq!(
        three.brick(last).ask("{\"do\":\"table-list\"}")["ok"],
        true,
        "it answers what it can"
    );
    three.start(left[1]);
    until("a lease again", || three.brick(last).is_leased());
}

#[test]
fn a_leader_that_stood_still_answers_no_heartbeat_with_a_lease() {
    let three = three();
    let old = three.leader();
    let member = (0..3).find(|at| *at != old).unwrap();
    let member = three.brick(member);
    let folder = three.hosts[old].folder.path().join("keeper/member");
    let text = std::fs::read_to_string(folder).unwrap();
    let json: serde_json::Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let links = Links::default();
    links.set_me(json["cluster"].as_u64().unwrap(), member.started.brick);
    let beat = Heartbeat {
        brick: member.started.brick,
        incarnation: member.registration.incarnation,
        ..Heartbeat::default()
    };
    let at = three.brick(old).at.to_string();
    let ask = |links: Links| {
        let (at, ask) = (at.clone(), Ask::Heartbeat(beat.clone()));
        // Relayed: it is to answer itself.
        async move { links.ask(&at, 0, Lane::Asks, (true, ask), &[], LONG).await }
    };
    let granted = runtime.block_on(ask(links.clone())).unwrap();
    assert!(matches!(granted, Answer::Lease(LeaseAnswer::Granted { .. })), "{granted:?}");

    three.brick(old).cores.set_frozen(true);
    // Its own heartbeat runs into the frozen cores within 100 ms.
    std::thread::sleep(Duration::from_millis(250));
    let late = runtime.spawn(ask(links));
    let others: Vec<&TestBrick> =
        three.all().filter(|brick| brick.at != three.brick(old).at).collect();
    let old_id = u64::from(three.brick(old).started.brick);
    until("another leader", || {
        others.iter().all(|brick| brick.leader().is_some_and(|leader| leader != old_id))
    });
    let lease = three.brick(old).cores.last_lease(0);
    until("the end of the old leader's own lease", || boot_ns() > lease);
    three.brick(old).cores.set_frozen(false);
    let answer = runtime.block_on(late).unwrap();
    assert!(
        matches!(answer, Ok(Answer::NotLeader { .. } | Answer::Refused(_)) | Err(_)),
        "an old leader answered {answer:?}"
    );
    until("a lease of the one that stood still", || three.brick(old).is_leased());
}

#[test]
fn a_follower_far_behind_gets_a_snapshot() {
    let mut three = three();
    let behind = (0..3).find(|at| *at != three.leader()).unwrap();
    three.end(behind);
    let other = (0..3).find(|at| *at != behind).unwrap();
    for _ in 0..30 {
        let brick = three.brick(other);
        let create = "{\"do\":\"table-create\",\"name\":\"t\",\"partitions\":1,\"replicas\":1}";
        for request in [create, "{\"do\":\"table-drop\",\"name\":\"t\"}"] {
            let answer = brick.ask(request);
            assert_eq!(answer["ok"], true, "{answer}");
        }
    }
    let created = three.brick(other).ask("{\"do\":\"table-create\",\"name\":\"late\"}");
    assert_eq!(created["ok"], true, "{created}");
    let snapshot = |three: &Three, at: usize| three.hosts[at].folder.path().join("keeper/snapshot");
    let _ = std::fs::remove_file(snapshot(&three, behind));
    three.start(behind);
    assert!(three.brick(behind).started.routes.table_named("late").is_some());
    let version = three.brick(other).status()["cluster"]["own_version"].as_u64();
    until("its own state", || {
        three.brick(behind).status()["cluster"]["own_version"].as_u64() >= version
    });
    assert!(snapshot(&three, behind).exists(), "it came as a snapshot");
}

#[test]
fn a_process_whose_brick_another_one_took_over_ends() {
    let mut a = Host::new("a");
    let founder = a.start(&[]);
    let mut b = Host::new("b");
    let old = b.start(&[founder.at]);
    until("a lease", || old.is_leased());
    old.cores.set_frozen(true);
    // A copy of its folder starts on another host, while the old process may still hold a lease.
    let copy = Host::copy_of(&b);
    let began = boot_ns();
    let lease = old.cores.last_lease(0);
    let new = copy.begin(&[], 2).wait();
    assert_eq!(new.started.brick, old.started.brick);
    assert!(boot_ns() > lease, "began at {began}, and waited for the end of {lease}");
    old.cores.set_frozen(false);
    until("the end of the old process", || old.cores.is_stopped());
    assert!(old.board.failure().unwrap().contains("another process acts for this brick"));
    until("a lease of the new one", || new.is_leased());
}
