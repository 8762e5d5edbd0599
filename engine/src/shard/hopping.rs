//! Requests of other cores, and the answers to ours.

use firebrick_net::Fabric;
use firebrick_partition::hash::hash_key;
use firebrick_partition::wire::{self, Message};
use firebrick_partition::{Answer, Failure};

use super::Shard;
use super::asker::Asker;
use super::hops::Hop;
use super::peers::Holder;
use crate::mesh::{self, Leg};

/// Hops taken in one turn, so that one busy neighbour does not hold up this core's own connections.
const HOPS_PER_TURN_MAX: usize = 512;
/// Instead of an answer: there will be none.
pub(super) const UNANSWERED: &[u8] = &[];

impl<F: Fabric> Shard<F> {
    /// Takes what the other cores sent.
    pub(super) fn take_hops(&mut self) -> usize {
        let mut taken = 0;
        while taken < HOPS_PER_TURN_MAX
            && let Some((core, hop)) = self.store.mesh().pop()
        {
            taken += 1;
            match hop.leg {
                Leg::Request => self.on_hop_request(core, &hop),
                Leg::Answer => self.on_hop_answer(&hop),
                Leg::Peer => self.on_hop_peer(&hop),
            }
        }
        taken
    }

    fn on_hop_request(&mut self, core: u16, hop: &mesh::Hop) {
        let Ok(Message::Request { slot, request }) = wire::decode(hop.bytes()) else {
            panic!("core {core} relayed a frame that it cannot have decoded");
        };
        self.store.counts.hops_in += 1;
        let entry = self.store.hops.insert(Hop { core, token: hop.token, slot });
        let mut reply = std::mem::take(&mut self.reply);
        reply.clear();
        let (hash, asker) = (hash_key(request.key), Asker::Hop { entry });
        // Whether the connection has writes in flight is not known here: assume it.
        if let Some(answer) = self.store.execute(asker, hash, &request, true) {
            wire::answer(&mut reply, slot, &answer);
            self.store.hops.remove(entry);
            self.store.mesh().answer(core, hop.token, &reply);
        }
        self.reply = reply;
    }

    /// The answer to a hop that waited for a commit.
    pub(super) fn answer_hop(&mut self, entry: u32, answer: &Answer<'_>) {
        let Hop { core, token, slot } = self.store.hops.remove(entry);
        let mut reply = std::mem::take(&mut self.reply);
        reply.clear();
        wire::answer(&mut reply, slot, answer);
        self.store.mesh().answer(core, token, &reply);
        self.reply = reply;
    }

    fn on_hop_answer(&mut self, hop: &mesh::Hop) {
        self.store.relayed -= 1;
        if hop.bytes() == UNANSWERED {
            return self.leave_unanswered(Asker::from_token(hop.token));
        }
        match Asker::from_token(hop.token) {
            // The frame is the client's answer as it is.
            Asker::Native { conn, .. } => self.answer_native_frame(conn, hop.bytes()),
            Asker::Resp { conn, part } => {
                let answer = match wire::decode(hop.bytes()) {
                    Ok(Message::Answer { answer, .. }) => answer,
                    _ => Answer::Failed(Failure::Malformed),
                };
                self.answer_resp(conn, part, answer);
            }
            Asker::Forward { slot } => {
                let answer = match wire::decode(hop.bytes()) {
                    Ok(Message::Answer { answer, .. }) => answer,
                    _ => Answer::Failed(Failure::Malformed),
                };
                self.answer_forward(slot, Holder::Here, answer);
            }
            Asker::Hop { .. } => panic!("a request takes one hop at most"),
        }
    }
}
