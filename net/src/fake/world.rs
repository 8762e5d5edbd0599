//! The network itself: links, what travels on them, and chance.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::link::{Arrival, Link};
use crate::fabric::{CloseReason, Ep, Port, Token};

/// A fake, or a test's peer.
pub type Place = usize;

/// How disk writes end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disk {
    /// By themselves, after so many nanoseconds.
    After(RangeInclusive<u64>),
    /// When the test says so with [`super::Fake::complete`].
    ByHand,
}

/// What the network and the disks do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long each message takes. Messages of one endpoint never overtake each other, those of others do.
    pub delay_ns: RangeInclusive<u64>,
    /// Of a million sends, this many lose the connection, with some of what was on its way.
    pub loss_per_million: u32,
    /// How disk writes end.
    pub disk: Disk,
}

impl Default for Settings {
    fn default() -> Self {
        Self { delay_ns: 5_000..=50_000, loss_per_million: 0, disk: Disk::After(20_000..=200_000) }
    }
}

/// Who listens at an address.
struct Listener {
    host: usize,
    /// All of one host; a connection comes to one of them.
    places: Vec<Place>,
}

/// All links and the one source of chance.
pub struct Network {
    pub settings: Settings,
    /// The network's own time, when its ends have clocks of their own.
    pub time_ns: Option<u64>,
    random: u64,
    places: usize,
    links: BTreeMap<usize, Link>,
    next_link: usize,
    /// The links of each place.
    of: BTreeMap<Place, Vec<usize>>,
    later: BTreeMap<(u64, u64), (Place, Token, i32)>,
    serial: u64,
    listeners: BTreeMap<SocketAddr, Listener>,
    /// Ways between two hosts that carry nothing, in that direction, and since when.
    blocked: BTreeMap<(usize, usize), u64>,
}

impl Network {
    pub fn new(seed: u64, settings: Settings) -> Self {
        Self {
            settings,
            time_ns: None,
            random: seed,
            places: 0,
            links: BTreeMap::new(),
            next_link: 0,
            of: BTreeMap::new(),
            later: BTreeMap::new(),
            serial: 0,
            listeners: BTreeMap::new(),
            blocked: BTreeMap::new(),
        }
    }

    pub fn add_place(&mut self) -> Place {
        self.places += 1;
        self.places - 1
    }

    /// A link between two places on hosts.
    pub fn add_link(&mut self, sides: [(Place, usize); 2]) -> usize {
        let id = self.next_link;
        self.next_link += 1;
        let (places, hosts) = (sides.map(|side| side.0), sides.map(|side| side.1));
        for place in places {
            let links = self.of.entry(place).or_default();
            if links.last() != Some(&id) {
                links.push(id);
            }
        }
        self.links.insert(id, Link::new(places, hosts));
        id
    }

    /// A link that is over on both sides is forgotten.
    fn settle(&mut self, id: usize) {
        if let Some(link) = self.links.get(&id).filter(|link| link.is_over()) {
            for place in link.places {
                if let Some(links) = self.of.get_mut(&place) {
                    links.retain(|other| *other != id);
                }
            }
            self.links.remove(&id);
        }
    }

    pub fn listen(&mut self, place: Place, host: usize, address: SocketAddr) {
        let listener = self.listeners.entry(address);
        let listener = listener.or_insert(Listener { host, places: Vec::new() });
        listener.host = host;
        listener.places.push(place);
    }

    /// Nobody is there any more: its listeners are gone, and its connections end at the other side.
    pub fn vanish(&mut self, place: Place, now_ns: u64) {
        for listener in self.listeners.values_mut() {
            listener.places.retain(|at| *at != place);
        }
        self.later.retain(|_, (at, ..)| *at != place);
        for id in self.of.remove(&place).unwrap_or_default() {
            self.lose(id, now_ns);
            if let Some(link) = self.links.get_mut(&id) {
                for side in (0..2).filter(|side| link.places[*side] == place) {
                    link.to[side].give_up();
                }
            }
            self.settle(id);
        }
    }

