//! Requests of one Redis connection take effect in their order.

use firebrick_net::Ep;
use firebrick_partition::op::Route;

use crate::shard::asker::ConnId;
use crate::shard::peers::forward::{FORWARDS_MAX, RETRY_NS, STRAY_NS};
use crate::shard::peers::{Forward, Forwards, Holder};

const WAY_EP: Ep = Ep { slot: 9, generation: 0 };
const WAY: Holder = Holder::Way(WAY_EP);

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
    assert!(forwards.over(&answered, 0).is_empty());
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
    let late: Vec<_> = forwards.over(&executed, 0).iter().map(|f| f.part).collect();
    assert_eq!(late, [0]);
    assert_eq!(go(&mut forwards, RETRY_NS).expect("it is tried").0, 1);
}

/// A read and a later write of its key are both without an answer, because the way has ended or the route has changed:
/// what the read finds now may be what the write has stored, so it is refused, whatever their numbers are.
#[test]
fn a_read_is_not_tried_behind_a_write_in_doubt() {
    for (is_way_lost, is_reversed) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut forwards = Forwards::default();
        if is_reversed {
            let taken = [forwards.take_slot(), forwards.take_slot()];
            for slot in taken {
                forwards.give_slot(slot);
            }
        }
        let slots = pipeline(&mut forwards, &[7, 7]);
        assert_eq!(slots[0] > slots[1], is_reversed);
        let mut refused = Vec::new();
        // (As the shard does: the first reads.)
        let mut doubt = |forwards: &mut Forwards, forward: Forward| match forward.part {
            0 => forwards.wait(forward, STRAY_NS),
            _ => refused.extend(forwards.over(&forward, STRAY_NS).iter().map(|late| late.part)),
        };
        if is_way_lost {
            for slot in forwards.lost(WAY_EP) {
                let forward = forwards.answered(slot, WAY).expect("it was sent");
                doubt(&mut forwards, forward);
            }
        } else {
            forwards.find_strays(0, |_| Some(route(2)));
            while let Some(stray) = forwards.overdue(STRAY_NS) {
                doubt(&mut forwards, stray);
            }
        }
        assert_eq!(refused, [0], "the way was lost: {is_way_lost}, reversed: {is_reversed}");
        assert_eq!((forwards.len(), go(&mut forwards, 2 * STRAY_NS)), (0, None));
        forwards.check();
    }
}

/// A request was sent to a brick, then its key's primary became another one: the next request would be through there
/// before the first comes back with "not here" and is tried again.
#[test]
fn what_follows_a_stray_waits_for_it() {
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
    forwards.find_strays(0, |_| Some(route(1)));
    assert!(!forwards.holds_up(conn(1)), "the route of its key is as it was");
    forwards.find_strays(0, |_| Some(route(2)));
    assert!(forwards.has_stray(conn(1)) && forwards.holds_up(conn(1)));
    assert!(!forwards.holds_up(conn(2)), "another connection's is not");
    assert!(forwards.answered(slot, WAY).is_some());
    assert!(!forwards.holds_up(conn(1)));
    // Or its connection is lost.
    send(&mut forwards, 7);
    forwards.find_strays(0, |_| None);
    assert!(forwards.holds_up(conn(1)));
    let lost = forwards.lost(WAY_EP);
    assert_eq!(lost.len(), 1);
    assert!(forwards.answered(lost[0], WAY).is_some());
    assert!(!forwards.holds_up(conn(1)));
}

fn route(epoch: u32) -> Route {
    Route { epoch, ..Route::default() }
}

/// A request of this connection goes to the other brick by a route that is then another one: its number.
fn goes_astray(forwards: &mut Forwards, of: ConnId, now_ns: u64) -> u32 {
    forwards.begin((of, 0), 7, Vec::new(), false, now_ns).expect("there is room");
    let slot = go(forwards, now_ns).expect("it is fresh").1;
    forwards.find_strays(now_ns, |_| Some(route(2)));
    slot
}

