//! What foreground requests wait for at this core, and what its copies move: for the pace of copies.

use firebrick_partition::replica::Replica;

use super::pace::Pace;
use crate::shard::store::Store;

/// Prepared records whose commit is awaited: a sample, one at a time.
#[derive(Clone, Copy, Debug)]
struct Voting {
    partition: u32,
    seq: u64,
    records: u32,
    since_ns: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Waits {
    /// What the last turn took, if the core did not sleep after it.
    pub turn_ns: u64,
    /// Requests executed so far.
    requests: u64,
    /// Bytes that copies had moved.
    moved: u64,
    voting: Option<Voting>,
}

impl Waits {
    /// Once a turn.
    pub fn note(&mut self, store: &mut Store, pace: &mut Pace) {
        let counts = &store.counts;
        let requests = counts.gets + counts.puts + counts.removes + counts.others;
        let came = requests - std::mem::replace(&mut self.requests, requests);
        let waited_ns = std::mem::take(&mut self.turn_ns);
        if came > 0 {
            pace.note(waited_ns, came as u32);
        }
        self.note_votes(store, pace);
        let moved = store.replicas().iter().map(Replica::copy_moved).sum();
        // (What a replica that is gone had moved is no news.)
        let news = u64::saturating_sub(moved, std::mem::replace(&mut self.moved, moved));
        if news > 0 {
            pace.moved(news);
        }
        pace.look(store.now.boot_ns);
    }

    fn note_votes(&mut self, store: &mut Store, pace: &mut Pace) {
        let now_ns = store.now.boot_ns;
        if let Some(voting) = self.voting {
            let led = store.at(voting.partition).filter(|r| r.is_serving());
            match led.map(|replica| replica.log().commit()) {
                Some(commit) if commit < voting.seq => return,
                Some(_) => pace.note(now_ns.saturating_sub(voting.since_ns), voting.records),
                None => {}
            }
        }
        let mut replicas = store.replicas().iter();
        let led = replicas.find(|r| r.is_busy() && r.is_serving());
        self.voting = led.map(|replica| {
            let (seq, commit) = (replica.log().tail().seq, replica.log().commit());
            let records = (seq - commit) as u32;
            Voting { partition: replica.partition(), seq, records, since_ns: now_ns }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use firebrick_partition::replica::Me;

    use super::*;
    use crate::mesh::Mesh;
    use crate::shard::peers::Peers;

    const LOOK_NS: u64 = 100_000_000;
    const LONG_NS: u64 = 5_000_000;

    /// A core that copies while it is asked `asked` gets a look, each in a turn behind one of `turn_ns`; its pace in the end.
    fn pace_of(asked: u64, turn_ns: u64) -> u64 {
        let mesh = Mesh::connect(1).pop().expect("a core");
        let peers = Peers::new(Me { brick: 1, incarnation: 1 });
        let mut store = Store::new(mesh, Arc::default(), peers);
        let (mut waits, mut pace) = (Waits::default(), Pace::new(1_000_000));
        for look in 1..=20 {
            store.now.boot_ns = look * LOOK_NS;
            pace.moved(12_000_000);
            store.counts.gets += asked;
            waits.turn_ns = turn_ns;
            waits.note(&mut store, &mut pace);
        }
        pace.bytes_per_second()
    }

    #[test]
    fn requests_that_came_during_a_long_turn_waited_for_it() {
        assert_eq!(pace_of(100, 0), 0);
        assert!(pace_of(100, LONG_NS) > 0);
        // A long turn that nobody waited for says nothing.
        assert_eq!(pace_of(0, LONG_NS), 0);
    }
}
