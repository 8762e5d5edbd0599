//! A native connection: every slot is answered once, and every answer is the model's.

use std::collections::BTreeMap;
use std::sync::Arc;

use firebrick_net::fake::Fake;
use firebrick_net::{Ep, Event, Fabric, Token};
use firebrick_partition::hash::hash_key;
use firebrick_partition::maps::Routes;
use firebrick_partition::op::Numbered;
use firebrick_partition::wire::{self, Message};
use firebrick_partition::{Answer, Condition, Expiry, Op, Request, Version};

use super::rig::Rig;

pub fn put(value: &[u8]) -> Op<'_> {
    Op::Put { value, expiry: Expiry::Never, condition: Condition::Always, want_old: false }
}

/// An answer without its version, in words.
pub fn words(answer: &Answer<'_>) -> String {
    match answer {
        Answer::Value { value, .. } => format!("value {}", String::from_utf8_lossy(value)),
        Answer::Done { .. } => "done".into(),
        Answer::Integer { value, .. } => format!("integer {value}"),
        Answer::Session { session } => format!("session {} {}", session.partition, session.opened),
        Answer::Failed(failure) => format!("failed {failure:?}"),
        Answer::Absent => "absent".into(),
        other => format!("{other:?}"),
    }
}

/// See the module's text.
pub struct NativeClient {
    pub fake: Fake,
    pub ep: Ep,
    pub core: usize,
    pub routes: Arc<Routes>,
    pub table: u32,
    next: u32,
    waiting: BTreeMap<u32, u64>,
    /// Answers by slot.
    pub got: BTreeMap<u32, String>,
    pub versions: BTreeMap<u32, Version>,
    pub closed: bool,
    events: Vec<Event>,
}

impl NativeClient {
    pub fn new(rig: &mut Rig, core: usize, table: &str) -> Self {
        let (fake, ep) = rig.frames(core);
        let routes = rig.catalog.routes();
        let table = routes.table_named(table).unwrap().id;
        Self {
            fake,
            ep,
            core,
            routes,
            table,
            next: 1,
            waiting: BTreeMap::new(),
            got: BTreeMap::new(),
            versions: BTreeMap::new(),
            closed: false,
            events: Vec::new(),
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn send(&mut self, now: u64, frame: &[u8]) -> u32 {
        let slot = self.next;
        self.next += 1;
        self.fake.send(self.ep, frame, None, Token(0)).unwrap();
        self.fake.flush().unwrap();
        self.waiting.insert(slot, now);
        slot
    }

    pub fn ask(&mut self, now: u64, key: &[u8], op: Op<'_>, numbered: Option<Numbered>) -> u32 {
        let hash = hash_key(key);
        let entry = self.routes.route(self.table, hash).unwrap();
        let request = Request { route: entry.route, numbered, key, op };
        self.request(now, &request)
    }

    pub fn request(&mut self, now: u64, request: &Request<'_>) -> u32 {
        let mut frame = Vec::new();
        wire::request(&mut frame, self.next, request);
        self.send(now, &frame)
    }

    /// It is a brick from now on, as far as it says.
    pub fn greet_as_brick(&mut self, now: u64, brick: u32) {
        let hello = wire::Hello { client: "brick", features: 0, brick, incarnation: 1 };
        let mut frame = Vec::new();
        wire::hello(&mut frame, self.next, &hello);
        self.send(now, &frame);
    }

    pub fn control(&mut self, now: u64, json: &str) -> u32 {
        let mut frame = Vec::new();
        wire::control(&mut frame, self.next, json);
        self.send(now, &frame)
    }

    pub fn fake_flush(&mut self) {
        self.fake.flush().unwrap();
    }

    /// Takes what came.
    pub fn read(&mut self, now: u64) {
        let mut events = std::mem::take(&mut self.events);
        self.fake.poll(now, &mut events);
        for event in events.drain(..) {
            match event {
                Event::Frame { rx, .. } => {
                    let (slot, said) = match wire::decode(self.fake.bytes(&rx)).unwrap() {
                        Message::Answer { slot, answer } => {
                            if let Answer::Done { version } = answer {
                                self.versions.insert(slot, version);
                            }
                            (slot, words(&answer))
                        }
                        Message::ControlAnswer { slot, json } => (slot, json.to_owned()),
                        Message::Welcome { slot, .. } => (slot, "welcome".to_owned()),
                        other => panic!("{other:?}"),
                    };
                    assert!(self.waiting.remove(&slot).is_some(), "{slot} answered twice: {said}");
                    self.got.insert(slot, said);
                    self.fake.release(rx);
                }
                Event::Closed { .. } => self.closed = true,
                _ => {}
            }
        }
        self.events = events;
        self.fake.flush().unwrap();
    }

    /// Runs the rig until everything is answered.
    pub fn settle(&mut self, rig: &mut Rig, limit_ns: u64) {
        rig.run_until(limit_ns, |rig| {
            self.read(rig.now);
            self.waiting.is_empty()
        });
    }

    /// One request and its answer.
    pub fn call(&mut self, rig: &mut Rig, key: &[u8], op: Op<'_>) -> String {
        let slot = self.ask(rig.now, key, op, None);
        self.settle(rig, 5_000_000_000);
        self.got.remove(&slot).unwrap()
    }

    /// A key of a partition of the table on that core.
    pub fn key_on(&self, core: u16, salt: u32) -> Vec<u8> {
        let keys = (0u32..).map(|n| format!("k{salt}-{n}").into_bytes());
        let on = |key: &Vec<u8>| self.routes.route(self.table, hash_key(key)).unwrap().core == core;
        keys.into_iter().find(on).unwrap()
    }
}
