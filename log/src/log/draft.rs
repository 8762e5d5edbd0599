//! A `Sessions` record, a piece at a time: with thousands of sessions it has megabytes, and writing it
//! in one go would hold a data core for milliseconds.
//!
//! Its place in a settled segment is kept free for the most that it may be. Its length is stored last,
//! as every record's, so until then it is not there: a kill leaves a record that was never finished.
//! What cleaning and a copy append meanwhile goes to another segment.

use super::Log;
use super::append::AppendError;
use crate::loc::Loc;
use crate::record::{
    HEADER_BYTES, Header, Kind, Meta, SESSIONS_ROOT_BYTES, SessionResult, sessions_root,
    write_results,
};

#[derive(Debug)]
pub(super) struct Draft {
    pub slot: u32,
    at: usize,
    /// Results so far, and the most there may be.
    results: usize,
    results_max: usize,
    crc: crc32fast::Hasher,
}

impl Log {
    /// Begins a `Sessions` record of at most `results_max` results, stamped with the commit watermark
    /// as its sequence number. One at a time.
    pub fn begin_sessions(&mut self, meta: &Meta, results_max: usize) -> Result<(), AppendError> {
        assert!(meta.seq <= self.commit, "settled records are committed");
        assert!(self.cleaning.draft.is_none(), "two drafts");
        let len = HEADER_BYTES + results_max * SessionResult::BYTES + SESSIONS_ROOT_BYTES;
        let slot = self.reserve_settled(len.next_multiple_of(8))?;
        self.settled_open = None;
        let partition = self.cfg.partition;
        let mut head = [0; HEADER_BYTES];
        Header::fill(&mut head, meta, partition, Kind::Sessions);
        let segment = self.segment_mut(slot);
        let at = segment.end;
        segment.memory.slice_mut(at + 8, HEADER_BYTES - 8).copy_from_slice(&head[8..]);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[8..]);
        self.cleaning.draft = Some(Draft { slot, at, results: 0, results_max, crc });
        Ok(())
    }

    /// Adds results to the record that was begun.
    pub fn add_sessions(&mut self, results: &[SessionResult]) {
        let Some(mut draft) = self.cleaning.draft.take() else { return };
        assert!(draft.results + results.len() <= draft.results_max, "more than was said");
        let from = draft.at + HEADER_BYTES + draft.results * SessionResult::BYTES;
        let segment = self.segment_mut(draft.slot);
        let out = segment.memory.slice_mut(from, results.len() * SessionResult::BYTES);
        write_results(results, out);
        draft.crc.update(out);
        draft.results += results.len();
        self.cleaning.draft = Some(draft);
    }

    /// The record is there from now on; `None` when none was begun.
    pub fn end_sessions(&mut self) -> Option<Loc> {
        let Draft { slot, at, results, mut crc, .. } = self.cleaning.draft.take()?;
        let root = sessions_root(results);
        let end = at + HEADER_BYTES + results * SessionResult::BYTES;
        let segment = self.segment_mut(slot);
        segment.memory.slice_mut(end, root.len()).copy_from_slice(&root);
        crc.update(&root);
        segment.memory.slice_mut(at + 4, 4).copy_from_slice(&crc.finalize().to_le_bytes());
        let len = end + root.len() - at;
        segment.memory.publish(at, len as u32);
        if self.settled_open.is_none() {
            self.settled_open = Some(slot);
        } else {
            self.segment_mut(slot).closed = true;
        }
        Some(self.settled(slot, at, Kind::Sessions, len.next_multiple_of(8)))
    }
}