/// The brick that has a stray says nothing, and the way there stays as it is: after a while the stray is in doubt, and
/// what follows it goes on.
#[test]
fn a_stray_without_an_answer_is_in_doubt() {
    let mut forwards = Forwards::default();
    let slot = goes_astray(&mut forwards, conn(1), 0);
    // Routes change again, which is no new beginning.
    forwards.find_strays(STRAY_NS / 2, |_| Some(route(3)));
    assert_eq!(forwards.wake_at(), Some(STRAY_NS));
    assert!(forwards.overdue(STRAY_NS - 1).is_none() && forwards.holds_up(conn(1)));
    let stray = forwards.overdue(STRAY_NS).expect("it has had its time");
    assert!(forwards.over(&stray, 0).is_empty());
    assert!(!forwards.holds_up(conn(1)) && !forwards.has_stray(conn(1)));
    assert_eq!((stray.conn, forwards.len(), forwards.wake_at()), (conn(1), 0, None));
    forwards.check();
    // Its number is nobody else's before its answer has come, which is nobody's.
    forwards.begin((conn(1), 1), 7, Vec::new(), false, STRAY_NS).expect("there is room");
    let (part, other) = go(&mut forwards, STRAY_NS).expect("nothing holds it up");
    assert_eq!(part, 1);
    assert_ne!(other, slot);
    assert!(forwards.answered(slot, WAY).is_none());
    assert_eq!(forwards.take_slot(), slot);
    assert!(forwards.answered(other, WAY).is_some());
}

/// Numbers of strays in doubt are free again when the way has ended: those of that way, once.
#[test]
fn the_end_of_a_way_frees_the_numbers_of_its_strays() {
    let mut forwards = Forwards::default();
    let slots = [1, 2].map(|n| goes_astray(&mut forwards, conn(n), 0));
    assert!([0, 1].iter().all(|_| forwards.overdue(STRAY_NS).is_some()));
    assert!(forwards.overdue(STRAY_NS).is_none());
    assert!(forwards.lost(Ep { slot: 3, generation: 0 }).is_empty());
    assert_eq!(forwards.take_slot(), 2);
    assert!(forwards.lost(WAY_EP).is_empty(), "they are over");
    assert!(forwards.answered(slots[0], WAY).is_none());
    let mut taken = [forwards.take_slot(), forwards.take_slot()];
    taken.sort_unstable();
    assert_eq!(taken, slots);
    assert_eq!(forwards.take_slot(), 3);
}

/// One that was answered in time is not in doubt, nor is the one that has its number now, before its own time.
#[test]
fn a_number_that_is_used_again_is_given_its_own_time() {
    let mut forwards = Forwards::default();
    let slot = goes_astray(&mut forwards, conn(1), 0);
    assert!(forwards.answered(slot, WAY).is_some());
    assert_eq!(goes_astray(&mut forwards, conn(1), STRAY_NS / 2), slot);
    assert!(forwards.overdue(STRAY_NS).is_none());
    assert!(forwards.overdue(STRAY_NS / 2 * 3).is_some());
}

/// What waited behind a stray for longer than it may wait for a primary is tried all the same, once it can be.
#[test]
fn what_waited_behind_a_stray_is_tried_before_it_is_refused() {
    let mut forwards = Forwards::default();
    goes_astray(&mut forwards, conn(1), 0);
    forwards.begin((conn(1), 1), 8, Vec::new(), false, 0).expect("there is room");
    let late_ns = 10 * STRAY_NS;
    assert!(forwards.next(late_ns).is_none(), "it is behind the stray");
    let stray = forwards.overdue(late_ns).expect("it has had its time");
    assert!(forwards.over(&stray, 0).is_empty());
    let (part, slot) = go(&mut forwards, late_ns).expect("nothing holds it up");
    assert_eq!(part, 1);
    let forward = forwards.answered(slot, WAY).expect("it was sent");
    forwards.wait(forward, late_ns);
    assert!(forwards.next(late_ns + RETRY_NS).expect("it has waited").is_err());
}

/// A pipeline to a brick that nobody reaches: another connection's request is not held up, and when the first has waited
/// for long enough so have the others.
#[test]
fn a_pipeline_that_waits_holds_up_its_own_connection_only() {
    let mut forwards = Forwards::default();
    for part in 0..50 {
        forwards.begin((conn(1), part), 7, Vec::new(), false, 0).expect("there is room");
    }
    let mut now_ns = 0;
    let mut tries = |forwards: &mut Forwards, until_ns: u64| {
        let (mut over, mut others) = (Vec::new(), 0);
        while now_ns < until_ns {
            now_ns += RETRY_NS;
            while let Some(next) = forwards.next(now_ns) {
                match next {
                    Ok(forward) if forward.conn == conn(2) => others += 1,
                    Ok(forward) => forwards.wait(forward, now_ns),
                    Err(late) => over.push(late.part),
                }
            }
            forwards.check();
        }
        (over, others)
    };
    assert_eq!(tries(&mut forwards, STRAY_NS), (vec![], 0));
    forwards.begin((conn(2), 0), 8, Vec::new(), false, STRAY_NS).expect("there is room");
    assert_eq!(tries(&mut forwards, STRAY_NS + 5 * RETRY_NS), (vec![], 1));
    let (over, _) = tries(&mut forwards, 2 * STRAY_NS + 200 * RETRY_NS);
    assert_eq!(over, (0..50).collect::<Vec<_>>());
    assert_eq!((forwards.len(), forwards.holds_up(conn(1))), (0, false));
}

