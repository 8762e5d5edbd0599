//! What bricks on real sockets have in common: the real replicas of a table, whichever brick is asked, and counts of what
//! they were asked. A client that leaves its window is a panic, not an answer.

use std::collections::HashMap;
use std::sync::mpsc;

use firebrick_partition::Failure;
use firebrick_partition::maps::{BrickEntry, Member};
use firebrick_partition::op::{Answer, Request};
use firebrick_partition::wire::{self, Message};

use super::replicas::{Replicas, welcome};

type Job = Box<dyn FnOnce(&mut Store) + Send>;

/// The way to a store, which stays on a thread of its own as replicas must.
#[derive(Clone)]
pub struct Shared(mpsc::Sender<Job>);

impl Shared {
    pub fn new(partitions: u32) -> Self {
        let (jobs, next) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            let mut store = Store::new(partitions);
            for job in next {
                job(&mut store);
            }
        });
        Self(jobs)
    }

    /// Does something with it, and waits for what comes of that.
    pub fn with<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> T {
        let (tell, told) = mpsc::channel();
        self.0.send(Box::new(move |store| drop(tell.send(what(store))))).unwrap();
        told.recv().expect("the store's thread panicked")
    }
}

pub struct Store {
    replicas: Replicas,
    /// Requests seen, retries included.
    pub seen: u64,
    /// The same by brick and whether it was a read.
    pub seen_by: HashMap<(u32, bool), u64>,
}

impl Store {
    fn new(partitions: u32) -> Self {
        Self { replicas: Replicas::new(partitions), seen: 0, seen_by: HashMap::new() }
    }

    /// The groups change: clients' routes are stale now.
    pub fn next_epoch(&mut self) {
        self.replicas.restart();
    }

    /// From now on these bricks hold every partition, each brick leading its share.
    pub fn spread(&mut self, bricks: &[(u32, String)]) {
        let entry = |(id, listen): &(u32, String)| BrickEntry {
            id: *id,
            name: format!("b{id}"),
            listen: listen.clone(),
            ..BrickEntry::default()
        };
        self.replicas.maps.bricks = bricks.iter().map(entry).collect();
        self.replicas.regroup(|partition, group| {
            let member = |id: &(u32, String)| Member { brick: id.0, core: 0, incarnation: 1 };
            group.members = bricks.iter().map(member).collect();
            group.members.rotate_left(partition as usize % bricks.len());
        });
    }

    /// What a brick does not answer because of its place in the group.
    fn refusal(&self, brick: u32, request: &Request<'_>) -> Option<Failure> {
        let group = self.replicas.maps.tables[0].groups.get(request.route.partition)?;
        match group.position(brick) {
            None => Some(Failure::WrongPartition),
            Some(0) => None,
            Some(_) if request.op.is_read() => None,
            Some(_) => Some(Failure::AskPrimary),
        }
    }

    /// One frame in, its answer's payload appended to `out`.
    pub fn handle(&mut self, brick: u32, payload: &[u8], out: &mut Vec<u8>) {
        match wire::decode(payload).expect("a client sends what can be read") {
            Message::Hello { slot, .. } => {
                welcome(out, slot, (brick, "test"), self.replicas.maps.version);
            }
            Message::Control { slot, json } => {
                let json = match json {
                    r#"{"do":"status"}"# => r#"{"name":"test"}"#,
                    _ => r#"{"error":"there is no such command: look at the docs"}"#,
                };
                wire::control_answer(out, slot, json);
            }
            Message::Request { slot, request } => {
                self.seen += 1;
                *self.seen_by.entry((brick, request.op.is_read())).or_default() += 1;
                match self.refusal(brick, &request) {
                    Some(failure) => wire::answer(out, slot, &Answer::Failed(failure)),
                    None => self.replicas.handle(payload, out),
                }
            }
            _ => self.replicas.handle(payload, out),
        }
    }
}
