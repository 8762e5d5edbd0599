//! Every bound of the log, in one place.

/// The longest key.
pub const KEY_BYTES_MAX: usize = 32 << 10;
/// The longest value.
pub const VALUE_BYTES_MAX: usize = 8 << 20;
/// Header, body fields and padding around the largest key and value.
pub const RECORD_BYTES_MAX: usize = VALUE_BYTES_MAX + KEY_BYTES_MAX + 512;
/// The fixed first page of a segment.
pub const SEGMENT_HEAD_BYTES: usize = 4096;
/// Smallest segment.
pub const SEGMENT_BYTES_MIN: usize = 1 << 20;
/// Largest segment; also what a location's 23 bits of 8-byte units can address.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// Records of one replica that may be prepared and not committed.
pub const IN_FLIGHT_MAX: usize = 65_000;

const _: () = assert!(RECORD_BYTES_MAX + SEGMENT_HEAD_BYTES < SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MAX == 8 << 23);
const _: () = assert!(IN_FLIGHT_MAX <= u16::MAX as usize);
