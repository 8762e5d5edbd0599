//! What only the leader of the keepers knows, and only while it leads: who was heard, until when leases run.
//!
//! A brick counts its lease from before its request, the leader from its answer on and a tenth longer, so with
//! clocks whose rates differ by less than a tenth the brick's lease is over before the leader thinks so. A leader
//! that is new does not know what the one before it answered: it counts every brick's lease from its own start.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Entry, Proof, Registration};
use super::heartbeat::{CopyFigure, Figure, Heartbeat, Lack, LeaseAnswer, Report, Room};
use super::register::has_lock_of;
use super::state::Keepers;

const MS: u64 = 1_000_000;
/// A report that was not repeated for so long counts no more. (Replicas repeat them each 100 ms.)
const REPORT_NS: u64 = 1_000 * MS;

/// An entry that is proposed and not yet applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Whether a process may register now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Propose this.
    Propose(Entry),
    /// Not before this time: an older process may hold a lease until then.
    NotBefore(u64),
    /// The only brick gives up its lease without end first: ask again soon.
    Finite,
}

/// What rests until an entry is applied.
#[derive(Clone, Debug, Default)]
struct Hold {
    /// Processes whose heartbeats are not answered.
    bricks: Vec<(u32, u64)>,
    /// Partitions about which nothing else is proposed.
    partitions: Vec<u32>,
    /// Bricks about which nothing else is proposed.
    busy: Vec<u32>,
}

impl Hold {
    fn of(keepers: &Keepers, entry: &Entry) -> Self {
        let mut hold = Self::default();
        match *entry {
            Entry::TakeOut { brick, incarnation } => {
                hold.bricks.push((brick, incarnation));
                hold.busy.push(brick);
            }
            Entry::Register { ref registration, replaces: Some(old), proof: Proof::LeaseEnded } => {
                if let Some(brick) = keepers.brick_of(registration.identity) {
                    hold.bricks.push((brick.id, old));
                }
            }
            Entry::Lead { partition, brick, .. } => {
                let group = keepers.group(partition);
                let members = group.iter().flat_map(|group| &group.replicas.members);
                let others = members.filter(|m| m.brick != brick);
                hold.bricks.extend(others.map(|m| (m.brick, m.incarnation)));
                hold.partitions.push(partition);
            }
            Entry::NameLearner { partition, .. }
            | Entry::DropLearner { partition, .. }
            | Entry::Promote { partition, .. }
            | Entry::SetIntent { partition, .. }
            | Entry::Withdraw { partition, .. }
            | Entry::Leave { partition, .. }
            | Entry::StepDown { partition, .. }
            | Entry::EndWish { partition, .. }
            | Entry::Damaged { partition, .. } => hold.partitions.push(partition),
            Entry::Active { ref groups, .. } => {
                hold.partitions.extend(groups.iter().map(|group| group.0));
            }
            _ => {}
        }
        hold
    }
}

/// A copy to a brick, and how fast it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Copying {
    /// As it was said last.
    pub(super) figure: CopyFigure,
    /// Bytes that came in a second.
    pub(super) copied_per_s: u64,
    /// Bytes that were gone through in a second.
    pub(super) passed_per_s: u64,
    /// Where the rate is measured from.
    since: u64,
    from: CopyFigure,
}

/// A rate is of at least so long.
const RATE_NS: u64 = 1_000 * MS;

impl Copying {
    fn next(mut self, now: u64, figure: CopyFigure) -> Self {
        let restarted = figure.passed_bytes < self.figure.passed_bytes;
        if self.since == 0 || restarted {
            return Self { figure, since: now, from: figure, ..Self::default() };
        }
        self.figure = figure;
        let took = now - self.since;
        // Until there is a first second, whatever there is tells more than nothing.
        if took >= RATE_NS || (self.copied_per_s == 0 && took > 0) {
            let rate = |bytes: u64| (u128::from(bytes) * 1_000_000_000 / u128::from(took)) as u64;
            self.copied_per_s = rate(figure.copied_bytes.saturating_sub(self.from.copied_bytes));
            self.passed_per_s = rate(figure.passed_bytes - self.from.passed_bytes);
        }
        if took >= RATE_NS {
            (self.since, self.from) = (now, figure);
        }
        self
    }
}

/// One brick's process, as heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    incarnation: u64,
    /// When its last heartbeat came.
    heard: u64,
    /// Its lease is over by then.
    end: u64,
    version: u64,
    endless: bool,
    room: Room,
    copy_pace: u64,
    figures: BTreeMap<u32, Figure>,
    copies: BTreeMap<u32, Copying>,
    pid: u32,
    lack: Option<Lack>,
    /// Report: since when, and when last.
    reports: BTreeMap<Report, (u64, u64)>,
    /// Since when it cannot reach a brick.
    unreachable: BTreeMap<u32, u64>,
}

