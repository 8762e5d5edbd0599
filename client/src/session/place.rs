//! Which brick a request goes to: the primary for what changes something, any member of the group for a read.
//!
//! A request that is ready waits in the queue of one peer, so that a brick which is slow or dead holds up nobody but
//! those that need it. When a connection breaks, a dial takes long or a newer map comes, what is queued is placed anew.

use super::Session;
use super::peers::Peers;
use super::slot::{Ask, Id, Purpose, Slot, State, Target};
use crate::options::ReadFrom;

/// Whom to ask for the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// This peer has a newer one.
    From(u32),
    /// This peer does not know better, or does not answer.
    NotFrom(u32),
    Anyone,
}

impl Session {
    /// Puts a request behind those that wait for the same peer.
    pub(super) fn push_ready(&mut self, now_ns: u64, index: u32) {
        self.place(now_ns, index, false);
    }

    /// Puts a request into the queue of the peer that it should go to.
    pub(super) fn place(&mut self, now_ns: u64, index: u32, first: bool) {
        self.slots.get_mut(index).state = State::Ready;
        let id = self.slots.id(index);
        match self.slots.get(index).target {
            Target::Brick => match self.choose_anyone(index) {
                Some(at) => self.queue_at(at, id, first),
                None => self.queue_anywhere(id),
            },
            Target::Hash(_) | Target::Partition(_) => match self.choose_member(index) {
                Choice::Peer(at) => self.queue_at(at, id, first),
                Choice::NoAddress => {
                    self.queue_anywhere(id);
                    self.want_map(now_ns, Hint::Anyone);
                }
                Choice::NoTable => self.homeless.push_back(id),
            },
        }
    }

    /// Behind a peer's queue, whoever else might serve it.
    pub(super) fn place_at(&mut self, now_ns: u64, index: u32, at: Option<u32>) {
        match at {
            Some(at) if self.peers.exists(at) && self.peers.get(at).is_up() => {
                self.slots.get_mut(index).state = State::Ready;
                self.queue_at(at, self.slots.id(index), false);
            }
            _ => self.place(now_ns, index, false),
        }
    }

    #[inline]
    fn queue_at(&mut self, at: u32, id: Id, first: bool) {
        let peer = self.peers.get_mut(at);
        if first {
            peer.ready.push_front(id);
        } else {
            peer.ready.push_back(id);
        }
        if peer.is_up() {
            self.peers.list(at);
        } else {
            self.dial_due = true;
        }
    }

    fn queue_anywhere(&mut self, id: Id) {
        self.anywhere.push_back(id);
        self.dial_due = true;
    }

    fn choose_member(&mut self, index: u32) -> Choice {
        let slot = self.slots.get(index);
        let home = match slot.target {
            Target::Hash(hash) => self.routes.of_hash(slot.table, hash),
            Target::Partition(id) => self.routes.of_partition(slot.table, id),
            Target::Brick => None,
        };
        let Some((_, members)) = home else { return Choice::NoTable };
        let chosen = if members.len() > 1 && goes_anywhere(slot, self.options.read_from) {
            self.random = step(self.random);
            let (chosen, missed) = spread(&mut self.peers, members, slot.avoid, self.random);
            self.dial_due |= missed;
            chosen
        } else {
            members.first().and_then(|&primary| self.peers.of_brick(primary))
        };
        chosen.map_or(Choice::NoAddress, Choice::Peer)
    }

    /// A peer that is up, for the map or for a control request.
    fn choose_anyone(&mut self, index: u32) -> Option<u32> {
        let is_map = matches!(self.slots.get(index).ask, Ask::FetchMap);
        let hint = if is_map { self.map_hint } else { Hint::Anyone };
        if let Hint::From(at) = hint
            && self.peers.exists(at)
            && self.peers.get(at).is_up()
        {
            return Some(at);
        }
        self.random = step(self.random);
        let rank = |at: u32| {
            let peer = self.peers.get(at);
            (peer.suspect, hint == Hint::NotFrom(at))
        };
        let up = || self.peers.indices().filter(|&at| self.peers.get(at).is_up());
        let best = up().map(rank).min()?;
        let count = up().filter(|&at| rank(at) == best).count() as u64;
        up().filter(|&at| rank(at) == best).nth((self.random % count) as usize)
    }

