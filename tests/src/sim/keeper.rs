//! The keepers as one place: the replicated state, and a leader that changes.
//!
//! Raft itself is not simulated: an entry that is applied is applied for good, one that was proposed
//! when the leader changes is either applied before the new leader begins or never.

use firebrick_partition::keeper::{
    Applied, Entry, Gate, Heartbeat, Keepers, LeaseAnswer, Leases, Planner, Registration, Ticket,
    Wish, plan,
};
use firebrick_partition::maps::Intent;

use super::clock::{Clock, Ns};
use crate::random::Random;

/// An entry on its way through the log.
#[derive(Debug)]
pub struct Flying {
    pub id: u64,
    ticket: Ticket,
    pub entry: Entry,
    /// The machine that asked to be registered.
    pub asked_by: Option<usize>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Keeper {
    pub state: Keepers,
    leases: Leases,
    planner: Planner,
    clock: Clock,
    /// Counts leaders.
    pub term: u64,
    /// No leader before this time.
    pub down_until: Ns,
    pub flying: Vec<Flying>,
    next_id: u64,
}

impl Keeper {
    /// Nothing is known yet.
    pub fn new(random: &mut Random) -> Self {
        let mut keeper = Self {
            state: Keepers::default(),
            leases: Leases::default(),
            planner: Planner::default(),
            clock: Clock::new(random),
            term: 1,
            down_until: 0,
            flying: Vec::new(),
            next_id: 1,
        };
        keeper.leases.lead(keeper.clock.at(0), &keeper.state);
        keeper
    }

    /// There is a leader.
    pub fn is_up(&self, now: Ns) -> bool {
        now >= self.down_until
    }

    /// The leader is gone; a new one begins at `until`, on another machine's clock.
    pub fn fall(&mut self, until: Ns, random: &mut Random) {
        self.down_until = until;
        self.clock = Clock::new(random);
        self.term += 1;
    }

    /// The new leader begins. Nothing is on its way any more.
    pub fn lead(&mut self, now: Ns) {
        self.leases = Leases::default();
        self.planner = Planner::default();
        self.leases.lead(self.clock.at(now), &self.state);
    }

    /// A heartbeat came.
    pub fn on_beat(&mut self, now: Ns, heartbeat: &Heartbeat) -> bool {
        self.leases.heartbeat(self.clock.at(now), &self.state, heartbeat)
    }

    /// The answer to it, after a check of the leadership.
    pub fn answer(&mut self, now: Ns, heartbeat: &Heartbeat) -> Option<LeaseAnswer> {
        let Heartbeat { brick, incarnation, version, .. } = *heartbeat;
        self.leases.answer(self.clock.at(now), &self.state, brick, incarnation, version)
    }

    /// A process wants to act for its brick. The entry that is proposed, if any.
    pub fn on_register(&mut self, now: Ns, from: usize, new: &Registration) -> Option<u64> {
        if self.flying.iter().any(|f| f.asked_by == Some(from)) {
            return None;
        }
        match self.leases.register(self.clock.at(now), &self.state, new, false) {
            Gate::Propose(entry) => self.propose(now, entry, Some(from)),
            Gate::NotBefore(_) | Gate::Finite => None,
        }
    }

    /// Proposes an entry, if nothing speaks against it; its number.
    pub fn propose(&mut self, now: Ns, entry: Entry, asked_by: Option<usize>) -> Option<u64> {
        let ticket = self.leases.proposed(self.clock.at(now), &self.state, &entry)?;
        let id = self.next_id;
        self.next_id += 1;
        self.flying.push(Flying { id, ticket, entry, asked_by });
        Some(id)
    }

    /// Plans. The numbers of what is proposed.
    pub fn plan(&mut self, now: Ns) -> Vec<u64> {
        let local = self.clock.at(now);
        let entries = plan(local, &self.state, &mut self.leases, &mut self.planner);
        entries.into_iter().filter_map(|entry| self.propose(now, entry, None)).collect()
    }

    /// An entry is applied.
    pub fn apply(&mut self, id: u64) -> Option<(Flying, Applied)> {
        let at = self.flying.iter().position(|f| f.id == id)?;
        let flying = self.flying.remove(at);
        let applied = self.state.apply(&flying.entry);
        self.leases.settled(flying.ticket);
        Some((flying, applied))
    }

    /// An entry that is applied nowhere.
    pub fn forget(&mut self, id: u64) {
        if let Some(at) = self.flying.iter().position(|f| f.id == id) {
            self.leases.settled(self.flying.remove(at).ticket);
        }
    }

