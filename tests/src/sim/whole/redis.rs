//! A client that speaks RESP: a connection to one brick at a time, several commands under way on it.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;

use firebrick_net::fake::Fake;
use firebrick_net::{Ep, Event, Fabric, Port, Token};

use super::reply::backs;
use super::seen::Seen;
use crate::check::{Back, Call};
use crate::random::Random;
use crate::resp::Value;
use crate::sim::clock::{MS, Ns};
use crate::sim::workload::family;

/// A connection that does not open is given up after this long.
const DIAL_NS: Ns = 500 * MS;
/// A reply is waited for so long from a brick that cannot be reached, that is: more than the front's patience with a
/// partition that nobody serves.
const REPLY_NS: Ns = 3_000 * MS;
/// One that can be reached owes it within this, whatever it waits for itself.
const HANG_NS: Ns = 35_000 * MS;

/// A command that was sent: what it is for each of its keys.
pub struct Command {
    pub since: Ns,
    pub parts: Vec<(u64, String, Call)>,
}

struct Line {
    ep: Ep,
    is_open: bool,
    since: Ns,
    heard: Vec<u8>,
    asked: VecDeque<Command>,
    /// When it was last found that its brick cannot be reached, and whether it is so.
    disturbed: Ns,
    is_cut: bool,
    /// Of its brick's process.
    incarnation: Option<u64>,
    /// What this connection was told of each key.
    seen: BTreeMap<String, Seen>,
}

/// What came of a call: `None`: nobody knows.
pub type Outcome = (u64, Option<Back>);

/// See the module's text.
pub struct Redis {
    fabric: Fake,
    bricks: Vec<SocketAddr>,
    line: Option<Line>,
    /// It was told that its brick serves nothing just now.
    pub is_refused: bool,
    /// The brick of its connection.
    pub brick: usize,
}

impl Redis {
    /// A client without a connection.
    pub fn new(fabric: Fake, bricks: Vec<SocketAddr>) -> Self {
        Self { fabric, bricks, line: None, is_refused: false, brick: 0 }
    }

    /// Nothing is open.
    pub fn is_idle(&self) -> bool {
        self.line.as_ref().is_none_or(|line| line.asked.is_empty())
    }

    /// It has a connection that is open, or will be.
    pub fn has_line(&self) -> bool {
        self.line.is_some()
    }

    /// How many commands more it may have under way.
    pub fn room(&self, open_max: usize) -> usize {
        let line = self.line.as_ref().filter(|line| line.is_open);
        line.map_or(0, |line| open_max.saturating_sub(line.asked.len()))
    }

    /// When it has something to do.
    pub fn due(&self) -> Ns {
        let patience = self.line.as_ref().map_or(Ns::MAX, |line| match line.asked.front() {
            Some(command) if line.is_cut => command.since + REPLY_NS,
            Some(command) => command.since.max(line.disturbed) + HANG_NS,
            None if !line.is_open => line.since + DIAL_NS,
            None => Ns::MAX,
        });
        patience.min(self.fabric.next_ns().unwrap_or(Ns::MAX))
    }

    /// Goes to a brick.
    pub fn dial(&mut self, now: Ns, random: &mut Random) {
        self.brick = random.below(self.bricks.len() as u64) as usize;
        let ep = self.fabric.dial(self.bricks[self.brick], Port::Stream).expect("the fake fabric");
        let (heard, asked) = (Vec::new(), VecDeque::new());
        let seen = BTreeMap::new();
        let (disturbed, is_cut, incarnation) = (now, false, None);
        let (is_open, since) = (false, now);
        let line = Line { ep, is_open, since, heard, asked, disturbed, is_cut, incarnation, seen };
        self.line = Some(line);
        self.is_refused = false;
    }