/// The leader's memory.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    /// What earlier leaders gave is over by then.
    old_until: u64,
    seen: BTreeMap<u32, Seen>,
    holds: BTreeMap<Ticket, Hold>,
    tickets: u64,
    /// Processes that were let in, and until when they may have to be heard for the first time.
    fresh: BTreeMap<u64, u64>,
    someone_joins: bool,
    suspended: BTreeSet<u32>,
}

/// A lease as the keepers count it.
fn counted(lease_ms: u64) -> u64 {
    lease_ms * MS / 10 * 11
}

impl Leases {
    /// Begins to lead, at start too. Call it when the first entry of the own term is applied: what an earlier
    /// leader proposed is settled by then.
    pub fn lead(&mut self, now: u64, keepers: &Keepers) {
        let tickets = self.tickets;
        *self =
            Self { tickets, old_until: now + counted(keepers.lease_ms_longest), ..Self::default() };
    }

    /// A heartbeat came. False: this process does not act for that brick. Answer it with [`Leases::answer`],
    /// after a check of the leadership that began later.
    pub fn heartbeat(&mut self, now: u64, keepers: &Keepers, heartbeat: &Heartbeat) -> bool {
        let (brick, incarnation) = (heartbeat.brick, heartbeat.incarnation);
        if !keepers.is_current(brick, incarnation) {
            return false;
        }
        self.seen.retain(|brick, _| keepers.brick(*brick).is_some());
        let seen = self.seen_of(brick, incarnation);
        (seen.heard, seen.version, seen.endless) = (now, heartbeat.version, heartbeat.endless);
        (seen.room, seen.copy_pace) = (heartbeat.room, heartbeat.copy_pace);
        for figure in &heartbeat.figures {
            if keepers.group(figure.partition).is_some() {
                seen.figures.insert(figure.partition, *figure);
            }
        }
        seen.figures.retain(|partition, _| keepers.group(*partition).is_some());
        (seen.pid, seen.lack) = (heartbeat.pid, heartbeat.lack.clone());
        let before = std::mem::take(&mut seen.copies);
        let is_there = |copy: &&CopyFigure| keepers.group(copy.partition).is_some();
        for copy in heartbeat.copies.iter().filter(is_there) {
            let old = before.get(&copy.partition).copied().unwrap_or_default();
            seen.copies.insert(copy.partition, old.next(now, *copy));
        }
        let is_now = |report: &Report| {
            let (partition, epoch) = report.at();
            keepers.group(partition).is_some_and(|group| group.replicas.epoch == epoch)
        };
        for report in heartbeat.reports.iter().filter(|report| is_now(report)) {
            seen.reports.entry(*report).or_insert((now, now)).1 = now;
        }
        // A vote that came late withdraws the complaint; what else is reported is true until it took effect.
        let holds = |report: &Report| match report {
            Report::Silent { .. } => heartbeat.reports.contains(report),
            _ => true,
        };
        seen.reports
            .retain(|report, (_, last)| is_now(report) && holds(report) && *last + REPORT_NS > now);
        seen.unreachable.retain(|brick, _| heartbeat.unreachable.contains(brick));
        for other in &heartbeat.unreachable {
            if *other != brick && keepers.brick(*other).is_some() {
                seen.unreachable.entry(*other).or_insert(now);
            }
        }
        true
    }

    /// What is known of this process; what was known of an older one is forgotten, and that others did not reach it.
    fn seen_of(&mut self, brick: u32, incarnation: u64) -> &mut Seen {
        let before = self.seen.get(&brick).map(|seen| seen.incarnation);
        if before != Some(incarnation) {
            // (A leader that is new has heard of none before.)
            if before.is_some() {
                self.seen.values_mut().for_each(|other| _ = other.unreachable.remove(&brick));
            }
            self.seen.insert(brick, Seen { incarnation, ..Seen::default() });
            self.suspended.remove(&brick);
        }
        self.seen.entry(brick).or_default()
    }

