//! Writes that wait for a segment: bounded, in order of arrival.

use super::execute::{Reads, Step};
use super::{Action, Actions, HELD_BYTES_MAX, HELD_MAX, OwnedAnswer, Replica};
use crate::op::{Failure, Now, Request};
use crate::wire::{self, Message};

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
        self.held.push_back(Held { token, hash, reads, encoded });
        Ok(())
    }

    /// Runs held requests until one must wait again. They are checked anew, for their route too.
    pub(super) fn run_held(&mut self, now: Now, out: &mut Actions) {
        while let Some(held) = self.held.pop_front() {
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
                    out.push(Action::Reply { token: held.token, answer });
                }
            }
            self.held_bytes -= held.encoded.len();
        }
    }
}
