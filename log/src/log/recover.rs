//! Past bytes that are no record: is it the end, a torn tail, or damage?
//!
//! The rules, in this order:
//! * nothing valid follows, in this segment or a later one of the tail: it is the end;
//! * memory (the process died, the machine did not): damage, because stores are in order;
//! * disk, and the manifest says that this record was flushed once: damage;
//! * disk, and a valid record lies further behind than one write reaches, or in a later segment: damage,
//!   because writes are one at a time and in order, so an earlier one had ended;
//! * disk, `sync`, and a later record's commit watermark covers it: damage, because it was voted for;
//! * else the last write tore: cut here, and count what is lost.

use super::{Durability, Log, Scan};
use crate::limits::{FLUSH_BYTES_MAX, SEGMENT_HEAD_BYTES};
use crate::record::{HEADER_BYTES, Unchecked, Version};
use crate::segment::Segment;
use crate::storage::Source;

pub(super) enum Sight {
    /// The normal end; `torn` when the bytes behind it are not all zero.
    End { torn: bool },
    /// The last write tore: cut here.
    Torn { lost: u64 },
    /// Damage; valid records go on at `resume` in this segment, or in a later one.
    Damage { resume: Option<usize> },
}

/// What valid records behind a bad one say.
#[derive(Default)]
struct Evidence {
    resume: Option<usize>,
    records: u64,
    commit: u64,
    furthest: usize,
}

impl Log {
    /// Records of this partition, or of one it was split from or merged of.
    pub fn is_ours(&self, partition: u32) -> bool {
        partition == self.cfg.partition || self.manifest.ancestors.contains(&partition)
    }

    /// Records are gone, and others will have their sequence numbers: no segment may say that it was made later than what is
    /// left. (Else a tombstone would be dropped while an older record of its key is in that segment.) The new first
    /// pages go to the disk before anything else.
    pub(super) fn lower_heads(&mut self) {
        for slot in 0..self.slots.len() as u32 {
            if self.slots[slot as usize].is_some() && !self.is_being_emptied(slot) {
                self.lower_head(slot);
            }
        }
    }

    pub(super) fn lower_head(&mut self, slot: u32) {
        let commit = self.commit;
        let segment = self.segment_mut(slot);
        if segment.head.made_at_seq > commit {
            segment.lower_made_at(commit);
            if self.has_disk() {
                self.flush.zeros.push_back((slot, 0, SEGMENT_HEAD_BYTES));
            }
        }
    }

    /// Up to where a settled segment was durable when the manifest was written; 0 when it does not list it.
    pub(super) fn listed_end(&self, slot: u32) -> u64 {
        let name = self.segment(slot).name();
        self.manifest.settled.iter().find(|l| l.name == name).map_or(0, |l| l.end)
    }

    /// The next offset at or after `from` with a valid record that `fits`.
    fn resynchronise(
        &self,
        segment: &Segment,
        from: usize,
        fits: impl Fn(Version) -> bool,
    ) -> Option<usize> {
        let bytes = segment.memory.bytes();
        let mut at = from.max(SEGMENT_HEAD_BYTES).next_multiple_of(8);
        while at + HEADER_BYTES <= bytes.len() {
            // Most of what is not a record has no plausible length: a look instead of a CRC.
            if crate::record::is_plausible(&bytes[at..])
                && let Ok(record) = Unchecked::new(&bytes[at..]).check()
                && self.is_ours(record.header().partition)
                && fits(record.version())
            {
                return Some(at);
            }
            at += 8;
        }
        None
    }

    /// Trusts the bad record's length first, if a valid record follows it.
    fn resume_at(
        &self,
        segment: &Segment,
        at: usize,
        fits: impl Fn(Version) -> bool,
    ) -> Option<usize> {
        let bytes = segment.memory.bytes();
        if let Some(word) = bytes.get(at..).and_then(|b| b.first_chunk::<4>()) {
            let next = at + (u32::from_le_bytes(*word) as usize).next_multiple_of(8);
            if next > at + HEADER_BYTES - 1
                && next < bytes.len()
                && let Ok(record) = Unchecked::new(&bytes[next..]).check()
                && self.is_ours(record.header().partition)
                && fits(record.version())
            {
                return Some(next);
            }
        }
        self.resynchronise(segment, at + 8, fits)
    }

