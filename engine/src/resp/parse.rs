//! Reading commands out of received bytes.
//!
//! [`fast`] takes the two commands that matter, GET and SET, straight from the receive buffer.
//! [`Parse`] takes anything, in pieces: it remembers what it has seen of a partial command, so that a
//! value of 8 MiB that arrives in 16 KiB pieces is looked at once. Bytes over a limit are counted and
//! dropped, never kept.

use std::borrow::Cow;

use super::limits::{
    ARGUMENTS_MAX, BULK_BYTES_MAX, COMMAND_BYTES_MAX, INLINE_BYTES_MAX, RESERVE_BYTES_MIN,
    VALUE_BYTES_MAX,
};
use super::number::parse_i64;

/// A command of the hot path, as offsets into the buffer that [`fast`] was given.
#[derive(Clone, Copy, Default)]
pub struct Fast {
    /// Just past the command.
    pub end: u32,
    /// The key.
    pub key: (u32, u32),
    /// The value; (0, 0) for GET.
    pub value: (u32, u32),
}

impl Fast {
    /// A SET, not a GET.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.value.0 != 0
    }
}

const GET_HEAD: u64 = u64::from_le_bytes(*b"*2\r\n$3\r\n");
const SET_HEAD: u64 = u64::from_le_bytes(*b"*3\r\n$3\r\n");
/// Three letters in either case, then the end of the line and the next bulk's mark.
const WORD_MASK: u64 = u64::from_le_bytes([0xdf, 0xdf, 0xdf, 0xff, 0xff, 0xff, 0, 0]);
const GET_WORD: u64 = u64::from_le_bytes(*b"GET\r\n$\0\0");
const SET_WORD: u64 = u64::from_le_bytes(*b"SET\r\n$\0\0");

/// A whole `$`-less bulk at `at`: length, line end, bytes, line end. `None`: not here, or not whole.
#[inline]
fn fast_bulk(buf: &[u8], at: usize) -> Option<((u32, u32), usize)> {
    let digits = at;
    let mut len = 0usize;
    let mut at = at;
    loop {
        let digit = buf.get(at)?.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        len = len * 10 + usize::from(digit);
        at += 1;
        if len > VALUE_BYTES_MAX {
            return None;
        }
    }
    // "$", "$00" and "$01" are for the patient parser to refuse.
    if at == digits || (buf[digits] == b'0' && at > digits + 1) || buf.get(at..at + 2)? != b"\r\n" {
        return None;
    }
    let start = at + 2;
    let end = start + len;
    if buf.get(end..end + 2)? != b"\r\n" {
        return None;
    }
    Some(((start as u32, end as u32), end + 2))
}

/// The GET or two-argument SET that begins at `start`, if one does and all of it is here.
#[inline]
pub fn fast(buf: &[u8], start: usize) -> Option<Fast> {
    let bytes: &[u8; 16] = buf.get(start..start + 16)?.first_chunk()?;
    let head = u64::from_le_bytes(*bytes.first_chunk()?);
    let word = u64::from_le_bytes(*bytes.last_chunk()?) & WORD_MASK;
    let is_set = match (head, word) {
        (GET_HEAD, GET_WORD) => false,
        (SET_HEAD, SET_WORD) => true,
        _ => return None,
    };
    let (key, mut end) = fast_bulk(buf, start + 14)?;
    let mut value = (0, 0);
    if is_set {
        if *buf.get(end)? != b'$' {
            return None;
        }
        (value, end) = fast_bulk(buf, end + 1)?;
    }
    Some(Fast { end: end as u32, key, value })
}

/// Argument offsets, relative to the command's first byte. Sixteen without an allocation.
#[derive(Debug, Default)]
pub struct Spans {
    inline: [(u32, u32); 16],
    len: usize,
    more: Vec<(u32, u32)>,
}

