//! A client: the production session, and the shell around it that the library's handles are in real processes.

use std::collections::BTreeMap;
use std::sync::Arc;

use firebrick_client::session::{Dial, Link};
use firebrick_client::{Error, ReadFrom, Reply, Session, SessionOptions, Submit, TableId, Target};
use firebrick_net::fake::Fake;
use firebrick_net::{Ep, Event, Fabric, Port, Token};
use firebrick_partition::keeper::DEFAULT_TABLE;
use firebrick_partition::op::Op;

use crate::check::{Back, Version};
use crate::random::Random;
use crate::sim::clock::{Clock, MS, Ns};
use crate::sim::workload::back_of;

/// An operation is given up after this long.
pub const DEADLINE_NS: Ns = 2_000 * MS;
/// The token of a fetch of the maps.
const MAPS: u64 = u64::MAX;

struct Line {
    link: Link,
    ep: Ep,
    address: Arc<str>,
}

/// What came of a call: `None`: nobody knows.
pub type Outcome = (u64, Option<Back>);

/// See the module's text.
pub struct Client {
    session: Session,
    fabric: Fake,
    clock: Clock,
    lines: Vec<Line>,
    table: Option<TableId>,
    asking: bool,
    events: Vec<Event>,
    frame: Vec<u8>,
    /// The key of each call.
    keys: BTreeMap<u64, String>,
    /// The version of each key that it saw last.
    seen: BTreeMap<String, Version>,
}

