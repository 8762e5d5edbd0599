//! A cluster around the keepers: processes that hold leases by their own slow clocks, replicas as a count of
//! the writes that they hold, and a leader whose entries take a while.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::maps::{Intent, Maps, Member};

/// One brick's machine and the process on it.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub registration: Registration,
    pub id: Option<u32>,
    pub up: bool,
    pub paused: bool,
    /// The keepers do not hear it.
    pub cut_off: bool,
    /// Partitions whose Stopped it never sends.
    pub stuck: bool,
    /// What it has no room for: it begins none of these.
    pub lack: Option<Lack>,
    pub lease_end: u64,
    endless: bool,
    pub maps: Maps,
    /// Writes of each partition that it holds: its memory.
    pub has: BTreeMap<u32, u64>,
    stopped: BTreeSet<(u32, u32)>,
    required: BTreeSet<(u32, u32)>,
    /// Since when a vote (partition, epoch, brick) has been missing.
    missing: BTreeMap<(u32, u32, u32), u64>,
    beat: u64,
}

#[derive(Clone, Debug, Default)]
pub struct World {
    pub now: u64,
    pub keepers: Keepers,
    copy: Keepers,
    pub leases: Leases,
    pub planner: Planner,
    pub machines: Vec<Machine>,
    /// Pairs of machines that do not reach each other.
    pub cuts: BTreeSet<(usize, usize)>,
    /// Partitions whose copies take for ever.
    pub slow: BTreeSet<u32>,
    flying: Vec<(Ticket, Entry)>,
    /// Acknowledged writes of each partition.
    pub acked: BTreeMap<u32, u64>,
    /// A loss was accepted and nothing written since: what is there is whatever is there.
    unsure: BTreeSet<u32>,
    epochs: BTreeMap<u32, (u32, Vec<Member>)>,
    ids: BTreeSet<u32>,
    pub losses: Vec<String>,
    incarnations: u64,
    /// Entries that were applied, by kind.
    pub applied: Vec<Entry>,
}

impl World {
    pub fn new(bricks: usize) -> Self {
        let mut world = Self { now: 1_000 * MS, ..Self::default() };
        world.leases.lead(world.now, &world.keepers);
        for _ in 0..bricks {
            world.add(|_| {});
        }
        world.run(3_000);
        world
    }

    /// A machine more; `change` says what is special about it.
    pub fn add(&mut self, change: impl FnOnce(&mut Registration)) {
        let n = self.machines.len() as u64 + 1;
        self.incarnations += 1;
        let mut registration = process(n, self.incarnations);
        change(&mut registration);
        self.machines.push(Machine { registration, up: true, endless: true, ..Machine::default() });
    }

    pub fn crash(&mut self, at: usize, lose: bool) {
        let machine = &mut self.machines[at];
        (machine.up, machine.paused) = (false, false);
        if lose {
            machine.has.clear();
            machine.registration.memory_intact = false;
            machine.registration.disk_intact = false;
            machine.registration.boot.push('x');
        }
    }

    pub fn start(&mut self, at: usize) {
        if self.machines[at].up {
            return;
        }
        self.incarnations += 1;
        let machine = &mut self.machines[at];
        machine.up = true;
        machine.registration.before.push(machine.registration.incarnation);
        machine.registration.incarnation = self.incarnations;
        (machine.id, machine.lease_end, machine.beat) = (None, 0, 0);
        machine.maps = Maps::default();
        machine.stopped.clear();
        machine.required.clear();
        machine.missing.clear();
        machine.endless = true;
    }

    pub fn new_leader(&mut self, flying_are_lost: bool) {
        if flying_are_lost {
            self.flying.clear();
        }
        self.settle();
        self.leases.lead(self.now, &self.keepers);
        self.planner = Planner::default();
    }

    pub fn create(&mut self, name: &str, options: TableOptions) -> bool {
        let entry = create_table(self.now, &self.keepers, &self.leases, name, options);
        entry.is_ok_and(|entry| self.propose(&entry))
    }

    pub fn propose(&mut self, entry: &Entry) -> bool {
        let Some(ticket) = self.leases.proposed(self.now, &self.keepers, entry) else {
            return false;
        };
        self.flying.push((ticket, entry.clone()));
        self.settle();
        true
    }

    /// What is proposed is applied.
    pub fn settle(&mut self) {
        for (ticket, entry) in std::mem::take(&mut self.flying) {
            self.judge(&entry);
            let applied = self.keepers.apply(&entry);
            assert_eq!(applied, self.copy.apply(&entry));
            self.leases.settled(ticket);
            self.after(&entry, &applied);
        }
    }

