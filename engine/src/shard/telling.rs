//! What the keepers hear of this core besides its replicas' reports: figures of them, how far copies are, whom it cannot
//! reach, and what it has no room for.

use std::collections::BTreeMap;

use firebrick_net::Fabric;
use firebrick_partition::keeper::{Figure, Lack};
use firebrick_partition::replica::Replica;

use super::Shard;

/// Between two tellings of figures that changed. (Those of a partition that is new here go at once.)
const CHANGED_NS: u64 = 1_000_000_000;
/// Between two tellings of all: a new leader of the keepers has heard none.
const ALL_NS: u64 = 5_000_000_000;
/// Between two tellings of how far copies are.
const COPIES_NS: u64 = 200_000_000;
/// Figures of one message.
const MESSAGE_MAX: usize = 256;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    unreachable: Vec<u32>,
    figures: BTreeMap<u32, Figure>,
    changed_ns: u64,
    all_ns: u64,
    copies_ns: u64,
    /// There were some.
    copies: bool,
    lack: Option<Lack>,
}

fn figure(replica: &Replica) -> Figure {
    let tail = replica.log().tail();
    Figure {
        partition: replica.partition(),
        bytes: replica.log().stats().live_bytes,
        tail_epoch: tail.epoch,
        tail_seq: tail.seq,
    }
}

impl<F: Fabric> Shard<F> {
    /// Tells what has changed, now and then.
    pub(super) fn tell_keepers(&mut self) {
        self.tell_unreachable();
        self.tell_copies();
        self.tell_lack();
        let now_ns = self.store.now.boot_ns;
        let told = &mut self.told;
        told.figures.retain(|id, _| self.store.has(*id));
        let replicas = self.store.replicas();
        let new = replicas.iter().any(|r| !told.figures.contains_key(&r.partition()));
        let due = now_ns >= told.changed_ns + CHANGED_NS;
        if !new && !due {
            return;
        }
        let all = now_ns >= told.all_ns + ALL_NS;
        if due {
            told.changed_ns = now_ns;
        }
        if all {
            told.all_ns = now_ns;
        }
        let figures = replicas.iter().map(figure);
        let fresh = |figure: &Figure| match told.figures.get(&figure.partition) {
            Some(before) => due && (all || before != figure),
            None => true,
        };
        let figures: Vec<Figure> = figures.filter(fresh).collect();
        for part in figures.chunks(MESSAGE_MAX) {
            if self.control.figures(part.to_vec()) {
                told.figures.extend(part.iter().map(|figure| (figure.partition, *figure)));
            }
        }
    }

    /// While there are any, and once more when there are none.
    fn tell_copies(&mut self) {
        let now_ns = self.store.now.boot_ns;
        if now_ns < self.told.copies_ns + COPIES_NS {
            return;
        }
        let copies: Vec<_> = self.store.replicas().iter().filter_map(Replica::copying).collect();
        if !copies.is_empty() || self.told.copies {
            self.told.copies_ns = now_ns;
            self.told.copies = !copies.is_empty();
            self.control.copies(self.store.core(), copies);
        }
    }

    /// When it begins, changes and ends. (The sentence names the last file that did not fit: another one each time.)
    fn tell_lack(&mut self) {
        let lack = self.files.lack(&self.store);
        let before = self.told.lack.as_ref();
        let same = lack.as_ref().map(|lack| &lack.partitions) == before.map(|b| &b.partitions);
        if !same && self.control.lack(self.store.core(), lack.clone()) {
            self.told.lack = lack;
        }
    }

    fn tell_unreachable(&mut self) {
        let late: Vec<u32> = self.store.peers.probes.late().collect();
        if late != self.told.unreachable
            && self.control.unreachable(self.store.core(), late.clone())
        {
            self.told.unreachable = late;
        }
    }
}
