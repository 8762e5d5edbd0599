//! The cluster in JSON: as the leader of the keepers sees it, or as far as this brick's keeper knows it.

use std::time::Duration;

use firebrick_partition::keeper::{BrickView, CopyView, Note, Overview, Wish, WishView};
use serde_json::{Value, json};

use super::ask::Finder;
use super::net::{Answer, Ask, Refusal};
use super::node::{Node, lock};
use crate::clock::boot_ns;

/// For the leader's answer: a person waits, and there is something to show without it.
const OVERVIEW_TIMEOUT: Duration = Duration::from_millis(700);

/// What the leader sees, and who it is.
pub(super) struct Seen {
    overview: Overview,
    leader: u32,
    term: u64,
}

impl Node {
    /// The fields of a status that are about the whole cluster.
    pub(crate) async fn cluster_status(&self, finder: &Finder) -> Value {
        let asked = finder.ask(&Ask::Overview, OVERVIEW_TIMEOUT).await;
        let (seen, why) = match asked {
            Ok(Answer::Overview { overview, leader, term }) => {
                (Some(Seen { overview: *overview, leader, term }), None)
            }
            Ok(Answer::Refused(text)) | Err(Refusal { text, .. }) => (None, Some(text)),
            Ok(_) => (None, Some("the keepers have no leader now".to_owned())),
        };
        self.in_json(seen, why.as_deref())
    }

    fn in_json(&self, seen: Option<Seen>, why: Option<&str>) -> Value {
        let (own_version, own) = {
            let state = self.shown.lock();
            let own = || Overview::new(boot_ns(), &state.keepers, &lock(&self.leases));
            (state.keepers.version(), seen.is_none().then(own))
        };
        let answered = seen.is_some();
        let known = || self.leader().map(|(id, _)| id);
        let (overview, leader, term) = match seen {
            Some(seen) => (seen.overview, Some(seen.leader), seen.term),
            None => (own.unwrap_or_default(), known(), self.raft.metrics().borrow().current_term),
        };
        let names = Names(&overview.bricks);
        // (Those that are to be keepers, `keeper` below, get a vote once they have the log.)
        let voters: Vec<String> = self.voters().iter().map(|id| names.of(*id)).collect();
        let brick = |brick: &BrickView| brick_json(brick, answered, leader);
        json!({
            "cluster": {
                "id": format!("{:016x}", self.cluster),
                "brick": self.brick,
                "leader": leader.map(|id| names.of(id)),
                "term": term,
                "voters": voters,
                "maps_version": overview.version,
                // What this brick's own keeper has applied.
                "own_version": own_version,
                // False: nobody leads the keepers now, so this is only what this brick knew last.
                "answered": answered,
                "not_answered_because": why,
            },
            "bricks": overview.bricks.iter().map(brick).collect::<Vec<_>>(),
            "copies": overview.copies.iter().map(|c| copy_json(c, &names)).collect::<Vec<_>>(),
            "moves": overview.wishes.iter().map(|w| move_json(w, &names)).collect::<Vec<_>>(),
            "notes": overview.notes.iter().map(note_json).collect::<Vec<_>>(),
        })
    }
}

/// Names of bricks by id.
struct Names<'a>(&'a [BrickView]);

impl Names<'_> {
    fn of(&self, id: u32) -> String {
        let found = self.0.iter().find(|brick| brick.id == id);
        found.map_or_else(|| id.to_string(), |brick| brick.name.clone())
    }
}

/// `told`: a leader says so; else nobody knows who is alive.
fn brick_json(brick: &BrickView, told: bool, leader: Option<u32>) -> Value {
    let memory = brick.memory.filter(|_| told);
    json!({
        "id": brick.id,
        "name": brick.name,
        "pid": brick.pid.filter(|_| told),
        "listen": brick.listen,
        "control": brick.control,
        "resp": brick.resp,
        "http": brick.http,
        "host": brick.host,
        "rack": brick.rack,
        "live": told.then_some(brick.live),
        // What is left of it; null: it has no end (a lone brick), or nobody knows (`answered`).
        "lease_ms": brick.lease_ms.filter(|_| told),
        "heard_ms": brick.heard_ms.filter(|_| told),
        "keeper": brick.keeper,
        "leads": leader == Some(brick.id),
        "draining": brick.draining,
        "memory_bytes": memory.map(|room| room.total_bytes),
        "memory_free_bytes": memory.map(|room| room.free_bytes),
        // Its copies move so much at most, because requests wait for them there; null: there is no bound.
        "copy_pace_bytes_per_second": (told && brick.copy_pace > 0).then_some(brick.copy_pace),
        // What it has no room for, and the partitions that wait for it.
        "lack": brick.lack.as_ref().filter(|_| told),
        "primaries": brick.primaries,
        "backups": brick.backups,
        "learners": brick.learners,
        "counts_in": brick.counts_in,
        "only_in": brick.only_in,
    })
}

fn copy_json(copy: &CopyView, names: &Names<'_>) -> Value {
    json!({
        "partition": copy.partition,
        "table": copy.table,
        "to": names.of(copy.to),
        "why": copy.kind,
        "copied_bytes": copy.copied_bytes,
        "passed_bytes": copy.passed_bytes,
        "total_bytes": copy.total_bytes,
        "bytes_per_second": copy.bytes_per_s,
        "left_ms": copy.left_ms,
    })
}

fn move_json(wish: &WishView, names: &Names<'_>) -> Value {
    let (kind, from, to) = match wish.wish {
        Wish::Move { from, to } => ("move", Some(from), to),
        Wish::Lead { to } => ("hand-over", None, to),
    };
    json!({
        "partition": wish.partition,
        "kind": kind,
        "from": from.map(|from| names.of(from)),
        "to": names.of(to),
        "text": wish.text,
    })
}

fn note_json(note: &Note) -> Value {
    json!({
        "version": note.version,
        "kind": note.kind,
        "partition": note.partition,
        "text": note.text,
    })
}
