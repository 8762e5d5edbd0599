//! What a primary may have on its way: as much as every replica has room for, and so many bytes and frames.

use firebrick_log::{Durability, Log, LogConfig};

use super::net::{Net, is_failure, put, versions};
use super::{config, leaf};
use crate::op::{Answer, Failure};
use crate::replica::Replica;

/// What is in flight counts too: a replica that has room for one more has none for a thousand. And records do not fill
/// segments: one that does not fit leaves the end of its segment empty.
#[test]
fn what_would_not_fit_behind_what_is_in_flight_is_refused() {
    for len in [20_000, 300_000, 360_000, 540_000, 1_100_000] {
        let mut net = Net::new(2, 2, 1);
        for (brick, bytes_max) in [(1, 256 << 20), (2, 16 << 20)] {
            let cfg =
                LogConfig { bytes_max, segment_bytes_max: 1 << 20, ..config(Durability::Memory) };
            let replica = Replica::new(Log::in_heap(cfg), leaf());
            net.bricks.get_mut(&brick).unwrap().replica = Some(replica);
            net.tell(brick);
        }
        net.settle();
        // Nobody hears of any of them meanwhile.
        let value = vec![7; len];
        let ask = |net: &mut Net, n: u32| net.ask(1, &n.to_le_bytes(), put(&value), None);
        let tokens: Vec<u64> = (0..(20_000_000 / len) as u32).map(|n| ask(&mut net, n)).collect();
        net.settle();
        let (done, refused): (Vec<_>, Vec<_>) = tokens
            .into_iter()
            .partition(|&token| matches!(net.answer(token), Some(Answer::Done { .. })));
        assert!(done.len() * len > 5_000_000, "{} of {len}", done.len());
        assert!(!refused.is_empty());
        for token in refused {
            assert!(is_failure(net.answer(token), Failure::NoSpace), "{len}: it had no room");
        }
        net.check_equal();
    }
}

#[test]
fn a_backup_that_does_not_vote_is_shipped_so_many_frames_and_no_more() {
    let mut net = Net::new(2, 2, 1);
    net.settle();
    for n in 0..5_000u32 {
        net.ask(1, &(n % 7).to_le_bytes(), put(b"v"), None);
        net.poll(1);
    }
    let prepares = net.sent.iter().filter(|sent| !versions(sent).is_empty()).count();
    assert_eq!(prepares, 4_096);
    net.settle();
    net.check_equal();
}

/// What is prepared and not committed is bounded in bytes: the rest waits.
#[test]
fn what_is_in_flight_is_bounded_in_bytes() {
    let mut net = Net::new(2, 2, 1);
    let cfg =
        LogConfig { bytes_max: 1 << 30, segment_bytes_max: 64 << 20, ..config(Durability::Memory) };
    for brick in net.bricks.values_mut() {
        brick.replica = Some(Replica::new(Log::in_heap(cfg), leaf()));
    }
    net.tell_all();
    net.settle();
    let value = vec![7; 8 << 20];
    let tokens: Vec<u64> =
        (0..11u32).map(|n| net.ask(1, &n.to_le_bytes(), put(&value), None)).collect();
    let stats = net.replica(1).stats();
    assert_eq!((stats.in_flight, stats.held), (8, 3));
    net.settle();
    assert!(tokens.iter().all(|&token| matches!(net.answer(token), Some(Answer::Done { .. }))));
}
