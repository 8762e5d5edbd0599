//! A brick's process: replicas, maps, a lease, and what the data core does around them.
//!
//! This stands for the production shard, rule by rule as PROTOCOL.md has them: routes before the lease,
//! no answer without one, the clock looked at after the values were read.

use std::collections::{BTreeMap, BTreeSet};

use firebrick_log::{Ask, Log, LogConfig};
use firebrick_partition::hash_key;
use firebrick_partition::keeper::{Figure, Heartbeat, LeaseAnswer, Registration, Report, Room};
use firebrick_partition::maps::{
    Durability, Leaf, MapDelta, Maps, Replicas, RouteCheck, check, fingerprint,
};
use firebrick_partition::op::{Answer, Failure, Now, Route};
use firebrick_partition::replica::Replica;
use firebrick_partition::replica::{self, Action, Actions, Me, Outcome};
use firebrick_partition::wire::{self, Message as Wire};

use super::mistake::Mistake;

/// Room of one replica's log.
const LOG_BYTES: u64 = 64 << 20;
/// Small segments, so that runs go through many.
const SEGMENT_BYTES: usize = 16 << 10;
/// A report that a replica has not repeated for this long is over.
const REPORT_NS: u64 = 400_000_000;

/// Room of a machine's replicas.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a replica.
    pub bytes: u64,
    /// Segments that a replica in memory may make; past that there is none.
    pub segments: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: LOG_BYTES, segments: None }
    }
}

/// Whom to answer.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub client: usize,
    pub tag: u64,
    partition: u32,
    epoch: u32,
}

/// An answer that leaves at the end of the turn if the lease still holds then.
#[derive(Debug)]
pub struct Ready {
    pub asker: Asker,
    pub bytes: Vec<u8>,
    /// Of a request that was told `Later`: withheld rather than dropped.
    later: bool,
}

/// What a turn wants of the world.
#[derive(Debug)]
pub enum Effect {
    /// A peer message to a brick id.
    Peer { to: u32, bytes: Vec<u8> },
    /// An answer.
    Answer { asker: Asker, bytes: Vec<u8> },
    /// The connection is closed.
    Close(Asker),
    /// A write to the disk.
    Write { partition: u32, op: firebrick_log::FlushOp },
    /// Something worth counting.
    Saw(&'static str),
    /// Something for the trace.
    Note(String),
    /// A replica met a damaged record.
    Corrupt(u32),
}

/// A partition as this process's maps have it.
#[derive(Clone, Debug)]
pub struct Place {
    pub leaf: Leaf,
    pub route: Route,
    pub group: Replicas,
    cfg: LogConfig,
}

/// See the module's text.
#[derive(Debug)]
pub struct Process {
    pub incarnation: u64,
    pub registration: Registration,
    /// Its brick's id, once the keepers said so.
    pub brick: Option<u32>,
    pub maps: Maps,
    pub places: BTreeMap<u32, Place>,
    pub replicas: BTreeMap<u32, Replica>,
    /// On its own clock; `u64::MAX`: without end.
    pub lease_end: u64,
    reports: BTreeMap<Report, u64>,
    askers: BTreeMap<u64, Asker>,
    next_token: u64,
    pub ready: Vec<Ready>,
    withheld: Vec<Ready>,
    out: Actions,
    pub effects: Vec<Effect>,
    /// Only for [`Mistake::ReportsOnce`].
    told: BTreeSet<Report>,
    /// Only for [`Mistake::LeaseBeforeMap`].
    late_maps: Option<MapDelta>,
    /// True time of the wake-up that is due.
    pub wake: u64,
    mistake: Mistake,
    limits: Limits,
}

impl Process {
    /// A process that has opened what it found.
    pub fn new(
        incarnation: u64,
        registration: Registration,
        replicas: BTreeMap<u32, Replica>,
        mistake: Mistake,
        limits: Limits,
    ) -> Self {
        Self {
            incarnation,
            registration,
            brick: None,
            maps: Maps::default(),
            places: BTreeMap::new(),
            replicas,
            lease_end: 0,
            reports: BTreeMap::new(),
            askers: BTreeMap::new(),
            next_token: 0,
            ready: Vec::new(),
            withheld: Vec::new(),
            out: Actions::default(),
            effects: Vec::new(),
            told: BTreeSet::new(),
            late_maps: None,
            wake: u64::MAX,
            mistake,
            limits,
        }
    }

    /// It may answer clients.
    pub fn has_lease(&self, now: Now) -> bool {
        now.boot_ns < self.lease_end
    }

