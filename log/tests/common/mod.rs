//! A small partition over a log: an index in a `BTreeMap` that judges, moves and rebuilds.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

#[cfg(not(miri))]
pub mod rig;

use std::collections::BTreeMap;

use firebrick_log::record::Answered;
use firebrick_log::segment::SegmentKind::Settled;
use firebrick_log::*;

pub const PARTITION: u32 = 7;

pub fn config(durability: Durability) -> LogConfig {
    LogConfig {
        table: 1,
        partition: PARTITION,
        durability,
        bytes_max: 4 << 20,
        segment_bytes_max: 16 << 10,
    }
}

pub fn meta(seq: u64, commit: u64) -> Meta {
    Meta { seq, epoch: 1, commit, answered: Answered::Version }
}

pub fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Body<'a> {
    Body::Put { key, value, expires_ms: 0, id: None }
}

/// Location and sequence number of each key's newest record, tombstones too.
#[derive(Default, Debug)]
pub struct Index {
    pub at: BTreeMap<Vec<u8>, (Loc, Version, bool)>,
    /// Keep tombstones that could be dropped.
    pub keep_tombstones: bool,
}

impl Index {
    pub fn take(&mut self, log: &Log, loc: Loc, record: &Record<'_>) {
        let kind = record.header().kind;
        if !(kind.is_put() || kind.is_remove()) {
            return;
        }
        let key = record.fields().key;
        let new = (loc, record.version(), kind.is_put());
        match self.at.get(key) {
            Some(old) if old.1 >= new.1 => {
                if new.2 {
                    log.mark_dead(loc);
                }
            }
            old => {
                if let Some(&(old, _, true)) = old {
                    log.mark_dead(old);
                }
                self.at.insert(key.to_vec(), new);
            }
        }
        // A tombstone counts as dead from its commit on.
        if !new.2 {
            log.mark_dead(loc);
        }
    }

    pub fn value<'a>(&self, log: &'a Log, key: &[u8]) -> Option<&'a [u8]> {
        let &(loc, version, live) = self.at.get(key)?;
        let record = log.record(loc).expect("an indexed record is good");
        assert_eq!(record.fields().key, key);
        assert_eq!(log.key_at(loc), key);
        assert_eq!(record.version(), version);
        live.then_some(record.fields().value)
    }

    pub fn values(&self, log: &Log) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let keys = self.at.keys();
        keys.filter_map(|k| Some((k.clone(), self.value(log, k)?.to_vec()))).collect()
    }
}

impl Cleaner for Index {
    fn judge(&mut self, _: &Log, loc: Loc, record: &Record<'_>, floor: u64) -> Verdict {
        let key = record.fields().key;
        match self.at.get(key) {
            Some(&(at, version, live)) if at == loc => {
                assert_eq!(version, record.version());
                if !live && version.seq < floor && !self.keep_tombstones {
                    self.at.remove(key);
                    return Verdict::DropTombstone;
                }
                Verdict::Live
            }
            _ => Verdict::Dead,
        }
    }

    fn moved(&mut self, record: &Record<'_>, from: Loc, to: Loc) {
        let entry = self.at.get_mut(record.fields().key).expect("it was live");
        assert_eq!(entry.0, from);
        entry.0 = to;
    }

    fn live_puts(&self) -> u64 {
        self.at.values().filter(|e| e.2).count() as u64
    }
}

/// Each segment's counts are what walking its records gives.
pub fn recount(log: &Log, index: &Index) {
    for counted in log.segment_counts() {
        let mut found = SegmentCount { live_bytes: 0, live_puts: 0, unjudged: 0, ..counted };
        for (loc, record) in log.records_of(counted.name) {
            let indexed = index.at.get(record.fields().key).is_some_and(|e| e.0 == loc);
            let (put, settled) = (record.header().kind.is_put(), counted.name.kind == Settled);
            found.live_puts += u64::from(put && indexed);
            found.unjudged += u64::from(!put);
            if if put { indexed } else { settled } {
                found.live_bytes += record.stride() as u64;
            }
        }
        assert_eq!(counted, found);
    }
}

/// Appends and commits at once, as a group of one does.
pub fn write(log: &mut Log, index: &mut Index, body: &Body<'_>) -> Result<Loc, AppendError> {
    let room = if body.kind().is_remove() { Room::Remove } else { Room::Write };
    let (seq, commit) = (log.tail().seq + 1, log.commit());
    let loc = log.append(&meta(seq, commit), body, room)?;
    log.set_commit(seq);
    let record = log.record(loc).expect("just written");
    index.take(log, loc, &record);
    Ok(loc)
}

pub fn rescan(log: &mut Log, scan: &mut Scan) -> Index {
    let mut index = Index::default();
    while scan.step(log, 100, &mut |log: &Log, batch: &[Found<'_>]| {
        for found in batch {
            index.take(log, found.loc, &found.record);
        }
    }) == ScanProgress::More
    {}
    index
}

pub fn key(i: u64) -> Vec<u8> {
    format!("key-{i:012}").into_bytes()
}
