//! The bytes of messages between replicas, as docs/formats.md has them: bricks of two versions may talk to each other.

use super::super::peer::{History, Peer, Vote, Why, encode, pack_history};
use crate::op::Version;

/// Fields of so many bytes, little endian.
fn le(fields: &[(usize, u64)]) -> Vec<u8> {
    fields.iter().flat_map(|&(len, value)| value.to_le_bytes()[..len].to_vec()).collect()
}

const VOTE: Vote =
    Vote { seq: 11, held: 12, commit: 13, room: 14, below: true, gap: false, whole: true };
const VOTED: [(usize, u64); 4] = [(8, 11), (8, 12), (8, 13), (8, 14)];

/// Kind, code and flags; the fields; what follows them.
fn check(message: &Peer<'_>, head: [u64; 3], fields: &[(usize, u64)], rest: &[u8]) {
    let mut out = Vec::new();
    encode(&mut out, 77, message);
    let [kind, code, flags] = head;
    let prefix = le(&[(1, kind), (1, code), (2, flags), (4, 77), (4, 9)]);
    assert_eq!(out, [&prefix[..], &le(fields), rest].concat(), "{message:?}");
}

#[test]
fn the_layout_of_prepare_vote_and_commit_is_fixed() {
    let before = Version { epoch: 6, seq: 5 };
    let (epoch, commit, records) = (9, 7, &b"12345678"[..]);
    let prepare = Peer::Prepare { epoch, commit, before, records };
    check(&prepare, [16, 0, 0], &[(8, 5), (8, 7), (4, 6)], records);
    check(&Peer::Voted { epoch, vote: VOTE }, [17, 0, 5], &VOTED, b"");
    check(&Peer::Refused { epoch, why: Why::Again }, [18, 5, 0], &[], b"");
    check(&Peer::Commit { epoch, commit }, [19, 0, 0], &[(8, 7)], b"");
    check(&Peer::AskCommit { epoch }, [20, 0, 0], &[], b"");
}

#[test]
fn the_layout_of_a_comparison_is_fixed() {
    let mut history = Vec::new();
    pack_history(&[Version { epoch: 1, seq: 2 }, Version { epoch: 3, seq: 4 }], &mut history);
    let (epoch, tail, commit) = (9, Version { epoch: 6, seq: 5 }, 7);
    let history = History::new(&history);
    let take_over = Peer::TakeOver { epoch, tail, commit, dropped: 8, learn: true, history };
    let pairs = le(&[(4, 1), (8, 2), (4, 3), (8, 4)]);
    check(&take_over, [21, 0, 1], &[(8, 5), (8, 7), (8, 8), (4, 6)], &pairs);
    let tail_is = Peer::TailIs { epoch, agreed: 7, vote: VOTE };
    check(&tail_is, [22, 0, 5], &[&[(8, 7)][..], &VOTED].concat(), b"");
}

#[test]
fn the_layout_of_a_copy_is_fixed() {
    let (epoch, copy, records) = (9, 1, &b"12345678"[..]);
    let start = Peer::CopyStart { epoch, copy, have: 2, s0: 3 };
    check(&start, [24, 0, 0], &[(8, 2), (8, 3), (4, 1)], b"");
    let read = Peer::CopyRead { epoch, copy, from: 2, upto: 3, again: true };
    check(&read, [25, 0, 1], &[(4, 1), (4, 2), (4, 3)], b"");
    check(&Peer::CopyDone { epoch, copy }, [26, 0, 0], &[(4, 1)], b"");
    let listing = Peer::CopyListing { epoch, copy, dropped: 2, bytes: 3 };
    check(&listing, [28, 0, 0], &[(8, 2), (8, 3), (4, 1)], b"");
    let data = Peer::CopyData { epoch, copy, piece: 2, left: 3, records };
    check(&data, [29, 0, 0], &[(8, 3), (4, 1), (4, 2)], records);
}
