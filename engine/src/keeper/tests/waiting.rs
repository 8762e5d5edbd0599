use std::time::{Duration, Instant};

use super::rig::{Host, until};

/// More than are under way at a time.
const CHANGES: u64 = 40;

#[test]
fn changes_that_wait_for_the_keepers_hold_up_nothing_else_and_are_all_done_in_the_end() {
    let (mut a, mut b) = (Host::new("a"), Host::new("b"));
    let founder = a.start(&[]);
    let brick = b.start(&[founder.at]);
    until("a lease", || brick.is_leased());
    founder.end();
    for n in 0..CHANGES {
        let create = format!("{{\"do\":\"table-create\",\"name\":\"t{n}\",\"partitions\":1}}");
        brick.port.ask(0, n, create.as_bytes()).unwrap();
    }
    // What replicas report goes through the same queue.
    let began = Instant::now();
    assert_eq!(brick.status()["cluster"]["answered"], false);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let _founder = a.start(&[]);
    for n in 0..CHANGES {
        let answer = brick.cores.answer_to(n);
        assert_eq!(answer["ok"], true, "{answer}");
    }
}
