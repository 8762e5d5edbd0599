//! The queue against a plain vector: whatever is sent in whatever pieces, the bytes leave in order and each body is
//! reported exactly when its last byte has left.

use proptest::prelude::*;

use super::*;

/// Takes `max` bytes of what the queue wants sent.
fn send(output: &mut Output, max: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    match output.next() {
        Next::Bytes(ptr, len) => {
            // SAFETY: the queue vouches for its flight.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(ptr, len as usize) });
        }
        Next::Message(message) => {
            // SAFETY: the queue vouches for message, runs and bytes.
            unsafe {
                let runs =
                    std::slice::from_raw_parts((*message).msg_iov, (*message).msg_iovlen as _);
                for run in runs {
                    let run = std::slice::from_raw_parts(run.iov_base.cast::<u8>(), run.iov_len);
                    bytes.extend_from_slice(run);
                }
            }
        }
    }
    bytes.truncate(max);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_leave_in_order_and_bodies_are_told_when_they_are_out(
        parts in prop::collection::vec((0usize..40, any::<bool>()), 1..12),
        pieces in prop::collection::vec(1usize..60, 1..20),
    ) {
        let mut pool = Pool::default();
        let mut output = Output::default();
        let bodies: Vec<Vec<u8>> =
            parts.iter().enumerate().map(|(n, (len, _))| vec![n as u8; *len + 1]).collect();
        let mut expected = Vec::new();
        let mut ends = Vec::new();
        for (n, ((_, pinned), bytes)) in parts.iter().zip(&bodies).enumerate() {
            output.buffer(&mut pool).extend_from_slice(&[0xff; 3]);
            expected.extend_from_slice(&[0xff; 3]);
            expected.extend_from_slice(bytes);
            if *pinned {
                let body = Body { ptr: bytes.as_ptr(), len: bytes.len() as u32 };
                output.push_body(body, Token(n as u64));
                ends.push((expected.len(), n as u64));
            } else {
                output.buffer(&mut pool).extend_from_slice(bytes);
            }
        }
        prop_assert_eq!(output.queued(), expected.len());
        prop_assert!(output.take_off(&mut pool));
        let mut sent = Vec::new();
        let mut done = Vec::new();
        for max in pieces.iter().cycle() {
            let bytes = send(&mut output, *max);
            sent.extend_from_slice(&bytes);
            let all = output.landed(bytes.len(), &mut pool, |token, _| done.push(token.0));
            let due: Vec<u64> =
                ends.iter().filter(|(end, _)| *end <= sent.len()).map(|(_, n)| *n).collect();
            prop_assert_eq!(&done, &due);
            prop_assert_eq!(output.queued(), expected.len() - sent.len());
            if all {
                break;
            }
        }
        prop_assert_eq!(sent, expected);
    }
}

#[test]
fn an_endpoint_that_ends_reports_every_body_it_still_had() {
    let mut pool = Pool::default();
    let mut output = Output::default();
    let bytes = [1; 10];
    let body = Body { ptr: bytes.as_ptr(), len: 10 };
    output.push_body(body, Token(1));
    assert!(output.take_off(&mut pool));
    output.push_body(body, Token(2));
    let mut lost = Vec::new();
    output.abandon(&mut pool, |token| lost.push(token.0));
    assert_eq!((lost, output.queued()), (vec![1, 2], 0));
}

#[test]
fn an_idle_endpoint_holds_no_buffer() {
    let mut pool = Pool::default();
    let mut output = Output::default();
    output.buffer(&mut pool).extend_from_slice(b"reply");
    assert!(output.take_off(&mut pool));
    assert!(output.landed(5, &mut pool, |_, _| {}));
    assert_eq!((output.filling.capacity(), output.flight.capacity()), (0, 0));
    // Asked for and not used goes back too.
    output.buffer(&mut pool);
    assert!(!output.take_off(&mut pool));
    assert_eq!(output.filling.capacity(), 0);
    assert_eq!(pool.0.len(), 1, "the same buffer went round");
}
