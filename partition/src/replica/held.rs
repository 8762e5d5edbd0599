//! Writes that wait for a segment: bounded, in order of arrival.
//!
//! When it is there they run a slice at a time, so that no turn takes much longer than another: a slice
//! is more than what was held since the last one, so the queue gets shorter whatever arrives.

use super::execute::{Reads, Step};
use super::{Action, Actions, HELD_BYTES_MAX, HELD_MAX, OwnedAnswer, Replica};
use crate::op::{Failure, Now, Request};
use crate::wire::{self, Message};

/// Held requests that one slice runs, and bytes of them, besides twice what was held meanwhile.
/// About 100 us.
pub(super) const SLICE_REQUESTS: usize = 128;
const SLICE_BYTES: usize = 128 << 10;

/// What one more slice may run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeldSlice {
    /// Held since the last slice.
    requests: usize,
    bytes: usize,
    /// The last slice ended because it was used up, not because a request must wait.
    pub more: bool,
}

/// A request that waits, encoded so that it owns its bytes.
#[derive(Debug)]
pub(super) struct Held {
    pub token: u64,
    hash: u64,
    reads: Reads,
    encoded: Vec<u8>,
}

impl Replica {
    #[cold]
    pub(super) fn hold(
        &mut self,
        token: u64,
        hash: u64,
        request: &Request<'_>,
        reads: Reads,
    ) -> Result<(), Failure> {
        if self.held.len() >= HELD_MAX || self.held_bytes >= HELD_BYTES_MAX {
            return Err(Failure::Busy);
        }
        let mut encoded = Vec::new();
        wire::request(&mut encoded, 0, request);
        self.held_bytes += encoded.len();
        self.held_slice.requests += 1;
        self.held_slice.bytes += encoded.len();
        self.held.push_back(Held { token, hash, reads, encoded });
        Ok(())
    }

    /// Runs a slice of held requests, until one must wait again. They are checked anew, for their route
    /// too.
    pub(super) fn run_held(&mut self, now: Now, out: &mut Actions) {
        let HeldSlice { requests, bytes, .. } = std::mem::take(&mut self.held_slice);
        let mut left = 2 * requests + SLICE_REQUESTS;
        let mut bytes_left = 2 * bytes + SLICE_BYTES;
        while let Some(held) = self.held.pop_front() {
            if left == 0 || bytes_left == 0 {
                self.held.push_front(held);
                self.held_slice.more = true;
                return;
            }
            left -= 1;
            bytes_left = bytes_left.saturating_sub(held.encoded.len());
            let Ok(Message::Request { request, .. }) = wire::decode(&held.encoded) else {
                unreachable!("this process encoded it")
            };
            self.running_held = true;
            let step = self.run(now, held.token, held.hash, &request, held.reads, out);
            self.running_held = false;
            match step {
                Step::Hold => {
                    self.held.push_front(held);
                    return;
                }
                Step::Later => {}
                step => {
                    let answer = OwnedAnswer::new(&self.answer(step, out));
                    bytes_left = bytes_left.saturating_sub(answer.bytes());
                    out.push(Action::Reply { token: held.token, answer });
                }
            }
            self.held_bytes -= held.encoded.len();
        }
    }
}
