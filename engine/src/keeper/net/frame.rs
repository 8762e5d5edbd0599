//! Bytes of the control port.
//!
//! ```text
//!   both ways first   "FBCT"  version u16  0 u16
//!   then frames       len u32  crc u32 | JSON, one line [ '\n' raw bytes ]
//! ```
//!
//! The first frame of who dials is a [`Hello`], of who listens a [`Greeting`].

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAGIC: &[u8; 4] = b"FBCT";
const VERSION: u16 = 1;
/// The longest frame between bricks of one cluster.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
/// The longest of somebody who has not shown that it belongs to the cluster.
pub(crate) const STRANGER_BYTES_MAX: usize = 64 << 10;
/// Room for a frame grows by this as its bytes come, whatever its length says.
const GROW_BYTES: usize = 64 << 10;

/// Who dials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hello {
    /// The cluster's number; 0: not known, it wants to join.
    pub(crate) cluster: u64,
    /// Its brick's id; 0: none yet.
    pub(crate) from: u32,
    /// The brick that it means; 0: any.
    pub(crate) to: u32,
}

/// Who listens, or why it does not talk to the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Greeting {
    /// Go on.
    Welcome {
        /// Its cluster's number; 0: it is in none yet.
        cluster: u64,
        /// Its brick's id.
        brick: u32,
    },
    /// The connection ends here.
    Refused(String),
}

/// What came in a frame.
pub(crate) struct Frame {
    bytes: Vec<u8>,
    /// Where the JSON ends.
    json: usize,
}

impl Frame {
    /// The JSON.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.bytes[..self.json]).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("not a message: {error}"))
        })
    }

    /// The bytes behind it.
    pub(crate) fn into_tail(mut self) -> Vec<u8> {
        let from = (self.json + 1).min(self.bytes.len());
        self.bytes.split_off(from)
    }
}

/// A frame's bytes.
pub(crate) fn encode<T: Serialize>(message: &T, tail: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 8];
    serde_json::to_writer(&mut bytes, message).map_err(io::Error::other)?;
    if !tail.is_empty() {
        bytes.push(b'\n');
        bytes.extend_from_slice(tail);
    }
    let len = bytes.len() - 8;
    if len > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!(
            "a message of {len} bytes cannot be sent; {FRAME_BYTES_MAX} are the most"
        )));
    }
    let crc = crc32fast::hash(&bytes[8..]);
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Reads one frame. `None`: the other side closed before it began.
pub(crate) async fn read(
    from: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
) -> io::Result<Option<Frame>> {
    let mut head = [0; 8];
    let begun = from.read(&mut head).await?;
    if begun == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[begun..]).await?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (len, crc) = (word(0) as usize, word(4));
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    if len > bytes_max {
        return Err(invalid(format!("a frame of {len} bytes is over the limit of {bytes_max}")));
    }
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let have = bytes.len();
        bytes.resize(len.min(have + GROW_BYTES), 0);
        from.read_exact(&mut bytes[have..]).await?;
    }
    if crc32fast::hash(&bytes) != crc {
        return Err(invalid(format!("a frame of {len} bytes has a wrong checksum")));
    }
    let json = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    Ok(Some(Frame { bytes, json }))
}

/// Says which protocol this is.
pub(crate) async fn write_preamble(to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    to.write_all(&bytes).await
}

/// Checks that the other side speaks the same.
pub(crate) async fn read_preamble(from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes).await?;
    let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if &bytes[..4] != MAGIC {
        return invalid("it does not speak the control protocol".into());
    }
    match u16::from_le_bytes([bytes[4], bytes[5]]) {
        VERSION => Ok(()),
        other => invalid(format!(
            "it speaks version {other} of the control protocol, this brick speaks {VERSION}"
        )),
    }
}