impl Spans {
    fn push(&mut self, span: (u32, u32)) {
        match self.inline.get_mut(self.len) {
            Some(slot) => *slot = span,
            None => self.more.push(span),
        }
        self.len += 1;
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.len
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let inline = &self.inline[..self.len.min(self.inline.len())];
        inline.iter().chain(&self.more).copied()
    }
}

/// What a step of the parser found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A command of `used` bytes; its arguments are in `spans`.
    Command {
        /// Bytes of the buffer that it is.
        used: usize,
    },
    /// An inline command; its arguments are here because quotes had to be undone.
    Inline {
        /// Bytes of the buffer that it is.
        used: usize,
        /// The words.
        words: Vec<Vec<u8>>,
    },
    /// Nothing to do: an empty line or an empty array.
    Nothing {
        /// Bytes of the buffer that it is.
        used: usize,
    },
    /// A command whose bytes were dropped because it is over a limit.
    TooLarge {
        /// Bytes of the buffer that end it.
        used: usize,
        /// A sentence for the client.
        error: String,
    },
    /// More bytes are needed: at least `more` of them. While over a limit, all bytes so far may be
    /// forgotten (`Parse::forget`).
    Partial {
        /// At least so many more.
        more: usize,
    },
}

/// A violation of the protocol. The connection is closed after it.
pub type ProtocolError = Cow<'static, str>;

/// The state of one command's parsing.
#[derive(Debug, Default)]
pub struct Parse {
    /// Offset of the next byte to look at.
    at: usize,
    /// Arguments that the header announced and that are not there yet; `None` before the header.
    left: Option<u32>,
    /// The bulk that is being waited for.
    bulk: Option<usize>,
    /// The arguments.
    pub spans: Spans,
    /// Why the command is being dropped, when it is.
    refused: Option<String>,
}

impl Parse {
    /// Goes on with the command whose bytes so far are all of `buf` (from its first byte).
    pub fn step(&mut self, buf: &[u8]) -> Result<Step, ProtocolError> {
        let left = match self.left {
            Some(left) => left,
            None => match self.header(buf)? {
                Ok(left) => left,
                Err(step) => return Ok(step),
            },
        };
        self.arguments(buf, left)
    }

    /// Makes room in the buffer of all bytes so far for the argument that is on its way. Doubling, and
    /// never past the announced length: a long value is copied about twice, a lie costs nothing.
    pub fn make_room(&self, buf: &mut Vec<u8>) {
        let Some(len) = self.bulk.filter(|_| self.refused.is_none()) else { return };
        let missing = (self.at + len + 2).saturating_sub(buf.len());
        if buf.capacity() - buf.len() < missing.min(RESERVE_BYTES_MIN) {
            buf.reserve_exact(missing.min(buf.len().max(RESERVE_BYTES_MIN)));
        }
    }

    /// All bytes seen so far may be dropped; the caller forgets them and so do we.
    pub fn forget(&mut self, buf: &mut Vec<u8>) {
        if self.refused.is_some() {
            let seen = self.at.min(buf.len());
            buf.drain(..seen);
            self.at -= seen;
        }
    }

    /// The line of `*` or an inline command. `Err` is an answer, not an error.
    fn header(&mut self, buf: &[u8]) -> Result<Result<u32, Step>, ProtocolError> {
        match buf.first() {
            None => Ok(Err(Step::Partial { more: 1 })),
            Some(b'*') => {
                let Some(line) = self.line(buf, 1, "Protocol error: too big mbulk count string")?
                else {
                    return Ok(Err(Step::Partial { more: 1 }));
                };
                let count = parse_i64(line)
                    .filter(|&n| n <= ARGUMENTS_MAX)
                    .ok_or("Protocol error: invalid multibulk length")?;
                if count <= 0 {
                    return Ok(Err(Step::Nothing { used: self.at }));
                }
                self.left = Some(count as u32);
                Ok(Ok(count as u32))
            }
            Some(_) => self.inline(buf).map(Err),
        }
    }

