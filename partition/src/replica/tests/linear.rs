//! Random runs of a group whose bricks crash, come back, are taken out, copied to and led in turn, over a
//! network that loses, doubles and reorders. Each client increments its own counter, one request at a time,
//! with a number for each; so every answer says which value it must carry, and every read anywhere has a
//! least and a largest value. That is linearizability and exactly-once at once.

use std::collections::BTreeMap;

use super::net::{Fate, Net};
use crate::maps::Replicas;
use crate::op::{Answer, Failure, Numbered, Op, RequestId, SessionId};

struct Client {
    key: Vec<u8>,
    session: Option<SessionId>,
    /// The request under way: its number, token and the brick it was sent to.
    number: u32,
    sent: Option<(u64, u32)>,
    acked: u32,
    /// No later read is below this.
    seen: u32,
    reads: Vec<(u64, u32, u32)>,
}

struct Run {
    net: Net,
    clients: Vec<Client>,
    opening: BTreeMap<u64, usize>,
    story: Vec<String>,
}

fn is_up(net: &Net, brick: u32) -> bool {
    net.bricks[&brick].replica.is_some()
}

/// It holds a lease: its process is the one that the newest map names as a member.
fn is_leased(net: &Net, brick: u32) -> bool {
    is_up(net, brick) && net.group.members.contains(&net.member(brick))
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut net = Net::new(4, 3, seed);
        net.settle();
        (net.loss, net.twice, net.shuffle) = (5, 10, 30);
        let clients = (0..4u8).map(|n| Client {
            key: vec![n; 8],
            session: None,
            number: 1,
            sent: None,
            acked: 0,
            seen: 0,
            reads: Vec::new(),
        });
        Self { net, clients: clients.collect(), opening: BTreeMap::new(), story: Vec::new() }
    }

    fn write(&mut self, at: usize) {
        let client = &self.clients[at];
        let primary = self.net.primary();
        if client.sent.is_some() || !is_leased(&self.net, primary) {
            return;
        }
        let Some(session) = client.session else {
            if self.opening.values().all(|&c| c != at) {
                let op = Op::OpenSession { client: at as u128 + 1 };
                let token = self.net.ask(primary, b"", op, None);
                self.opening.insert(token, at);
            }
            return;
        };
        let id = RequestId { session, number: client.number };
        let numbered = Some(Numbered { id, answered_to: client.acked.saturating_sub(3) });
        let key = client.key.clone();
        let token = self.net.ask(primary, &key, Op::Increment { by: 1 }, numbered);
        self.clients[at].sent = Some((token, primary));
    }

    fn read(&mut self, at: usize) {
        let members = self.net.group.members.clone();
        let brick = members[self.net.dice.roll(members.len() as u64) as usize].brick;
        if !is_leased(&self.net, brick) {
            return;
        }
        let key = self.clients[at].key.clone();
        let least = self.clients[at].seen.max(self.clients[at].acked);
        let token = self.net.ask(brick, &key, Op::Get, None);
        self.clients[at].reads.push((token, brick, least));
    }

    /// What was answered meanwhile.
    fn collect(&mut self) {
        let opening = std::mem::take(&mut self.opening);
        for (token, at) in opening {
            match &self.net.fates[&token] {
                Fate::Open if is_up(&self.net, self.net.primary()) => {
                    self.opening.insert(token, at);
                }
                Fate::Answered(answer) => {
                    if let Answer::Session { session } = answer.get() {
                        self.clients[at].session = Some(session);
                    }
                }
                _ => {}
            }
        }
        for client in &mut self.clients {
            if let Some((token, brick)) = client.sent {
                match &self.net.fates[&token] {
                    Fate::Open if self.net.bricks[&brick].replica.is_some() => {}
                    Fate::Open | Fate::Unanswered => client.sent = None,
                    Fate::Answered(answer) => match answer.get() {
                        Answer::Integer { value, .. } => {
                            assert_eq!(value, i64::from(client.number), "{:#?}", self.story);
                            client.acked = client.number;
                            client.number += 1;
                            client.sent = None;
                        }
                        Answer::StaleRoute { .. }
                        | Answer::Failed(Failure::Unavailable | Failure::AskPrimary) => {
                            client.sent = None;
                        }
                        other => panic!("{other:?} {:#?}", self.story),
                    },
                }
            }
            Self::collect_reads(&self.net, client, &self.story);
        }
    }

    fn collect_reads(net: &Net, client: &mut Client, story: &[String]) {
        let reads = std::mem::take(&mut client.reads);
        for (token, brick, least) in reads {
            let value = match net.answer(token) {
                None if net.bricks[&brick].replica.is_some() => {
                    client.reads.push((token, brick, least));
                    continue;
                }
                // The lease is checked after the read: an answer of a brick without one does not leave.
                _ if !is_leased(net, brick) => continue,
                Some(Answer::Value { value, .. }) => {
                    std::str::from_utf8(value).expect("digits").parse().expect("a number")
                }
                Some(Answer::Absent) => 0u32,
                _ => continue,
            };
            let most = client.number;
            let key = client.key[0];
            assert!(
                least <= value && value <= most,
                "brick {brick} reads {value} of key {key}, not {least} to {most}: {story:#?}"
            );
            client.seen = client.seen.max(value);
        }
    }

    fn fault(&mut self) {
        let brick = 1 + self.net.dice.roll(4) as u32;
        let member = self.net.group.members.iter().any(|m| m.brick == brick);
        let alone = self.net.group.members.iter().filter(|m| is_leased(&self.net, m.brick));
        let alone = alone.count() < 2;
        match self.net.dice.roll(7) {
            0 if is_up(&self.net, brick) => {
                let keeps = alone || self.net.dice.percent(60);
                self.tell(&format!("{brick} crashes, keeps {keeps}"));
                self.net.crash(brick, keeps);
                if member && !keeps {
                    self.without(brick);
                }
            }
            1 if !is_up(&self.net, brick) => {
                self.tell(&format!("{brick} starts"));
                self.start(brick);
            }
            2 if member && !alone => {
                self.tell(&format!("{brick} is taken out"));
                self.without(brick);
            }
            3 if !member && is_up(&self.net, brick) && self.net.group.learners.is_empty() => {
                self.tell(&format!("{brick} learns"));
                self.net.learns(brick);
            }
            4 if !self.net.group.learners.is_empty() && self.net.dice.percent(20) => {
                self.tell("the learner is dropped");
                let group = Replicas { learners: Vec::new(), ..self.net.group.clone() };
                self.net.change(group);
            }
            5 if is_up(&self.net, brick) => self.net.clean(brick),
            _ => {}
        }
    }

    /// A new incarnation; where the map names the old one, that is a new epoch.
    fn start(&mut self, brick: u32) {
        if is_up(&self.net, brick) {
            return;
        }
        self.net.restart(brick);
        let (mut group, now) = (self.net.group.clone(), self.net.member(brick));
        let named = group.members.iter_mut().chain(&mut group.learners);
        let mut known = false;
        for member in named.filter(|m| m.brick == brick) {
            (*member, known) = (now, true);
        }
        if known {
            self.net.change(group);
        }
    }

    fn without(&mut self, brick: u32) {
        if self.net.group.members.len() > 1 {
            self.net.leaves(brick);
        }
    }

    fn tell(&mut self, what: &str) {
        self.story.push(format!("epoch {}: {what}", self.net.group.epoch));
    }

    fn turn(&mut self) {
        let at = self.net.dice.roll(4) as usize;
        match self.net.dice.roll(40) {
            0..6 => self.write(at),
            6..12 => self.read(at),
            12..30 => {
                self.net.step();
            }
            30..34 => {
                let ns = 1 << self.net.dice.roll(24);
                self.net.pass(ns);
            }
            34..38 => {
                let brick = 1 + self.net.dice.roll(4) as u32;
                if is_up(&self.net, brick) {
                    self.net.tell(brick);
                }
            }
            38 if self.net.dice.percent(30) => self.fault(),
            _ => {}
        }
        self.collect();
    }

    fn finish(&mut self) {
        for brick in 1..=4 {
            self.start(brick);
        }
        self.net.heal();
        self.collect();
        for at in 0..4 {
            self.write(at);
        }
        self.net.settle();
        self.collect();
        self.net.check_equal();
        for client in &self.clients {
            assert!(client.sent.is_none() || client.session.is_none(), "{:#?}", self.story);
        }
    }
}

fn run(seed: u64, turns: u32) -> u32 {
    let mut run = Run::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for _ in 0..turns {
        run.turn();
    }
    run.finish();
    run.clients.iter().map(|c| c.acked).sum()
}

#[test]
fn counters_are_linearizable_through_everything() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let from = std::env::var("FROM").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut acked = 0;
    for seed in from..from + seeds {
        let done = std::panic::catch_unwind(|| run(seed, 3_000));
        acked += done.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    assert!(u64::from(acked) > seeds * 20, "{acked} writes were acked");
}
