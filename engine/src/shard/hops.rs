//! Requests of other cores that are executed here and wait for a commit.

/// Who gets the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The core that asked.
    pub core: u16,
    /// Its word.
    pub token: u64,
    /// The client's number, which the answer repeats.
    pub slot: u32,
}

/// A table of waiting hops; entries are reused. Bounded by what the other cores have in flight.
#[derive(Debug, Default)]
pub struct Hops {
    entries: Vec<Option<Hop>>,
    free: Vec<u32>,
}

impl Hops {
    /// Takes an entry.
    pub fn insert(&mut self, hop: Hop) -> u32 {
        if let Some(entry) = self.free.pop() {
            self.entries[entry as usize] = Some(hop);
            return entry;
        }
        self.entries.push(Some(hop));
        self.entries.len() as u32 - 1
    }

    /// Gives it back.
    pub fn remove(&mut self, entry: u32) -> Hop {
        let hop = self.entries[entry as usize].take().expect("a hop is answered once");
        self.free.push(entry);
        hop
    }

    /// Entries in use.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}
