//! The way to the other bricks: one connection to each that this core has something for, for both directions.
//!
//! What answers a message then carries TCP's acknowledgement of it, which alone would cost as much as half a message.
//! Whoever needs a way first dials it. When both did, both use the one that the brick of the lower number dialled. What
//! finds no open connection is dropped: the protocol sends again, and [`Shard`](super::Shard) tells the replicas when a
//! way has opened.
//!
//! * `forward`: requests of this brick's Redis front that another brick must answer;
//! * `lines`: what each connection has of them;
//! * `probes`: which of those that share a partition with this core, or have its requests, cannot be reached.

mod forward;
mod lines;
mod probes;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use firebrick_net::limits::{FRAME_BYTES_MAX, OUT_BYTES_MAX};
use firebrick_net::{Body, Ep, Fabric, Full, Port, Token};
use firebrick_partition::log::{Loc, Log, Slice};
use firebrick_partition::maps::BrickEntry;
use firebrick_partition::replica::Me;
use firebrick_partition::wire::{self, BOTH_WAYS, Hello};

pub use forward::{Forward, Forwards, Holder, is_temporary};
use probes::Probes;
pub use probes::SILENT_NS;

use crate::shard::asker::ConnId;

/// Between two tries to dial a brick that could not be reached: at first, and at most.
const RETRY_NS_MIN: u64 = 5_000_000;
const RETRY_NS_MAX: u64 = 200_000_000;
/// A dial that takes longer begins anew: the kernel would repeat what was lost after 1, 3, 7 seconds.
const DIAL_NS_MAX: u64 = 900_000_000;
/// A brick that had not answered for so long is dialled anew when it does: a connection from before would send
/// again only after as long again.
const RENEW_NS: u64 = 500_000_000;
/// A body up to this long is copied behind its head: cheaper than a completion.
const COPIED_BYTES_MAX: usize = 8 << 10;
/// Marks the completion of a shipped body, where a write to disk has its own numbers.
const SHIP: u64 = 1 << 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down,
    Dialling(Ep),
    Open(Ep),
}

/// A connection that the other brick dialled.
#[derive(Clone, Copy, Debug)]
struct Came {
    ep: Ep,
    incarnation: u64,
    at_ns: u64,
}

#[derive(Debug)]
struct Peer {
    brick: u32,
    incarnation: u64,
    address: Option<SocketAddr>,
    link: Link,
    came: Option<Came>,
    /// Those that came before, from other cores of that brick, and had requests then: nobody is to wait on them for ever.
    earlier: Vec<Ep>,
    /// The way that requests took.
    asked: Option<Ep>,
    /// Something was to be sent since the last look.
    wanted: bool,
    retry_ns: u64,
    wait_ns: u64,
    /// When the link became what it is.
    at_ns: u64,
}

/// Log bytes that are being sent from where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Whose log.
    pub partition: u32,
    /// What is pinned there.
    pub loc: Loc,
}

/// See the module's text.
#[derive(Debug)]
pub struct Peers {
    /// This process.
    pub me: Me,
    all: Vec<Peer>,
    ships: Vec<Option<Shipped>>,
    ships_free: Vec<u32>,
    /// Requests that other bricks have.
    pub forwards: Forwards,
    /// Who cannot be reached.
    pub probes: Probes,
    /// Messages that found no room.
    pub full: u64,
    scratch: Vec<u8>,
}

impl Peers {
    /// No way to anybody yet.
    pub fn new(me: Me) -> Self {
        Self {
            me,
            all: Vec::new(),
            ships: Vec::new(),
            ships_free: Vec::new(),
            forwards: Forwards::default(),
            probes: Probes::default(),
            full: 0,
            scratch: Vec::new(),
        }
    }

