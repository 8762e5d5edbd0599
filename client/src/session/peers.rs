//! Bricks as the session knows them: where each is reached, which connections it has, and what waits for it.
//!
//! The idea: a peer is an address. An address comes from the caller (a seed) or from the map; which brick answers
//! there is the map's word, or else what the brick said in its welcome. Several addresses may lead to one brick (a
//! seed spelled differently): an open connection is preferred, then the one with fewer failures, then the map's word.
//!
//! Invariants:
//! * A line exists from the dial to the loss; its name is never used again (16 bits of index, 16 of generation).
//! * `by_brick` is what [`Peers::refresh`] made of the peers; whoever changes a line or a peer calls it.
//! * Bounded by the bricks of the map and the seeds; lines by `connections` for each.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use firebrick_partition::maps::BrickEntry;

use super::Link;
use super::slot::Id;
use crate::backoff::Backoff;
use crate::error::Error;

/// Lines at once: a line's index has 16 bits in its name.
const LINES_MAX: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineState {
    Free,
    Dialling,
    Up,
}

/// One connection, from the dial on.
#[derive(Debug)]
pub(super) struct Line {
    pub link: Link,
    pub peer: u32,
    pub state: LineState,
    /// The dial began.
    pub since_ns: u64,
    /// When something last arrived, or the first try after a quiet time was sent.
    pub heard_ns: u64,
    /// When it was asked for a sign of life; 0: not since it was last heard.
    pub probed_ns: u64,
    /// Tries sent on it and not answered.
    pub unanswered: u32,
    /// Bytes of keys and values in those: sending them takes time, in which nothing is heard.
    pub owed_bytes: u64,
    /// `Hello` is to be sent (again, as a question whether anybody is there).
    pub greets: bool,
    /// How many unanswered the brick allows.
    pub limit: u32,
    /// The shell cannot take more for it now.
    pub blocked: bool,
}

/// An address.
#[derive(Debug)]
pub(super) struct Peer {
    pub address: Arc<str>,
    /// The caller gave it.
    pub is_seed: bool,
    /// The map has it.
    pub is_mapped: bool,
    /// Which brick answers there, as far as is known.
    pub brick: Option<u32>,
    /// That brick's name; may be empty.
    pub name: Arc<str>,
    pub up: Vec<u32>,
    pub dialling: Vec<u32>,
    /// Requests for it; may name tries that are over, which are skipped.
    pub ready: VecDeque<Id>,
    /// It is in `Peers::active`.
    listed: bool,
    /// It would have been asked if it were up.
    pub wanted: bool,
    /// A dial takes long: what may go elsewhere does.
    pub slow: bool,
    /// A line is silent though answers are due: the same.
    pub suspect: bool,
    /// Closed for its silence so often since an answer came: each time it is given twice as long.
    pub silences: u32,
    pub backoff: Backoff,
    pub retry_at_ns: u64,
    /// Why the last attempt failed; `None` since a frame came.
    pub why: Option<Error>,
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    all: Vec<Option<Peer>>,
    lines: Vec<Line>,
    free_lines: Vec<u32>,
    /// By brick: the peer to ask.
    by_brick: Vec<(u32, u32)>,
    /// Peers that have something to send, each once.
    active: VecDeque<u32>,
    /// Lines that are to say hello.
    pub greeting: VecDeque<Link>,
}

impl Peer {
    fn new(address: Arc<str>) -> Self {
        Self {
            address,
            is_seed: false,
            is_mapped: false,
            brick: None,
            name: "".into(),
            up: Vec::new(),
            dialling: Vec::new(),
            ready: VecDeque::new(),
            listed: false,
            wanted: false,
            slow: false,
            suspect: false,
            silences: 0,
            backoff: Backoff::default(),
            retry_at_ns: 0,
            why: None,
        }
    }

    pub fn is_up(&self) -> bool {
        !self.up.is_empty()
    }

    /// Nothing is known against it.
    pub fn is_good(&self) -> bool {
        self.is_up() || (self.backoff.failures() == 0 && !self.slow)
    }

    /// What to call it in an error.
    pub fn text(&self) -> Arc<str> {
        if self.name.is_empty() {
            self.address.clone()
        } else {
            format!("{} ({})", self.name, self.address).into()
        }
    }
}

