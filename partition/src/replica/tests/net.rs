//! A small deterministic network of replicas on heap logs. Messages go as bytes through the wire's
//! encoding; the network loses, doubles and reorders them by a seed. The keepers are a few lines that
//! hand out groups.

use std::collections::{BTreeMap, HashMap};

use firebrick_log::{Ask, Durability, FlushOp, Log};

use super::{config, leaf};
use crate::hash::hash_key;
use crate::maps::{Intent, Member, Replicas};
use crate::op::{Answer, Condition, Expiry, Failure, Now, Numbered, Op, Request, Route, Version};
use crate::replica::{
    Action, Actions, Budget, Me, Outcome, OwnedAnswer, Recovering, Replica, Report,
};
use crate::wire::{self, Message, peer};

/// A cheap generator: the same seed, the same run.
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

pub struct Brick {
    pub replica: Option<Replica>,
    pub incarnation: u64,
    pub kept: Option<firebrick_log::storage::Opened>,
}

pub struct Sent {
    pub from: u32,
    pub to: u32,
    pub bytes: Vec<u8>,
}

/// What happened to a request.
#[derive(Clone, Debug)]
pub enum Fate {
    Open,
    Answered(OwnedAnswer),
    Unanswered,
}

pub struct Net {
    pub bricks: BTreeMap<u32, Brick>,
    pub now: Now,
    pub group: Replicas,
    pub sent: Vec<Sent>,
    pub fates: HashMap<u64, Fate>,
    pub reports: Vec<(u32, Report)>,
    pub token: u64,
    pub dice: Dice,
    /// Percent of messages lost, doubled, delivered out of turn.
    pub loss: u64,
    pub twice: u64,
    pub shuffle: u64,
    /// Pairs that cannot reach each other.
    pub cut: Vec<(u32, u32)>,
    /// Writes to disks that have not landed (`sync`), by brick.
    pub flying: Vec<(u32, FlushOp)>,
    durability: Durability,
    /// The keepers act on reports by themselves.
    pub keepers: bool,
}

pub fn put(value: &[u8]) -> Op<'_> {
    Op::Put { value, expiry: Expiry::Never, condition: Condition::Always, want_old: false }
}

pub fn put_until(at_ms: u64) -> Op<'static> {
    let (expiry, condition) = (Expiry::At(at_ms), Condition::Always);
    Op::Put { value: b"v", expiry, condition, want_old: false }
}

pub fn put_if_absent(value: &[u8]) -> Op<'_> {
    Op::Put { value, expiry: Expiry::Never, condition: Condition::Absent, want_old: false }
}

pub const REMOVE: Op<'static> = Op::Remove { condition: Condition::Always, want_old: false };

fn fresh(durability: Durability) -> Replica {
    Replica::new(Log::in_heap(config(durability)), leaf())
}

pub fn route(group: &Replicas) -> Route {
    let fingerprint = crate::maps::fingerprint(1, &leaf(), group);
    Route { table: 1, partition: leaf().partition, epoch: group.epoch, fingerprint }
}

impl Net {
    /// Bricks 1 to `bricks`, the first `members` of them in the group, epoch 1.
    pub fn new(bricks: u32, members: u32, seed: u64) -> Self {
        Self::with_disks(bricks, members, seed, Durability::Memory)
    }

    pub fn with_disks(bricks: u32, members: u32, seed: u64, durability: Durability) -> Self {
        let all = (1..=bricks)
            .map(|id| (id, Brick { replica: Some(fresh(durability)), incarnation: 1, kept: None }));
        let list = (1..=members).map(|brick| Member { brick, core: 0, incarnation: 1 }).collect();
        let mut net = Self {
            bricks: all.collect(),
            now: Now { boot_ns: 1_000_000_000, unix_ms: 1_000_000 },
            group: Replicas { epoch: 1, members: list, active: 0, ..Replicas::default() },
            sent: Vec::new(),
            fates: HashMap::new(),
            reports: Vec::new(),
            token: 0,
            dice: Dice(seed | 1),
            loss: 0,
            twice: 0,
            shuffle: 0,
            cut: Vec::new(),
            flying: Vec::new(),
            durability,
            keepers: true,
        };
        net.tell_all();
        net
    }

    pub fn primary(&self) -> u32 {
        self.group.members[0].brick
    }

    pub fn replica(&mut self, brick: u32) -> &mut Replica {
        self.bricks.get_mut(&brick).unwrap().replica.as_mut().expect("it is up")
    }

    /// A call of one replica; what it wants done is done.
    pub fn with<T>(
        &mut self,
        brick: u32,
        call: impl FnOnce(&mut Replica, Now, &mut Actions) -> T,
    ) -> Option<T> {
        let now = self.now;
        let mut out = Actions::default();
        let replica = self.bricks.get_mut(&brick)?.replica.as_mut()?;
        let result = call(replica, now, &mut out);
        for action in out.list {
            self.act(brick, action);
        }
        Some(result)
    }