    /// The bricks are these from now on. A brick that has restarted or moved is dialled anew. `sharing`: those that
    /// have a replica of a partition of this core.
    pub fn set_bricks<F: Fabric>(
        &mut self,
        fabric: &mut F,
        bricks: &[BrickEntry],
        sharing: &BTreeSet<u32>,
    ) {
        let me = self.me.brick;
        for entry in bricks.iter().filter(|b| b.id != me) {
            let address = entry.listen.parse().ok();
            self.probes.set(fabric, entry.id, address, sharing.contains(&entry.id));
            let peer = self.entry(entry.id);
            if peer.came.is_some_and(|came| came.incarnation < entry.incarnation) {
                peer.drop_came(fabric);
            }
            if peer.address != address || peer.incarnation != entry.incarnation {
                (peer.address, peer.incarnation) = (address, entry.incarnation);
                (peer.retry_ns, peer.wait_ns) = (0, 0);
                peer.hang_up(fabric);
            }
        }
        let known: BTreeSet<u32> = bricks.iter().map(|b| b.id).collect();
        for peer in &mut self.all {
            // (One that dialled before this map knew it is not "gone".)
            if !known.contains(&peer.brick) && peer.address.take().is_some() {
                peer.hang_up(fabric);
                peer.drop_came(fabric);
                self.probes.set(fabric, peer.brick, None, false);
            }
        }
    }

    fn find(&self, brick: u32) -> Option<&Peer> {
        let at = self.all.binary_search_by_key(&brick, |p| p.brick).ok()?;
        Some(&self.all[at])
    }

    fn peer(&mut self, brick: u32) -> Option<&mut Peer> {
        let at = self.all.binary_search_by_key(&brick, |p| p.brick).ok()?;
        Some(&mut self.all[at])
    }

    fn entry(&mut self, brick: u32) -> &mut Peer {
        let at = self.entry_at(brick);
        &mut self.all[at]
    }

    fn entry_at(&mut self, brick: u32) -> usize {
        match self.all.binary_search_by_key(&brick, |p| p.brick) {
            Ok(at) => at,
            Err(at) => {
                self.all.insert(at, Peer::new(brick));
                at
            }
        }
    }

    /// The open connection to a brick; if there is none, one is wanted from now on.
    fn way(&mut self, brick: u32) -> Option<Ep> {
        let dials = self.me.brick < brick;
        let peer = self.peer(brick)?;
        let ours = if let Link::Open(ep) = peer.link { Some(ep) } else { None };
        let theirs = peer.came.map(|came| came.ep);
        let way = if dials { ours.or(theirs) } else { theirs.or(ours) };
        peer.wanted |= way.is_none();
        way
    }

    /// What a copy may send there now: half of what may be queued is left to everything else.
    pub fn copy_room<F: Fabric>(&mut self, fabric: &F, brick: u32) -> usize {
        match self.way(brick).map_or(0, |ep| fabric.room(ep)) {
            // A frame of any size fits an empty endpoint.
            OUT_BYTES_MAX => FRAME_BYTES_MAX,
            room => room.saturating_sub(OUT_BYTES_MAX / 2),
        }
    }

    /// The way to a brick has changed, and a request of this connection may still be on the other one: the next would
    /// overtake it.
    pub fn overtakes(&mut self, conn: ConnId, brick: u32) -> bool {
        let Some(way) = self.way(brick) else { return false };
        let asked = self.peer(brick).and_then(|peer| peer.asked);
        if asked.is_some_and(|old| old != way && self.forwards.under_way(old)) {
            // (On whichever way: a change is rare.)
            return self.forwards.has_sent(conn);
        }
        if asked != Some(way)
            && let Some(peer) = self.peer(brick)
        {
            peer.asked = Some(way);
        }
        false
    }

    /// Sends one message: on which connection. `None`: it did not leave.
    pub fn send<F: Fabric>(&mut self, fabric: &mut F, brick: u32, message: &[u8]) -> Option<Ep> {
        let ep = self.way(brick)?;
        let sent = fabric.send(ep, message, None, Token::NONE) != Err(Full);
        self.full += u64::from(!sent);
        sent.then_some(ep)
    }

