//! The network itself: links, what travels on them, and chance.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

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

/// What reaches a place.
pub enum Arrival {
    /// A frame's payload, or bytes of a stream.
    Bytes(Vec<u8>),
    /// The endpoint's end.
    End(CloseReason),
}

/// One direction of a link.
#[derive(Default)]
struct Lane {
    queue: VecDeque<(u64, Arrival)>,
    last_ns: u64,
    unread: usize,
    paused: bool,
    ended: bool,
}

impl Lane {
    fn push(&mut self, due_ns: u64, arrival: Arrival) {
        if self.ended {
            return;
        }
        match &arrival {
            Arrival::Bytes(bytes) => self.unread += bytes.len(),
            Arrival::End(_) => self.ended = true,
        }
        // In order on one endpoint: never due before what was sent earlier.
        self.last_ns = self.last_ns.max(due_ns);
        self.queue.push_back((self.last_ns, arrival));
    }

    /// The end comes even to one who has paused.
    fn due_ns(&self) -> Option<u64> {
        let (due, arrival) = self.queue.front()?;
        (!self.paused || matches!(arrival, Arrival::End(_))).then_some(*due)
    }
}

struct Link {
    places: [Place; 2],
    ends: [Option<Ep>; 2],
    /// What travels to each side.
    to: [Lane; 2],
}

/// All links and the one source of chance.
pub struct Network {
    pub settings: Settings,
    random: u64,
    places: usize,
    links: Vec<Link>,
    later: BTreeMap<(u64, u64), (Place, Token, i32)>,
    serial: u64,
    /// Who listens where.
    listeners: BTreeMap<SocketAddr, Place>,
    /// Links that a listener has not seen yet, with what they carry.
    incoming: BTreeMap<Place, Vec<(usize, Port)>>,
    /// Pairs of places between which nothing is dialled.
    apart: BTreeSet<(Place, Place)>,
}

impl Network {
    pub fn new(seed: u64, settings: Settings) -> Self {
        Self {
            settings,
            random: seed,
            places: 0,
            links: Vec::new(),
            later: BTreeMap::new(),
            serial: 0,
            listeners: BTreeMap::new(),
            incoming: BTreeMap::new(),
            apart: BTreeSet::new(),
        }
    }

    pub fn add_place(&mut self) -> Place {
        self.places += 1;
        self.places - 1
    }

    pub fn add_link(&mut self, places: [Place; 2]) -> usize {
        self.links.push(Link { places, ends: [None; 2], to: Default::default() });
        self.links.len() - 1
    }

    pub fn listen(&mut self, place: Place, address: SocketAddr) {
        self.listeners.insert(address, place);
    }

    /// Nobody is there any more: its listeners are gone, and its connections end at the other side.
    pub fn vanish(&mut self, place: Place, now_ns: u64) {
        self.listeners.retain(|_, at| *at != place);
        self.incoming.remove(&place);
        for link in 0..self.links.len() {
            if self.links[link].places.contains(&place) {
                self.lose(link, now_ns);
            }
        }
    }

    /// A new link from `place` to whoever listens at `address`; `None`: nobody does, or the way is cut.
    pub fn dial(&mut self, place: Place, address: SocketAddr, port: Port) -> Option<usize> {
        let there = *self.listeners.get(&address)?;
        if self.apart.contains(&(place.min(there), place.max(there))) {
            return None;
        }
        let link = self.add_link([place, there]);
        self.incoming.entry(there).or_default().push((link, port));
        Some(link)
    }

    /// Links that were dialled to a place since it last asked.
    pub fn incoming(&mut self, place: Place) -> Vec<(usize, Port)> {
        self.incoming.remove(&place).unwrap_or_default()
    }

    pub fn set_apart(&mut self, a: Place, b: Place, apart: bool) {
        let pair = (a.min(b), a.max(b));
        if apart {
            self.apart.insert(pair);
        } else {
            self.apart.remove(&pair);
        }
    }

    pub fn set_end(&mut self, link: usize, side: usize, ep: Ep) {
        self.links[link].ends[side] = Some(ep);
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
        self.links[link].to[1 - side].push(due, Arrival::Bytes(bytes));
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
            let keep = self.next() as usize % (self.links[link].to[side].queue.len() + 1);
            let due = now_ns + self.delay_ns();
            let lane = &mut self.links[link].to[side];
            lane.queue.truncate(keep);
            lane.ended = false;
            lane.push(due, Arrival::End(CloseReason::Io(libc::ECONNRESET)));
        }
    }

    /// Nobody answers.
    pub fn refuse(&mut self, link: usize, now_ns: u64) {
        let due = now_ns + self.delay_ns();
        self.links[link].to[0].push(due, Arrival::End(CloseReason::Io(libc::ECONNREFUSED)));
    }

    pub fn cut(&mut self, a: Place, b: Place, now_ns: u64) {
        for link in 0..self.links.len() {
            let between = self.links[link].places;
            let over = self.links[link].to.iter().all(|lane| lane.ended);
            if (between == [a, b] || between == [b, a]) && !over {
                self.lose(link, now_ns);
            }
        }
    }

    /// `side` has sent all it had: both sides end, the other after all that was sent to it.
    pub fn close(&mut self, link: usize, side: usize, now_ns: u64) {
        for (to, wait) in [(1 - side, self.delay_ns()), (side, 0)] {
            self.links[link].to[to].push(now_ns + wait, Arrival::End(CloseReason::Finished));
        }
    }

    pub fn pause(&mut self, link: usize, side: usize, paused: bool) {
        self.links[link].to[side].paused = paused;
    }

    /// Bytes that `side` has sent and the other has not taken.
    pub fn unread(&self, link: usize, side: usize) -> usize {
        let lane = &self.links[link].to[1 - side];
        if lane.ended { 0 } else { lane.unread }
    }

    /// The earliest thing that has reached a place by now, and on which endpoint.
    pub fn arrive(&mut self, place: Place, now_ns: u64) -> Option<(Option<Ep>, Arrival)> {
        let mut first: Option<(u64, usize, usize)> = None;
        for (index, link) in self.links.iter().enumerate() {
            for side in (0..2).filter(|side| link.places[*side] == place) {
                if let Some(due) = link.to[side].due_ns()
                    && due <= now_ns
                    && first.is_none_or(|(earliest, ..)| due < earliest)
                {
                    first = Some((due, index, side));
                }
            }
        }
        let (_, index, side) = first?;
        let link = &mut self.links[index];
        let (_, arrival) = link.to[side].queue.pop_front()?;
        if let Arrival::Bytes(bytes) = &arrival {
            link.to[side].unread -= bytes.len();
        }
        Some((link.ends[side], arrival))
    }

    pub fn next_ns(&self) -> Option<u64> {
        let lanes = self.links.iter().flat_map(|link| &link.to).filter_map(Lane::due_ns);
        lanes.chain(self.later.keys().map(|(due, _)| *due)).min()
    }
}
