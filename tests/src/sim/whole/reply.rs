//! RESP as a client reads and writes it.

use crate::check::{Back, Bytes, Call};

/// What a brick says.
#[derive(Debug, PartialEq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Many(Vec<Reply>),
}

impl Reply {
    /// The reply that these bytes begin with, and how many of them it is; `None`: not all of it is here.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(&bytes[1..end]).into_owned();
        let number = || line.parse::<i64>().map_err(|_| format!("`{line}` is no number"));
        let used = end + 2;
        let reply = match bytes[0] {
            b'+' => Self::Simple(line),
            b'-' => Self::Error(line),
            b':' => Self::Integer(number()?),
            b'$' if number()? < 0 => Self::Null,
            b'$' => {
                let end = used + number()? as usize;
                let Some(value) = bytes.get(used..end).filter(|_| bytes.len() >= end + 2) else {
                    return Ok(None);
                };
                return Ok(Some((Self::Bulk(value.to_vec()), end + 2)));
            }
            b'*' => return Self::many(bytes, used, number()?),
            _ => return Err(format!("no reply begins with {:?}", Bytes(bytes.to_vec()))),
        };
        Ok(Some((reply, used)))
    }

    fn many(bytes: &[u8], mut used: usize, count: i64) -> Result<Option<(Self, usize)>, String> {
        let mut all = Vec::new();
        for _ in 0..count {
            let Some((one, more)) = Self::parse(&bytes[used..])? else { return Ok(None) };
            all.push(one);
            used += more;
        }
        Ok(Some((Self::Many(all), used)))
    }
}

/// Appends a command.
pub fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// What a history has of a command's reply, for each of its parts; `None`: nobody knows what was done. `Err`: no brick
/// should say so.
pub fn backs(parts: &[(u64, String, Call)], reply: &Reply) -> Result<Vec<Option<Back>>, String> {
    let one = |(.., call): &(u64, String, Call), reply: &Reply| match reply {
        // (Of a command that writes several keys some may be written.)
        Reply::Error(text) if is_certain(text)? && (parts.len() == 1 || *call == Call::Get) => {
            Some(Some(Back::Failed))
        }
        Reply::Error(text) => is_certain(text).map(|_| None),
        reply => back(call, reply).map(Some),
    };
    let backs: Option<Vec<_>> = match reply {
        Reply::Many(all) if all.len() == parts.len() => {
            parts.iter().zip(all).map(|(part, reply)| one(part, reply)).collect()
        }
        reply => parts.iter().map(|part| one(part, reply)).collect(),
    };
    backs.ok_or_else(|| format!("{reply:?} was replied to {parts:?}"))
}

/// An error that says that nothing was done, or that this is not known; `None`: none that these commands may get.
fn is_certain(text: &str) -> Option<bool> {
    let code = text.split(' ').next().unwrap_or_default();
    match code {
        "OOM" | "LOADING" => Some(true),
        "TRYAGAIN" => Some(!text.contains("may or may not")),
        _ => None,
    }
}

fn back(call: &Call, reply: &Reply) -> Option<Back> {
    let version = None;
    Some(match (call, reply) {
        (Call::Get | Call::Take | Call::Swap { .. }, Reply::Bulk(value)) => {
            Back::Value { value: Bytes(value.clone()), version }
        }
        (Call::Get | Call::Take | Call::Swap { .. }, Reply::Null)
        | (Call::Remove, Reply::Integer(0)) => Back::Absent,
        (Call::Put { .. } | Call::PutIfAbsent { .. }, Reply::Simple(text)) if text == "OK" => {
            Back::Done { version }
        }
        (Call::Remove, Reply::Integer(1)) => Back::Done { version },
        (Call::PutIfAbsent { .. }, Reply::Null) => Back::Refused { current: None },
        (Call::Increment { .. }, Reply::Integer(value)) => Back::Integer { value: *value, version },
        (Call::Append { .. }, Reply::Integer(len)) => Back::Length { len: *len as u64, version },
        _ => return None,
    })
}
