//! What RESP replies mean to a history.

use crate::check::{Back, Bytes, Call};
use crate::resp::Value;

/// What a history has of a command's reply, for each of its parts; `None`: nobody knows what was done. `Err`: no brick
/// should say so.
pub fn backs(parts: &[(u64, String, Call)], reply: &Value) -> Result<Vec<Option<Back>>, String> {
    let one = |(.., call): &(u64, String, Call), reply: &Value| match reply {
        // (Of a command that writes several keys some may be written.)
        Value::Error(text) if is_certain(text)? && (parts.len() == 1 || *call == Call::Get) => {
            Some(Some(Back::Failed))
        }
        Value::Error(text) => is_certain(text).map(|_| None),
        reply => back(call, reply).map(Some),
    };
    let is_getex = parts.len() == 2 && parts[0].1 == parts[1].1;
    let backs: Option<Vec<_>> = match reply {
        // What was read may have been gone when its time was to be set.
        Value::Bulk(_) if is_getex => one(&parts[0], reply).map(|read| vec![read, None]),
        Value::Nil if is_getex => one(&parts[0], reply).map(|read| vec![read, Some(Back::Failed)]),
        Value::Array(all) if all.len() == parts.len() => {
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

fn back(call: &Call, reply: &Value) -> Option<Back> {
    let version = None;
    Some(match (call, reply) {
        (Call::Get | Call::Take | Call::Swap { .. }, Value::Bulk(value)) => {
            Back::Value { value: Bytes(value.clone()), version }
        }
        (Call::Get | Call::Take | Call::Swap { .. }, Value::Nil)
        | (Call::Remove | Call::Expire { .. }, Value::Integer(0))
        | (Call::Left, Value::Integer(-2)) => Back::Absent,
        (Call::Increment { .. } | Call::Left, Value::Integer(value)) => {
            Back::Integer { value: *value, version }
        }
        (Call::Remove | Call::Expire { .. } | Call::Persist, Value::Integer(1)) => {
            Back::Done { version }
        }
        (
            Call::Put { .. } | Call::PutFor { .. } | Call::PutIfAbsent { .. },
            Value::Simple(text),
        ) if text == "OK" => Back::Done { version },
        (Call::Persist, Value::Integer(0)) | (Call::PutIfAbsent { .. }, Value::Nil) => {
            Back::Refused { current: None }
        }
        (Call::Append { .. }, Value::Integer(len)) => Back::Length { len: *len as u64, version },
        _ => return None,
    })
}
