//! What a request past its deadline is told: what is known of its fate, which brick, and why.

use std::sync::Arc;

use firebrick_partition::Failure;

use super::Session;
use super::links::reason;
use super::slot::{State, Target};
use crate::error::Error;

impl Session {
    pub(super) fn overdue(&self, index: u32) -> Error {
        let slot = self.slots.get(index);
        let out = matches!(slot.state, State::Sent(_));
        if slot.uncertain || (out && slot.is_write()) {
            return Error::InDoubt;
        }
        if !out && let Some(failure) = slot.last_failure {
            return match failure {
                Failure::Busy => Error::Busy,
                failure => Error::Unavailable(self.refusal(slot.refused_by, failure)),
            };
        }
        if !out && let Some(error) = self.unreachable() {
            return error;
        }
        let whom = self.whom(index);
        if !out
            && let Some(at) = whom
            && !self.peers.get(at).is_up()
        {
            let peer = self.peers.get(at);
            let text = format!("{} does not answer: {}", peer.text(), reason(peer));
            return Error::Unavailable(text.into());
        }
        // (It may have been over before it came here: the shell had no turn.)
        let given_ns = slot.deadline_ns.saturating_sub(slot.submitted_ns);
        let ms = given_ns.saturating_add(500_000) / 1_000_000;
        Error::Deadline { ms, from: whom.map(|at| self.peers.get(at).text()) }
    }

    /// The peer that has the request, or that it waits for.
    fn whom(&self, index: u32) -> Option<u32> {
        let slot = self.slots.get(index);
        self.sent_to(index).or_else(|| {
            let home = match slot.target {
                Target::Hash(hash) => self.routes.of_hash(slot.table, hash),
                Target::Partition(id) => self.routes.of_partition(slot.table, id),
                Target::Brick => None,
            };
            self.peers.of_brick(*home?.1.first()?)
        })
    }

    fn refusal(&self, at: u32, failure: Failure) -> Arc<str> {
        let who: Arc<str> =
            if self.peers.exists(at) { self.peers.get(at).text() } else { "a brick".into() };
        let what = match failure {
            Failure::RouteTooNew => "is behind: it does not know the key's group yet",
            Failure::WrongPartition | Failure::AskPrimary => {
                "does not hold the key as its primary any more, and no brick has told who does"
            }
            Failure::InDoubt => "has forgotten this client's session",
            Failure::NoSpace => "has no room",
            _ => "does not serve the key now",
        };
        format!("{who} {what}").into()
    }
}