    /// Sends commands, in one piece or in two. A brick that takes nothing more is left.
    pub fn send(
        &mut self,
        commands: Vec<Command>,
        bytes: &[u8],
        random: &mut Random,
        done: &mut Vec<Outcome>,
    ) {
        let Some(line) = &mut self.line else { return };
        line.asked.extend(commands);
        let split = if random.below(8) == 0 { random.below(bytes.len() as u64) } else { 0 };
        let (first, second) = bytes.split_at(split as usize);
        for part in [first, second].iter().filter(|part| !part.is_empty()) {
            if self.fabric.send(line.ep, part, None, Token(0)).is_err() {
                return self.hang_up(done);
            }
            self.fabric.flush().expect("the fake fabric");
        }
    }

    /// Leaves its brick, whatever is under way.
    pub fn hang_up(&mut self, done: &mut Vec<Outcome>) {
        let Some(line) = self.line.take() else { return };
        self.fabric.abort(line.ep);
        self.fabric.flush().expect("the fake fabric");
        let left = line.asked.into_iter().flat_map(|command| command.parts);
        done.extend(left.map(|(id, ..)| (id, None)));
    }

    /// The process of its brick, if it can be reached.
    pub fn sees(&mut self, now: Ns, incarnation: Option<u64>) {
        let Some(line) = &mut self.line else { return };
        line.incarnation = line.incarnation.or(incarnation);
        // (One that has restarted knows nothing of this connection.)
        line.is_cut = incarnation.is_none() || incarnation != line.incarnation;
        if line.is_cut {
            line.disturbed = now;
        }
    }

    /// Takes what arrived. What is over; `Err`: what no brick should say.
    pub fn turn(&mut self, now: Ns, done: &mut Vec<Outcome>) -> Result<(), String> {
        let mut events = Vec::new();
        self.fabric.poll(now, &mut events);
        for event in events {
            let ours = |ep: Ep| self.line.as_ref().is_some_and(|line| line.ep == ep);
            match event {
                Event::Opened { ep, .. } if ours(ep) => {
                    self.line.as_mut().into_iter().for_each(|line| line.is_open = true);
                }
                Event::Bytes { ep, rx } => {
                    if ours(ep) {
                        let bytes = self.fabric.bytes(&rx).to_vec();
                        self.hear(&bytes, done)?;
                    }
                    self.fabric.release(rx);
                }
                Event::Closed { ep, .. } if ours(ep) => self.hang_up(done),
                _ => {}
            }
        }
        let is_late = |line: &Line| match line.asked.front() {
            Some(command) => line.is_cut && now >= command.since + REPLY_NS,
            None => !line.is_open && now >= line.since + DIAL_NS,
        };
        let hangs = |line: &Line| match line.asked.front() {
            Some(command) => now >= command.since.max(line.disturbed) + HANG_NS,
            None => false,
        };
        if self.line.as_ref().is_some_and(hangs) {
            return Err(format!("brick{} leaves a command without a reply", self.brick + 1));
        }
        if self.line.as_ref().is_some_and(is_late) {
            self.hang_up(done);
        }
        Ok(())
    }

    fn hear(&mut self, bytes: &[u8], done: &mut Vec<Outcome>) -> Result<(), String> {
        let Some(line) = &mut self.line else { return Ok(()) };
        line.heard.extend_from_slice(bytes);
        loop {
            let mut rest = &line.heard[..];
            let reply = match Value::read(&mut rest) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                reply => reply.map_err(|error| error.to_string())?,
            };
            let used = line.heard.len() - rest.len();
            line.heard.drain(..used);
            let command = line.asked.pop_front().ok_or("a reply to no command")?;
            self.is_refused |= reply.error().is_some_and(|text| text.starts_with("LOADING"));
            for ((id, key, call), back) in command.parts.iter().zip(backs(&command.parts, &reply)?)
            {
                if let Some(back) = &back {
                    let seen = line.seen.entry(key.clone()).or_default();
                    seen.see(family(key), call, back).map_err(|why| format!("call {id}: {why}"))?;
                }
                done.push((*id, back));
            }
        }
    }
}
