//! From a received frame to a result, or to another try.

use firebrick_partition::op::{Answer, SessionId};
use firebrick_partition::wire::{self, Message, Welcome};
use firebrick_partition::{Failure, Route};

use super::slot::{Ask, Purpose, State};
use super::{Link, Reply, Session, Sink};
use crate::error::{Error, Result};

/// The first pause after a refusal; it doubles up to `PAUSE_MAX_NS`.
const PAUSE_MIN_NS: u64 = 1_000_000;
const PAUSE_MAX_NS: u64 = 128_000_000;

impl Session {
    /// Takes one frame's payload. An error means that the peer makes no sense: close the link.
    pub fn handle_frame(
        &mut self,
        now_ns: u64,
        link: Link,
        payload: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<()> {
        if let Some(l) = self.links.iter_mut().find(|l| l.link == link) {
            l.heard_ns = now_ns;
        }
        match wire::decode(payload) {
            Ok(Message::Answer { slot, answer }) => {
                let Some(index) = self.sent_on(link, slot) else { return Ok(()) };
                match (self.slots.get(index).ask, self.slots.get(index).purpose) {
                    (Ask::Op(_), Purpose::Open(partition)) => {
                        self.handle_opened(now_ns, index, partition, answer, sink);
                    }
                    (Ask::Op(_), _) => self.handle_answer(now_ns, index, answer, sink),
                    _ => return Err(another_kind()),
                }
            }
            Ok(Message::Map { slot, maps }) => {
                let Some(index) = self.sent_on(link, slot) else { return Ok(()) };
                if !matches!(self.slots.get(index).ask, Ask::FetchMap) {
                    return Err(another_kind());
                }
                let maps = maps.to_maps().map_err(|e| Error::Protocol(e.to_string().into()))?;
                self.routes.replace(&maps)?;
                self.finish(now_ns, index, Ok(Reply::Map), sink);
                self.handle_map_known(now_ns);
            }
            Ok(Message::ControlAnswer { slot, json }) => {
                let Some(index) = self.sent_on(link, slot) else { return Ok(()) };
                if !matches!(self.slots.get(index).ask, Ask::Control { .. }) {
                    return Err(another_kind());
                }
                self.finish(now_ns, index, Ok(Reply::Control(json)), sink);
            }
            Ok(Message::Welcome { welcome, .. }) => self.handle_welcome(link, &welcome),
            Ok(_) => return Err(Error::protocol("a client's message from a brick")),
            Err(e) => return Err(Error::Protocol(e.to_string().into())),
        }
        Ok(())
    }

    /// The slot whose current try was sent on this link under this tag. An answer to a try that is
    /// over (overdue, or repeated by the network) has none.
    fn sent_on(&self, link: Link, tag: u32) -> Option<u32> {
        let index = self.slots.find_tag(tag)?;
        (self.slots.get(index).state == State::Sent(link)).then_some(index)
    }

    fn handle_welcome(&mut self, link: Link, welcome: &Welcome<'_>) {
        if let Some(l) = self.links.iter_mut().find(|l| l.link == link) {
            l.limit = welcome.limits.in_flight.max(1);
        }
    }

    fn handle_map_known(&mut self, now_ns: u64) {
        for _ in 0..self.mapless.len() {
            let Some(id) = self.mapless.pop_front() else { break };
            if let Some(index) = self.slots.find(id) {
                self.admit(now_ns, index);
            }
        }
    }

    fn handle_answer(&mut self, now_ns: u64, index: u32, answer: Answer<'_>, sink: &mut dyn Sink) {
        match answer {
            Answer::StaleRoute { route } => self.handle_stale(now_ns, index, route),
            Answer::Failed(failure) => self.handle_failed(now_ns, index, failure, sink),
            answer => self.finish(now_ns, index, Ok(Reply::Answer(answer)), sink),
        }
    }

    /// The route is repaired, and the request leaves again: a refusal for its route changed nothing.
    fn handle_stale(&mut self, now_ns: u64, index: u32, route: Route) {
        if self.routes.repair(route) {
            self.again_now(index);
        } else {
            // The same route again, or one of a partition that this map does not have.
            self.want_map(now_ns);
            self.again_later(now_ns, index, Failure::WrongPartition);
        }
    }

    fn handle_failed(&mut self, now_ns: u64, index: u32, failure: Failure, sink: &mut dyn Sink) {
        let slot = self.slots.get(index);
        let uncertain = slot.uncertain;
        let error = match failure {
            Failure::Unavailable | Failure::Busy | Failure::RouteTooNew | Failure::AskPrimary => {
                return self.again_later(now_ns, index, failure);
            }
            Failure::WrongPartition => {
                self.want_map(now_ns);
                return self.again_later(now_ns, index, failure);
            }
            // This try changed nothing, but an earlier one that comes late still may.
            Failure::NoSpace if uncertain => return self.again_later(now_ns, index, failure),
            Failure::InDoubt => return self.handle_in_doubt(now_ns, index, sink),
            Failure::NoTable => {
                // What this map says of the table is out of date.
                self.want_map(now_ns);
                Error::NoTable(self.routes.name(self.slots.get(index).table))
            }
            failure => error_of(failure),
        };
        self.finish(now_ns, index, Err(error), sink);
    }

    /// The partition does not know the session, or the number's place in it. For the only try of a
    /// write that means: never applied, so it goes again in a new session. After a lost try nobody
    /// can tell.
    fn handle_in_doubt(&mut self, now_ns: u64, index: u32, sink: &mut dyn Sink) {
        let slot = self.slots.get_mut(index);
        let Some(id) = slot.number else {
            return self.finish(now_ns, index, Err(Error::InDoubt), sink);
        };
        if slot.uncertain {
            self.finish(now_ns, index, Err(Error::InDoubt), sink);
        } else {
            slot.number = None;
            self.again_later(now_ns, index, Failure::InDoubt);
        }
        self.lose_session(now_ns, id.session);
    }

    fn lose_session(&mut self, now_ns: u64, session: SessionId) {
        self.writers.lost(session);
        self.release(now_ns, session.partition);
    }

    fn handle_opened(
        &mut self,
        now_ns: u64,
        index: u32,
        partition: u32,
        answer: Answer<'_>,
        sink: &mut dyn Sink,
    ) {
        match answer {
            Answer::Session { session } => {
                self.finish(now_ns, index, Ok(Reply::Answer(answer)), sink);
                self.writers.opened(partition, session);
                self.release(now_ns, partition);
            }
            Answer::StaleRoute { route } => self.handle_stale(now_ns, index, route),
            Answer::Failed(
                Failure::Unavailable | Failure::Busy | Failure::RouteTooNew | Failure::AskPrimary,
            ) => {
                self.again_later(now_ns, index, Failure::Unavailable);
            }
            Answer::Failed(Failure::WrongPartition) => {
                self.want_map(now_ns);
                self.again_later(now_ns, index, Failure::WrongPartition);
            }
            Answer::Failed(failure) => {
                self.finish(now_ns, index, Err(error_of(failure)), sink);
            }
            _ => self.finish(now_ns, index, Err(another_kind()), sink),
        }
    }

    /// The brick refused this try and changed nothing.
    fn again_now(&mut self, index: u32) {
        self.unsent(index);
        self.push_ready(index);
    }

    fn again_later(&mut self, now_ns: u64, index: u32, failure: Failure) {
        self.unsent(index);
        let slot = self.slots.get_mut(index);
        let pause = (PAUSE_MIN_NS << slot.refusals.min(7)).min(PAUSE_MAX_NS);
        slot.refusals = slot.refusals.saturating_add(1);
        slot.last_failure = Some(failure);
        slot.state = State::Paused(now_ns + pause);
        self.wake_ns = self.wake_ns.min(now_ns + pause);
    }

    fn unsent(&mut self, index: u32) {
        self.slots.next_try(index);
        if let State::Sent(link) = self.slots.get(index).state {
            self.one_less(link);
        }
    }
}

fn another_kind() -> Error {
    Error::protocol("an answer to another kind of request")
}

/// A failure that no retry mends.
fn error_of(failure: Failure) -> Error {
    match failure {
        Failure::NotInteger => Error::NotInteger,
        Failure::Overflow => Error::Overflow,
        Failure::NotFloat => Error::NotFloat,
        Failure::NotFinite => Error::NotFinite,
        Failure::TooLarge => {
            Error::TooLarge { what: "value", bytes: 0, limit: crate::VALUE_BYTES_MAX }
        }
        Failure::NoSpace => Error::NoSpace,
        Failure::InDoubt => Error::InDoubt,
        Failure::Corrupt => Error::Corrupt,
        Failure::NoTable => Error::NoTable("of that name".into()),
        Failure::Busy => Error::Busy,
        Failure::Malformed => Error::protocol("the brick calls a request malformed"),
        Failure::Unavailable
        | Failure::WrongPartition
        | Failure::RouteTooNew
        | Failure::AskPrimary => Error::Unavailable,
    }
}
