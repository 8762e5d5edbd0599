//! What must be true at every moment.

use std::collections::BTreeMap;

use firebrick_engine::parts::Shard;
use firebrick_net::Fabric;
use firebrick_partition::replica::Replica;

use super::clock::Ns;
use super::machine::Machine;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    /// Epoch of every committed record, by partition and sequence number: one record for each number.
    committed: BTreeMap<(u32, u64), u32>,
    /// Epoch and commit watermark of a replica: machine, process, partition.
    seen: BTreeMap<(usize, u64, u32), (u32, u64)>,
    /// Epoch of a group at the keepers.
    groups: BTreeMap<u32, u32>,
}

impl Watch {
    /// Looks at a machine after it did something.
    pub fn look(&mut self, now: Ns, machines: &[Machine], at: usize) -> Result<(), String> {
        let machine = &machines[at];
        let Some(process) = &machine.process else { return Ok(()) };
        for (&partition, replica) in &process.replicas {
            let member = process.places.get(&partition).is_some_and(|place| {
                place.group.members.iter().any(|m| m.incarnation == process.incarnation)
            });
            self.look_at(at, process.incarnation, replica, member)?;
            one_primary(at, machines.len(), partition, |at| machines[at].leads(now, partition))?;
        }
        Ok(())
    }

    /// Looks at a data core after it did something.
    pub fn look_at_core<F: Fabric>(
        &mut self,
        at: usize,
        shard: &Shard<F>,
        incarnation: u64,
    ) -> Result<(), String> {
        for replica in shard.replicas() {
            let entry = shard.routes().partition(replica.partition());
            let member = entry.is_some_and(|entry| {
                entry.replicas.members.iter().any(|m| m.incarnation == incarnation)
            });
            self.look_at(at, incarnation, replica, member)?;
        }
        Ok(())
    }

    /// Looks at a replica of a process. `member`: of its group, as the process knows it.
    fn look_at(
        &mut self,
        at: usize,
        incarnation: u64,
        replica: &Replica,
        member: bool,
    ) -> Result<(), String> {
        let partition = replica.partition();
        let (epoch, commit) = (replica.route().epoch, replica.log().commit());
        let old = self.seen.insert((at, incarnation, partition), (epoch, commit));
        let (old_epoch, old_commit) = old.unwrap_or_default();
        let who = format_args!("brick{} partition {partition}", at + 1);
        if epoch < old_epoch {
            return Err(format!("{who}: the epoch fell from {old_epoch} to {epoch}"));
        }
        if !member || epoch == 0 {
            return Ok(());
        }
        if commit < old_commit && epoch == old_epoch {
            return Err(format!("{who}: the commit watermark fell from {old_commit} to {commit}"));
        }
        let manifest = replica.log().manifest();
        for seq in old_commit + 1..=commit {
            let Some(of) = manifest.epoch_of(seq) else { continue };
            let first = *self.committed.entry((partition, seq)).or_insert(of);
            if first != of {
                return Err(format!(
                    "{who}: record {seq} is committed in epoch {of} here and in {first} elsewhere"
                ));
            }
        }
        Ok(())
    }

    /// Looks at the keepers after an entry.
    pub fn look_at_keepers(
        &mut self,
        state: &firebrick_partition::keeper::Keepers,
    ) -> Result<(), String> {
        state.check().map_err(|e| format!("the keepers' state makes no sense: {e}"))?;
        for (partition, group) in state.groups() {
            let epoch = group.replicas.epoch;
            let old = self.groups.insert(partition, epoch).unwrap_or(0);
            if epoch < old {
                return Err(format!("partition {partition}: the epoch fell from {old} to {epoch}"));
            }
        }
        Ok(())
    }
}

/// Of the machines (so many) only one answers as the primary of a partition. Looks at one that did something.
pub fn one_primary(
    at: usize,
    machines: usize,
    partition: u32,
    leads: impl Fn(usize) -> bool,
) -> Result<(), String> {
    if !leads(at) {
        return Ok(());
    }
    match (0..machines).find(|other| *other != at && leads(*other)) {
        None => Ok(()),
        Some(other) => Err(format!(
            "partition {partition}: brick{} and brick{} both answer as primary",
            at + 1,
            other + 1
        )),
    }
}
