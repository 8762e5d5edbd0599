//! Every bound of the log, in one place.

/// The longest key.
pub const KEY_BYTES_MAX: usize = 32 << 10;
/// The longest value.
pub const VALUE_BYTES_MAX: usize = 8 << 20;
/// Header, body fields and padding around the largest key and value.
pub const RECORD_BYTES_MAX: usize = VALUE_BYTES_MAX + KEY_BYTES_MAX + 512;
/// The fixed first page of a segment.
pub const SEGMENT_HEAD_BYTES: usize = 4096;
/// Smallest segment where there is room for many: one huge page.
const SEGMENT_BYTES_HUGE: usize = 2 << 20;
/// Smallest segment where there is not, unless the configuration asks for smaller ones.
const SEGMENT_BYTES_MIN: usize = 1 << 20;
/// So many huge pages are room for many.
const SEGMENTS_HUGE: u64 = 64;
/// The smallest segment of logs that share so many bytes of memory.
pub const fn segment_bytes_min(bytes_max: u64) -> usize {
    let many = bytes_max >= SEGMENTS_HUGE * SEGMENT_BYTES_HUGE as u64;
    if many { SEGMENT_BYTES_HUGE } else { SEGMENT_BYTES_MIN }
}
/// Memory that has room for so many segments of the smallest size. So has all that is more.
pub const fn segments_bytes(segments: u64) -> u64 {
    let each = if segments > SEGMENTS_HUGE { SEGMENT_BYTES_HUGE } else { SEGMENT_BYTES_MIN };
    segments * each as u64
}
/// Largest segment; also what a location's 23 bits of 8-byte units can address.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// The least a configuration may ask a segment to be.
pub const SEGMENT_BYTES_LEAST: usize = 8 << 10;
/// Segments of one log: what a location's 17 bits can name.
pub const SEGMENTS_MAX: usize = 1 << 17;
/// A partition is cut in about this many segments.
pub const SEGMENTS_AIM: usize = 16;
/// Records of one replica that may be prepared and not committed.
pub const IN_FLIGHT_MAX: usize = 65_000;
/// One write of the tail to disk: at most this much, or one record if that is larger.
pub const FLUSH_BYTES_MAX: usize = 1 << 20;
/// `async` tables flush when this much is dirty (or half their time is up).
pub const FLUSH_BYTES_AIM: usize = 256 << 10;
/// One write of a settled segment to disk.
pub const FLUSH_SETTLED_BYTES_MAX: usize = 256 << 10;
/// Bytes of memory that one step of a truncation zeroes: some 30 us.
pub const ZERO_SLICE_BYTES: usize = 256 << 10;
/// Tail segments that may be waiting for the disk; past that votes wait.
pub const UNFLUSHED_SEGMENTS_MAX: usize = 2;
/// Reports of corruption that a scan keeps in full; past that it counts.
pub const CORRUPTIONS_KEPT_MAX: usize = 64;
/// Entries of an epoch history; the oldest go first.
pub const HISTORY_MAX: usize = 1024;
/// Ancestors (parents of splits and merges) a manifest may name.
pub const ANCESTORS_MAX: usize = 1024;

const _: () = assert!(RECORD_BYTES_MAX + SEGMENT_HEAD_BYTES < SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MAX == 8 << 23);
const _: () = assert!(IN_FLIGHT_MAX <= u16::MAX as usize);
const _: () = assert!(SEGMENT_BYTES_LEAST > SEGMENT_HEAD_BYTES);
