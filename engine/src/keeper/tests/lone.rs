use std::time::Duration;

use super::rig::{Host, until};
use crate::clock::boot_ns;
use crate::keeper::KeeperSetup;
use crate::keeper::begin::begin;

use super::rig::{keeper_setup, registration};

fn epoch_of(brick: &super::rig::TestBrick) -> u32 {
    brick.started.routes.table_named("default").unwrap().entries()[0].route.epoch
}

#[test]
fn a_lone_brick_is_its_own_keeper_and_each_start_is_a_new_epoch() {
    let mut host = Host::new("kiln");
    let brick = host.start(&[]);
    assert_eq!(brick.started.brick, 1);
    assert_eq!(brick.started.routes.table_named("default").unwrap().entries().len(), 8);
    until("a lease without end", || (0..2).all(|core| brick.cores.last_lease(core) == u64::MAX));
    let given = brick.cores.leases(0).len();
    let created = brick.ask("{\"do\":\"table-create\",\"name\":\"carts\",\"partitions\":1}");
    assert_eq!(created["table"]["partitions"], 2, "{created}");
    assert!(brick.cores.routes().unwrap().table_named("carts").is_some(), "before the answer");
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(brick.cores.leases(0).len(), given + 1, "an idle core is left alone");
    let (epoch, version) = (epoch_of(&brick), brick.started.routes.version());
    brick.end();

    // Without a word of the old process: the log is enough.
    let again = host.start(&[]);
    assert_eq!(again.started.brick, 1);
    assert!(epoch_of(&again) > epoch && again.started.routes.version() > version);
    assert!(again.started.routes.table_named("carts").is_some());
    assert_eq!(again.ask("{\"do\":\"table-drop\",\"name\":\"carts\"}")["ok"], true);
    assert!(again.cores.routes().unwrap().table_named("carts").is_none());
    again.end();
    // Its files were not reported gone.
    let third = host.start(&[]);
    assert_eq!(third.started.dropped.len(), 2);
    third.port.removed(third.started.dropped.clone()).unwrap();
    let refused = third.ask("{\"do\":\"table-drop\",\"name\":\"carts\"}");
    assert!(refused["error"].as_str().unwrap().contains("no table \"carts\""), "{refused}");
    third.end();
    assert!(host.start(&[]).started.dropped.is_empty());
}

#[test]
fn a_stuck_core_gets_no_further_lease_and_the_others_do() {
    let (mut a, mut b) = (Host::new("a"), Host::new("b"));
    let founder = a.start(&[]);
    let brick = b.start(&[founder.at]);
    until("a lease", || brick.is_leased());
    brick.cores.set_stuck(Some(1));
    // One is on its way to it; it is the last.
    std::thread::sleep(Duration::from_millis(300));
    let last = brick.cores.leases(1).len();
    let others = brick.cores.leases(0).len();
    until("leases of the other core", || brick.cores.leases(0).len() > others + 5);
    assert_eq!(brick.cores.leases(1).len(), last);
    // It turns again: it takes what lay in its ring.
    brick.cores.set_stuck(None);
    let end_ns = brick.cores.last_lease(1);
    let version = brick.board.core(1).taken().version;
    brick.board.core(1).took(crate::counters::Taken { version, end_ns });
    until("leases again", || brick.cores.leases(1).len() > last + 2);
    brick.end();
    founder.end();
}

fn refused(setup: KeeperSetup) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(begin(setup)).err().expect("it is refused").to_string()
}

#[test]
fn a_folder_that_lost_its_keeper_is_refused_and_left_alone() {
    let mut host = Host::new("kiln");
    let brick = host.start(&[]);
    let registration = registration("kiln", 5, 1, brick.at);
    brick.end();
    let data_dir = host.folder.path();
    let try_again = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        refused(keeper_setup(data_dir, listener, &[], registration.clone()))
    };
    std::fs::remove_file(data_dir.join("keeper/member")).unwrap();
    let told = try_again();
    assert!(told.contains("member: is missing") && told.contains("a keeper's log"), "{told}");
    std::fs::remove_dir_all(data_dir.join("keeper")).unwrap();
    std::fs::create_dir(data_dir.join("p7")).unwrap();
    let told = try_again();
    assert!(told.contains("partitions (\"p7\")"), "{told}");
    assert!(told.contains("put the file back, or move the folder away"), "{told}");
    assert!(!data_dir.join("keeper").exists(), "nothing was changed");
}

/// The keeper stands still in the middle of a question: the lease counts from before that question, and not from its answer.
#[test]
fn a_late_answer_gives_no_more_time() {
    let (mut a, mut b) = (Host::new("a"), Host::new("b"));
    let founder = a.start(&[]);
    let brick = b.start(&[founder.at]);
    until("a lease", || brick.is_leased());
    // (On a busy machine there may be no question under way.)
    let is_early = (0..20).any(|_| {
        founder.cores.set_frozen(true);
        std::thread::sleep(Duration::from_millis(200));
        let (given, answered) = (brick.cores.leases(0).len(), boot_ns());
        founder.cores.set_frozen(false);
        until("the next lease", || brick.cores.leases(0).len() > given);
        brick.cores.leases(0)[given] < answered + 500_000_000
    });
    assert!(is_early, "it counts from the answer");
    brick.end();
    founder.end();
}
