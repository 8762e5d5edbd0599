//! From a received frame to a result, or to another try.

use firebrick_partition::op::{Answer, SessionId};
use firebrick_partition::wire::{self, Message};
use firebrick_partition::{Failure, Route};

use super::place::Hint;
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
        self.handle_progress(now_ns, link);
        match wire::decode(payload) {
            Ok(Message::Answer { slot, answer }) => {
                let Some(index) = self.sent_on(link, slot) else { return Ok(()) };
                self.handle_alive(index);
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
                let changes = maps.to_changes();
                let changes = changes.map_err(|e| Error::Protocol(e.to_string().into()))?;
                let fetched = self.routes.take(maps.cluster(), &changes)?;
                self.finish(now_ns, index, Ok(Reply::Map), sink);
                self.handle_map(now_ns, fetched, sink);
            }
            Ok(Message::ControlAnswer { slot, json }) => {
                let Some(index) = self.sent_on(link, slot) else { return Ok(()) };
                if !matches!(self.slots.get(index).ask, Ask::Control { .. }) {
                    return Err(another_kind());
                }
                self.finish(now_ns, index, Ok(Reply::Control(json)), sink);
            }
            Ok(Message::Welcome { welcome, .. }) => {
                self.handle_welcome(now_ns, link, &welcome);
            }
            Ok(_) => return Err(Error::protocol("a client's message from a brick")),
            Err(e) => return Err(Error::Protocol(e.to_string().into())),
        }
        Ok(())
    }

    /// An operation was answered: the brick does more than say hello.
    #[inline]
    fn handle_alive(&mut self, index: u32) {
        if let Some(at) = self.sent_to(index) {
            self.peers.get_mut(at).silences = 0;
        }
    }

    /// The slot whose current try was sent on this link under this tag. An answer to a try that is
    /// over (overdue, or repeated by the network) has none.
    fn sent_on(&self, link: Link, tag: u32) -> Option<u32> {
        let index = self.slots.find_tag(tag)?;
        (self.slots.get(index).state == State::Sent(link)).then_some(index)
    }

    fn handle_answer(&mut self, now_ns: u64, index: u32, answer: Answer<'_>, sink: &mut dyn Sink) {
        match answer {
            Answer::StaleRoute { route } => self.handle_stale(now_ns, index, route),
            Answer::Failed(failure) => self.handle_failed(now_ns, index, failure, sink),
            answer => self.finish(now_ns, index, Ok(Reply::Answer(answer)), sink),
        }
    }

    /// The route is repaired, and the request leaves again, to the same brick: a refusal for its route changed
    /// nothing. Who is in the group now, only the map tells; the brick that answered has it.
    fn handle_stale(&mut self, now_ns: u64, index: u32, route: Route) {
        let at = self.sent_to(index);
        let slot = self.slots.get(index);
        let says_new = slot.sent != (route.epoch, route.fingerprint);
        let known = self.routes.repair(route);
        self.want_map(now_ns, at.map_or(Hint::Anyone, Hint::From));
        if says_new && known {
            self.unsent(index);
            self.place_at(now_ns, index, at);
        } else if says_new && self.knows_newer(index) {
            self.unsent(index);
            self.place(now_ns, index, false);
        } else {
            // The same route again, or one of a partition that this map does not have.
            self.again_later(now_ns, index, Failure::WrongPartition);
        }
    }

    /// The map has had a newer epoch since the try was sent.
    pub(super) fn knows_newer(&self, index: u32) -> bool {
        let slot = self.slots.get(index);
        self.route_of(index).is_some_and(|route| route.epoch > slot.sent.0)
    }

    fn handle_failed(&mut self, now_ns: u64, index: u32, failure: Failure, sink: &mut dyn Sink) {
        if self.refused_for_now(now_ns, index, failure) {
            return;
        }
        let slot = self.slots.get(index);
        let error = match failure {
            // This try changed nothing, but an earlier one that comes late still may.
            Failure::NoSpace if slot.uncertain => {
                return self.again_later(now_ns, index, failure);
            }
            // An earlier try may have been applied, and nobody will tell before a person has mended the disk.
            Failure::DiskFailed if slot.uncertain => Error::InDoubt,
            Failure::InDoubt => return self.handle_in_doubt(now_ns, index, sink),
            Failure::NoTable => {
                // What this map says of the table is out of date.
                self.want_map(now_ns, Hint::Anyone);
                Error::NoTable(self.routes.name(self.slots.get(index).table))
            }
            failure => error_of(failure),
        };
        self.finish(now_ns, index, Err(error), sink);
    }

    /// Refusals that another brick or a newer map may mend: the request goes again, and `true`.
    fn refused_for_now(&mut self, now_ns: u64, index: u32, failure: Failure) -> bool {
        let at = self.sent_to(index);
        match failure {
            // (`RouteTooNew`: the brick fetches the map that this session has.)
            Failure::Busy | Failure::RouteTooNew => self.again_elsewhere(now_ns, index, failure),
            Failure::Unavailable => {
                if self.peers.iter().count() > 1 {
                    self.want_map(now_ns, at.map_or(Hint::Anyone, Hint::NotFrom));
                }
                self.again_elsewhere(now_ns, index, failure);
            }
            Failure::WrongPartition => {
                self.want_map(now_ns, Hint::Anyone);
                self.again_elsewhere(now_ns, index, failure);
            }
            Failure::AskPrimary => {
                let slot = self.slots.get_mut(index);
                if slot.is_write() || std::mem::replace(&mut slot.ask_primary, true) {
                    // It is not the primary that this map takes it for.
                    self.want_map(now_ns, at.map_or(Hint::Anyone, Hint::From));
                    self.again_later(now_ns, index, failure);
                } else {
                    self.unsent(index);
                    self.place(now_ns, index, false);
                }
            }
            _ => return false,
        }
        true
    }

    /// A read that one member refused is asked of the others at once; after all of them, and for a write, it rests.
    fn again_elsewhere(&mut self, now_ns: u64, index: u32, failure: Failure) {
        let brick = self.sent_to(index).and_then(|at| self.peers.get(at).brick);
        let members = self.members_for(index);
        let slot = self.slots.get_mut(index);
        slot.avoid = brick;
        if members > 1 && (usize::from(slot.refusals) + 1) % members != 0 {
            slot.refusals = slot.refusals.saturating_add(1);
            slot.last_failure = Some(failure);
            self.unsent(index);
            self.place(now_ns, index, false);
        } else {
            self.again_later(now_ns, index, failure);
        }
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
            Answer::Session { session } if session.partition == partition => {
                self.finish(now_ns, index, Ok(Reply::Answer(answer)), sink);
                self.writers.opened(partition, session);
                self.release(now_ns, partition);
            }
            Answer::StaleRoute { route } => self.handle_stale(now_ns, index, route),
            Answer::Failed(failure) if self.refused_for_now(now_ns, index, failure) => {}
            Answer::Failed(failure) => {
                self.finish(now_ns, index, Err(error_of(failure)), sink);
            }
            _ => self.finish(now_ns, index, Err(another_kind()), sink),
        }
    }

    /// The brick refused this try and changed nothing.
    fn again_later(&mut self, now_ns: u64, index: u32, failure: Failure) {
        let at = self.sent_to(index);
        self.unsent(index);
        let slot = self.slots.get_mut(index);
        slot.refused_by = at.unwrap_or(u32::MAX);
        let pause = (PAUSE_MIN_NS << slot.refusals.min(7)).min(PAUSE_MAX_NS);
        slot.refusals = slot.refusals.saturating_add(1);
        slot.last_failure = Some(failure);
        slot.state = State::Paused(now_ns + pause);
        self.wake_ns = self.wake_ns.min(now_ns + pause);
    }

    /// The peer that has the slot's try.
    pub(super) fn sent_to(&self, index: u32) -> Option<u32> {
        let State::Sent(link) = self.slots.get(index).state else { return None };
        self.peers.line(link).map(|line| line.peer)
    }

    pub(super) fn unsent(&mut self, index: u32) {
        self.slots.next_try(index);
        let slot = self.slots.get(index);
        if let State::Sent(link) = slot.state {
            self.peers.one_less(link, slot.bytes());
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
        Failure::DiskFailed => Error::Unavailable(
            "the disk of its only replica failed, or its files cannot be opened: see status".into(),
        ),
        Failure::Unavailable
        | Failure::WrongPartition
        | Failure::RouteTooNew
        | Failure::AskPrimary => Error::Unavailable("it is not served now".into()),
    }
}