    /// A new link from `place` to whoever listens at `address`, or to nobody.
    pub fn dial(
        &mut self,
        (place, host): (Place, usize),
        address: SocketAddr,
        port: Port,
        now_ns: u64,
    ) -> usize {
        let listener = self.listeners.get(&address);
        let there = listener.map_or(host, |listener| listener.host);
        let places = listener.map(|listener| listener.places.clone()).unwrap_or_default();
        let chosen = match places[..] {
            [] => None,
            [one] => Some(one),
            _ => Some(places[self.next() as usize % places.len()]),
        };
        let heard_ns = now_ns + self.delay_ns();
        let answer_ns = heard_ns + self.delay_ns();
        let other = chosen.unwrap_or_else(|| self.add_place());
        let id = self.add_link([(place, host), (other, there)]);
        let unheard = self.blocked.contains_key(&(host, there));
        let Some(link) = self.links.get_mut(&id) else { return id };
        link.unheard = unheard;
        if chosen.is_some() {
            link.to[1].push(heard_ns, Arrival::Opened(port));
            link.to[0].push(answer_ns, Arrival::Opened(port));
        } else {
            link.to[1].give_up();
            link.to[0].push(answer_ns, Arrival::End(CloseReason::Io(libc::ECONNREFUSED)));
        }
        id
    }

    /// From now on nothing gets from one host to another, in this direction: it waits.
    pub fn block(&mut self, from: usize, to: usize, now_ns: u64) {
        self.blocked.entry((from, to)).or_insert(now_ns);
    }

    /// The way is free again. What waited is sent again, at the latest after as long again: the senders' kernels have
    /// made their pauses longer and longer.
    pub fn unblock(&mut self, from: usize, to: usize, now_ns: u64) {
        let Some(since_ns) = self.blocked.remove(&(from, to)) else { return };
        let outage_ns = now_ns.saturating_sub(since_ns);
        let between: Vec<usize> =
            self.links.iter().filter(|(_, l)| l.hosts.contains(&from)).map(|(id, _)| *id).collect();
        for id in between {
            for side in 0..2 {
                let again_ns = now_ns + self.delay_ns() + self.next() % (outage_ns + 1);
                let Some(link) = self.links.get_mut(&id) else { continue };
                if link.hosts[1 - side] != from || link.hosts[side] != to {
                    continue;
                }
                link.to[side].again(again_ns);
                if link.unheard && side == 1 {
                    link.unheard = false;
                    link.to[0].again(again_ns);
                }
            }
        }
    }

    pub fn set_end(&mut self, link: usize, side: usize, ep: Ep) {
        if let Some(link) = self.links.get_mut(&link) {
            link.ends[side] = Some(ep);
        }
    }