    /// Before an entry: what must be true of those whom it takes something from.
    fn judge(&self, entry: &Entry) {
        let mut trial = self.keepers.clone();
        if trial.apply(entry).refusal().is_some() {
            return;
        }
        match *entry {
            Entry::TakeOut { brick, incarnation } => self.must_be_over(brick, incarnation, entry),
            Entry::Register { ref registration, replaces: Some(old), .. } => {
                let brick = self.keepers.brick_of(registration.identity).unwrap();
                if old != registration.incarnation {
                    self.must_be_over(brick.id, old, entry);
                }
            }
            Entry::Lead { partition, brick, .. } => {
                for m in &self.keepers.group(partition).unwrap().replicas.members {
                    if m.brick != brick {
                        self.must_be_over(m.brick, m.incarnation, entry);
                    }
                }
            }
            Entry::Leave { partition, epoch, brick, incarnation }
            | Entry::StepDown { partition, epoch, brick, incarnation, .. } => {
                let process = self.machine_of(brick, incarnation);
                let stopped = |m: &Machine| m.stopped.contains(&(partition, epoch));
                assert!(process.is_none_or(stopped), "{entry:?} without a confirmation");
            }
            _ => {}
        }
    }

    fn must_be_over(&self, brick: u32, incarnation: u64, entry: &Entry) {
        let machine = self.machine_of(brick, incarnation);
        let held = machine.is_some_and(|m| m.lease_end > self.now);
        assert!(!held, "{entry:?} at {} although the process holds a lease", self.now);
    }

    fn machine_of(&self, brick: u32, incarnation: u64) -> Option<&Machine> {
        let is_it =
            |m: &&Machine| m.up && m.id == Some(brick) && m.registration.incarnation == incarnation;
        self.machines.iter().find(is_it)
    }

    fn after(&mut self, entry: &Entry, applied: &Applied) {
        self.keepers.check().unwrap();
        assert_eq!(self.keepers, self.copy, "two copies differ after {entry:?}");
        if applied.refusal().is_some() {
            return;
        }
        self.applied.push(entry.clone());
        if let Applied::Registered { brick, .. } = applied
            && let Entry::Register { registration, replaces: None, .. } = entry
        {
            assert!(self.ids.insert(*brick), "id {brick} was given twice: {registration:?}");
        }
        if let Entry::Lead { partition, brick, incarnation, accept_loss, .. } = *entry {
            if let Applied::Led { loss: Some(loss), .. } = applied {
                assert!(accept_loss);
                self.losses.push(loss.clone());
                self.unsure.insert(partition);
            }
            // (It may have died since this was proposed: then it leads nothing.)
            let machine = self.machine_of(brick, incarnation);
            let has = machine.map(|m| m.has.get(&partition).copied().unwrap_or(0));
            let acked = self.acked.entry(partition).or_default();
            if let Some(has) = has {
                if self.unsure.contains(&partition) {
                    *acked = has;
                }
                let text = "is led by a brick that lacks writes";
                assert_eq!(has, *acked, "partition {partition} {text}");
            }
        }
        for (partition, group) in self.keepers.groups() {
            let (epoch, members) = (group.replicas.epoch, &group.replicas.members);
            let old = self.epochs.insert(partition, (epoch, members.clone()));
            if let Some((old, were)) = old {
                assert!(old < epoch || old == epoch && were == *members, "{partition} {entry:?}");
            }
        }
    }

    /// Plans, and proposes what comes of it.
    pub fn plan(&mut self) -> usize {
        let entries = plan(self.now, &self.keepers, &mut self.leases, &mut self.planner);
        let count = entries.len();
        for entry in entries {
            if let Some(ticket) = self.leases.proposed(self.now, &self.keepers, &entry) {
                self.flying.push((ticket, entry));
            }
        }
        count
    }

    /// Everybody acts every 50 ms; entries take a round. The entries that were planned.
    pub fn run(&mut self, ms: u64) -> usize {
        let mut planned = 0;
        for _ in 0..ms / 50 {
            self.now += 50 * MS;
            for at in 0..self.machines.len() {
                self.act(at);
            }
            self.write();
            self.settle();
            planned += self.plan();
        }
        planned
    }

    fn act(&mut self, at: usize) {
        let machine = &self.machines[at];
        let silent = !machine.up || machine.paused || machine.cut_off;
        if silent || self.now < machine.beat + 100 * MS {
            return;
        }
        self.machines[at].beat = self.now;
        match self.machines[at].id {
            None => self.register(at),
            Some(brick) => self.beat(at, brick),
        }
    }

