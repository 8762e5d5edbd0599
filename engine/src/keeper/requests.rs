//! What only the leader can answer: joins, operators' requests, the maps.

use std::collections::BTreeSet;
use std::sync::Arc;

use firebrick_partition::keeper::{
    Applied, Entry, Gate, Keepers, Overview, Registration, Wish, create_table, lead_anyway,
    partitions_for,
};
use firebrick_partition::maps::TableOptions;
use tokio::sync::oneshot;

use super::net::{Admin, Answer, Ask, JoinAnswer, Refusal, Why};
use super::node::{Node, lock};
use super::types::NodeId;
use crate::clock::boot_ns;

/// A process that has to wait is told to ask again after at most so long.
const WAIT_MS_MAX: u64 = 1_000;

impl Node {
    pub(super) async fn answer_as_leader(self: &Arc<Self>, ask: Ask) -> Answer {
        match ask {
            Ask::Heartbeat(beat) => {
                let (answer, answered) = oneshot::channel();
                if self.beats.try_send((beat, answer)).is_err() {
                    return Answer::Refused("too many heartbeats wait".into());
                }
                answered.await.unwrap_or(Answer::NotLeader { leader: None })
            }
            Ask::Join { registration, has_log } => self.join(*registration, has_log).await,
            Ask::Admin(admin) => self.admin(admin).await,
            Ask::Maps { since } => match self.check().await {
                Some(_) => Answer::Maps(self.shown.lock().keepers.changes_since(since)),
                None => Answer::NotLeader { leader: None },
            },
            Ask::Overview => match self.check().await {
                Some(term) => Answer::Overview {
                    overview: Box::new(self.overview().await),
                    leader: self.brick,
                    term: term.term,
                },
                None => Answer::NotLeader { leader: None },
            },
            Ask::Append(_) | Ask::Vote(_) | Ask::Snapshot { .. } => {
                Answer::Refused("that is between keepers".into())
            }
        }
    }

    async fn join(self: &Arc<Self>, registration: Registration, has_log: bool) -> Answer {
        let Some(term) = self.check().await else { return Answer::NotLeader { leader: None } };
        if !has_log && let Some(refusal) = self.refuse_forgetful(&registration) {
            return Answer::Refused(refusal);
        }
        if self.waits_for_founder(&registration) {
            return Answer::Join(JoinAnswer::Wait { ms: 50 });
        }
        if has_log && self.is_removed(&registration) {
            return Answer::Join(JoinAnswer::Removed);
        }
        let own = registration.incarnation == self.incarnation && self.is_alone();
        let now = boot_ns();
        let gate = {
            let state = self.shown.lock();
            lock(&self.leases).register(now, &state.keepers, &registration, own)
        };
        let entry = match gate {
            Gate::Propose(entry) => {
                self.tell_older(&registration, &entry);
                entry
            }
            Gate::NotBefore(until) => {
                let ms = (until.saturating_sub(now) / 1_000_000 + 1).min(WAIT_MS_MAX);
                return Answer::Join(JoinAnswer::Wait { ms });
            }
            Gate::Finite => return Answer::Join(JoinAnswer::Wait { ms: 50 }),
        };
        match self.propose(term, entry, None).await {
            Ok(Ok((Applied::Registered { brick, stopped }, _))) => {
                if !stopped.is_empty() {
                    self.notices.say(format!(
                        "brick \"{}\" came back without what it had, and was the last of its groups: \
                         partitions {stopped:?} have stopped",
                        registration.name
                    ));
                }
                let dropped = self.shown.lock().keepers.dropped(brick);
                let (cluster, keepers) = (self.cluster, self.keepers_at());
                Answer::Join(JoinAnswer::Joined { cluster, brick, keepers, dropped })
            }
            Ok(Ok((other, _))) => {
                Answer::Refused(other.refusal().unwrap_or("it was not registered").to_owned())
            }
            Ok(Err(_)) => Answer::Join(JoinAnswer::Wait { ms: 50 }),
            Err(_) => Answer::NotLeader { leader: None },
        }
    }

