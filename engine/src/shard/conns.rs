//! The connections of a data core: what the shard remembers of each endpoint.

use std::collections::VecDeque;

use firebrick_net::{Ep, Rx};

use super::asker::ConnId;
use crate::resp;

/// Bytes owed to a client past which it is closed. Only answers that came late (from another core, or
/// behind a flush), and were much larger than those before them, can pile up like this.
pub const OWED_BYTES_MAX: usize = 128 << 20;

/// Bytes of late answers to a brick past which its requests are not executed. (More than one of its Redis connections may
/// have on the way: of a pipeline some would be refused and later ones not, which is an error to the client.)
pub const LATE_BYTES_MAX: usize = 64 << 20;

/// A native connection.
#[derive(Debug, Default)]
pub struct Native {
    /// Frames that came while there was no room for their answers.
    pub held: VecDeque<Rx>,
    /// Answers that came while there was no room for them. Bounded by the requests in flight, and by
    /// [`LATE_BYTES_MAX`] and one answer for a brick's.
    pub late: VecDeque<Vec<u8>>,
    /// Their bytes.
    pub late_bytes: usize,
    /// Requests without an answer.
    pub in_flight: u32,
    /// The brick at the other end; 0: a client, or a brick that has not greeted yet.
    pub brick: u32,
    /// This core dialled it.
    pub dialled: bool,
    /// When something came, or it opened.
    pub heard_ns: u64,
}

impl Native {
    /// Another brick is, or is to be, at its other end.
    pub fn is_brick(&self) -> bool {
        self.dialled || self.brick != 0
    }
}

/// A RESP connection and how it goes on.
#[derive(Debug)]
pub struct Resp {
    /// Commands and replies.
    pub conn: resp::Conn,
    /// Listed to be resumed.
    pub queued: bool,
    /// Receiving is held back.
    pub held: bool,
    /// The client sends no more: the connection is closed once it has its replies.
    pub finished: bool,
    /// What is kept for it, received or to be sent, when that was last looked at.
    pub bytes: usize,
    /// Of them, those that the kernel has not taken either.
    pub left: usize,
    /// It is being closed for what it keeps, which counts no more (or others would be closed for it too).
    pub shed: bool,
    /// It had taken all then, and waited for this brick.
    pub awaits: bool,
    /// When those that are left became less or began to be some, or it waited for this brick.
    pub took_ns: u64,
}

/// What an endpoint carries.
#[derive(Debug)]
pub enum Kind {
    /// Frames.
    Native(Box<Native>),
    /// RESP; taken out while it is being served, because the front may list all the others.
    Resp(Option<Box<Resp>>),
}

#[derive(Debug)]
struct Slot {
    ep: Ep,
    kind: Kind,
}

/// All connections, by endpoint slot.
#[derive(Debug, Default)]
pub struct Conns {
    slots: Vec<Option<Slot>>,
    len: usize,
}

impl Conns {
    /// Remembers a new endpoint.
    pub fn insert(&mut self, ep: Ep, kind: Kind) {
        let at = ep.slot as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        debug_assert!(self.slots[at].is_none(), "an endpoint closed without an event");
        self.slots[at] = Some(Slot { ep, kind });
        self.len += 1;
    }

    /// Forgets an endpoint.
    pub fn remove(&mut self, ep: Ep) -> Option<Kind> {
        let slot = self.slots.get_mut(ep.slot as usize)?.take_if(|s| s.ep == ep)?;
        self.len -= 1;
        Some(slot.kind)
    }

    fn get(&mut self, ep: Ep) -> Option<&mut Kind> {
        let slot = self.slots.get_mut(ep.slot as usize)?.as_mut()?;
        (slot.ep == ep).then_some(&mut slot.kind)
    }

    /// The native connection of an endpoint.
    pub fn native(&mut self, ep: Ep) -> Option<&mut Native> {
        match self.get(ep)? {
            Kind::Native(native) => Some(native),
            Kind::Resp(_) => None,
        }
    }

    /// Takes the RESP connection of an endpoint out, to be served.
    pub fn take_resp(&mut self, ep: Ep) -> Option<Box<Resp>> {
        match self.get(ep)? {
            Kind::Resp(resp) => resp.take(),
            Kind::Native(_) => None,
        }
    }

    /// Puts it back.
    pub fn put_resp(&mut self, ep: Ep, conn: Box<Resp>) {
        if let Some(Kind::Resp(slot)) = self.get(ep) {
            *slot = Some(conn);
        }
    }

    /// The endpoint that an answer is for; `None` when it has closed since.
    pub fn find(&self, conn: ConnId) -> Option<Ep> {
        let ep = self.slots.get(conn.slot())?.as_ref()?.ep;
        (ConnId::new(ep) == conn).then_some(ep)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Every RESP connection.
    pub fn resp(&mut self) -> impl Iterator<Item = (Ep, &mut Resp)> {
        self.slots.iter_mut().flatten().filter_map(|s| match &mut s.kind {
            Kind::Resp(Some(resp)) => Some((s.ep, &mut **resp)),
            _ => None,
        })
    }

    /// Every connection.
    pub fn iter(&self) -> impl Iterator<Item = (Ep, &Kind)> {
        self.slots.iter().flatten().map(|s| (s.ep, &s.kind))
    }
}
