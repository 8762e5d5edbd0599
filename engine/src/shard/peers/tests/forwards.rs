//! Requests of one Redis connection take effect in their order.

use firebrick_net::Ep;
use firebrick_partition::op::Route;

use crate::shard::asker::ConnId;
use crate::shard::peers::forward::RETRY_NS;
use crate::shard::peers::{Forwards, Holder};

const WAY: Holder = Holder::Way(Ep { slot: 9, generation: 0 });

fn conn(slot: u32) -> ConnId {
    ConnId::new(Ep { slot, generation: 0 })
}

/// The next request is tried: its number for the reply, and the one under which it goes.
fn go(forwards: &mut Forwards, now_ns: u64) -> Option<(u32, u32)> {
    let mut forward = forwards.next(now_ns)?.expect("in time");
    forward.holder = WAY;
    let (part, slot) = (forward.part, forwards.take_slot());
    forwards.sent(slot, forward);
    Some((part, slot))
}

/// Requests of one connection for these keys, all of them sent: the numbers under which they went.
fn pipeline(forwards: &mut Forwards, hashes: &[u64]) -> Vec<u32> {
    for (part, &hash) in hashes.iter().enumerate() {
        forwards.begin((conn(1), part as u32), hash, Vec::new(), false, 0).expect("there is room");
    }
    hashes.iter().map(|_| go(forwards, 0).expect("it is fresh").1).collect()
}

fn comes_back(forwards: &mut Forwards, slot: u32) {
    let forward = forwards.answered(slot, WAY).expect("it was sent");
    forwards.wait(forward, 0);
}

/// A whole pipeline comes back from a brick that is primary no more: none of it fails, and the next primary gets it
/// in its order, the first alone.
#[test]
fn a_pipeline_that_came_back_goes_again_in_its_order() {
    let mut forwards = Forwards::default();
    let slots = pipeline(&mut forwards, &[7, 8, 7]);
    let later = RETRY_NS;
    for (n, &slot) in slots.iter().enumerate() {
        assert_eq!(go(&mut forwards, later), None, "{n} came back, the others did not");
        comes_back(&mut forwards, slot);
    }
    // One more that comes meanwhile.
    forwards.begin((conn(1), 3), 9, Vec::new(), false, 0).expect("there is room");
    let (part, first) = go(&mut forwards, later).expect("nobody has any");
    assert_eq!(part, 0);
    assert_eq!(go(&mut forwards, later), None, "the first is tried alone");
    assert!(forwards.holds_up(conn(1)) && !forwards.holds_up(conn(2)));
    let answered = forwards.answered(first, WAY).expect("it was sent");
    assert!(forwards.over(&answered).is_empty());
    let parts: Vec<_> = std::iter::from_fn(|| go(&mut forwards, later)).map(|(p, _)| p).collect();
    assert_eq!(parts, [1, 2, 3]);
    assert!(!forwards.holds_up(conn(1)));
}

/// What came back is not tried behind a later one of its key, and is behind one of another key.
#[test]
fn nothing_is_tried_behind_a_later_one_of_its_key() {
    let mut forwards = Forwards::default();
    let slots = pipeline(&mut forwards, &[7, 8, 7]);
    comes_back(&mut forwards, slots[0]);
    comes_back(&mut forwards, slots[1]);
    let executed = forwards.answered(slots[2], WAY).expect("it was sent");
    let late: Vec<_> = forwards.over(&executed).iter().map(|f| f.part).collect();
    assert_eq!(late, [0]);
    assert_eq!(go(&mut forwards, RETRY_NS).expect("it is tried").0, 1);
}

/// A request was sent to a brick, then its key's primary became another one: the next request would be through there
/// before the first comes back with "not here" and is tried again.
#[test]
fn what_follows_a_stray_waits_for_it() {
    let route = |epoch| Route { epoch, ..Route::default() };
    let mut forwards = Forwards::default();
    let send = |forwards: &mut Forwards, hash| {
        forwards.begin((conn(1), 0), hash, Vec::new(), false, 0).expect("there is room");
        let Some(Ok(mut forward)) = forwards.next(0) else { panic!("it is fresh") };
        (forward.holder, forward.route) = (WAY, route(1));
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
    assert!(forwards.answered(slot, WAY).is_some());
    assert!(!forwards.holds_up(conn(1)));
    // Or its connection is lost.
    send(&mut forwards, 7);
    forwards.find_strays(|_| None);
    assert!(forwards.holds_up(conn(1)));
    let Holder::Way(ep) = WAY else { unreachable!("it went to another brick") };
    assert_eq!(forwards.lost(ep).len(), 1);
    assert!(!forwards.holds_up(conn(1)));
}
