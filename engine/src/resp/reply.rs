//! From a partition's answer to a command's reply.

use firebrick_partition::{Answer, Failure};

use super::glob;
use super::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use super::number::Digits;
use super::write::{self, Protocol};

/// How the one answer of a command becomes its reply.
#[derive(Debug)]
pub enum Then {
    /// GET: the value or nil.
    Bulk,
    /// SET: OK, or nil when the condition does not hold.
    Stored,
    /// SET GET, GETSET, GETDEL: the old value or nil.
    Old,
    /// SETNX, EXPIRE, PERSIST, DEL, EXISTS: 1 when it was done, else 0.
    Flag,
    /// INCR and its like.
    Number,
    /// INCRBYFLOAT.
    Text,
    /// APPEND, SETRANGE, STRLEN.
    Length,
    /// GETRANGE.
    Range {
        /// First byte; negative counts from the end.
        start: i64,
        /// Last byte, likewise.
        end: i64,
    },
    /// TYPE.
    Type,
    /// TTL and PTTL.
    TimeLeft {
        /// Milliseconds, not seconds.
        ms: bool,
    },
    /// EXPIRETIME and PEXPIRETIME.
    ExpiresAt {
        /// Milliseconds, not seconds.
        ms: bool,
    },
    /// GETEX with a bad time: Redis notices it only when there is a value.
    NilOrError(&'static str),
    /// SCAN: the keys that match.
    Scan(Box<ScanFilter>),
}

/// Which keys of a scan to show.
#[derive(Debug, Default)]
pub struct ScanFilter {
    /// MATCH.
    pub pattern: Option<Box<[u8]>>,
    /// TYPE names something that nothing here is.
    pub none: bool,
    /// The cursor of the partition after the one asked.
    pub next_partition: u64,
}

impl ScanFilter {
    /// The cursor to go on with after a partition's answer, in which 0 is the partition's end.
    pub fn after(&self, cursor: u64) -> u64 {
        if cursor == 0 { self.next_partition } else { cursor }
    }

    /// Whether to show `key`.
    pub fn shows(&self, key: &[u8]) -> bool {
        !self.none && self.pattern.as_deref().is_none_or(|p| glob::matches(p, key))
    }
}

impl Then {
    /// Writes the reply.
    pub fn write(&self, answer: Answer<'_>, protocol: Protocol, unix_ms: u64, out: &mut Vec<u8>) {
        match (self, answer) {
            (_, Answer::Failed(failure)) => write::error(out, failure_text(failure).as_bytes()),
            (Then::Bulk, Answer::Value { value, .. })
            | (Then::Old, Answer::Old { existed: true, value, .. })
            | (Then::Text, Answer::Float { value, .. }) => write::bulk(out, value),
            (Then::Bulk | Then::Old | Then::NilOrError(_), Answer::Absent)
            | (Then::Stored | Then::Old, Answer::Refused { .. })
            | (Then::Old, Answer::Old { .. }) => write::null(out, protocol),
            (Then::Stored, Answer::Done { .. }) => out.extend_from_slice(write::OK),
            (Then::Flag, Answer::Done { .. } | Answer::Seen { .. }) => write::integer(out, 1),
            (Then::Flag, Answer::Refused { .. }) | (Then::Flag | Then::Length, Answer::Absent) => {
                write::integer(out, 0);
            }
            (Then::Number, Answer::Integer { value, .. }) => write::integer(out, value),
            (Then::Length, Answer::Length { len, .. }) => write::integer(out, len as i64),
            (Then::Length, Answer::Seen { len, .. }) => write::integer(out, i64::from(len)),
            (Then::Range { start, end }, Answer::Value { value, .. }) => {
                write::bulk(out, range(value, *start, *end));
            }
            (Then::Range { .. }, Answer::Absent) => write::bulk(out, b""),
            (Then::Type, Answer::Seen { .. }) => write::simple(out, "string"),
            (Then::Type, Answer::Absent) => write::simple(out, "none"),
            (Then::TimeLeft { .. } | Then::ExpiresAt { .. }, answer) => {
                self.time(answer, unix_ms, out);
            }
            (Then::NilOrError(text), Answer::Seen { .. }) => write::error(out, text.as_bytes()),
            (Then::Scan(filter), Answer::Keys { cursor, packed }) => {
                scan(filter, cursor, packed, out);
            }
            (_, other) => unexpected(other, out),
        }
    }