    /// Says that what a brick brings counts for nothing.
    fn tell_older(&self, asked: &Registration, entry: &Entry) {
        if let Entry::Register { registration: judged, .. } = entry
            && asked.disk_intact
            && !judged.disk_intact
        {
            self.notices.say(format!(
                "brick \"{}\" brings files of an earlier process than its last one (from a backup, or a copy of its \
                 data_dir): they do not count as what it acknowledged",
                asked.name
            ));
        }
    }

    /// The founder is the first brick, whoever else asks before it: its folder says so already.
    fn waits_for_founder(&self, new: &Registration) -> bool {
        let empty = self.shown.lock().keepers.bricks().next().is_none();
        empty && new.incarnation != self.incarnation
    }

    /// It has been a brick of this cluster, and is none any more. (A founder's first registration is the first of all.)
    fn is_removed(&self, new: &Registration) -> bool {
        let state = self.shown.lock();
        state.keepers.bricks().next().is_some() && state.keepers.brick_of(new.identity).is_none()
    }

    /// The cluster, as this leader sees it. A keeper is who votes, and who is to.
    async fn overview(&self) -> Overview {
        let voting = self.voting().await;
        let mut overview = {
            let state = self.shown.lock();
            Overview::new(boot_ns(), &state.keepers, &lock(&self.leases))
        };
        for brick in &mut overview.bricks {
            brick.keeper |= voting.contains(&brick.id);
        }
        overview
    }

    /// A keeper that lost its log has forgotten whom it voted for.
    fn refuse_forgetful(&self, new: &Registration) -> Option<String> {
        let brick = self.shown.lock().keepers.brick_of(new.identity)?.id;
        let metrics = self.raft.metrics();
        let membership = Arc::clone(&metrics.borrow().membership_config);
        membership.membership().get_node(&NodeId::from(brick))?;
        Some(format!(
            "brick \"{}\" (number {brick}) is a keeper, and its keeper's folder is gone: it has forgotten \
             what it voted for; put the folder back, or start it with an empty data_dir, as a new brick \
             with another name, and remove the old one",
            new.name
        ))
    }

    async fn admin(self: &Arc<Self>, admin: Admin) -> Answer {
        let Some(term) = self.check().await else { return Answer::NotLeader { leader: None } };
        let Ok(place) = Arc::clone(&self.proposals).try_acquire_owned() else {
            let text = "too many changes are under way; try again";
            return Answer::Declined(Refusal::new(Why::NotNow, text));
        };
        let refuse = |text: String| Answer::Declined(Refusal::new(self.why(&admin), text));
        let entry = match self.entry_for(admin.clone()).await {
            Ok(entry) => entry,
            Err(text) => return refuse(text),
        };
        match self.propose(term, entry, Some(place)).await {
            Ok(Ok((Applied::Nothing(text), _))) => refuse(text),
            Ok(Ok((applied, version))) => Answer::Applied { applied, version },
            Ok(Err(refusal)) => Answer::Declined(refusal),
            Err(_) => Answer::Declined(Refusal::new(Why::InDoubt, "the keeper is stopping")),
        }
    }

    /// What a refusal is about: something that is not there, or is there already.
    fn why(&self, admin: &Admin) -> Why {
        let state = self.shown.lock();
        let brick = |name: &String| state.keepers.brick_named(name).is_some();
        let table = |name: &String| state.keepers.table_named(name).is_some();
        let group = |partition: u32| state.keepers.group(partition).is_some();
        let is_there = match admin {
            Admin::CreateTable { name, .. } if table(name) => return Why::Exists,
            Admin::CreateTable { .. } | Admin::Forgotten { .. } | Admin::Settings(_) => true,
            Admin::DropTable { name, id } => is_it(&state.keepers, name, *id),
            Admin::Drain { brick: name, .. } | Admin::RemoveBrick { brick: name } => brick(name),
            Admin::Move { partition, from, to } => group(*partition) && brick(from) && brick(to),
            Admin::HandOver { partition, to } => group(*partition) && brick(to),
            Admin::CancelMove { partition } => group(*partition),
            Admin::LeadAnyway { partition, brick: name } => {
                group(*partition) && name.as_ref().is_none_or(brick)
            }
        };
        if is_there { Why::Refused } else { Why::NotFound }
    }