    fn act(&mut self, brick: u32, action: Action) {
        match action {
            Action::Reply { token, answer } => {
                let old = self.fates.insert(token, Fate::Answered(answer));
                assert!(matches!(old, Some(Fate::Open)), "answered twice: {old:?}");
            }
            Action::Unanswered { token } => {
                let old = self.fates.insert(token, Fate::Unanswered);
                assert!(matches!(old, Some(Fate::Open)), "answered before: {old:?}");
            }
            Action::Send { to, message } => {
                self.sent.push(Sent { from: brick, to, bytes: message });
            }
            Action::Ship { to, head, body } => {
                let log = self.replica(brick).log();
                let mut bytes = head;
                bytes.extend_from_slice(log.slice_bytes(&body));
                log.unpin(body.loc);
                self.sent.push(Sent { from: brick, to, bytes });
            }
            Action::Report(report) => {
                self.reports.push((brick, report));
                if self.keepers {
                    self.on_report(brick, report);
                }
            }
            Action::Log(Ask::Write(op)) => self.flying.push((brick, op)),
            Action::Log(_) => {}
            Action::Corrupt(corrupt) => panic!("{corrupt}"),
        }
    }

    /// The keepers: enough of them.
    fn on_report(&mut self, brick: u32, report: Report) {
        match report {
            Report::Active { epoch, .. } if epoch == self.group.epoch => {
                self.group.active = epoch;
                self.tell(brick);
            }
            Report::Copied { epoch, learner, .. }
                if epoch == self.group.epoch
                    && self.group.learners.first().is_some_and(|m| m.brick == learner) =>
            {
                let mut group = self.group.clone();
                let member = group.learners.remove(0);
                group.members.push(member);
                self.change(group);
            }
            _ => {}
        }
    }

    /// A new epoch with these members, learners and intent; nobody knows it yet.
    pub fn change(&mut self, group: Replicas) {
        self.group = Replicas { epoch: self.group.epoch + 1, active: self.group.active, ..group };
    }

    /// A brick gets the newest map.
    pub fn tell(&mut self, brick: u32) {
        let group = self.group.clone();
        let incarnation = self.bricks[&brick].incarnation;
        let me = Me { brick, incarnation };
        self.with(brick, |r, now, out| {
            assert!(r.set_group(now, me, route(&group), &group, out));
        });
    }

    pub fn tell_all(&mut self) {
        for brick in self.bricks.keys().copied().collect::<Vec<_>>() {
            self.tell(brick);
        }
    }

    pub fn member(&self, brick: u32) -> Member {
        Member { brick, core: 0, incarnation: self.bricks[&brick].incarnation }
    }

    /// The process dies; what is mapped stays, or not.
    pub fn crash(&mut self, brick: u32, keeps: bool) {
        let host = self.bricks.get_mut(&brick).unwrap();
        let Some(replica) = host.replica.take() else { return };
        let opened = replica.into_log().crash();
        host.kept = keeps.then_some(opened);
        self.sent.retain(|s| s.to != brick);
        self.flying.retain(|f| f.0 != brick);
    }

    /// It starts again, a new incarnation.
    pub fn restart(&mut self, brick: u32) {
        let now = self.now;
        let host = self.bricks.get_mut(&brick).unwrap();
        if host.replica.is_some() {
            return;
        }
        host.incarnation += 1;
        let mut replica = match host.kept.take() {
            Some(opened) => {
                let (log, scan) = Log::open_in_heap(config(self.durability), opened);
                Replica::open(log, scan, leaf())
            }
            None => fresh(self.durability),
        };
        while replica.recover_step(now, 64) == Recovering::More {}
        host.replica = Some(replica);
    }

    pub fn ask(&mut self, brick: u32, key: &[u8], op: Op<'_>, n: Option<Numbered>) -> u64 {
        let route = self.bricks[&brick].replica.as_ref().map_or(route(&self.group), Replica::route);
        self.ask_as(brick, key, op, n, route)
    }

    pub fn ask_as(
        &mut self,
        brick: u32,
        key: &[u8],
        op: Op<'_>,
        numbered: Option<Numbered>,
        route: Route,
    ) -> u64 {
        self.token += 1;
        let token = self.token;
        self.fates.insert(token, Fate::Open);
        let request = Request { route, numbered, key, op };
        let hash = hash_key(key);
        let outcome =
            self.with(brick, |r, now, out| match r.execute(now, token, hash, &request, out) {
                Outcome::Now(answer) => Some(OwnedAnswer::new(&answer)),
                Outcome::Later => None,
            });
        if let Some(Some(answer)) = outcome {
            self.fates.insert(token, Fate::Answered(answer));
        }
        token
    }