    fn time(&self, answer: Answer<'_>, unix_ms: u64, out: &mut Vec<u8>) {
        let expires_ms = match answer {
            Answer::Seen { expires_ms: 0, .. } => return write::integer(out, -1),
            Answer::Seen { expires_ms, .. } => expires_ms,
            Answer::Absent => return write::integer(out, -2),
            other => return unexpected(other, out),
        };
        let left_ms = expires_ms.saturating_sub(unix_ms);
        let value = match self {
            Then::TimeLeft { ms: true } => left_ms,
            Then::TimeLeft { ms: false } => left_ms.saturating_add(500) / 1000,
            Then::ExpiresAt { ms: true } => expires_ms,
            _ => expires_ms.saturating_add(500) / 1000,
        };
        write::integer(out, value as i64);
    }
}

fn scan(filter: &ScanFilter, cursor: u64, packed: &[u8], out: &mut Vec<u8>) {
    let keys = || firebrick_partition::op::packed_keys(packed).filter(|key| filter.shows(key));
    write::array(out, 2);
    write::bulk(out, Digits::of(filter.after(cursor)).text());
    write::array(out, keys().count());
    keys().for_each(|key| write::bulk(out, key));
}

/// GETRANGE's idea of a range.
fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    let len = value.len() as i64;
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let from_end = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    if start > end || len == 0 { b"" } else { &value[start as usize..=end as usize] }
}

/// An answer that does not belong to the question: a defect, told to the client and not hidden.
#[cold]
fn unexpected(answer: Answer<'_>, out: &mut Vec<u8>) {
    let text: &[u8] = match answer {
        Answer::StaleRoute { .. } => {
            b"TRYAGAIN the key's partition is moving to another replica group; try again"
        }
        _ => b"ERR internal error: an answer of another kind of request; please report it",
    };
    write::error(out, text);
}

/// A failure in Redis's words where Redis has some, so that client libraries behave.
pub fn failure_text(failure: Failure) -> &'static str {
    const { assert!(KEY_BYTES_MAX == 32 << 10 && VALUE_BYTES_MAX == 8 << 20) };
    match failure {
        Failure::NotInteger => "ERR value is not an integer or out of range",
        Failure::Overflow => "ERR increment or decrement would overflow",
        Failure::NotFloat => "ERR value is not a valid float",
        Failure::NotFinite => "ERR increment would produce NaN or Infinity",
        Failure::TooLarge => {
            "ERR TooLarge: a key may have up to 32768 bytes (32 KiB), a value up to 8388608 (8 MiB)"
        }
        Failure::NoSpace => {
            "OOM command not allowed: no room left in memory_dir or data_dir; \
             remove keys, or give the brick more room"
        }
        Failure::Unavailable => {
            "LOADING the brick is starting, stopping or has lost its lease, or cannot reach the one \
             that serves the key; try again"
        }
        Failure::InDoubt => {
            "TRYAGAIN the write may or may not have been applied; read the key before trying again"
        }
        Failure::Corrupt => {
            "ERR Corrupt: the stored record does not match its checksum; \
             the brick's log says which; write the key again or restore it"
        }
        Failure::DiskFailed => {
            "MISCONF the disk of the key's only replica failed, or its files cannot be opened; \
             the brick's log and /readyz say which: repair it and start the brick again"
        }
        Failure::NoTable => "ERR NoTable: there is no such table; create it first",
        Failure::Busy => "TRYAGAIN too many requests in flight on this core; try again",
        Failure::Malformed => "ERR internal error: the partition did not understand the request",
        Failure::WrongPartition => {
            "TRYAGAIN this brick does not hold the key's partition; try again"
        }
        Failure::AskPrimary => "TRYAGAIN this brick is a backup of the key; try again",
        Failure::RouteTooNew => "TRYAGAIN this brick's map is being brought up to date; try again",
    }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_of_the_redis_manual() {
        let text = b"This is a string";
        for (start, end, want) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 3, ""),
            (-1, -3, ""),
            (100, 200, ""),
            (i64::MIN, i64::MAX, "This is a string"),
            (0, i64::MIN, "T"),
        ] {
            assert_eq!(range(text, start, end), want.as_bytes(), "{start} {end}");
        }
        assert_eq!(range(b"", 0, -1), b"");
    }
}