    /// It is the primary of the partition, and answers.
    pub fn leads(&self, now: Now, partition: u32) -> bool {
        self.has_lease(now) && self.replicas.get(&partition).is_some_and(Replica::is_serving)
    }

    /// A client's request.
    pub fn on_request(&mut self, now: Now, client: usize, tag: u64, bytes: &[u8]) {
        let Ok(Wire::Request { request, .. }) = wire::decode(bytes) else { return };
        let route = request.route;
        let asker = Asker { client, tag, partition: route.partition, epoch: route.epoch };
        if !self.has_lease(now) {
            return self.refuse(asker, &Answer::Failed(Failure::Unavailable));
        }
        if !self.replicas.contains_key(&route.partition) {
            let answer = self.misdirected(route);
            return self.refuse(asker, &answer);
        }
        let token = self.next_token;
        self.next_token += 1;
        self.askers.insert(token, asker);
        let hash = hash_key(request.key);
        let answered = self.with(now, route.partition, |replica, out| {
            let answered = match replica.execute(now, token, hash, &request, out) {
                Outcome::Now(answer) => {
                    let mut bytes = Vec::new();
                    wire::answer(&mut bytes, 0, &answer);
                    Some(bytes)
                }
                Outcome::Later => None,
            };
            replica.poll(now, out);
            answered
        });
        if let Some(bytes) = answered.flatten() {
            self.askers.remove(&token);
            self.ready.push(Ready { asker, bytes, later: false });
        }
    }

    /// Lets a replica do something, and does what it wants.
    fn with<T>(
        &mut self,
        now: Now,
        partition: u32,
        run: impl FnOnce(&mut Replica, &mut Actions) -> T,
    ) -> Option<T> {
        let replica = self.replicas.get_mut(&partition)?;
        let before = replica.log().tail().seq;
        let result = run(replica, &mut self.out);
        if replica.log().tail().seq < before {
            self.effects.push(Effect::Saw("a tail is truncated"));
        }
        self.act(now, partition);
        Some(result)
    }

    fn refuse(&mut self, asker: Asker, answer: &Answer<'_>) {
        let mut bytes = Vec::new();
        wire::answer(&mut bytes, 0, answer);
        self.effects.push(Effect::Answer { asker, bytes });
    }

    fn misdirected(&self, route: Route) -> Answer<'static> {
        let Some(place) = self.places.get(&route.partition) else {
            return Answer::Failed(Failure::RouteTooNew);
        };
        match check(place.route, route) {
            RouteCheck::Older(route) => Answer::StaleRoute { route },
            RouteCheck::Newer => Answer::Failed(Failure::RouteTooNew),
            RouteCheck::Unknown | RouteCheck::Current => Answer::Failed(Failure::WrongPartition),
        }
    }

    /// A message of another replica.
    pub fn on_peer(&mut self, now: Now, from: u32, bytes: &[u8]) {
        let Ok(Wire::Peer { partition, peer }) = wire::decode(bytes) else { return };
        self.with(now, partition, |replica, out| {
            replica.on_peer(now, from, &peer, out);
            replica.poll(now, out);
        });
    }

    fn each(&mut self, now: Now, mut run: impl FnMut(&mut Replica, &mut Actions)) {
        let partitions: Vec<u32> = self.replicas.keys().copied().collect();
        for partition in partitions {
            self.with(now, partition, &mut run);
        }
    }

    /// There is a fresh connection to a brick.
    pub fn on_peer_up(&mut self, now: Now, brick: u32) {
        self.each(now, |replica, out| replica.on_peer_up(now, brick, out));
    }

    /// A timer, and perhaps a slice of background work.
    pub fn on_wake(&mut self, now: Now, tick: bool) {
        let budget = replica::Budget { clean_bytes: 4 << 10, expire_entries: 16, idle: true };
        self.each(now, |replica, out| {
            replica.poll(now, out);
            if tick {
                replica.tick(now, budget, out);
            }
        });
    }

    /// A write to the disk arrived.
    pub fn on_written(&mut self, now: Now, partition: u32, op: &firebrick_log::FlushOp) {
        self.with(now, partition, |replica, out| {
            replica.on_written(now, op.id, Ok(op.len as usize), out);
        });
    }

    /// When the replicas have something to do by themselves, on this machine's clock.
    pub fn wake_at(&self) -> Option<u64> {
        self.replicas.values().filter_map(Replica::wake_at).min()
    }