    fn arguments(&mut self, buf: &[u8], mut left: u32) -> Result<Step, ProtocolError> {
        while left > 0 {
            let len = match self.bulk {
                Some(len) => len,
                None => match self.bulk_head(buf)? {
                    Some(len) => len,
                    None => return Ok(Step::Partial { more: 1 }),
                },
            };
            let end = self.at + len;
            if buf.len() < end + 2 {
                if self.refused.is_some() && buf.len() > self.at {
                    // The part that is here is not needed again.
                    let here = (buf.len() - self.at).min(len);
                    self.bulk = Some(len - here);
                    self.at += here;
                }
                return Ok(Step::Partial { more: end + 2 - buf.len() });
            }
            if self.refused.is_none() {
                self.spans.push((self.at as u32, end as u32));
            }
            self.at = end + 2;
            self.bulk = None;
            left -= 1;
            self.left = Some(left);
        }
        Ok(match self.refused.take() {
            None => Step::Command { used: self.at },
            Some(error) => Step::TooLarge { used: self.at, error },
        })
    }

    /// The `$` line of the next argument.
    fn bulk_head(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        match buf.get(self.at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&other) => {
                let other = char::from(if other.is_ascii() { other } else { b'?' });
                return Err(format!("Protocol error: expected '$', got '{other}'").into());
            }
        }
        let from = self.at + 1;
        let Some(line) = self.line(buf, from, "Protocol error: too big bulk count string")? else {
            return Ok(None);
        };
        let len = parse_i64(line)
            .filter(|n| (0..=BULK_BYTES_MAX).contains(n))
            .ok_or("Protocol error: invalid bulk length")? as usize;
        self.bulk = Some(len);
        if self.refused.is_none() {
            if len > VALUE_BYTES_MAX {
                self.refused = Some(format!(
                    "ERR TooLarge: an argument of {len} bytes; a value may have up to \
                     {VALUE_BYTES_MAX} (8 MiB): split it"
                ));
            } else if self.at + len > COMMAND_BYTES_MAX {
                self.refused = Some(format!(
                    "ERR TooLarge: a command of more than {COMMAND_BYTES_MAX} bytes (32 MiB): \
                     send its keys in several commands"
                ));
            }
        }
        Ok(Some(len))
    }

    /// The text from `from` to its line end; moves past it.
    fn line<'b>(
        &mut self,
        buf: &'b [u8],
        from: usize,
        too_big: &'static str,
    ) -> Result<Option<&'b [u8]>, ProtocolError> {
        let rest = &buf[from..];
        let window = &rest[..rest.len().min(INLINE_BYTES_MAX + 1)];
        let Some(len) = window.iter().position(|&b| b == b'\r') else {
            if window.len() > INLINE_BYTES_MAX {
                return Err(too_big.into());
            }
            return Ok(None);
        };
        if rest.len() < len + 2 {
            return Ok(None);
        }
        self.at = from + len + 2; // as Redis: what follows CR is taken to be LF
        Ok(Some(&rest[..len]))
    }

    fn inline(&mut self, buf: &[u8]) -> Result<Step, ProtocolError> {
        let from = self.at; // looked through so far, so that a slow sender costs no rescans
        let Some(end) = buf[from..].iter().position(|&b| b == b'\n').map(|n| from + n) else {
            if buf.len() > INLINE_BYTES_MAX {
                return Err("Protocol error: too big inline request".into());
            }
            self.at = buf.len();
            return Ok(Step::Partial { more: 1 });
        };
        if end > INLINE_BYTES_MAX {
            return Err("Protocol error: too big inline request".into());
        }
        let line = buf[..end].strip_suffix(b"\r").unwrap_or(&buf[..end]);
        let words =
            super::inline::split(line).ok_or("Protocol error: unbalanced quotes in request")?;
        let used = end + 1;
        Ok(if words.is_empty() { Step::Nothing { used } } else { Step::Inline { used, words } })
    }
}