    /// The answer to a heartbeat with the maps at `since`, to be sent at once; `now` is not before the check of
    /// the leadership ended. `None`: no answer, on purpose.
    pub fn answer(
        &mut self,
        now: u64,
        keepers: &Keepers,
        brick: u32,
        incarnation: u64,
        since: u64,
    ) -> Option<LeaseAnswer> {
        if !keepers.is_current(brick, incarnation) {
            let known = keepers.brick(brick).is_some();
            return Some(if known { LeaseAnswer::Register } else { LeaseAnswer::Removed });
        }
        if self.suspended.contains(&brick) || self.is_held(brick, incarnation) {
            return None;
        }
        let lease_ms = keepers.settings.lease_ms;
        let endless = keepers.endless && !self.someone_joins;
        let seen = self.seen_of(brick, incarnation);
        seen.end = seen.end.max(now + counted(lease_ms));
        seen.endless |= endless;
        let lease_ms = (!endless).then_some(lease_ms);
        Some(LeaseAnswer::Granted { lease_ms, delta: keepers.changes_since(since) })
    }

    fn is_held(&self, brick: u32, incarnation: u64) -> bool {
        self.holds.values().any(|hold| hold.bricks.contains(&(brick, incarnation)))
    }

    /// Until when the process that acts for a brick may hold a lease.
    pub fn held_until(&self, keepers: &Keepers, brick: u32) -> u64 {
        if keepers.endless {
            return u64::MAX;
        }
        let seen = self.seen.get(&brick).filter(|s| keepers.is_current(brick, s.incarnation));
        let fresh = keepers.brick(brick).and_then(|b| self.fresh.get(&b.incarnation));
        self.old_until.max(seen.map_or(0, |seen| seen.end)).max(fresh.copied().unwrap_or(0))
    }

    /// The brick may hold a lease.
    pub fn is_held_now(&self, now: u64, keepers: &Keepers, brick: u32) -> bool {
        now < self.held_until(keepers, brick)
    }

    /// The brick was heard within a lease, and gets answers.
    pub fn is_live(&self, now: u64, keepers: &Keepers, brick: u32) -> bool {
        let lease = keepers.settings.lease_ms * MS;
        let live = |seen: &Seen| {
            keepers.is_current(brick, seen.incarnation)
                && now <= seen.heard + lease
                && now < seen.end
        };
        !self.suspended.contains(&brick) && self.seen.get(&brick).is_some_and(live)
    }

    /// What a process must wait for before it acts for a brick. `own`: it is the process of this keeper, which
    /// is the only one. Ask again after the answer; the entry checks what it can once more.
    pub fn register(&mut self, now: u64, keepers: &Keepers, new: &Registration, own: bool) -> Gate {
        let old = keepers.brick_of(new.identity);
        let propose = |replaces, proof| {
            let mut registration = Box::new(new.clone());
            let before = std::mem::take(&mut registration.before);
            // (Or it asks again, and is that process.)
            let is_its = |last: u64| last == new.incarnation || before.contains(&last);
            if old.is_some_and(|old| !is_its(old.incarnation)) {
                // Files from before the last process, or from beside it: a backup that was put back, or a copy.
                (registration.memory_intact, registration.disk_intact) = (false, false);
            }
            Gate::Propose(Entry::Register { registration, replaces, proof })
        };
        let Some(old) = old else {
            if keepers.endless && keepers.bricks().next().is_some() {
                self.someone_joins = true;
                return Gate::Finite;
            }
            return propose(None, Proof::First);
        };
        let replaces = Some(old.incarnation);
        if old.incarnation == new.incarnation {
            return propose(replaces, Proof::First);
        }
        if has_lock_of(new, old) {
            return propose(replaces, Proof::SameLock);
        }
        if own && keepers.endless {
            return propose(replaces, Proof::OwnKeeper);
        }
        let until = self.held_until(keepers, old.id);
        if now < until { Gate::NotBefore(until) } else { propose(replaces, Proof::LeaseEnded) }
    }

