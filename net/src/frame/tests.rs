//! The decoder against hostile input: the promise is that any bytes, cut anywhere, give the frames that were sent or
//! an error, and never a panic.

use proptest::prelude::*;

use super::*;

fn encode(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for payload in payloads {
        // Alternately in one piece and as head and body, which must not make a difference.
        let cut = payload.len() / 2 * (wire.len() % 2);
        wire.extend_from_slice(&header(&payload[..cut], &payload[cut..]));
        wire.extend_from_slice(payload);
    }
    wire
}

/// Feeds the wire in pieces that end at `cuts`.
fn decode(wire: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Result<(), CloseReason>, Decoder) {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([wire.len()]) {
        let end = end.clamp(at, wire.len());
        let piece = &wire[at..end];
        let result = decoder.feed(piece, |frame| {
            frames.push(match frame {
                Decoded::Whole { start, len } => piece[start..start + len].to_vec(),
                Decoded::Assembled(bytes) => bytes,
            });
        });
        if result.is_err() {
            return (frames, result, decoder);
        }
        at = end;
    }
    (frames, Ok(()), decoder)
}

#[test]
fn frames_survive_a_cut_at_every_boundary() {
    let payloads = [vec![], vec![7; 1], vec![1, 2, 3], (0..=255).collect(), vec![9; 40]];
    let wire = encode(&payloads);
    for a in 0..=wire.len() {
        for b in (a..=wire.len()).step_by(3) {
            let (frames, result, decoder) = decode(&wire, &[a, b]);
            assert_eq!(
                (result, frames.as_slice()),
                (Ok(()), payloads.as_slice()),
                "cut at {a}, {b}"
            );
            assert!(decoder.between_frames());
        }
    }
}

#[test]
fn byte_by_byte_is_as_good() {
    let payloads = [vec![3; 100], vec![], vec![4; 5]];
    let wire = encode(&payloads);
    let (frames, result, _) = decode(&wire, &(0..wire.len()).collect::<Vec<_>>());
    assert_eq!((result, frames.as_slice()), (Ok(()), payloads.as_slice()));
}

#[test]
fn a_truncated_stream_gives_the_whole_frames_and_knows_that_it_is_not_at_an_end() {
    let payloads = [vec![1; 20], vec![2; 30]];
    let wire = encode(&payloads);
    for end in 0..wire.len() {
        let (frames, result, decoder) = decode(&wire[..end], &[]);
        let whole = usize::from(end >= 28);
        assert_eq!((result, frames.as_slice()), (Ok(()), &payloads[..whole]));
        assert_eq!(decoder.between_frames(), end == 0 || end == 28);
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let wire = encode(&[vec![0x5a; 24]]);
    for bit in 0..wire.len() * 8 {
        let mut bad = wire.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let (frames, result, decoder) = decode(&bad, &[]);
        assert!(frames.is_empty(), "bit {bit} was not noticed");
        // A longer length is noticed as an error, or waits for bytes that do not come.
        assert!(result.is_err() || !decoder.between_frames());
    }
}

#[test]
fn an_announced_length_costs_no_memory_until_the_bytes_come() {
    let mut decoder = Decoder::new();
    let mut wire = (FRAME_BYTES_MAX as u32).to_le_bytes().to_vec();
    wire.extend_from_slice(&[0; 12]);
    decoder.feed(&wire, |_| panic!("no frame is whole")).unwrap();
    assert!(decoder.held() < 64, "{} bytes held for 8 received", decoder.held());
    wire[..4].copy_from_slice(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
    let over = Decoder::new().feed(&wire, |_| panic!("no frame is whole"));
    assert_eq!(over, Err(CloseReason::Malformed("a frame is longer than the limit")));
}

#[test]
fn handshakes_of_others_are_refused_by_name() {
    assert_eq!(Hello::decode(Hello::OURS.encode()), Ok(Hello::OURS));
    let newer = Hello { version: 2, ..Hello::OURS };
    assert_eq!(Hello::decode(newer.encode()), Err(CloseReason::Version { theirs: 2 }));
    let small = Hello { frame_bytes_max: 1024, ..Hello::OURS };
    assert!(matches!(Hello::decode(small.encode()), Err(CloseReason::Malformed(_))));
    assert!(matches!(Hello::decode(*b"GET / HTTP/1.1\r\n"), Err(CloseReason::Malformed(_))));
}

/// Cases of each property: each is small, so many are quick.
const CASES: u32 = 250_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(
        wire in prop::collection::vec(any::<u8>(), 0..64),
        cuts in prop::array::uniform3(0usize..64),
    ) {
        let _ = decode(&wire, &cuts);
        if let Some(hello) = wire.first_chunk() {
            let _ = Hello::decode(*hello);
        }
    }

    #[test]
    fn small_lengths_in_random_bytes_never_panic(
        mut wire in prop::collection::vec(any::<u8>(), 8..64),
        len in 0u32..64,
        cut in 0usize..64,
    ) {
        wire[..4].copy_from_slice(&len.to_le_bytes());
        let _ = decode(&wire, &[cut]);
        // With its CRC made right, what is whole must come out.
        let end = 8 + len as usize;
        if end <= wire.len() {
            let crc = crc32fast::hash(&wire[8..end]);
            wire[4..8].copy_from_slice(&crc.to_le_bytes());
            let (frames, _, _) = decode(&wire, &[cut]);
            prop_assert_eq!(&frames[0], &wire[8..end]);
        }
    }

    #[test]
    fn what_was_sent_comes_out_however_it_is_cut(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..24), 0..4),
        mut cuts in prop::array::uniform4(0usize..128),
    ) {
        cuts.sort_unstable();
        let (frames, result, decoder) = decode(&encode(&payloads), &cuts);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(frames, payloads);
        prop_assert!(decoder.between_frames());
    }

    #[test]
    fn a_damaged_stream_never_gives_a_frame_that_was_not_sent(
        payload in prop::collection::vec(any::<u8>(), 1..24),
        damage in any::<(prop::sample::Index, u8)>(),
        cut in 0usize..32,
    ) {
        let mut wire = encode(std::slice::from_ref(&payload));
        let at = damage.0.index(wire.len());
        wire[at] ^= damage.1;
        let (frames, _, _) = decode(&wire, &[cut]);
        for frame in frames {
            // The one way: no damage, or a length cut to 0 with a CRC of 0.
            prop_assert!(frame == payload || frame.is_empty());
        }
    }
}
