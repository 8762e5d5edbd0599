//! Requests of one Redis connection take effect in their order.

use firebrick_net::Ep;
use firebrick_partition::op::Route;

use crate::shard::asker::ConnId;
use crate::shard::peers::{Forwards, Holder};

/// A request was sent to a brick, then its key's primary became another one: the next request would be through there
/// before the first comes back with "not here" and is tried again.
#[test]
fn what_follows_a_stray_waits_for_it() {
    let conn = |slot| ConnId::new(Ep { slot, generation: 0 });
    let way = Holder::Way(Ep { slot: 9, generation: 0 });
    let route = |epoch| Route { epoch, ..Route::default() };
    let mut forwards = Forwards::default();
    let send = |forwards: &mut Forwards, hash| {
        forwards.begin((conn(1), 0), hash, Vec::new(), false, 0).expect("there is room");
        let Some(Ok(mut forward)) = forwards.next(0) else { panic!("it is fresh") };
        (forward.holder, forward.route) = (way, route(1));
        let slot = forwards.take_slot();
        forwards.sent(slot, forward);
        slot
    };
    let slot = send(&mut forwards, 7);
    assert!(!forwards.holds_up(conn(1)));
    forwards.find_strays(|_| Some(route(1)));
    assert!(!forwards.holds_up(conn(1)), "the route of its key is as it was");
    forwards.find_strays(|_| Some(route(2)));
    assert!(forwards.has_stray(conn(1)) && forwards.holds_up(conn(1)));
    assert!(!forwards.holds_up(conn(2)), "another connection's is not");
    assert!(forwards.answered(slot, way).is_some());
    assert!(!forwards.holds_up(conn(1)));
    // Or its connection is lost.
    send(&mut forwards, 7);
    forwards.find_strays(|_| None);
    assert!(forwards.holds_up(conn(1)));
    let Holder::Way(ep) = way else { unreachable!("it went to another brick") };
    assert_eq!(forwards.lost(ep).len(), 1);
    assert!(!forwards.holds_up(conn(1)));
}
