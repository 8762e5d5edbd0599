//! What only the leader can answer: joins, operators' requests, the maps.

use std::sync::Arc;

use firebrick_partition::keeper::{
    Applied, Entry, Gate, Registration, create_table, lead_anyway, partitions_for,
};
use tokio::sync::oneshot;

use super::net::{Admin, Answer, Ask, JoinAnswer};
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
        let own = registration.incarnation == self.incarnation && self.is_alone();
        let now = boot_ns();
        let gate = {
            let state = self.shown.lock();
            lock(&self.leases).register(now, &state.keepers, &registration, own)
        };
        let entry = match gate {
            Gate::Propose(entry) => entry,
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
            return Answer::Refused("too many changes are under way; try again".into());
        };
        let entry = match self.entry_for(admin) {
            Ok(entry) => entry,
            Err(why) => return Answer::Refused(why),
        };
        match self.propose(term, entry, Some(place)).await {
            Ok(Ok((Applied::Nothing(why), _)) | Err(why)) => Answer::Refused(why),
            Ok(Ok((applied, version))) => Answer::Applied { applied, version },
            Err(_) => Answer::Refused("the keeper is stopping".into()),
        }
    }

    fn entry_for(&self, admin: Admin) -> Result<Entry, String> {
        let state = self.shown.lock();
        let keepers = &state.keepers;
        let brick_id = |name: &str| {
            let brick = keepers.brick_named(name);
            brick.map(|brick| brick.id).ok_or_else(|| {
                let names: Vec<_> = keepers.bricks().map(|brick| brick.name.as_str()).collect();
                format!("no brick \"{name}\"; the bricks are {}", names.join(", "))
            })
        };
        Ok(match admin {
            Admin::CreateTable { name, mut options, per_core } => {
                if options.partitions == 0 {
                    let cores = keepers.bricks().map(|brick| u32::from(brick.cores)).sum();
                    options.partitions = partitions_for(cores, per_core);
                }
                create_table(boot_ns(), keepers, &lock(&self.leases), &name, options)?
            }
            Admin::DropTable { name } => Entry::DropTable { name },
            Admin::Forgotten { brick, partitions } => Entry::Forgotten { brick, partitions },
            Admin::Drain { brick, on } => Entry::Drain { brick: brick_id(&brick)?, on },
            Admin::RemoveBrick { brick } => Entry::RemoveBrick { brick: brick_id(&brick)? },
            Admin::LeadAnyway { partition, brick } => {
                let brick = brick.map(|name| brick_id(&name)).transpose()?;
                lead_anyway(boot_ns(), keepers, &lock(&self.leases), partition, brick)?
            }
            Admin::Settings(settings) => Entry::Settings(settings),
        })
    }
}