    /// Performs what the replicas want.
    fn act(&mut self, now: Now, partition: u32) {
        for action in std::mem::take(&mut self.out.list) {
            match action {
                Action::Reply { token, answer } => {
                    let Some(asker) = self.askers.remove(&token) else { continue };
                    let mut bytes = Vec::new();
                    wire::answer(&mut bytes, 0, &answer.get());
                    self.ready.push(Ready { asker, bytes, later: true });
                }
                Action::Unanswered { token } => {
                    if let Some(asker) = self.askers.remove(&token) {
                        self.effects
                            .push(Effect::Saw("a prepared write is left to another primary"));
                        self.effects.push(Effect::Close(asker));
                    }
                }
                Action::Send { to, message } => {
                    self.effects.push(Effect::Peer { to, bytes: message });
                }
                Action::Ship { to, mut head, body } => {
                    let Some(replica) = self.replicas.get(&partition) else { continue };
                    head.extend_from_slice(replica.log().slice_bytes(&body));
                    replica.log().unpin(body.loc);
                    self.effects.push(Effect::Peer { to, bytes: head });
                }
                Action::Report(replica::Report::Silent { .. })
                    if self.mistake == Mistake::SilenceUnreported => {}
                Action::Report(report) => {
                    self.reports.insert(translate(report), now.boot_ns);
                }
                Action::Log(Ask::Write(op)) => {
                    self.effects.push(Effect::Write { partition, op });
                }
                Action::Log(Ask::Segment(want)) => {
                    // Only past its ration: there is none.
                    let Some(replica) = self.replicas.get_mut(&partition) else { continue };
                    replica.on_segment(now, want, None, &mut self.out);
                    self.effects.push(Effect::Saw("a segment is refused"));
                }
                Action::Log(_) => {}
                Action::Corrupt(corrupt) => self.effects.push(Effect::Corrupt(corrupt.partition)),
            }
        }
    }

    /// The end of a turn: the clock is read after all values were, and before anything leaves.
    pub fn flush(&mut self, now: Now) {
        let leased = self.has_lease(now);
        for ready in std::mem::take(&mut self.ready) {
            let Ready { asker, bytes, later } = ready;
            if leased {
                self.effects.push(Effect::Answer { asker, bytes });
            } else if later && self.mistake == Mistake::SaysNothingHappened {
                self.refuse(asker, &Answer::Failed(Failure::Unavailable));
            } else if later {
                self.effects.push(Effect::Saw("an answer is withheld without a lease"));
                self.withheld.push(Ready { asker, bytes, later });
            } else {
                self.effects.push(Effect::Saw("a read is dropped without a lease"));
                self.effects.push(Effect::Close(asker));
            }
        }
        if leased {
            self.release();
        }
    }

    /// A lease came back: what was withheld leaves, if the epoch is still the same.
    fn release(&mut self) {
        for Ready { asker, bytes, .. } in std::mem::take(&mut self.withheld) {
            let route = self.replicas.get(&asker.partition).map(Replica::route);
            if route.is_some_and(|route| route.epoch == asker.epoch) {
                self.effects.push(Effect::Saw("a withheld answer leaves"));
                self.effects.push(Effect::Answer { asker, bytes });
            } else {
                self.effects.push(Effect::Close(asker));
            }
        }
    }

    /// What goes to the keepers now.
    pub fn heartbeat(&mut self, now: Now, unreachable: Vec<u32>) -> Option<Heartbeat> {
        let brick = self.brick?;
        self.reports.retain(|_, at| now.boot_ns < *at + REPORT_NS);
        let mut reports: Vec<Report> = self.reports.keys().copied().collect();
        if self.mistake == Mistake::ReportsOnce {
            reports.retain(|report| self.told.insert(*report));
        }
        let figures = self.replicas.iter().map(|(partition, replica)| {
            let tail = replica.log().tail();
            let bytes = replica.keys() * 64;
            Figure { partition: *partition, bytes, tail_epoch: tail.epoch, tail_seq: tail.seq }
        });
        Some(Heartbeat {
            brick,
            incarnation: self.incarnation,
            version: self.maps.version,
            endless: self.lease_end == u64::MAX,
            reports,
            unreachable,
            room: Room { total_bytes: 1 << 30, free_bytes: 1 << 29 },
            figures: figures.collect(),
            ..Heartbeat::default()
        })
    }