    /// Whether a request goes to any member of the group, of which there are so many.
    pub(super) fn members_for(&self, index: u32) -> usize {
        let slot = self.slots.get(index);
        let home = match slot.target {
            Target::Hash(hash) => self.routes.of_hash(slot.table, hash),
            Target::Partition(id) => self.routes.of_partition(slot.table, id),
            Target::Brick => return 1,
        };
        let count = home.map_or(1, |(_, members)| members.len());
        if goes_anywhere(slot, self.options.read_from) { count } else { 1 }
    }

    /// Places everything anew that waits for this peer.
    pub(super) fn scatter(&mut self, now_ns: u64, at: u32) {
        let waiting = std::mem::take(&mut self.peers.get_mut(at).ready);
        self.place_all(now_ns, waiting);
    }

    /// The same for what waits for any peer.
    pub(super) fn scatter_anywhere(&mut self, now_ns: u64) {
        let waiting = std::mem::take(&mut self.anywhere);
        self.place_all(now_ns, waiting);
    }

    pub(super) fn place_all(&mut self, now_ns: u64, ids: impl IntoIterator<Item = Id>) {
        for id in ids {
            if let Some(index) = self.slots.find(id) {
                self.place(now_ns, index, false);
            }
        }
    }

    /// Retries go first, in the order of their submission; what is over is forgotten.
    pub(super) fn sort_ready(&mut self) {
        let slots = &self.slots;
        for at in self.peers.indices() {
            let ready = &mut self.peers.get_mut(at).ready;
            ready.retain(|&id| slots.find(id).is_some());
            ready.make_contiguous().sort_unstable_by_key(|&id| {
                slots.find(id).map_or(u64::MAX, |index| slots.get(index).order)
            });
        }
        self.anywhere.retain(|&id| slots.find(id).is_some());
    }
}

enum Choice {
    Peer(u32),
    /// The map names bricks of which no address is known.
    NoAddress,
    /// The map does not have the table or the partition.
    NoTable,
}

/// Whole partitions are read at the primary: pages of a scan and counts are of one replica.
fn goes_anywhere(slot: &Slot, read_from: ReadFrom) -> bool {
    let is_key_read = matches!(slot.target, Target::Hash(_)) && !slot.is_write();
    is_key_read
        && read_from == ReadFrom::Any
        && !slot.ask_primary
        && matches!(slot.purpose, Purpose::User(_))
}

/// One of the members that are as good as any, each with the same chance; also, whether one that is worse should be
/// dialled, so that it does not stay so.
fn spread(
    peers: &mut Peers,
    members: &[u32],
    avoid: Option<u32>,
    random: u64,
) -> (Option<u32>, bool) {
    let rank = |peers: &Peers, brick: u32| {
        let at = peers.of_brick(brick)?;
        let peer = peers.get(at);
        let rank = match () {
            () if !peer.is_good() => 3,
            () if peer.suspect => 2,
            () if avoid == Some(brick) => 1,
            () => 0,
        };
        Some((rank, at))
    };
    let mut missed = false;
    let mut best = (u8::MAX, 0);
    for &brick in members {
        let Some((rank, at)) = rank(peers, brick) else { continue };
        if rank == 3 && !peers.get(at).wanted {
            peers.get_mut(at).wanted = true;
            missed = true;
        }
        match rank.cmp(&best.0) {
            std::cmp::Ordering::Less => best = (rank, 1),
            std::cmp::Ordering::Equal => best.1 += 1,
            std::cmp::Ordering::Greater => {}
        }
    }
    if best.1 == 0 {
        return (None, missed);
    }
    let nth = (random % best.1) as usize;
    let mut equals = members.iter().filter_map(|&b| rank(peers, b)).filter(|r| r.0 == best.0);
    (equals.nth(nth).map(|r| r.1), missed)
}

/// xorshift64*: the next state is also the number, from its high bits.
fn step(state: u64) -> u64 {
    let mut x = state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    x
}
