//! RESP2 as a client speaks it: commands out, replies in.

/// A reply, as far as a load looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK` and the like.
    Simple,
    /// What the server says is wrong.
    Error(String),
    /// A number.
    Integer(i64),
    /// A value of so many bytes.
    Bulk(usize),
    /// No value.
    Null,
}

/// Appends one command.
pub fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

impl Reply {
    /// The first reply and its length; `None` while it is not whole. `Err`: this is no RESP.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let (line, after) = (String::from_utf8_lossy(&bytes[..end]), end + 2);
        let strange = || format!("the server does not speak RESP: it answered `{line}`");
        let number = || line[1..].parse::<i64>().map_err(|_| strange());
        Ok(Some(match bytes[0] {
            b'+' => (Self::Simple, after),
            b'-' => (Self::Error(line[1..].to_owned()), after),
            b':' => (Self::Integer(number()?), after),
            b'_' => (Self::Null, after),
            b'$' => match number()? {
                -1 => (Self::Null, after),
                len @ 0.. if bytes.len() < after + len as usize + 2 => return Ok(None),
                len @ 0.. => (Self::Bulk(len as usize), after + len as usize + 2),
                _ => return Err(strange()),
            },
            _ => return Err(strange()),
        }))
    }
}