    pub fn answer(&self, token: u64) -> Option<Answer<'_>> {
        match &self.fates[&token] {
            Fate::Answered(answer) => Some(answer.get()),
            _ => None,
        }
    }

    /// Asks and lets everything happen.
    pub fn get(&mut self, brick: u32, key: &[u8], op: Op<'_>) -> OwnedAnswer {
        let token = self.ask(brick, key, op, None);
        self.settle();
        match self.fates.remove(&token) {
            Some(Fate::Answered(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// The value that a brick's replica answers; `None`: absent.
    pub fn value(&mut self, brick: u32, key: &[u8]) -> Option<Vec<u8>> {
        match self.get(brick, key, Op::Get).get() {
            Answer::Value { value, .. } => Some(value.to_vec()),
            Answer::Absent => None,
            other => panic!("{other:?}"),
        }
    }

    pub fn poll(&mut self, brick: u32) {
        self.with(brick, Replica::poll);
    }

    pub fn poll_all(&mut self) {
        for brick in self.bricks.keys().copied().collect::<Vec<_>>() {
            self.poll(brick);
        }
    }

    pub fn deliver(&mut self, sent: &Sent) {
        let cut =
            |pair: &(u32, u32)| *pair == (sent.from, sent.to) || *pair == (sent.to, sent.from);
        if self.cut.iter().any(cut) {
            return;
        }
        let Ok(Message::Peer { partition, peer }) = wire::decode(&sent.bytes) else {
            panic!("a replica sent what cannot be read")
        };
        assert_eq!(partition, leaf().partition);
        self.with(sent.to, |r, now, out| {
            r.on_peer(now, sent.from, &peer, out);
        });
    }

    /// One message arrives, or is lost, or comes twice.
    pub fn step(&mut self) -> bool {
        if self.sent.is_empty() {
            return false;
        }
        let at = if self.dice.percent(self.shuffle) {
            self.dice.roll(self.sent.len() as u64) as usize
        } else {
            0
        };
        let sent = self.sent.remove(at);
        if !self.dice.percent(self.loss) {
            self.deliver(&sent);
            if self.dice.percent(self.twice) {
                let again = Sent { from: sent.from, to: sent.to, bytes: sent.bytes.clone() };
                self.sent.push(again);
            }
            self.poll(sent.to);
        }
        true
    }

    /// The writes to a brick's disk land, with those that follow from them.
    pub fn land(&mut self, brick: u32) {
        while let Some(at) = self.flying.iter().position(|f| f.0 == brick) {
            let (_, op) = self.flying.remove(at);
            self.with(brick, |r, now, out| r.on_written(now, op.id, Ok(op.len as usize), out));
        }
    }

    pub fn pass(&mut self, ns: u64) {
        self.now.boot_ns += ns;
        self.now.unix_ms += ns / 1_000_000;
        self.poll_all();
    }

    /// Everything that is under way happens, and some time passes.
    pub fn settle(&mut self) {
        self.poll_all();
        for _ in 0..60 {
            let mut steps = 0;
            while self.step() {
                steps += 1;
                assert!(steps < 200_000, "the replicas never stop talking");
            }
            for brick in self.bricks.keys().copied().collect::<Vec<_>>() {
                self.land(brick);
            }
            self.pass(10_000_000);
        }
    }

    /// Messages among the others arrive.
    pub fn settle_without(&mut self, brick: u32) {
        for _ in 0..100 {
            self.poll_all();
            self.sent.retain(|s| s.to != brick && s.from != brick);
            self.step();
        }
    }

    /// As `settle`, with newer maps for everybody in between.
    pub fn heal(&mut self) {
        (self.loss, self.twice, self.shuffle) = (0, 0, 0);
        self.cut.clear();
        for _ in 0..6 {
            self.tell_all();
            self.settle();
        }
    }

    /// The members hold the same records and say the same.
    pub fn check_equal(&mut self) {
        let members: Vec<u32> = self.group.members.iter().map(|m| m.brick).collect();
        let mut logs = Vec::new();
        for &brick in &members {
            let replica = self.replica(brick);
            let log = replica.log();
            assert_eq!(log.commit(), log.tail().seq, "brick {brick} is not quiet");
            logs.push((log.tail(), replica.keys()));
        }
        assert!(logs.windows(2).all(|w| w[0] == w[1]), "{members:?}: {logs:?}");
    }

    pub fn clean(&mut self, brick: u32) {
        let budget = Budget { clean_bytes: 16 << 10, expire_entries: 64, idle: true };
        for _ in 0..40 {
            let more = self.with(brick, |r, now, out| r.tick(now, budget, out));
            if more != Some(true) {
                break;
            }
        }
    }

    pub fn leaves(&mut self, brick: u32) {
        let mut group = self.group.clone();
        group.members.retain(|m| m.brick != brick);
        group.learners.retain(|m| m.brick != brick);
        group.intent = Intent::None;
        self.change(group);
    }

    pub fn learns(&mut self, brick: u32) {
        let mut group = self.group.clone();
        group.learners = vec![self.member(brick)];
        self.change(group);
    }

    pub fn reported(&self, report: Report) -> bool {
        self.reports.iter().any(|r| r.1 == report)
    }
}

/// A prepare's records' versions, to look at what is under way.
pub fn versions(sent: &Sent) -> Vec<Version> {
    match wire::decode(&sent.bytes) {
        Ok(Message::Peer { peer: peer::Peer::Prepare { records, .. }, .. }) => {
            peer::records(records).map(|r| r.expect("whole").version()).collect()
        }
        _ => Vec::new(),
    }
}

pub fn is_failure(answer: Option<Answer<'_>>, failure: Failure) -> bool {
    answer == Some(Answer::Failed(failure))
}
