//! What must be true at every moment.

use std::collections::BTreeMap;

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
            let id = (at, process.incarnation, partition);
            let (epoch, commit) = (replica.route().epoch, replica.log().commit());
            let old = self.seen.insert(id, (epoch, commit));
            let (old_epoch, old_commit) = old.unwrap_or_default();
            let who = format!("brick{} partition {partition}", at + 1);
            if epoch < old_epoch {
                return Err(format!("{who}: the epoch fell from {old_epoch} to {epoch}"));
            }
            let member = process.places.get(&partition).is_some_and(|place| {
                place.group.members.iter().any(|m| m.incarnation == process.incarnation)
            });
            if !member || epoch == 0 {
                continue;
            }
            if commit < old_commit && epoch == old_epoch {
                return Err(format!(
                    "{who}: the commit watermark fell from {old_commit} to {commit}"
                ));
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
            one_primary(now, machines, at, partition)?;
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

fn one_primary(now: Ns, machines: &[Machine], at: usize, partition: u32) -> Result<(), String> {
    let leads = |m: &Machine| m.process.as_ref().is_some_and(|p| p.leads(m.now(now), partition));
    if !leads(&machines[at]) {
        return Ok(());
    }
    match machines.iter().find(|m| m.at != at && leads(m)) {
        None => Ok(()),
        Some(other) => Err(format!(
            "partition {partition}: brick{} and brick{} both answer as primary",
            at + 1,
            other.at + 1
        )),
    }
}
