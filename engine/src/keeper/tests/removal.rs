use std::time::{Duration, Instant};

use super::rig::{Host, LONG, until};
use crate::keeper::member::{self, Member};

/// The error with which a brick that does not start ends.
fn refused(host: &Host) -> String {
    let starting = host.begin(&[], 1);
    let told = starting.control.started(LONG).expect("an answer");
    let error = told.err().expect("it started").to_string();
    starting.control.finish().unwrap();
    error
}

#[test]
fn a_keeper_is_not_removed_before_another_one_votes_in_its_place() {
    let (mut a, mut b) = (Host::new("a"), Host::new("b"));
    let founder = a.start(&[]);
    // It hears the keepers, and they do not reach it: it does not get their log.
    b.unreachable = true;
    let other = b.start(&[founder.at]);
    until("leases", || founder.is_leased() && other.is_leased());
    let drain = "{\"do\":\"brick-drain\",\"brick\":\"a\",\"on\":true,\"fewer_replicas\":true}";
    assert_eq!(founder.ask(drain)["ok"], true);
    let counts = || {
        founder.play();
        other.play();
        let status = founder.status();
        assert_eq!(
            status["cluster"]["voters"],
            serde_json::json!(["a"]),
            "it would agree on nothing"
        );
        let a = &status["bricks"][0];
        (a["counts_in"].as_u64().unwrap(), a["keeper"] == true)
    };
    until("the other one has everything", || counts().0 == 0);
    let remove = "{\"do\":\"brick-remove\",\"brick\":\"a\"}";
    let told = founder.ask(remove)["error"].as_str().map(str::to_owned);
    assert!(told.as_ref().is_some_and(|told| told.contains("is still a keeper")), "{told:?}");
    assert!(counts().1, "status says so too");

    other.end();
    b.unreachable = false;
    let other = b.start(&[]);
    until("the removal", || {
        let told = other.ask(remove);
        // (The answer may be lost with the old leader, which is over then: what was asked is in doubt.)
        told["ok"] == true || told["kind"] == "not-found"
    });
    until("the end of the one that was removed", || founder.cores.is_stopped());
    assert!(founder.control.finish().is_err_and(|error| error.to_string().contains("removed")));
    until("the other one leads", || other.leader() == Some(2));
    until("its lease", || other.is_leased());
}

#[test]
fn a_brick_that_is_asked_for_its_own_removal_says_that_it_is_done_and_ends() {
    let (mut a, mut b) = (Host::new("a"), Host::new("b"));
    let founder = a.start(&[]);
    let other = b.start(&[founder.at]);
    until("leases", || founder.is_leased() && other.is_leased());
    let drain = "{\"do\":\"brick-drain\",\"brick\":\"b\",\"on\":true,\"fewer_replicas\":true}";
    assert_eq!(other.ask(drain)["ok"], true);
    until("it is empty", || {
        founder.play();
        other.play();
        founder.status()["bricks"][1]["counts_in"] == 0
    });
    let began = Instant::now();
    let told = other.ask("{\"do\":\"brick-remove\",\"brick\":\"b\"}");
    assert_eq!(told["ok"], true, "{told}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    until("its end", || other.cores.is_stopped());
    assert!(other.control.finish().is_err_and(|error| error.to_string().contains("removed")));
}

#[test]
fn a_brick_whose_keeper_lost_its_log_does_not_start() {
    let (mut a, mut b) = (Host::new("a"), Host::new("b"));
    let founder = a.start(&[]);
    let other = b.start(&[founder.at]);
    other.end();
    founder.end();
    for host in [&a, &b] {
        let log = host.folder.path().join("keeper/log");
        let kept = std::fs::read(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        let error = refused(host);
        assert!(error.contains("keeper/log") && error.contains("is missing"), "{error}");
        assert!(!log.exists(), "nothing was changed");
        std::fs::write(&log, kept).unwrap();
    }
    // Killed before it ever had one: then nothing was forgotten.
    let mut c = Host::new("c");
    let folder = member::folder(c.folder.path()).unwrap();
    let founded = Member { cluster: 7, brick: 1, founder: true, keepers: Vec::new() };
    member::write(&folder, &founded).unwrap();
    c.start(&[]).end();
    let founder = a.start(&[]);
    let other = b.start(&[]);
    until("leases", || founder.is_leased() && other.is_leased());
}