    fn register(&mut self, at: usize) {
        let registration = self.machines[at].registration.clone();
        let own = at == 0 && self.keepers.is_endless();
        let Gate::Propose(entry) =
            self.leases.register(self.now, &self.keepers, &registration, own)
        else {
            return;
        };
        if !self.propose(&entry) {
            return;
        }
        let found = self.keepers.brick_of(registration.identity);
        let found = found.filter(|brick| brick.incarnation == registration.incarnation);
        if let Some(brick) = found {
            self.machines[at].id = Some(brick.id);
            self.machines[at].registration.memory_intact = true;
            self.machines[at].registration.disk_intact = true;
        }
    }

    fn beat(&mut self, at: usize, brick: u32) {
        let unreachable = (0..self.machines.len()).filter(|other| !self.reaches(at, *other));
        let ids = unreachable.filter_map(|other| self.keepers.brick_of(1001 + other as u64));
        let machine = &self.machines[at];
        let figures = machine.has.iter().map(|(partition, writes)| Figure {
            partition: *partition,
            tail_seq: *writes,
            ..Figure::default()
        });
        let heartbeat = Heartbeat {
            brick,
            incarnation: machine.registration.incarnation,
            version: machine.maps.version,
            endless: machine.endless,
            unreachable: ids.map(|b| b.id).collect(),
            figures: figures.collect(),
            reports: self.reports(at, brick),
            lack: self.machines[at].lack.clone(),
            ..Heartbeat::default()
        };
        let sent = self.now;
        self.leases.heartbeat(self.now, &self.keepers, &heartbeat);
        let (incarnation, since) = (heartbeat.incarnation, heartbeat.version);
        let answer = self.leases.answer(self.now, &self.keepers, brick, incarnation, since);
        let machine = &mut self.machines[at];
        match answer {
            Some(LeaseAnswer::Granted { lease_ms, delta }) => {
                delta.apply_to(&mut machine.maps).unwrap();
                assert_eq!(machine.maps, self.keepers.maps());
                machine.endless = lease_ms.is_none();
                // The slowest clock that there may be.
                let lease = lease_ms.map_or(u64::MAX / 2, |ms| ms * MS * 109 / 100);
                machine.lease_end = sent + lease;
                let maps = &machine.maps;
                let epoch =
                    |p: u32| maps.tables.iter().find_map(|t| t.groups.get(p)).map(|g| g.epoch);
                machine.stopped.retain(|(p, e)| epoch(*p) == Some(*e));
                machine.required.retain(|(p, e)| epoch(*p) == Some(*e));
                machine.missing.retain(|(p, e, _), _| epoch(*p) == Some(*e));
            }
            Some(LeaseAnswer::Register | LeaseAnswer::Removed) => {
                panic!("machine {at} is not who it was")
            }
            None => {}
        }
    }

    /// Entries so far that are such.
    pub fn count(&self, is: fn(&Entry) -> bool) -> usize {
        self.applied.iter().filter(|entry| is(entry)).count()
    }

    pub fn reaches(&self, a: usize, b: usize) -> bool {
        let there = |m: &Machine| m.up && !m.paused;
        there(&self.machines[b]) && !self.cuts.contains(&(a.min(b), a.max(b)))
    }

    fn at_of(&self, brick: u32) -> usize {
        self.machines.iter().position(|m| m.id == Some(brick)).unwrap_or(usize::MAX)
    }

    /// The process that a map names is there, reached, and knows the epoch.
    fn follows(&self, from: usize, member: &Member, partition: u32, epoch: u32) -> bool {
        let at = self.at_of(member.brick);
        let Some(machine) = self.machines.get(at) else { return false };
        let knows = machine.maps.tables.iter().find_map(|t| t.groups.get(partition));
        machine.registration.incarnation == member.incarnation
            && (at == from || self.reaches(from, at))
            && knows.is_some_and(|group| group.epoch == epoch)
    }