    /// A lease: first the maps that came with it, then its end.
    pub fn on_lease(&mut self, now: Now, answer: &LeaseAnswer, sent: u64) {
        let LeaseAnswer::Granted { lease_ms, delta } = answer else { return };
        if let Some(delta) = self.late_maps.take() {
            self.take_maps(now, &delta);
        }
        if self.mistake == Mistake::LeaseBeforeMap && self.maps.version > 0 {
            self.late_maps = Some(delta.clone());
        } else if !self.take_maps(now, delta) {
            return;
        }
        let from = if self.mistake == Mistake::LeaseFromAnswer { now.boot_ns } else { sent };
        match lease_ms {
            None => self.lease_end = u64::MAX,
            Some(ms) if self.lease_end == u64::MAX => self.lease_end = from + ms * 1_000_000,
            Some(ms) => self.lease_end = self.lease_end.max(from + ms * 1_000_000),
        }
        if self.has_lease(now) {
            self.release();
        }
    }

    /// Whether the changes fit the maps that there are.
    fn take_maps(&mut self, now: Now, delta: &MapDelta) -> bool {
        let fits = delta.apply_to(&mut self.maps).is_ok();
        if fits {
            self.apply_maps(now);
        }
        fits
    }

    /// What a replica has, as an epoch begins.
    fn note(&mut self, partition: u32) {
        let Some(replica) = self.replicas.get(&partition) else { return };
        let (log, epoch, keys) = (replica.log(), replica.route().epoch, replica.keys());
        let (tail, commit, manifest) = (log.tail(), log.commit(), log.manifest());
        let (below, complete) = (manifest.below.seq, manifest.complete);
        self.effects.push(Effect::Note(format!(
            "epoch {epoch} of {partition}: tail {}.{}, commit {commit}, below {below}, complete {complete}, {keys} keys",
            tail.epoch, tail.seq
        )));
    }

    /// Gives every replica its group; makes those that are new here.
    fn apply_maps(&mut self, now: Now) {
        let Some(brick) = self.brick else { return };
        let me = Me { brick, incarnation: self.incarnation };
        for table in &self.maps.tables {
            for leaf in &table.leaves {
                let Some(group) = table.groups.get(leaf.partition) else { continue };
                let fingerprint = fingerprint(table.id, leaf, group);
                let (partition, epoch) = (leaf.partition, group.epoch);
                let route = Route { table: table.id, partition, epoch, fingerprint };
                let cfg = LogConfig {
                    table: table.id,
                    partition,
                    durability: durability(table.options.durability),
                    bytes_max: self.limits.bytes,
                    segment_bytes_max: SEGMENT_BYTES,
                };
                let place = Place { leaf: *leaf, route, group: group.clone(), cfg };
                self.places.insert(partition, place);
            }
        }
        for (partition, place) in &self.places {
            let named = |members: &[firebrick_partition::maps::Member]| {
                members.iter().any(|m| m.is(brick, self.incarnation))
            };
            if named(&place.group.members) || named(&place.group.learners) {
                let limits = self.limits;
                let make = || {
                    let mut log = Log::in_heap(place.cfg);
                    if let Some(segments) = limits.segments {
                        log.ration(segments);
                    }
                    Replica::new(log, place.leaf)
                };
                self.replicas.entry(*partition).or_insert_with(make);
            }
        }
        let places: Vec<Place> = self.places.values().cloned().collect();
        for place in places {
            let leads = place.group.primary().is_some_and(|p| p.brick == brick);
            let began = self.with(now, place.route.partition, |replica, out| {
                let (doubt, old) = (replica.is_busy(), replica.route().epoch);
                replica.set_group(now, me, place.route, &place.group, out);
                let new = replica.route().epoch > old;
                (doubt && leads && new && old > 0, new)
            });
            if let Some((_, true)) = began {
                self.note(place.route.partition);
            }
            if let Some((true, _)) = began {
                self.effects.push(Effect::Saw("an epoch begins with records in doubt"));
            }
        }
    }
}

fn durability(durability: Durability) -> firebrick_log::Durability {
    match durability {
        Durability::Memory => firebrick_log::Durability::Memory,
        Durability::Async { ms } => firebrick_log::Durability::Async { ms },
        Durability::Sync => firebrick_log::Durability::Sync,
    }
}

/// What the control thread makes of a replica's report.
fn translate(report: replica::Report) -> Report {
    match report {
        replica::Report::Active { partition, epoch } => Report::Active { partition, epoch },
        replica::Report::Copied { partition, epoch, learner } => {
            Report::Copied { partition, epoch, learner }
        }
        replica::Report::Stopped { partition, epoch } => Report::Stopped { partition, epoch },
        replica::Report::Silent { partition, epoch, brick } => {
            Report::Silent { partition, epoch, brick }
        }
        replica::Report::Damaged { partition, epoch } => Report::Damaged { partition, epoch },
    }
}
