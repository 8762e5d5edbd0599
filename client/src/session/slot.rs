//! The requests a session has in flight: a slab whose buffers are used again, so that nothing is
//! allocated per request.

use firebrick_partition::Failure;
use firebrick_partition::op::{Op, RequestId};

use super::Link;

/// Buffers above this are given back when their request is done.
const KEPT_BYTES: usize = 64 << 10;

/// Slots of one session: a slot's index has 16 bits on the wire, and the last is `Hello`'s.
const SLOTS_MAX: usize = (1 << 16) - 1;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The application's, with its token.
    User(u64),
    /// The session's own: fetch the map.
    Map,
    /// The session's own: open a write session at the partition.
    Open(u32),
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To the partition that holds the hash.
    Hash(u64),
    /// To this partition.
    Partition(u32),
    /// To any brick: the map, tables, status.
    Brick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    /// In the ready queue.
    Ready,
    /// For the map, a write session or room in the window.
    Waiting,
    /// Until this time, because the brick refused the last try.
    Paused(u64),
    Sent(Link),
}

/// What is asked, without its bytes, which are in the slot's buffer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    Op(Op<'static>),
    FetchMap,
    Control { changes: bool },
}

/// Names one try of one request. A later try has another id, so a late or
/// repeated answer of an earlier one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(pub u64);

impl Id {
    /// As it travels: 16 bits of the generation, 16 of the index.
    pub fn tag(self) -> u32 {
        self.generation() << 16 | self.index() as u32
    }

    fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[derive(Debug)]
pub(super) struct Slot {
    generation: u32,
    pub state: State,
    pub purpose: Purpose,
    pub table: u32,
    pub target: Target,
    pub ask: Ask,
    /// Key, then value.
    bytes: Vec<u8>,
    key_len: usize,
    pub number: Option<RequestId>,
    /// An earlier try may have been applied.
    pub uncertain: bool,
    /// Refusals in a row: the pause doubles with each.
    pub refusals: u8,
    /// Why the last try was refused, and by which peer.
    pub last_failure: Option<Failure>,
    pub refused_by: u32,
    /// A read that a backup sent to the primary.
    pub ask_primary: bool,
    /// The brick that refused the last try: another one goes first.
    pub avoid: Option<u32>,
    /// Epoch and fingerprint of the last try's route, and when it was sent.
    pub sent: (u32, u32),
    pub sent_ns: u64,
    pub submitted_ns: u64,
    pub deadline_ns: u64,
    /// Order of submission: retries keep it.
    pub order: u64,
    /// Position in the list of slots in use.
    in_use_at: u32,
}

impl Slot {
    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len]
    }

    /// Bytes of key and value.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The value of an operation.
    pub fn value(&self) -> &[u8] {
        &self.bytes[self.key_len..]
    }

    /// The text of a control request, which came as `&str`.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.value()).unwrap_or_default()
    }

    /// The operation with its value.
    pub fn op(&self) -> Option<Op<'_>> {
        match self.ask {
            Ask::Op(op) => Some(with_value(op, self.value())),
            Ask::FetchMap | Ask::Control { .. } => None,
        }
    }

    /// It may change something when it arrives.
    pub fn is_write(&self) -> bool {
        match self.ask {
            Ask::Op(op) => !op.is_read(),
            Ask::FetchMap => false,
            Ask::Control { changes } => changes,
        }
    }

    /// It changes something and opening or ending a session is not it: those repeat without harm.
    pub fn wants_number(&self) -> bool {
        match self.ask {
            Ask::Op(Op::OpenSession { .. } | Op::EndSession { .. })
            | Ask::FetchMap
            | Ask::Control { .. } => false,
            Ask::Op(op) => !op.is_read(),
        }
    }

    /// A try whose fate is not known may be followed by another.
    pub fn may_repeat(&self) -> bool {
        self.number.is_some() || !self.is_write() || matches!(self.purpose, Purpose::Open(_))
    }
}

/// All slots. Those in use are listed, so that deadlines are looked at without a walk over the free ones.
#[derive(Debug)]
pub(super) struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
    in_use: Vec<u32>,
    order: u64,
}

/// What a new slot begins with.
pub(super) struct New<'a> {
    pub purpose: Purpose,
    pub table: u32,
    pub target: Target,
    pub ask: Ask,
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub now_ns: u64,
    pub deadline_ns: u64,
}

impl Slots {
    pub fn new() -> Self {
        Self { all: Vec::new(), free: Vec::new(), in_use: Vec::new(), order: 0 }
    }

    pub fn get(&self, index: u32) -> &Slot {
        &self.all[index as usize]
    }