/// One that comes while others wait to be tried again stays behind them, whenever each is due.
#[test]
fn nothing_overtakes_what_waits() {
    let mut forwards = Forwards::default();
    for slot in pipeline(&mut forwards, &[7, 8]) {
        comes_back(&mut forwards, slot);
    }
    forwards.begin((conn(1), 2), 8, Vec::new(), false, 0).expect("there is room");
    assert_eq!(go(&mut forwards, 0), None, "none is due");
    let (part, first) = go(&mut forwards, RETRY_NS).expect("the first is due");
    assert_eq!((part, go(&mut forwards, RETRY_NS)), (0, None));
    let answered = forwards.answered(first, WAY).expect("it was sent");
    assert!(forwards.over(&answered, 0).is_empty());
    let next = || go(&mut forwards, RETRY_NS).map(|(part, _)| part);
    assert_eq!(std::iter::from_fn(next).collect::<Vec<_>>(), [1, 2]);
}

/// What is counted by connection is what is there, whatever happens; and of one connection nothing is forgotten.
#[test]
fn the_counts_are_true_whatever_happens() {
    let (mut random, mut now_ns) = (7_u64, 0);
    let mut below = |n: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % n
    };
    let (mut forwards, mut sent, mut begun, mut over) = (Forwards::default(), Vec::new(), 0, 0);
    let mut epoch = 1;
    for _ in 0..30_000 {
        now_ns += RETRY_NS;
        match below(9) {
            0..3 if forwards.len() < 40 => {
                let conn = conn(below(4) as u32);
                forwards.begin((conn, begun), below(3) as u64, Vec::new(), false, now_ns).unwrap();
                begun += 1;
            }
            3..6 => match forwards.next(now_ns) {
                Some(Ok(mut forward)) => {
                    assert!(!forwards.has_stray(forward.conn));
                    forward.holder = [WAY, Holder::Here][below(2)];
                    forward.route = route(epoch);
                    let (slot, holder) = (forwards.take_slot(), forward.holder);
                    forwards.sent(slot, forward);
                    sent.push((slot, holder));
                }
                Some(Err(_)) => over += 1,
                None => {}
            },
            6 | 7 if !sent.is_empty() => {
                let (slot, holder) = sent.swap_remove(below(sent.len()));
                match forwards.answered(slot, holder) {
                    Some(forward) if below(2) == 0 => forwards.wait(forward, now_ns),
                    Some(forward) => over += 1 + forwards.over(&forward, 0).len() as u32,
                    None => {}
                }
            }
            _ if below(60) == 0 => {
                for slot in forwards.lost(WAY_EP) {
                    let forward = forwards.answered(slot, WAY).expect("it was sent");
                    over += 1 + forwards.over(&forward, 0).len() as u32;
                }
                sent.retain(|(_, holder)| *holder != WAY);
            }
            _ if below(30) == 0 => {
                epoch += 1;
                forwards.find_strays(now_ns, |_| Some(route(epoch)));
            }
            _ => {
                while let Some(forward) = forwards.overdue(now_ns) {
                    over += 1 + forwards.over(&forward, 0).len() as u32;
                }
            }
        }
        forwards.check();
        assert_eq!(forwards.len() as u32, begun - over);
    }
    assert!(begun > 3_000 && over > 3_000, "{begun} begun, {over} over");
}

/// As many as there may be, one of each connection and half of them with somebody: a failover. A look at each
/// must not be a look at all.
#[test]
fn many_that_wait_do_not_look_at_each_other() {
    let begin = std::time::Instant::now();
    let mut forwards = Forwards::default();
    let all = FORWARDS_MAX as u32;
    let each = |n: u32| ConnId::new(Ep { slot: n / 8, generation: n % 8 });
    for n in 0..all {
        forwards.begin((each(n), 0), 7, Vec::new(), false, 0).expect("there is room");
    }
    assert!(forwards.begin((each(all), 0), 7, Vec::new(), false, 0).is_err());
    for _ in 0..all / 2 {
        go(&mut forwards, 0).expect("it is fresh");
    }
    forwards.find_strays(0, |_| Some(route(2)));
    for round in 0..2 {
        for _ in 0..all / 2 {
            let forward = forwards.next(round * RETRY_NS).expect("one").expect("in time");
            forwards.wait(forward, round * RETRY_NS);
        }
    }
    assert!((0..all).all(|n| forwards.holds_up(each(n))));
    let sent = (0..all).filter(|n| forwards.under_way(WAY_EP) && forwards.has_sent(each(*n)));
    assert_eq!(sent.count() as u32, all / 2);
    forwards.check();
    assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
}