impl Peers {
    pub fn new(seeds: &[Arc<str>]) -> Self {
        let mut peers = Self::default();
        for seed in seeds {
            let at = peers.insert(seed);
            peers.get_mut(at).is_seed = true;
        }
        peers
    }

    /// The peer of an address, which is made when it is new.
    fn insert(&mut self, address: &Arc<str>) -> u32 {
        if let Some(at) = self.find_address(address) {
            return at;
        }
        let peer = Some(Peer::new(address.clone()));
        if let Some(at) = self.all.iter().position(Option::is_none) {
            self.all[at] = peer;
            at as u32
        } else {
            self.all.push(peer);
            self.all.len() as u32 - 1
        }
    }

    fn find_address(&self, address: &str) -> Option<u32> {
        self.indices().find(|&at| &*self.get(at).address == address)
    }

    /// All peers that there are.
    pub fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        let there: Vec<u32> =
            (0..self.all.len() as u32).filter(|&at| self.all[at as usize].is_some()).collect();
        there.into_iter()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.all.iter().flatten()
    }

    /// A peer that there is; indices come from this structure and die with [`Peers::update`] only.
    pub fn get(&self, at: u32) -> &Peer {
        match self.all.get(at as usize) {
            Some(Some(peer)) => peer,
            _ => unreachable!("peer {at} is gone"),
        }
    }

    pub fn get_mut(&mut self, at: u32) -> &mut Peer {
        match self.all.get_mut(at as usize) {
            Some(Some(peer)) => peer,
            _ => unreachable!("peer {at} is gone"),
        }
    }

    pub fn exists(&self, at: u32) -> bool {
        matches!(self.all.get(at as usize), Some(Some(_)))
    }

    /// The peer to ask for a brick.
    pub fn of_brick(&self, brick: u32) -> Option<u32> {
        let at = self.by_brick.binary_search_by_key(&brick, |b| b.0).ok()?;
        Some(self.by_brick[at].1)
    }

    /// Chooses again which peer is asked for each brick.
    pub fn refresh(&mut self) {
        let mut best: Vec<(u32, (bool, u32, bool), u32)> = Vec::new();
        for at in self.indices() {
            let peer = self.get(at);
            if let Some(brick) = peer.brick {
                let rank = (!peer.is_up(), peer.backoff.failures(), !peer.is_mapped);
                best.push((brick, rank, at));
            }
        }
        best.sort_unstable();
        best.dedup_by_key(|b| b.0);
        self.by_brick.clear();
        self.by_brick.extend(best.iter().map(|&(brick, _, at)| (brick, at)));
    }

    /// Takes the bricks of a newer map. The peers that are gone now are returned, with what waited for them.
    pub fn update(&mut self, bricks: &[BrickEntry]) -> Vec<(u32, Peer)> {
        for peer in self.all.iter_mut().flatten() {
            if std::mem::replace(&mut peer.is_mapped, false) && !peer.is_up() {
                peer.brick = None;
            }
        }
        for brick in bricks.iter().filter(|b| is_usable(&b.listen)) {
            let at = self.insert(&brick.listen.as_str().into());
            let peer = self.get_mut(at);
            peer.is_mapped = true;
            peer.brick = Some(brick.id);
            peer.name = brick.name.as_str().into();
        }
        let mut gone = Vec::new();
        for at in self.indices() {
            let peer = self.get(at);
            if !peer.is_seed && !peer.is_mapped {
                self.active.retain(|&p| p != at);
                gone.extend(self.all[at as usize].take().map(|peer| (at, peer)));
            }
        }
        self.refresh();
        gone
    }

    /// Another peer than this one has the map's word for the brick.
    pub fn is_mapped_elsewhere(&self, brick: u32, at: u32) -> bool {
        self.indices().any(|p| p != at && self.get(p).is_mapped && self.get(p).brick == Some(brick))
    }

    pub fn any_up(&self) -> bool {
        self.iter().any(Peer::is_up)
    }

    /// A new line to a peer; `None` when there are too many.
    pub fn dial(&mut self, now_ns: u64, peer: u32) -> Option<Link> {
        let index = match self.free_lines.pop() {
            Some(index) => index,
            None if self.lines.len() < LINES_MAX => {
                self.lines.push(Line::free(self.lines.len() as u32));
                self.lines.len() as u32 - 1
            }
            None => return None,
        };
        let line = &mut self.lines[index as usize];
        let link = Link(line.link.0.wrapping_add(1 << 16));
        *line = Line { link, peer, state: LineState::Dialling, since_ns: now_ns, ..Line::free(0) };
        let peer = self.get_mut(peer);
        peer.dialling.push(index);
        peer.wanted = false;
        Some(link)
    }

    /// The line of a link that is not over.
    #[inline]
    pub fn line(&self, link: Link) -> Option<&Line> {
        let line = self.lines.get(link.index())?;
        (line.link == link && line.state != LineState::Free).then_some(line)
    }

    #[inline]
    pub fn line_mut(&mut self, link: Link) -> Option<&mut Line> {
        let line = self.lines.get_mut(link.index())?;
        (line.link == link && line.state != LineState::Free).then_some(line)
    }

    /// The lines that there are.
    pub fn links(&self) -> Vec<Link> {
        self.lines.iter().filter(|l| l.state != LineState::Free).map(|l| l.link).collect()
    }

    pub fn open(&mut self, now_ns: u64, link: Link) -> Option<u32> {
        let line = self.line_mut(link)?;
        if line.state != LineState::Dialling {
            return None;
        }
        line.state = LineState::Up;
        line.heard_ns = now_ns;
        line.greets = true;
        let at = line.peer;
        self.greeting.push_back(link);
        let index = link.index() as u32;
        let peer = self.get_mut(at);
        peer.dialling.retain(|&l| l != index);
        peer.up.push(index);
        peer.slow = false;
        self.refresh();
        self.list(at);
        Some(at)
    }

    /// Forgets a line: its peer, and whether it was up.
    pub fn close(&mut self, link: Link) -> Option<(u32, bool)> {
        let line = self.line_mut(link)?;
        let was_up = line.state == LineState::Up;
        line.state = LineState::Free;
        let at = line.peer;
        let index = link.index() as u32;
        self.free_lines.push(index);
        if let Some(Some(peer)) = self.all.get_mut(at as usize) {
            peer.dialling.retain(|&l| l != index);
            peer.up.retain(|&l| l != index);
        }
        Some((at, was_up))
    }

    /// The peer may have something to send.
    #[inline]
    pub fn list(&mut self, at: u32) {
        let Some(Some(peer)) = self.all.get_mut(at as usize) else { return };
        if !peer.listed && !peer.ready.is_empty() && !peer.up.is_empty() {
            peer.listed = true;
            self.active.push_back(at);
        }
    }

    /// The first of those that may have something to send.
    #[inline]
    pub fn first_active(&self) -> Option<u32> {
        self.active.front().copied()
    }

    /// It has nothing (more) that can be sent now.
    pub fn unlist_first(&mut self) {
        if let Some(at) = self.active.pop_front() {
            self.get_mut(at).listed = false;
        }
    }

    /// All requests to one partition take one line, so that they arrive in the order they were sent.
    /// `None`: that line has as many unanswered as the brick allows, or the shell is full.
    #[inline]
    pub fn pick_line(&mut self, at: u32, partition: u32) -> Option<&mut Line> {
        let peer = self.get(at);
        let index = match peer.up.as_slice() {
            [] => return None,
            [one] => *one,
            many => many[partition as usize % many.len()],
        };
        let line = &mut self.lines[index as usize];
        (line.unanswered < line.limit && !line.blocked).then_some(line)
    }

    /// One answer less is due on a line.
    #[inline]
    pub fn one_less(&mut self, link: Link, bytes: u64) {
        let Some(line) = self.line_mut(link) else { return };
        line.unanswered -= 1;
        line.owed_bytes -= bytes;
        let at = line.peer;
        self.list(at);
    }
}

impl Line {
    fn free(index: u32) -> Self {
        Self {
            link: Link(index),
            peer: 0,
            state: LineState::Free,
            since_ns: 0,
            heard_ns: 0,
            probed_ns: 0,
            unanswered: 0,
            owed_bytes: 0,
            greets: false,
            limit: u32::MAX,
            blocked: false,
        }
    }
}

/// An address that a client elsewhere can use: "any interface" is none.
fn is_usable(listen: &str) -> bool {
    match listen.parse::<SocketAddr>() {
        Ok(address) => !address.ip().is_unspecified(),
        Err(_) => listen.rsplit_once(':').is_some_and(|(host, _)| !host.is_empty()),
    }
}