    /// Call before proposing any entry. `None`: a lease on which it rests is not over, or something about the
    /// same is under way; do not propose it. While the ticket is out, those whose lease must stay over get no answers.
    pub fn proposed(&mut self, now: u64, keepers: &Keepers, entry: &Entry) -> Option<Ticket> {
        let hold = Hold::of(keepers, entry);
        let over = |(brick, incarnation): &(u32, u64)| {
            !keepers.is_current(*brick, *incarnation) || !self.is_held_now(now, keepers, *brick)
        };
        let free = hold.partitions.iter().all(|partition| !self.is_busy(*partition));
        if !hold.bricks.iter().all(over) || !free {
            return None;
        }
        if let Entry::Register { registration, .. } = entry {
            // It is not taken out before it had the time for a heartbeat.
            let until = now + counted(keepers.settings.lease_ms);
            self.fresh.retain(|_, until| now < *until);
            self.fresh.insert(registration.incarnation, until);
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.holds.insert(ticket, hold);
        Some(ticket)
    }

    /// The entry was applied, or cannot be any more.
    pub fn settled(&mut self, ticket: Ticket) {
        self.holds.remove(&ticket);
    }

    /// Something about the partition is proposed.
    pub(super) fn is_busy(&self, partition: u32) -> bool {
        self.holds.values().any(|hold| hold.partitions.contains(&partition))
    }

    /// Something about the brick is proposed.
    pub(super) fn is_brick_busy(&self, brick: u32) -> bool {
        self.holds.values().any(|hold| hold.busy.contains(&brick))
    }

    /// These bricks get no more answers until they were taken out.
    pub(super) fn suspend(&mut self, keepers: &Keepers, bricks: BTreeSet<u32>) {
        self.suspended.extend(bricks);
        self.suspended.retain(|id| keepers.brick(*id).is_some_and(|b| keepers.can_be_taken_out(b)));
    }

    /// The only brick gave up its lease without end for somebody who wants to join.
    pub(super) fn gave_up_endless(&self, keepers: &Keepers) -> Option<(u32, u64)> {
        let brick = keepers.bricks().next().filter(|_| keepers.endless && self.someone_joins)?;
        let seen = self.seen.get(&brick.id)?;
        let gave_up = seen.incarnation == brick.incarnation && !seen.endless && seen.heard > 0;
        gave_up.then_some((brick.id, brick.incarnation))
    }

    /// What a brick's process reports now, with the time since when.
    pub(super) fn reports(&self, keepers: &Keepers, brick: u32) -> Vec<(Report, u64)> {
        let seen = self.seen.get(&brick).filter(|s| keepers.is_current(brick, s.incarnation));
        let reports = seen.map(|seen| seen.reports.iter().map(|(report, at)| (*report, at.0)));
        reports.into_iter().flatten().collect()
    }

    /// Whom a brick cannot reach, and since when.
    pub(super) fn unreachable(&self, brick: u32) -> impl Iterator<Item = (u32, u64)> {
        let seen = self.seen.get(&brick);
        seen.into_iter().flat_map(|seen| seen.unreachable.iter().map(|(brick, at)| (*brick, *at)))
    }

    /// Figures of a brick's replica.
    pub fn figure(&self, brick: u32, partition: u32) -> Option<&Figure> {
        self.seen.get(&brick)?.figures.get(&partition)
    }

    /// How far a copy to a brick is.
    pub(super) fn copying(&self, keepers: &Keepers, brick: u32, partition: u32) -> Option<Copying> {
        let seen = self.seen.get(&brick).filter(|s| keepers.is_current(brick, s.incarnation))?;
        seen.copies.get(&partition).copied()
    }

    /// A brick's process, as it said last.
    pub(super) fn pid(&self, keepers: &Keepers, brick: u32) -> Option<u32> {
        let seen = self.seen.get(&brick).filter(|s| keepers.is_current(brick, s.incarnation));
        seen.map(|seen| seen.pid).filter(|pid| *pid > 0)
    }

    /// A brick has no room, as it said last: it is given nothing new.
    pub(super) fn is_full(&self, brick: u32) -> bool {
        self.lack(brick).is_some_and(|lack| lack.full)
    }

    /// A brick does not serve the partition for lack of room or of good files, as it said last.
    pub(super) fn lacks(&self, brick: u32, partition: u32) -> bool {
        self.lack(brick).is_some_and(|lack| lack.partitions.contains(&partition))
    }

    /// A brick could serve the partition, as far as it has said.
    pub(super) fn could_serve(&self, brick: u32, partition: u32) -> bool {
        !self.is_full(brick) && !self.lacks(brick, partition)
    }

    /// What a brick has no room for, as it said last.
    pub fn lack(&self, brick: u32) -> Option<&Lack> {
        self.seen.get(&brick)?.lack.as_ref()
    }

    /// A brick's memory, as it said last.
    pub fn room(&self, brick: u32) -> Option<Room> {
        self.seen.get(&brick).map(|seen| seen.room)
    }

    /// How fast a brick's copies may be, as it said last.
    pub(super) fn copy_pace(&self, brick: u32) -> u64 {
        self.seen.get(&brick).map_or(0, |seen| seen.copy_pace)
    }

    /// Version of the maps that all cores of a brick have applied.
    pub fn version(&self, brick: u32) -> Option<u64> {
        self.seen.get(&brick).map(|seen| seen.version)
    }

    /// When a brick was last heard.
    pub fn heard(&self, brick: u32) -> Option<u64> {
        self.seen.get(&brick).map(|seen| seen.heard)
    }
}
