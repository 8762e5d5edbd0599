use firebrick_partition::maps::{MapDelta, Maps};

use crate::counters::{Board, Taken};
use crate::keeper::news::Taken as News;
use crate::keeper::{Grants, Sender};

const SENDER: Sender = Sender { brick: 1, incarnation: 2, pid: 3, memory_bytes: 1 << 30 };

#[test]
fn a_lease_without_end_is_told_from_when_it_is_there_until_no_core_may_be_given_it() {
    let board = Board::new(1);
    let mut grants = Grants::new(1);
    let says_so = |grants: &Grants| grants.heartbeat(SENDER, &board, News::default()).endless;
    let maps = MapDelta::whole(Maps { version: 1, ..Maps::default() });
    grants.take(1, 0, Some(500), &maps).unwrap();
    let mut given = 0;
    grants.push(0, &board, |_, _, end_ns| given = end_ns);
    assert!(given == 500_000_000 && !says_so(&grants));

    // The core is late, so it has not been given this one; but it may be at any moment.
    grants.take(1, 0, None, &MapDelta::nothing(1)).unwrap();
    grants.push(0, &board, |_, _, end_ns| given = end_ns);
    assert_eq!(given, 500_000_000);
    assert!(says_so(&grants), "the keepers would let another brick in");
    board.core(0).took(Taken { version: 1, end_ns: given });
    grants.push(0, &board, |_, _, end_ns| given = end_ns);
    assert!(given == u64::MAX && says_so(&grants));

    // One that ends takes its place, and counts once the core has it.
    board.core(0).took(Taken { version: 1, end_ns: given });
    grants.take(1, 0, Some(700), &MapDelta::nothing(1)).unwrap();
    assert!(says_so(&grants));
    grants.push(0, &board, |_, _, end_ns| given = end_ns);
    assert!(given == 700_000_000 && says_so(&grants));
    board.core(0).took(Taken { version: 1, end_ns: given });
    assert!(!says_so(&grants));
}