    fn reports(&mut self, at: usize, brick: u32) -> Vec<Report> {
        let maps = self.machines[at].maps.clone();
        let incarnation = self.machines[at].registration.incarnation;
        let mut reports = Vec::new();
        let lease = self.keepers.settings().lease_ms * MS;
        for (partition, group) in maps.tables.iter().flat_map(|t| t.groups.iter()) {
            let epoch = group.epoch;
            let is_me = |m: &Member| m.is(brick, incarnation);
            let asked = match group.intent {
                Intent::Leave { brick: b } | Intent::StepDown { brick: b } => b == brick,
                Intent::None => false,
            };
            if asked && group.members.iter().any(is_me) && !self.machines[at].stuck {
                self.machines[at].stopped.insert((partition, epoch));
                reports.push(Report::Stopped { partition, epoch });
            }
            if !group.primary().as_ref().is_some_and(is_me) {
                continue;
            }
            let lack = &self.machines[at].lack;
            let begins = lack.as_ref().is_none_or(|lack| !lack.partitions.contains(&partition));
            if !group.is_active() && begins {
                reports.push(Report::Active { partition, epoch });
            }
            for other in group.members.iter().chain(&group.learners).filter(|m| !is_me(m)) {
                let vote = (partition, epoch, other.brick);
                if self.follows(at, other, partition, epoch) {
                    self.machines[at].missing.remove(&vote);
                } else if self.now
                    >= *self.machines[at].missing.entry(vote).or_insert(self.now) + lease
                {
                    reports.push(Report::Silent { partition, epoch, brick: other.brick });
                }
            }
            let slow = self.slow.contains(&partition);
            let learner = group.learners.first().filter(|_| group.is_active() && !slow);
            if let Some(learner) = learner.filter(|l| self.follows(at, l, partition, epoch)) {
                let to = self.at_of(learner.brick);
                let writes = self.machines[at].has.get(&partition).copied().unwrap_or(0);
                self.machines[to].has.insert(partition, writes);
                self.machines[at].required.insert((partition, epoch));
                reports.push(Report::Copied { partition, epoch, learner: learner.brick });
            }
        }
        reports
    }

    /// Each primary that can commits a write of each of its partitions.
    pub fn write(&mut self) {
        for at in 0..self.machines.len() {
            let machine = &self.machines[at];
            let (Some(brick), true) = (machine.id, machine.up && !machine.paused) else { continue };
            let incarnation = machine.registration.incarnation;
            for (partition, group) in
                machine.maps.clone().tables.iter().flat_map(|t| t.groups.iter())
            {
                let first = group.primary();
                let ours = first.is_some_and(|m| m.is(brick, incarnation));
                if !ours || !group.is_active() {
                    continue;
                }
                let required = self.machines[at].required.contains(&(partition, group.epoch));
                let learners = group.learners.iter().filter(|_| required);
                let voters: Vec<Member> = group.members.iter().chain(learners).copied().collect();
                if !voters.iter().all(|m| self.follows(at, m, partition, group.epoch)) {
                    continue;
                }
                let has = self.machines[at].has.get(&partition).copied().unwrap_or(0);
                let acked = self.acked.insert(partition, has + 1).unwrap_or(0);
                let acked = if self.unsure.remove(&partition) { has } else { acked };
                assert_eq!(has, acked, "a primary of partition {partition} lacks writes");
                for m in voters {
                    let to = self.at_of(m.brick);
                    self.machines[to].has.insert(partition, has + 1);
                }
            }
        }
    }

    /// All groups are whole, active and calm.
    pub fn unfinished(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (partition, group) in self.keepers.groups() {
            let replicas = &group.replicas;
            let bricks = self.keepers.bricks().filter(|b| !b.draining).count();
            let target = self.keepers.wanted(group).min(bricks).max(1);
            let calm = replicas.is_active() && !self.keepers.is_stopped(group);
            let calm = calm && replicas.learners.is_empty();
            let calm = calm && group.wish.is_none() && replicas.intent == Intent::None;
            if !calm || replicas.members.len() != target {
                found.push(format!("{partition}: {replicas:?}"));
            }
        }
        found
    }

    /// (replicas, primaries) of each brick.
    pub fn loads(&self) -> BTreeMap<u32, (usize, usize)> {
        let mut loads: BTreeMap<u32, (usize, usize)> =
            self.keepers.bricks().map(|b| (b.id, (0, 0))).collect();
        for (_, group) in self.keepers.groups() {
            for (at, member) in group.replicas.members.iter().enumerate() {
                let load = loads.entry(member.brick).or_default();
                load.0 += 1;
                load.1 += usize::from(at == 0);
            }
        }
        loads
    }

    /// No more faults: within bounded time everything is as it should be, and stays.
    #[track_caller]
    pub fn converge(&mut self) {
        self.cuts.clear();
        for at in 0..self.machines.len() {
            self.machines[at].paused = false;
            self.machines[at].cut_off = false;
            self.machines[at].stuck = false;
            self.machines[at].lack = None;
            self.start(at);
        }
        // (Pairs that were cut rest for seconds, those that were cut often for minutes.)
        let mut quiet = 0;
        for _ in 0..600 {
            let planned = self.run(1_000);
            quiet = if planned == 0 && self.unfinished().is_empty() { quiet + 1 } else { 0 };
            if quiet == 8 {
                return;
            }
        }
        let last = &self.applied[self.applied.len().saturating_sub(24)..];
        assert_eq!(self.unfinished(), Vec::<String>::new(), "{:?} {last:#?}", self.loads());
        panic!("the plan does not end: {last:#?}");
    }
}