    /// Of every group, another member of the last active one, that is one now too, has kept everything.
    pub fn has_others(&self, has_memory: impl Fn(u32) -> bool) -> bool {
        self.state.groups().all(|(_, group)| {
            let is_member = |brick: u32| group.replicas.members.iter().any(|m| m.brick == brick);
            let mut kept = group.kept.iter();
            kept.any(|k| k.intact && is_member(k.brick) && has_memory(k.brick))
        })
    }

    /// The brick is being emptied, or will be as soon as what is on its way is applied.
    pub fn is_emptied(&self, brick: u32) -> bool {
        let is_it =
            |f: &Flying| matches!(f.entry, Entry::Drain { brick: of, on: true } if of == brick);
        self.state.brick(brick).is_some_and(|b| b.draining) || self.flying.iter().any(is_it)
    }

    /// The entry that asks the primary of a partition (by its place in the maps) to step down.
    pub fn hand_over(&self, now: Ns, partition: usize) -> Option<Entry> {
        let (partition, group) = self.state.groups().nth(partition)?;
        let primary = group.replicas.primary()?;
        let (epoch, intent) = (group.replicas.epoch, Intent::StepDown { brick: primary.brick });
        let may = group.replicas.members.len() >= 2 && self.is_up(now);
        may.then_some(Entry::SetIntent { partition, epoch, intent })
    }

    /// The primary of a partition (by its place in the maps), and one of its backups.
    pub fn primary_and_backup(&self, partition: usize, random: &mut Random) -> Option<(u32, u32)> {
        let (_, group) = self.state.groups().nth(partition)?;
        let [primary, backups @ ..] = &group.replicas.members[..] else { return None };
        let chosen = random.below(backups.len().max(1) as u64) as usize;
        Some((primary.brick, backups.get(chosen)?.brick))
    }

    /// An operator's wish that a replica of a partition (by its place in the maps) moves, or leads.
    pub fn wish_a_move(&self, partition: usize, random: &mut Random) -> Option<Entry> {
        let (partition, group) = self.state.groups().nth(partition)?;
        let members: Vec<u32> = group.replicas.members.iter().map(|m| m.brick).collect();
        let others = self.state.bricks().map(|b| b.id).filter(|id| !members.contains(id));
        let others: Vec<u32> = others.collect();
        let any = |ids: &[u32], chance: u64| ids[chance as usize % ids.len()];
        let (from, to) = (random.next_u64(), random.next_u64());
        let wish = match (&members[..], &others[..]) {
            ([_, backups @ ..], []) if !backups.is_empty() => Wish::Lead { to: any(backups, to) },
            ([_, ..], [_, ..]) => Wish::Move { from: any(&members, from), to: any(&others, to) },
            _ => return None,
        };
        Some(Entry::Wish { partition, wish: Some(wish) })
    }

    /// Makes a table on the bricks that are there.
    pub fn create_table(
        &mut self,
        now: Ns,
        name: &str,
        options: firebrick_partition::maps::TableOptions,
    ) -> Result<Option<u64>, String> {
        let local = self.clock.at(now);
        let entry = firebrick_partition::keeper::create_table(
            local,
            &self.state,
            &self.leases,
            name,
            options,
        )?;
        Ok(self.propose(now, entry, None))
    }
}

/// The kind of an entry, for counting.
pub fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::Register { replaces: Some(_), .. } => "a restarted process registers",
        Entry::TakeOut { .. } => "a brick is taken out",
        Entry::Active { .. } => "an epoch becomes active",
        Entry::NameLearner { .. } => "a learner is named",
        Entry::DropLearner { .. } => "a learner is dropped",
        Entry::Promote { .. } => "a learner is promoted",
        Entry::SetIntent { .. } => "a hand-over is asked for",
        Entry::Withdraw { .. } => "a hand-over is withdrawn",
        Entry::Leave { .. } => "a live brick leaves",
        Entry::StepDown { .. } => "a primary steps down",
        Entry::Damaged { .. } => "a member reports damage",
        Entry::Lead { .. } => "a stopped group is led",
        Entry::Drain { on: true, .. } => "a brick is emptied",
        Entry::Wish { .. } => "a move is wished",
        Entry::EndWish { .. } => "a move is given up",
        _ => "another entry",
    }
}

/// An entry, for people.
pub fn brief(entry: &Entry) -> String {
    match entry {
        Entry::Register { registration: r, replaces, proof } => format!(
            "Register {} process {} instead of {replaces:?} ({proof:?}, memory {})",
            r.name, r.incarnation, r.memory_intact
        ),
        other => format!("{other:?}"),
    }
}