    fn evidence(&self, segment: &Segment, at: usize, last: Version) -> Evidence {
        let mut evidence = Evidence::default();
        let (mut from, mut newest) = (at, last);
        loop {
            // A record at `seq` needs at least that many headers before it.
            let most = newest.seq + (segment.size() - from) as u64 / HEADER_BYTES as u64 + 1;
            let fits = |v: Version| v.seq > newest.seq && v.seq <= most && v.epoch >= newest.epoch;
            let Some(found) = self.resume_at(segment, from, fits) else { return evidence };
            evidence.resume.get_or_insert(found);
            let mut next = found;
            while let Ok(record) = Unchecked::new(&segment.memory.bytes()[next..]).check()
                && (record.header().seq == newest.seq + 1 || next == found)
            {
                newest = record.version();
                evidence.records += 1;
                evidence.commit = evidence.commit.max(record.header().commit());
                evidence.furthest = next;
                next += record.stride();
            }
            if evidence.furthest > at + FLUSH_BYTES_MAX || next <= from {
                return evidence;
            }
            from = next;
        }
    }
}

impl Scan {
    pub(super) fn look_ahead_tail(&self, log: &Log, slot: u32, at: usize) -> Sight {
        let segment = log.segment(slot);
        let later = self.has_later_records(log, slot);
        let clean = segment.memory.bytes()[at..].iter().all(|&b| b == 0);
        if clean {
            // The next segment must go on where this one ended.
            let skipped = later.is_some_and(|(v, first)| first && v.seq > self.last.seq + 1);
            return if skipped && self.last.seq > 0 {
                Sight::Damage { resume: None }
            } else {
                Sight::End { torn: false }
            };
        }
        let evidence = log.evidence(segment, at, self.last);
        let newer = later.map(|(version, _)| version);
        if evidence.resume.is_none() && newer.is_none() {
            return Sight::End { torn: true };
        }
        // A roll leaves nothing behind the last record: the next one follows, and what is here is the
        // rest of a record that was never finished (or was truncated).
        if evidence.resume.is_none() && newer.is_some_and(|v| v.seq == self.last.seq + 1) {
            return Sight::End { torn: false };
        }
        let proven = match self.source {
            Source::Memory | Source::New => true,
            Source::Disk => {
                log.manifest.flushed.seq > self.last.seq
                    || newer.is_some()
                    || evidence.furthest > at + FLUSH_BYTES_MAX
                    || (log.cfg.durability == Durability::Sync && evidence.commit > self.last.seq)
            }
        };
        if proven {
            Sight::Damage { resume: evidence.resume }
        } else {
            Sight::Torn { lost: evidence.records }
        }
    }

    /// The first valid newer record of a later tail segment, and whether that segment begins with it
    /// (if not, its beginning is damaged, which is its own report).
    fn has_later_records(&self, log: &Log, slot: u32) -> Option<(Version, bool)> {
        let fits = |v: Version| v.seq > self.last.seq && v.epoch >= self.last.epoch;
        let after = log.tail_slots.iter().skip_while(|&&s| s != slot).skip(1);
        after
            .filter_map(|&s| {
                let segment = log.segment(s);
                let first = &segment.memory.bytes()[SEGMENT_HEAD_BYTES..];
                let at = match Unchecked::new(first).check() {
                    Ok(_) => SEGMENT_HEAD_BYTES,
                    Err(_) => log.resynchronise(segment, SEGMENT_HEAD_BYTES, fits)?,
                };
                let version = crate::record::version_of(&segment.memory.bytes()[at..]);
                Some((version, at == SEGMENT_HEAD_BYTES))
            })
            .find(|(version, _)| fits(*version))
    }

    /// What a settled segment has on the disk behind what is listed rests on nothing, and its pieces may have come in any order.
    pub(super) fn look_ahead_settled(&self, log: &Log, slot: u32, at: usize) -> Sight {
        let segment = log.segment(slot);
        let clean = segment.memory.bytes()[at..].iter().all(|&b| b == 0);
        let listed = (at as u64) < log.listed_end(slot);
        let counts = listed || self.source != Source::Disk;
        let resume = if clean || !counts { None } else { log.resume_at(segment, at, |_| true) };
        if resume.is_some() || listed {
            return Sight::Damage { resume };
        }
        Sight::End { torn: !clean }
    }
}