    /// `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn within(&mut self, range: &RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    fn delay_ns(&mut self) -> u64 {
        let range = self.settings.delay_ns.clone();
        self.within(&range)
    }

    /// From `side` to the other.
    pub fn send(&mut self, link: usize, side: usize, now_ns: u64, bytes: Vec<u8>) {
        let due = now_ns + self.delay_ns();
        if let Some(link) = self.links.get_mut(&link) {
            link.to[1 - side].push(due, Arrival::Bytes(bytes));
        }
        if self.next() % 1_000_000 < u64::from(self.settings.loss_per_million) {
            self.lose(link, now_ns);
        }
    }

    /// A token that comes back by itself.
    pub fn later(
        &mut self,
        place: Place,
        now_ns: u64,
        wait: &RangeInclusive<u64>,
        done: (Token, i32),
    ) {
        let due = now_ns + self.within(wait);
        self.serial += 1;
        self.later.insert((due, self.serial), (place, done.0, done.1));
    }

    /// The next token that is due at a place.
    pub fn done(&mut self, place: Place, now_ns: u64) -> Option<(Token, i32)> {
        let due = self.later.range(..=(now_ns, u64::MAX));
        let key = *due.filter(|(_, (at, ..))| *at == place).map(|(key, _)| key).next()?;
        self.later.remove(&key).map(|(_, token, result)| (token, result))
    }

    /// A connection is lost: some of what was on its way arrives, then each side learns in its own time.
    pub fn lose(&mut self, link: usize, now_ns: u64) {
        for side in 0..2 {
            let (chance, due) = (self.next(), now_ns + self.delay_ns());
            let Some(link) = self.links.get_mut(&link) else { return };
            let lane = &mut link.to[side];
            if lane.over {
                continue;
            }
            lane.truncate(chance as usize % (lane.len() + 1));
            lane.push(due, Arrival::End(CloseReason::Io(libc::ECONNRESET)));
        }
    }

    /// All connections between two hosts are lost.
    pub fn sever(&mut self, a: usize, b: usize, now_ns: u64) {
        let between = |link: &Link| link.hosts == [a, b] || link.hosts == [b, a];
        let over = |link: &Link| link.to.iter().all(|lane| lane.ended);
        let lost = self.links.iter().filter(|(_, link)| between(link) && !over(link));
        for id in lost.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.lose(id, now_ns);
        }
    }

    /// `side` has sent all it had: both sides end, the other after all that was sent to it.
    pub fn close(&mut self, link: usize, side: usize, now_ns: u64) {
        let due = now_ns + self.delay_ns();
        if let Some(link) = self.links.get_mut(&link) {
            link.to[1 - side].push(due, Arrival::End(CloseReason::Finished));
            link.to[side].end_here(now_ns, Arrival::End(CloseReason::Finished));
        }
    }

    pub fn pause(&mut self, link: usize, side: usize, paused: bool) {
        if let Some(link) = self.links.get_mut(&link) {
            link.to[side].paused = paused;
        }
    }

    /// Bytes that `side` has sent and the other has not taken.
    pub fn unread(&self, link: usize, side: usize) -> usize {
        let lane = self.links.get(&link).map(|link| &link.to[1 - side]);
        lane.filter(|lane| !lane.ended).map_or(0, |lane| lane.unread)
    }

    /// When what travels to a side arrives, as things are.
    fn due_ns(&self, link: &Link, side: usize) -> Option<u64> {
        let way = (link.hosts[1 - side], link.hosts[side]);
        let due_ns = link.to[side].due_ns()?;
        let stuck = link.unheard || self.blocked.contains_key(&way);
        (!stuck || link.to[side].ends_here).then_some(due_ns)
    }

    /// The earliest thing on its way to a place: when, on which link, to which side.
    fn first(&self, place: Place) -> Option<(u64, usize, usize)> {
        let links = self.of.get(&place)?;
        let sides = links.iter().flat_map(|id| {
            let link = &self.links[id];
            let sides = (0..2).filter(|side| link.places[*side] == place);
            sides.filter_map(|side| Some((self.due_ns(link, side)?, *id, side)))
        });
        sides.min_by_key(|(due, ..)| *due)
    }

    /// The earliest thing that has reached a place by now: on which link, side and endpoint.
    pub fn arrive(
        &mut self,
        place: Place,
        now_ns: u64,
    ) -> Option<(usize, usize, Option<Ep>, Arrival)> {
        let (_, id, side) = self.first(place).filter(|(due, ..)| *due <= now_ns)?;
        let link = self.links.get_mut(&id)?;
        let (end, arrival) = (link.ends[side], link.to[side].pop()?);
        self.settle(id);
        Some((id, side, end, arrival))
    }

    /// When something reaches a place; `None`: nothing is on its way.
    pub fn next_at(&self, place: Place) -> Option<u64> {
        let first = self.first(place).map(|(due, ..)| due);
        let done = self.later.iter().find(|(_, (at, ..))| *at == place).map(|((due, _), _)| *due);
        first.into_iter().chain(done).min()
    }

    pub fn next_ns(&self) -> Option<u64> {
        let sides = self.links.values().flat_map(|link| (0..2).map(move |side| (link, side)));
        let lanes = sides.filter_map(|(link, side)| self.due_ns(link, side));
        lanes.chain(self.later.keys().map(|(due, _)| *due)).min()
    }
}
