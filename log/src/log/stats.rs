//! What a log has to say about itself, for metrics.

use super::Log;

/// Plain numbers, collected now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes of all segments in `memory_dir`.
    pub used_bytes: u64,
    /// Bytes of live records.
    pub live_bytes: u64,
    /// Segments that hold or held records.
    pub segments: u64,
    /// Bytes of the tail that are not durable.
    pub lag_bytes: u64,
    /// Bytes that cleaning moved.
    pub moved_bytes: u64,
    /// Records that cleaning moved.
    pub moved_records: u64,
    /// Bytes of segments that were freed.
    pub freed_bytes: u64,
    /// Segments copied out that wait to be freed.
    pub emptied: u64,
    /// Writes are refused.
    pub full: bool,
    /// The disk is not trusted any more.
    pub sick: bool,
}

impl Log {
    /// A snapshot.
    pub fn stats(&self) -> LogStats {
        LogStats {
            used_bytes: self.used_bytes(),
            live_bytes: self.segments().map(|s| s.live.get()).sum(),
            segments: self.segments().count() as u64,
            lag_bytes: self.lag_bytes(),
            moved_bytes: self.cleaning.moved_bytes,
            moved_records: self.cleaning.moved_records,
            freed_bytes: self.cleaning.freed_bytes,
            emptied: self.cleaning.emptied.len() as u64,
            full: self.full,
            sick: self.flush.sick,
        }
    }
}