    /// Sends a head and records of a log behind it. `true`: the records stay pinned until [`Self::shipped`]
    /// names them; else the caller unpins them now.
    pub fn ship<F: Fabric>(
        &mut self,
        fabric: &mut F,
        (brick, partition): (u32, u32),
        log: &Log,
        head: &[u8],
        slice: &Slice,
    ) -> bool {
        let Some(ep) = self.way(brick) else { return false };
        if slice.len as usize <= COPIED_BYTES_MAX {
            self.scratch.clear();
            self.scratch.extend_from_slice(head);
            self.scratch.extend_from_slice(log.slice_bytes(slice));
            let sent = fabric.send(ep, &self.scratch, None, Token::NONE);
            self.full += u64::from(sent == Err(Full));
            return false;
        }
        let body = Body { ptr: slice.ptr, len: slice.len };
        let shipped = Shipped { partition, loc: slice.loc };
        let at = self.ships_free.pop().unwrap_or_else(|| {
            self.ships.push(None);
            self.ships.len() as u32 - 1
        });
        let sent = fabric.send(ep, head, Some(body), Token(SHIP | u64::from(at)));
        if sent == Err(Full) {
            self.full += 1;
            self.ships_free.push(at);
            return false;
        }
        self.ships[at as usize] = Some(shipped);
        true
    }

    /// A completion: the log bytes that are free again, if it was one of ours.
    pub fn shipped(&mut self, token: Token) -> Option<Shipped> {
        if token.0 & SHIP == 0 {
            return None;
        }
        let at = (token.0 & !SHIP) as u32;
        let shipped = self.ships.get_mut(at as usize)?.take()?;
        self.ships_free.push(at);
        Some(shipped)
    }

    /// Records of this partition's log are being sent.
    pub fn is_shipping(&self, partition: u32) -> bool {
        self.ships.iter().flatten().any(|shipped| shipped.partition == partition)
    }

    /// Dials whom something waits for, and asks whether the others are there. When to look again.
    pub fn poll<F: Fabric>(&mut self, fabric: &mut F, now_ns: u64) -> u64 {
        let mut next = u64::MAX;
        for peer in &mut self.all {
            next = next.min(peer.poll(fabric, now_ns));
            if peer.asked.is_some_and(|way| self.forwards.under_way(way)) {
                self.probes.want(peer.brick, peer.address, now_ns);
            }
        }
        self.greet(0);
        next.min(self.probes.poll(fabric, now_ns, &self.scratch))
    }

    /// The connections to bricks that have answered no greeting for a while.
    pub fn silent_ways(&self, now_ns: u64) -> impl Iterator<Item = Ep> {
        self.probes.silent(now_ns).filter_map(|brick| self.find(brick)).flat_map(|peer| {
            let ours = if let Link::Open(ep) = peer.link { Some(ep) } else { None };
            let ways = [ours, peer.came.map(|came| came.ep)].into_iter().flatten();
            ways.chain(peer.earlier.iter().copied())
        })
    }

    /// Makes the first frame of a connection.
    fn greet(&mut self, features: u64) {
        let Me { brick, incarnation } = self.me;
        let hello = Hello { client: "brick", features, brick, incarnation };
        self.scratch.clear();
        wire::hello(&mut self.scratch, 0, &hello);
    }

    /// A brick has answered a probe.
    pub fn on_probe_answer<F: Fabric>(&mut self, fabric: &mut F, ep: Ep, now_ns: u64) {
        let Some((brick, since_ns)) = self.probes.on_answer(ep) else { return };
        if let Some(peer) = self.peer(brick).filter(|_| now_ns >= since_ns + RENEW_NS) {
            if peer.at_ns < since_ns || matches!(peer.link, Link::Dialling(_)) {
                peer.hang_up(fabric);
            }
            if peer.came.is_some_and(|came| came.at_ns < since_ns) {
                peer.drop_came(fabric);
            }
        }
    }

    /// A brick has greeted back on a connection that this core dialled. `false`: it is another one.
    pub fn on_welcome(&mut self, ep: Ep, brick: u32) -> bool {
        let Some(peer) = self.all.iter_mut().find(|p| p.link == Link::Open(ep)) else {
            return true;
        };
        if peer.brick != brick {
            peer.wait_ns = RETRY_NS_MAX;
        }
        peer.brick == brick
    }

