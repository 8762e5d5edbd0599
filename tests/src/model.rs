//! What a writer knows of its own keys: what was acked, and what may or may not have happened since.

use std::collections::HashMap;

use crate::random::Random;

/// A value that says which write made it, and whose every byte can be checked: a torn or mixed value
/// is seen at once.
pub fn value_of(writer: u64, number: u64) -> Vec<u8> {
    let mut random = Random::new(writer << 48 ^ number);
    let len = if number.is_multiple_of(97) { 20_000 } else { 16 + random.below(300) as usize };
    let mut value = writer.to_le_bytes().to_vec();
    value.extend_from_slice(&number.to_le_bytes());
    value.extend(random.bytes(len));
    value
}

/// The write that made this value; `None` for bytes that no write made.
pub fn number_of(value: &[u8]) -> Option<(u64, u64)> {
    let (writer, rest) = value.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    let (writer, number) = (u64::from_le_bytes(*writer), u64::from_le_bytes(*number));
    (value_of(writer, number) == value).then_some((writer, number))
}

/// What one key may hold: the state after the last acked write, or after any sent later.
#[derive(Debug, Clone, Default)]
pub struct History {
    acked: Option<u64>,
    in_doubt: Vec<Option<u64>>,
}

/// The keys of one writer. A state is the number of the put that made it, or `None` for no value.
#[derive(Debug, Clone, Default)]
pub struct Model {
    keys: HashMap<Vec<u8>, History>,
}

impl Model {
    /// A write was sent.
    pub fn sent(&mut self, key: &[u8], state: Option<u64>) {
        self.keys.entry(key.to_owned()).or_default().in_doubt.push(state);
    }

    /// The oldest unanswered write of the key was acked.
    pub fn acked(&mut self, key: &[u8]) {
        let history = self.keys.get_mut(key).expect("sent before");
        history.acked = history.in_doubt.remove(0);
    }

    /// The oldest unanswered write of the key was refused: it did not happen.
    pub fn refused(&mut self, key: &[u8]) {
        self.keys.get_mut(key).expect("sent before").in_doubt.remove(0);
    }

    /// All keys ever written.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<_> = self.keys.keys().cloned().collect();
        keys.sort();
        keys
    }

    /// Compares what was read with what may be, and from then on knows it.
    pub fn check(&mut self, key: &[u8], found: Option<u64>) -> Result<(), String> {
        let history = self.keys.get_mut(key).expect("a key of this writer");
        if history.acked != found && !history.in_doubt.contains(&found) {
            return Err(format!(
                "{}: found {found:?}, but {:?} was acked and {:?} sent after it",
                String::from_utf8_lossy(key),
                history.acked,
                history.in_doubt
            ));
        }
        history.acked = found;
        history.in_doubt.clear();
        Ok(())
    }
}
