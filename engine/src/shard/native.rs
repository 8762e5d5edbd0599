//! Native connections: frames in, frames out.

use firebrick_net::{Ep, Fabric, Full, Rx, Token};
use firebrick_partition::hash::hash_key;
use firebrick_partition::wire::{self, Message};
use firebrick_partition::{Answer, Failure};

use super::Shard;
use super::asker::{Asker, ConnId};
use super::conns::{LATE_BYTES_MAX, OWED_BYTES_MAX};

impl<F: Fabric> Shard<F> {
    /// A frame arrived. It waits while there is no room for its answer.
    pub(super) fn on_frame(&mut self, ep: Ep, rx: Rx) {
        let room = self.fabric.room(ep);
        let Some(native) = self.conns.native(ep) else {
            self.on_probe_frame(ep, rx);
            return;
        };
        native.heard_ns = self.store.now.boot_ns;
        // What bricks say to each other needs no room here, and two of them must not wait for each other's.
        let full = room == 0 || !native.held.is_empty() || !native.late.is_empty();
        if full && !native.is_brick() {
            native.held.push_back(rx);
            return;
        }
        self.frame(ep, rx);
    }

    /// There is room again: late answers first, then the frames that waited.
    pub(super) fn drain_native(&mut self, ep: Ep) {
        while self.fabric.room(ep) > 0 {
            let Some(native) = self.conns.native(ep) else { return };
            if let Some(late) = native.late.pop_front() {
                if self.fabric.send(ep, &late, None, Token::NONE) == Err(Full) {
                    native.late.push_front(late);
                    return;
                }
                native.late_bytes -= late.len();
            } else if let Some(rx) = native.held.pop_front() {
                self.frame(ep, rx);
            } else {
                return;
            }
        }
    }

    fn frame(&mut self, ep: Ep, rx: Rx) {
        let mut reply = std::mem::take(&mut self.reply);
        reply.clear();
        let bytes = self.fabric.bytes(&rx);
        let (mut whole, mut came) = (true, 0);
        match wire::decode(bytes) {
            Ok(Message::Request { slot, request }) => {
                let Some(native) = self.conns.native(ep) else { return };
                let asker = Asker::Native { conn: ConnId::new(ep), slot };
                if native.in_flight >= self.info.in_flight_max {
                    self.store.counts.overloaded += 1;
                    wire::answer(&mut reply, slot, &Answer::Failed(Failure::Busy));
                } else if native.late_bytes > LATE_BYTES_MAX {
                    // Of a brick, whose input does not wait: it asks again in a moment.
                    wire::answer(&mut reply, slot, &Answer::Failed(Failure::Unavailable));
                } else {
                    let hash = hash_key(request.key);
                    match self.store.submit_frame(
                        asker,
                        hash,
                        &request,
                        bytes,
                        native.in_flight > 0,
                    ) {
                        Some(answer) => wire::answer(&mut reply, slot, &answer),
                        None => native.in_flight += 1,
                    }
                }
            }
            Ok(Message::Hello { .. }) => (whole, came) = self.greeted(ep, &rx, &mut reply),
            Ok(Message::FetchMap { slot, known }) => {
                self.info.tell_map(&mut reply, slot, &self.store.routes, known);
            }
            Ok(Message::Control { slot, json }) => {
                let asker = Asker::Native { conn: ConnId::new(ep), slot };
                let asked = self.control.ask(self.store.core(), asker.token(), json);
                match self.conns.native(ep).filter(|_| asked) {
                    Some(native) => native.in_flight += 1,
                    None => wire::control_answer(&mut reply, slot, BUSY),
                }
            }
            Ok(Message::Peer { .. } | Message::Answer { .. } | Message::Welcome { .. }) => {
                whole = self.on_brick_frame(ep, &rx);
            }
            // Only bricks tell maps; or it is no message at all.
            Ok(_) | Err(_) => whole = false,
        }
        self.fabric.release(rx);
        if !whole {
            self.store.counts.malformed += 1;
            self.fabric.close(ep);
        } else if !reply.is_empty() {
            self.send_native(ep, &reply);
        }
        self.reply = reply;
        if came != 0 {
            // Behind the greeting, which says who is talking.
            self.files.on_peer_up(&mut self.fabric, &mut self.store, came);
        }
    }

    /// Somebody says who it is. Whether that may come here, and the brick that can be reached this way from now on.
    fn greeted(&mut self, ep: Ep, rx: &Rx, reply: &mut Vec<u8>) -> (bool, u32) {
        let Some(native) = self.conns.native(ep).filter(|native| !native.dialled) else {
            return (false, 0);
        };
        let Ok(Message::Hello { slot, hello }) = wire::decode(self.fabric.bytes(rx)) else {
            return (false, 0);
        };
        native.brick = hello.brick;
        wire::welcome(reply, slot, &self.info.welcome(&self.store.routes, self.store.core()));
        let came = self.store.peers.on_came(ep, &hello, self.store.now.boot_ns);
        let brick = hello.brick;
        if brick != 0 {
            self.fabric.read_on(ep);
        }
        (true, if came { brick } else { 0 })
    }

    fn send_native(&mut self, ep: Ep, frame: &[u8]) {
        if self.fabric.send(ep, frame, None, Token::NONE) == Err(Full) {
            self.keep_native(ep, frame);
        }
    }

    /// An answer waits for room, unless its client lets too much pile up.
    fn keep_native(&mut self, ep: Ep, frame: &[u8]) {
        let Some(native) = self.conns.native(ep) else { return };
        if native.late_bytes + frame.len() > OWED_BYTES_MAX {
            self.fabric.abort(ep);
            return;
        }
        native.late_bytes += frame.len();
        native.late.push_back(frame.to_vec());
    }

    /// The answer to a request that waited here for a commit.
    pub(super) fn answer_native(&mut self, conn: ConnId, slot: u32, answer: &Answer<'_>) {
        let mut reply = std::mem::take(&mut self.reply);
        reply.clear();
        wire::answer(&mut reply, slot, answer);
        self.answer_native_frame(conn, &reply);
        self.reply = reply;
    }

    /// An answer that is a frame already.
    pub(super) fn answer_native_frame(&mut self, conn: ConnId, frame: &[u8]) {
        let Some(ep) = self.conns.find(conn) else { return };
        let Some(native) = self.conns.native(ep) else { return };
        native.in_flight -= 1;
        if native.late.is_empty() {
            self.send_native(ep, frame);
        } else {
            self.keep_native(ep, frame);
        }
    }
}

const BUSY: &str = r#"{"error":"the control thread has too much to do; try again later","kind":"not-now","ok":false}"#;

#[cfg(test)]
mod tests {
    #[test]
    fn a_brick_that_has_too_much_to_do_says_so_as_an_error() {
        // Clients look no further than the first key.
        assert!(super::BUSY.starts_with("{\"error\":"), "{}", super::BUSY);
        serde_json::from_str::<serde_json::Value>(super::BUSY).unwrap();
    }
}
