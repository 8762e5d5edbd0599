//! Frames and the handshake: how bytes of a TCP stream become messages again.
//!
//! A frame is `len u32 | crc u32 | payload`. The [`Decoder`] is incremental: it is fed receive buffers as
//! they come, split anywhere. A frame that lies whole in one buffer is reported as a range of it and never
//! copied; only one that spans buffers is assembled. Memory for it grows with the bytes that arrived, not with
//! the length that was announced, so a header alone costs the receiver nothing.

use crate::fabric::CloseReason;
use crate::limits::FRAME_BYTES_MAX;

/// First bytes of a frames connection, both ways.
pub const MAGIC: [u8; 4] = *b"FBRK";
/// Version of the handshake, the frames and the messages in them.
pub const PROTOCOL_VERSION: u16 = 1;
/// Bytes of a handshake.
pub const HELLO_BYTES: usize = 16;
/// Bytes before a frame's payload.
pub const HEADER_BYTES: usize = 8;

/// What a side says of itself before its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub version: u16,
    /// Reserved: sent as 0, not read.
    pub flags: u16,
    /// Bits of optional features; a feature is used when both sides have its bit.
    pub features: u32,
    /// The longest payload the sender takes. Version 1 asks for at least [`FRAME_BYTES_MAX`].
    pub frame_bytes_max: u32,
}

impl Hello {
    /// What this build says.
    pub const OURS: Self = Self {
        version: PROTOCOL_VERSION,
        flags: 0,
        features: 0,
        frame_bytes_max: FRAME_BYTES_MAX as u32,
    };

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&self.version.to_le_bytes());
        out[6..8].copy_from_slice(&self.flags.to_le_bytes());
        out[8..12].copy_from_slice(&self.features.to_le_bytes());
        out[12..16].copy_from_slice(&self.frame_bytes_max.to_le_bytes());
        out
    }

    /// Reads a peer's handshake and refuses what we could not talk to.
    pub fn decode(bytes: [u8; HELLO_BYTES]) -> Result<Self, CloseReason> {
        let [m0, m1, m2, m3, v0, v1, f0, f1, e0, e1, e2, e3, x0, x1, x2, x3] = bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(CloseReason::Malformed(
                "the first bytes are not FBRK: the peer does not speak the Firebrick protocol",
            ));
        }
        let hello = Self {
            version: u16::from_le_bytes([v0, v1]),
            flags: u16::from_le_bytes([f0, f1]),
            features: u32::from_le_bytes([e0, e1, e2, e3]),
            frame_bytes_max: u32::from_le_bytes([x0, x1, x2, x3]),
        };
        if hello.version != PROTOCOL_VERSION {
            return Err(CloseReason::Version { theirs: hello.version });
        }
        if (hello.frame_bytes_max as usize) < FRAME_BYTES_MAX {
            return Err(CloseReason::Malformed(
                "the peer's longest frame is shorter than protocol version 1 asks for",
            ));
        }
        Ok(hello)
    }
}

/// The 8 bytes before a payload that is `head` followed by `body`.
pub fn header(head: &[u8], body: &[u8]) -> [u8; HEADER_BYTES] {
    let len = head.len() + body.len();
    assert!(
        len <= FRAME_BYTES_MAX,
        "a frame of {len} bytes is over the limit of {FRAME_BYTES_MAX}"
    );
    let crc = if body.is_empty() {
        crc32fast::hash(head)
    } else {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(head);
        hasher.update(body);
        hasher.finalize()
    };
    let mut out = [0; HEADER_BYTES];
    out[..4].copy_from_slice(&(len as u32).to_le_bytes());
    out[4..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// One checked frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The payload is this range of the buffer just fed.
    Whole {
        /// Offset in the buffer.
        start: usize,
        /// Length in bytes.
        len: usize,
    },
    /// The payload came in several buffers.
    Assembled(Vec<u8>),
}

/// Turns buffers into frames. After an error the stream is out of step: close it.
#[derive(Debug, Default)]
pub struct Decoder {
    header: [u8; HEADER_BYTES],
    header_have: u8,
    payload: Vec<u8>,
}

impl Decoder {
    /// A decoder at the start of a frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes held of a frame that is not whole yet.
    pub fn held(&self) -> usize {
        self.payload.capacity()
    }

    /// Whether the stream may end here: no frame is half received.
    pub fn between_frames(&self) -> bool {
        self.header_have == 0
    }

    /// Takes the next buffer of the stream and reports each frame that became whole.
    pub fn feed(
        &mut self,
        input: &[u8],
        mut frame: impl FnMut(Decoded),
    ) -> Result<(), CloseReason> {
        let mut at = 0;
        if self.header_have > 0 {
            at = self.finish_pending(input, &mut frame)?;
        }
        while let Some(bytes) = input.get(at..at + HEADER_BYTES) {
            let (len, crc) = parse_header(bytes)?;
            let start = at + HEADER_BYTES;
            let Some(payload) = input.get(start..start + len) else {
                break;
            };
            check(payload, crc)?;
            frame(Decoded::Whole { start, len });
            at = start + len;
        }
        self.keep(&input[at..]);
        Ok(())
    }

    /// Goes on with the frame that an earlier buffer began. Returns how much of `input` it took.
    fn finish_pending(
        &mut self,
        input: &[u8],
        frame: &mut impl FnMut(Decoded),
    ) -> Result<usize, CloseReason> {
        let have = usize::from(self.header_have);
        let take = (HEADER_BYTES - have).min(input.len());
        self.header[have..have + take].copy_from_slice(&input[..take]);
        self.header_have += take as u8;
        if usize::from(self.header_have) < HEADER_BYTES {
            return Ok(take);
        }
        let (len, crc) = parse_header(&self.header)?;
        let more = (len - self.payload.len()).min(input.len() - take);
        // Double, but never past the announced length: a long frame is copied about twice, a lie costs nothing.
        let want = self.payload.len() + more;
        if want > self.payload.capacity() {
            let room = (want * 2).min(len);
            self.payload.reserve_exact(room - self.payload.len());
        }
        self.payload.extend_from_slice(&input[take..take + more]);
        if self.payload.len() == len {
            check(&self.payload, crc)?;
            self.header_have = 0;
            frame(Decoded::Assembled(std::mem::take(&mut self.payload)));
        }
        Ok(take + more)
    }

    /// Keeps the beginning of a frame whose end has not come.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        assert_eq!(self.header_have, 0, "a pending frame takes all of its input");
        let head = rest.len().min(HEADER_BYTES);
        self.header[..head].copy_from_slice(&rest[..head]);
        self.header_have = head as u8;
        self.payload.extend_from_slice(&rest[head..]);
    }
}

fn parse_header(bytes: &[u8]) -> Result<(usize, u32), CloseReason> {
    let (mut len, mut crc) = ([0; 4], [0; 4]);
    len.copy_from_slice(&bytes[..4]);
    crc.copy_from_slice(&bytes[4..HEADER_BYTES]);
    let len = u32::from_le_bytes(len) as usize;
    if len > FRAME_BYTES_MAX {
        return Err(CloseReason::Malformed("a frame is longer than the limit"));
    }
    Ok((len, u32::from_le_bytes(crc)))
}

fn check(payload: &[u8], crc: u32) -> Result<(), CloseReason> {
    if crc32fast::hash(payload) == crc {
        Ok(())
    } else {
        Err(CloseReason::Malformed("a frame's CRC does not match its bytes"))
    }
}

#[cfg(test)]
mod tests;
