//! A connection sees its own commands in their order, also when they are under way at once: the checker, which
//! knows only when something was asked and answered, could not tell.

use crate::check::{Back, Bytes, Call};
use crate::sim::workload::Family;

/// What one connection was told of one key.
#[derive(Default)]
pub struct Seen {
    /// Values that it wrote; nothing stands for one that was taken away, or was not there.
    own: Vec<Bytes>,
    /// How far a value has come that only grows.
    size: u64,
}

impl Seen {
    /// The next answer. `Err`: it is from before an earlier one.
    pub fn see(&mut self, family: Family, call: &Call, back: &Back) -> Result<(), String> {
        if let Back::Value { value, .. } = back {
            let before = self.own.iter().position(|own| own == value);
            if before.is_some_and(|at| at + 1 < self.own.len()) {
                return Err(format!("a connection that had replaced {value:?} was told it"));
            }
        }
        match (call, back) {
            (_, Back::Failed | Back::Refused { .. })
            | (Call::Left | Call::Expire { .. } | Call::Persist, _) => {}
            (_, Back::Integer { value, .. }) => self.grow(*value as u64, true)?,
            (_, Back::Length { len, .. }) => self.grow(*len, true)?,
            (Call::Get, Back::Value { value, .. }) => {
                let number = || String::from_utf8_lossy(&value.0).parse().unwrap_or_default();
                match family {
                    Family::Counter => self.grow(number(), false)?,
                    Family::List => self.grow(value.0.len() as u64, false)?,
                    Family::Register => {}
                }
            }
            (call, _) => self.own.push(call.value().cloned().unwrap_or("".into())),
        }
        Ok(())
    }

    fn grow(&mut self, size: u64, is_write: bool) -> Result<(), String> {
        let before = std::mem::replace(&mut self.size, size);
        if size < before || (is_write && size == before) {
            return Err(format!("a connection that knew of {before} was told {size}"));
        }
        Ok(())
    }
}