    /// Finds places for a table's partitions, on a thread of its own: on a large cluster that takes longer than the
    /// keepers may stand still. What changes meanwhile makes the entry do nothing.
    async fn new_table(
        &self,
        name: String,
        mut options: TableOptions,
        per_core: u32,
        exact: bool,
    ) -> Result<Entry, String> {
        let (keepers, leases) = {
            let state = self.shown.lock();
            (state.keepers.clone(), lock(&self.leases).clone())
        };
        let place = move || {
            if exact {
                check_replicas(&keepers, &name, options.replicas)?;
            }
            if options.partitions == 0 {
                let cores = keepers.bricks().map(|brick| u32::from(brick.cores)).sum();
                options.partitions = partitions_for(cores, per_core);
            }
            create_table(boot_ns(), &keepers, &leases, &name, options)
        };
        tokio::task::spawn_blocking(place).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Raft's voters follow the keepers' state a little later. A brick that went before would take its vote along.
    async fn removal(&self, name: &str) -> Result<Entry, String> {
        let voting = self.voting().await;
        let brick = brick_id(&self.shown.lock().keepers, name)?;
        if voting.contains(&brick) {
            return Err(format!("brick \"{name}\" is still a keeper: wait until another one is"));
        }
        Ok(Entry::RemoveBrick { brick })
    }

    /// Who votes among the keepers, or did before the last change, if that is not agreed on yet.
    async fn voting(&self) -> BTreeSet<u32> {
        let both = self.raft.with_raft_state(|state| {
            let state = &state.membership_state;
            let both = [state.committed(), state.effective()];
            both.iter().flat_map(|m| m.voter_ids()).map(|id| id as u32).collect()
        });
        // It has ended: nothing will be agreed on here.
        both.await.unwrap_or_default()
    }

    async fn entry_for(&self, admin: Admin) -> Result<Entry, String> {
        let id = |name: &str| brick_id(&self.shown.lock().keepers, name);
        Ok(match admin {
            Admin::CreateTable { name, options, per_core, exact } => {
                self.new_table(name, options, per_core, exact).await?
            }
            Admin::DropTable { name, id } => {
                if !is_it(&self.shown.lock().keepers, &name, id) {
                    return Err(format!("there is no table \"{name}\" any more"));
                }
                Entry::DropTable { name }
            }
            Admin::Forgotten { brick, partitions } => Entry::Forgotten { brick, partitions },
            Admin::Drain { brick, on, fewer_replicas } => {
                let brick = id(&brick)?;
                if on && !fewer_replicas {
                    check_drain(&self.shown.lock().keepers, brick)?;
                }
                Entry::Drain { brick, on }
            }
            Admin::RemoveBrick { brick } => self.removal(&brick).await?,
            Admin::Move { partition, from, to } => {
                let (from, to) = (id(&from)?, id(&to)?);
                self.check_target(partition, to, true)?;
                Entry::Wish { partition, wish: Some(Wish::Move { from, to }) }
            }
            Admin::HandOver { partition, to } => {
                let to = id(&to)?;
                self.check_target(partition, to, false)?;
                Entry::Wish { partition, wish: Some(Wish::Lead { to }) }
            }
            Admin::CancelMove { partition } => Entry::Wish { partition, wish: None },
            Admin::LeadAnyway { partition, brick } => {
                let brick = brick.map(|name| id(&name)).transpose()?;
                let state = self.shown.lock();
                let leases = lock(&self.leases);
                lead_anyway(boot_ns(), &state.keepers, &leases, partition, brick)?
            }
            Admin::Settings(settings) => Entry::Settings(settings),
        })
    }

    /// The brick can take the partition now. What turns up later ends the wish, and status says why.
    fn check_target(&self, partition: u32, to: u32, copy: bool) -> Result<(), String> {
        let state = self.shown.lock();
        let keepers = &state.keepers;
        let name = keepers.brick(to).map_or("", |brick| brick.name.as_str());
        let leases = lock(&self.leases);
        if !leases.is_live(boot_ns(), keepers, to) {
            return Err(format!(
                "brick \"{name}\" is not there: start it first, or name another one"
            ));
        }
        if let Some(lack) = leases.lack(to).filter(|lack| lack.full) {
            return Err(format!("brick \"{name}\" is full, so it is given nothing: {}", lack.why));
        }
        let primary = keepers.group(partition).and_then(|group| group.replicas.primary());
        let figure = primary.and_then(|m| leases.figure(m.brick, partition));
        if let (true, Some(room), Some(figure)) = (copy, leases.room(to), figure)
            && room.total_bytes > 0
            && room.free_bytes < figure.bytes
        {
            return Err(format!(
                "brick \"{name}\" has {} MiB of memory left and partition {partition} has {} MiB: give the \
                 brick more `memory`, or name another one",
                room.free_bytes >> 20,
                figure.bytes >> 20
            ));
        }
        Ok(())
    }
}

/// The table of that name is the one that is meant.
fn is_it(keepers: &Keepers, name: &str, id: Option<u32>) -> bool {
    keepers.table_named(name).is_some_and(|table| id.is_none_or(|id| id == table.id))
}

fn brick_id(keepers: &Keepers, name: &str) -> Result<u32, String> {
    let brick = keepers.brick_named(name);
    brick.map(|brick| brick.id).ok_or_else(|| {
        let names: Vec<_> = keepers.bricks().map(|brick| brick.name.as_str()).collect();
        format!("no brick \"{name}\"; the bricks are {}", names.join(", "))
    })
}

/// As many bricks as there should be replicas.
fn check_replicas(keepers: &Keepers, table: &str, replicas: u8) -> Result<(), String> {
    let bricks = keepers.bricks().filter(|brick| !brick.draining).count();
    if usize::from(replicas) <= bricks {
        return Ok(());
    }
    let there = if bricks == 1 {
        "there is 1 brick".to_owned()
    } else {
        format!("there are {bricks} bricks")
    };
    Err(format!(
        "{replicas} replicas of table \"{table}\" need as many bricks, and {there}: start more bricks first, or \
         give at most {bricks}"
    ))
}

/// Without the brick there are as many bricks as each table wants replicas, if there are now.
fn check_drain(keepers: &Keepers, brick: u32) -> Result<(), String> {
    let now = keepers.bricks().filter(|b| !b.draining).count();
    let draining = keepers.brick(brick).is_some_and(|b| b.draining);
    let left = keepers.bricks().filter(|b| !b.draining && b.id != brick).count();
    if draining || left == 0 {
        return Ok(()); // Nothing changes; or the entry says that it cannot be.
    }
    let wants = |n: usize| (left + 1..=now).contains(&n);
    let short = keepers.tables().filter(|table| wants(usize::from(table.options.replicas)));
    let names: Vec<&str> = short.map(|table| table.name.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let name = keepers.brick(brick).map_or("", |brick| brick.name.as_str());
    Err(format!(
        "without brick \"{name}\" there are {left} bricks, too few for the {now} replicas of {}: add a brick \
         first, or say that fewer replicas will do (--fewer-replicas)",
        names.join(", ")
    ))
}