impl Client {
    /// A client that knows addresses only.
    pub fn new(
        at: usize,
        fabric: Fake,
        seeds: Vec<Arc<str>>,
        (open_max, lease_ms): (usize, u64),
        random: &mut Random,
    ) -> Self {
        // As by default, a little more than the bricks' leases; or somebody set more. (The patient ones see what an
        // impatient one would not wait for.)
        let leases_tenths = if random.below(3) == 0 { 50 } else { 12 };
        let options = SessionOptions {
            name: format!("client{at}"),
            client: u128::from(random.next_u64()) << 64 | at as u128,
            in_flight: open_max,
            numbered: true,
            silence_ns: lease_ms * leases_tenths / 10 * MS,
            seeds,
            connections: 1,
            read_from: ReadFrom::Any,
        };
        Self {
            session: Session::new(options),
            fabric,
            clock: Clock::new(random),
            lines: Vec::new(),
            table: None,
            asking: false,
            events: Vec::new(),
            frame: Vec::new(),
            keys: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Nothing is open.
    pub fn is_idle(&self) -> bool {
        self.session.in_flight() == 0
    }

    /// It may call one more.
    pub fn has_room(&self) -> bool {
        self.table.is_some() && self.session.room() > 0
    }

    /// When it has something to do.
    pub fn due(&self) -> Ns {
        let timer = self.session.poll_timeout();
        let timer = if timer == u64::MAX { Ns::MAX } else { self.clock.when(timer) };
        timer.min(self.fabric.next_ns().unwrap_or(Ns::MAX))
    }

    /// Asks for the maps, until it knows the table.
    pub fn find_table(&mut self, now: Ns) {
        self.table = self.table.or_else(|| self.session.table(DEFAULT_TABLE));
        if self.table.is_none() && !self.asking {
            let now_ns = self.clock.at(now);
            self.asking = self.session.fetch_map(now_ns, now_ns + DEADLINE_NS, MAPS).is_ok();
        }
    }

    /// Calls. `false`: it is too busy.
    pub fn call(&mut self, now: Ns, id: u64, key: &str, op: Op<'_>) -> bool {
        let Some(table) = self.table else { return false };
        self.keys.insert(id, key.to_owned());
        let now_ns = self.clock.at(now);
        let (target, deadline_ns) = (Target::Key(key.as_bytes()), now_ns + DEADLINE_NS);
        self.session.submit(now_ns, &Submit { table, target, op, deadline_ns, token: id }).is_ok()
    }

    /// The version of a key that it saw last.
    pub fn seen(&self, key: &str) -> Option<Version> {
        self.seen.get(key).copied()
    }

    /// A call was answered.
    pub fn saw(&mut self, id: u64, back: &Back) {
        let version = match back {
            Back::Value { version, .. } => *version,
            back => back.written(),
        };
        if let (Some(key), Some(version)) = (self.keys.remove(&id), version) {
            self.seen.insert(key, version);
        }
    }

    /// Takes what arrived, does what is due, sends. What is over.
    pub fn turn(&mut self, now: Ns) -> Vec<Outcome> {
        let now_ns = self.clock.at(now);
        let mut done = Vec::new();
        let mut asking = self.asking;
        let mut sink = |token: u64, result: Result<Reply<'_>, Error>| {
            if token == MAPS {
                asking = false;
            } else {
                done.push((token, outcome(&result)));
            }
        };
        let mut events = std::mem::take(&mut self.events);
        self.fabric.poll(now_ns, &mut events);
        for event in events.drain(..) {
            self.on_event(now_ns, event, &mut sink);
        }
        self.events = events;
        self.session.handle_timeout(now_ns, &mut sink);
        while let Some(link) = self.session.poll_close() {
            if let Some(at) = self.lines.iter().position(|line| line.link == link) {
                self.forget(at);
            }
        }
        self.dial(now_ns, &mut sink);
        self.send(now_ns, &mut sink);
        self.asking = asking;
        self.fabric.flush().expect("the fake fabric");
        done
    }

    fn on_event(&mut self, now_ns: u64, event: Event, sink: &mut dyn firebrick_client::Sink) {
        let of = |lines: &[Line], ep: Ep| lines.iter().position(|line| line.ep == ep);
        match event {
            Event::Opened { ep, .. } => {
                if let Some(at) = of(&self.lines, ep) {
                    self.session.handle_connected(now_ns, self.lines[at].link);
                }
            }
            Event::Frame { ep, rx } => {
                let at = of(&self.lines, ep);
                let mut taken = Ok(());
                if let Some(at) = at {
                    let bytes = self.fabric.bytes(&rx);
                    taken = self.session.handle_frame(now_ns, self.lines[at].link, bytes, sink);
                }
                self.fabric.release(rx);
                if let (Some(at), Err(error)) = (at, taken) {
                    let link = self.forget(at);
                    self.session.handle_disconnected(now_ns, link, error, sink);
                }
            }
            Event::Closed { ep, reason } => {
                let Some(at) = of(&self.lines, ep) else { return };
                let address = Arc::clone(&self.lines[at].address);
                let error = Error::Connection { address, why: format!("{reason:?}").into() };
                let link = self.forget(at);
                self.session.handle_disconnected(now_ns, link, error, sink);
            }
            Event::Bytes { .. }
            | Event::Finished { .. }
            | Event::Drained { .. }
            | Event::Done { .. }
            | Event::Woken => {}
        }
    }

    fn forget(&mut self, at: usize) -> Link {
        let line = self.lines.swap_remove(at);
        self.fabric.abort(line.ep);
        line.link
    }

    fn dial(&mut self, now_ns: u64, sink: &mut dyn firebrick_client::Sink) {
        while let Some(Dial { link, address }) = self.session.poll_dial(now_ns) {
            let parsed = address.parse().map_err(std::io::Error::other);
            match parsed.and_then(|parsed| self.fabric.dial(parsed, Port::Frames)) {
                Ok(ep) => self.lines.push(Line { link, ep, address }),
                Err(error) => {
                    let error = Error::Connection { address, why: error.to_string().into() };
                    self.session.handle_disconnected(now_ns, link, error, sink);
                }
            }
        }
    }

    fn send(&mut self, now_ns: u64, sink: &mut dyn firebrick_client::Sink) {
        loop {
            self.frame.clear();
            let sent = self.session.poll_send(now_ns, &mut self.frame, sink);
            let Some(link) = sent else { return };
            let Some(at) = self.lines.iter().position(|line| line.link == link) else { continue };
            if self.fabric.send(self.lines[at].ep, &self.frame, None, Token(0)).is_err() {
                // What was sent before has not been taken for too long.
                let address = Arc::clone(&self.lines[at].address);
                let error = Error::Connection { address, why: "it takes nothing".into() };
                let link = self.forget(at);
                self.session.handle_disconnected(now_ns, link, error, sink);
            }
        }
    }
}

fn outcome(result: &Result<Reply<'_>, Error>) -> Option<Back> {
    let version = |v: firebrick_client::Version| Version { epoch: v.epoch, seq: v.seq };
    match result {
        Ok(Reply::Answer(answer)) => back_of(answer),
        Ok(_) | Err(Error::InDoubt | Error::Closed) => None,
        Err(Error::Exists { current }) => Some(Back::Refused { current: Some(version(*current)) }),
        Err(Error::VersionMismatch { current }) => {
            Some(Back::Refused { current: current.map(version).or(Some(Version::NONE)) })
        }
        Err(_) => Some(Back::Failed),
    }
}