    /// A brick has greeted on a connection that it dialled. `true`: it is a way there from now on.
    pub fn on_came(&mut self, ep: Ep, hello: &Hello<'_>, now_ns: u64) -> bool {
        let Hello { features, brick, incarnation, .. } = *hello;
        if features & BOTH_WAYS == 0 || brick == 0 || brick == self.me.brick {
            return false;
        }
        let at = self.entry_at(brick);
        let (peer, forwards) = (&mut self.all[at], &self.forwards);
        let known = peer.came.map_or(0, |came| came.incarnation).max(peer.incarnation);
        if incarnation < known {
            return false;
        }
        let before = peer.came.replace(Came { ep, incarnation, at_ns: now_ns });
        peer.wanted = false;
        peer.earlier.extend(before.map(|came| came.ep));
        peer.earlier.retain(|&way| forwards.under_way(way));
        true
    }

    /// A connection has opened: to which brick, when this core dialled it.
    pub fn on_opened<F: Fabric>(&mut self, fabric: &mut F, ep: Ep, now_ns: u64) -> Option<u32> {
        let peer = self.all.iter_mut().find(|p| p.link == Link::Dialling(ep))?;
        (peer.link, peer.at_ns) = (Link::Open(ep), now_ns);
        (peer.wanted, peer.wait_ns) = (false, 0);
        let brick = peer.brick;
        self.greet(BOTH_WAYS);
        // The first frame always has room.
        let _ = fabric.send(ep, &self.scratch, None, Token::NONE);
        Some(brick)
    }

    /// A connection has ended; it may have been one of these.
    pub fn on_closed(&mut self, ep: Ep, now_ns: u64) {
        let theirs = |p: &&mut Peer| p.came.is_some_and(|came| came.ep == ep);
        if let Some(peer) = self.all.iter_mut().find(theirs) {
            (peer.came, peer.wanted) = (None, true);
            return;
        }
        let ours = |p: &&mut Peer| p.link == Link::Open(ep) || p.link == Link::Dialling(ep);
        let Some(peer) = self.all.iter_mut().find(ours) else { return };
        // A connection that worked is dialled again at once.
        if peer.link != Link::Open(ep) {
            peer.wait_ns = (peer.wait_ns * 2).clamp(RETRY_NS_MIN, RETRY_NS_MAX);
        }
        peer.retry_ns = now_ns + peer.wait_ns;
        peer.link = Link::Down;
        peer.wanted = true;
    }
}

impl Peer {
    fn new(brick: u32) -> Self {
        Self {
            brick,
            incarnation: 0,
            address: None,
            link: Link::Down,
            came: None,
            earlier: Vec::new(),
            asked: None,
            wanted: false,
            retry_ns: 0,
            wait_ns: 0,
            at_ns: 0,
        }
    }

    /// Dials when something waits and it is time. When to look again.
    fn poll<F: Fabric>(&mut self, fabric: &mut F, now_ns: u64) -> u64 {
        match self.link {
            Link::Dialling(ep) if now_ns >= self.at_ns + DIAL_NS_MAX => {
                fabric.abort(ep);
                now_ns + RETRY_NS_MIN
            }
            Link::Dialling(_) => self.at_ns + DIAL_NS_MAX,
            Link::Down if self.wanted && self.came.is_none() => {
                let Some(address) = self.address else { return u64::MAX };
                if self.retry_ns <= now_ns
                    && let Ok(ep) = fabric.dial(address, Port::Frames)
                {
                    (self.link, self.at_ns) = (Link::Dialling(ep), now_ns);
                    return now_ns + DIAL_NS_MAX;
                }
                self.retry_ns = self.retry_ns.max(now_ns + 1);
                self.retry_ns
            }
            Link::Down | Link::Open(_) => u64::MAX,
        }
    }

    fn drop_came<F: Fabric>(&mut self, fabric: &mut F) {
        if let Some(came) = self.came.take() {
            self.wanted = true;
            fabric.abort(came.ep);
        }
    }

    /// The link stays ours until its end is reported, so that what waits on it is told.
    fn hang_up<F: Fabric>(&mut self, fabric: &mut F) {
        if let Link::Open(ep) | Link::Dialling(ep) = self.link {
            fabric.abort(ep);
        }
    }
}