    pub fn get_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.all[index as usize]
    }

    /// The slot of a try that is still the current one.
    pub fn find(&self, id: Id) -> Option<u32> {
        let slot = self.all.get(id.index())?;
        (slot.generation == id.generation() && slot.state != State::Free).then(|| id.index() as u32)
    }

    /// The slot of a try by its tag.
    pub fn find_tag(&self, tag: u32) -> Option<u32> {
        let index = tag & 0xffff;
        let slot = self.all.get(index as usize)?;
        let current = slot.state != State::Free && slot.generation & 0xffff == tag >> 16;
        current.then_some(index)
    }

    /// The current try of a slot.
    pub fn id(&self, index: u32) -> Id {
        Id(u64::from(self.get(index).generation) << 32 | u64::from(index))
    }

    /// A new try: answers of earlier ones are not recognised any more.
    pub fn next_try(&mut self, index: u32) -> Id {
        let slot = self.get_mut(index);
        slot.generation = slot.generation.wrapping_add(1);
        self.id(index)
    }

    pub fn insert(&mut self, new: &New<'_>) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            assert!(self.all.len() < SLOTS_MAX, "a slot's index has 16 bits on the wire");
            self.all.push(Slot::empty());
            (self.all.len() - 1) as u32
        });
        self.order += 1;
        let in_use_at = self.in_use.len() as u32;
        self.in_use.push(index);
        let order = self.order;
        let slot = &mut self.all[index as usize];
        slot.state = State::Waiting;
        slot.purpose = new.purpose;
        slot.table = new.table;
        slot.target = new.target;
        slot.ask = new.ask;
        slot.bytes.clear();
        slot.bytes.extend_from_slice(new.key);
        slot.bytes.extend_from_slice(new.value);
        slot.key_len = new.key.len();
        slot.number = None;
        slot.uncertain = false;
        slot.refusals = 0;
        slot.last_failure = None;
        slot.ask_primary = false;
        slot.avoid = None;
        slot.submitted_ns = new.now_ns;
        slot.deadline_ns = new.deadline_ns;
        slot.order = order;
        slot.in_use_at = in_use_at;
        index
    }

    pub fn remove(&mut self, index: u32) {
        let at = self.get(index).in_use_at;
        self.in_use.swap_remove(at as usize);
        if let Some(&moved) = self.in_use.get(at as usize) {
            self.get_mut(moved).in_use_at = at;
        }
        let slot = self.get_mut(index);
        assert!(slot.state != State::Free, "a slot is freed once");
        slot.state = State::Free;
        slot.generation = slot.generation.wrapping_add(1);
        if slot.bytes.capacity() > KEPT_BYTES {
            slot.bytes = Vec::new();
        }
        self.free.push(index);
    }

    /// The slot at a position of the list of those in use; removing it moves the last one there.
    pub fn in_use(&self, position: usize) -> Option<u32> {
        self.in_use.get(position).copied()
    }
}

impl Slot {
    fn empty() -> Self {
        Self {
            generation: 0,
            state: State::Free,
            purpose: Purpose::Map,
            table: 0,
            target: Target::Brick,
            ask: Ask::FetchMap,
            bytes: Vec::new(),
            key_len: 0,
            number: None,
            uncertain: false,
            refusals: 0,
            last_failure: None,
            refused_by: u32::MAX,
            ask_primary: false,
            avoid: None,
            sent: (0, 0),
            sent_ns: 0,
            submitted_ns: 0,
            deadline_ns: 0,
            order: 0,
            in_use_at: 0,
        }
    }
}

/// An operation apart from its value.
pub(super) fn split(op: Op<'_>) -> (Op<'static>, &[u8]) {
    match op {
        Op::Put { value, expiry, condition, want_old } => {
            (Op::Put { value: &[], expiry, condition, want_old }, value)
        }
        Op::Append { value } => (Op::Append { value: &[] }, value),
        Op::SetRange { offset, value } => (Op::SetRange { offset, value: &[] }, value),
        Op::Get => (Op::Get, &[]),
        Op::Look => (Op::Look, &[]),
        Op::Remove { condition, want_old } => (Op::Remove { condition, want_old }, &[]),
        Op::Increment { by } => (Op::Increment { by }, &[]),
        Op::IncrementFloat { by } => (Op::IncrementFloat { by }, &[]),
        Op::Expire { at_ms, when } => (Op::Expire { at_ms, when }, &[]),
        Op::Scan { cursor, count } => (Op::Scan { cursor, count }, &[]),
        Op::Count => (Op::Count, &[]),
        Op::RandomKey { cursor } => (Op::RandomKey { cursor }, &[]),
        Op::Clear => (Op::Clear, &[]),
        Op::OpenSession { client } => (Op::OpenSession { client }, &[]),
        Op::EndSession { session } => (Op::EndSession { session }, &[]),
    }
}

/// An operation with its value again.
pub(crate) fn with_value<'a>(op: Op<'static>, value: &'a [u8]) -> Op<'a> {
    match op {
        Op::Put { expiry, condition, want_old, .. } => {
            Op::Put { value, expiry, condition, want_old }
        }
        Op::Append { .. } => Op::Append { value },
        Op::SetRange { offset, .. } => Op::SetRange { offset, value },
        other => other,
    }
}
