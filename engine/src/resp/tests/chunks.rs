//! Random, cut and oversized bytes in random pieces: the same replies as in one piece, no panic, and
//! no more memory than the bounds say.

use super::replicas::Replicas;
use super::{Peer, Random, command};
use crate::resp::Progress;
use firebrick_partition::Now;

fn peer() -> Peer {
    Peer::new(Replicas::new(Now { boot_ns: 5, unix_ms: 1_700_000_000_000 }))
}

/// Another connection, to the same data core or to a new one.
fn next(peer: Peer, anew: bool) -> Peer {
    if anew { self::peer() } else { Peer::new(peer.store) }
}

fn fragments(random: &mut Random, bytes: &mut Vec<u8>) {
    const PIECES: &[&[u8]] = &[
        b"*1\r\n$4\r\nPING\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"*2\r\n$3\r\ngEt\r\n$2\r\nkk\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\nabc\r\n",
        b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$0\r\n\r\n",
        b"*3\r\n$4\r\nMGET\r\n$1\r\nk\r\n$1\r\nl\r\n",
        b"PING\r\n",
        b"set k \"a b\\x00\"\n",
        b"\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*2\r\n",
        b"$3\r\n",
        b"GET",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$03\r\n",
        b"*2\r\n$3\r\nGET\r\n$99999\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$8388609\r\n",
        b"\"",
        b"$",
        b"*",
        b"\r",
        b"\0\xff",
        b"*20\r\n",
        b"$1\r\nx\r\n",
        b"KEYS *\r\n",
    ];
    for _ in 0..=random.below(8) {
        match random.below(12) {
            0 => bytes.push(random.next() as u8),
            1 => {
                let cut = random.pick(PIECES);
                bytes.extend_from_slice(&cut[..random.below(cut.len() + 1)]);
            }
            2 if !bytes.is_empty() => {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
            _ => bytes.extend_from_slice(random.pick(PIECES)),
        }
    }
}

fn whole_and_pieces(seed: u64, cases: usize) {
    let mut random = Random(seed);
    let mut bytes = Vec::new();
    let (mut whole, mut pieces) = (peer(), peer());
    for case in 0..cases {
        bytes.clear();
        fragments(&mut random, &mut bytes);
        // New connections, to what was there before: the same at both.
        let anew = case % 64 == 0;
        (whole, pieces) = (next(whole, anew), next(pieces, anew));
        let whole_end = whole.send(&bytes);
        let mut rest = &bytes[..];
        let mut end = Progress::Ok;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(1 + random.below(rest.len().min(40)));
            end = pieces.send(piece);
            assert!(pieces.conn.held_bytes() <= bytes.len() + (8 << 20) + 2);
            rest = more;
        }
        assert_eq!(whole_end, end, "case {case} of seed {seed}: {}", bytes.escape_ascii());
        assert_eq!(
            whole.out.escape_ascii().to_string(),
            pieces.out.escape_ascii().to_string(),
            "case {case} of seed {seed}: {}",
            bytes.escape_ascii()
        );
    }
}

#[test]
fn pieces_mean_the_same_as_the_whole() {
    whole_and_pieces(1, 60_000);
}

/// `scripts/test fuzz`: some 15 seconds.
#[test]
#[ignore = "a million cases: run by scripts/test"]
fn a_million_pieces_mean_the_same_as_the_whole() {
    for seed in 2..12 {
        whole_and_pieces(seed, 100_000);
    }
}

/// Bytes, not fragments: nothing but noise, after a valid beginning or none.
#[test]
fn noise_is_survived() {
    let mut random = Random(77);
    let mut bytes = [0u8; 64];
    let mut peer = peer();
    for _ in 0..100_000 {
        for b in &mut bytes {
            *b = random.pick(b"*$0123456789\r\n\"'\\x -getsGETS\0\xff");
        }
        peer = next(peer, false);
        let len = 1 + random.below(bytes.len());
        peer.send(&bytes[..len]);
        assert!(peer.conn.held_bytes() <= (8 << 20) + 1024);
    }
}

/// A value of 8 MiB in small pieces: parsed once, so this is quick.
#[test]
fn a_large_value_is_not_looked_at_again_and_again() {
    let value = vec![b'v'; 8 << 20];
    let bytes = command(&[b"SET", b"k", &value]);
    let mut peer = peer();
    let begin = std::time::Instant::now();
    for piece in bytes.chunks(1000) {
        peer.send(piece);
    }
    assert_eq!(peer.out, b"+OK\r\n");
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
}

/// A million arguments in small pieces, likewise.
#[test]
fn many_arguments_are_not_looked_at_again_and_again() {
    let mut words: Vec<&[u8]> = vec![b"k"; 300_001];
    words[0] = b"EXISTS";
    let bytes = command(&words);
    let mut peer = peer();
    let begin = std::time::Instant::now();
    for piece in bytes.chunks(1000) {
        peer.send(piece);
    }
    assert_eq!(peer.out, b":0\r\n");
    assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
}
