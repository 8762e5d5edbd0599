//! The write sessions of this client: one for each partition that it writes to.

use std::collections::VecDeque;

use firebrick_partition::op::{Numbered, RequestId, SessionId};

use super::numbers::Numbers;
use super::slot::Id;

#[derive(Debug)]
struct Writer {
    partition: u32,
    /// `None` until the partition answered `OpenSession`.
    numbers: Option<Numbers>,
    /// An `OpenSession` is under way.
    opening: bool,
    /// Writes that wait for the session or for room in its window, in order.
    waiting: VecDeque<Id>,
}

/// What a write that wants a number is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Here it is.
    Number(RequestId),
    /// It waits in line now.
    Waits,
    /// It waits in line now, and the caller sends `OpenSession`.
    WaitsAndOpens,
}

/// Sorted by partition. Bounded by the number of partitions in the map, as often as it changes.
#[derive(Debug, Default)]
pub(super) struct Writers(Vec<Writer>);

impl Writers {
    fn get(&mut self, partition: u32) -> Option<&mut Writer> {
        let at = self.0.binary_search_by_key(&partition, |w| w.partition).ok()?;
        self.0.get_mut(at)
    }

    fn get_or_insert(&mut self, partition: u32) -> &mut Writer {
        let at = match self.0.binary_search_by_key(&partition, |w| w.partition) {
            Ok(at) => at,
            Err(at) => {
                let waiting = VecDeque::new();
                self.0.insert(at, Writer { partition, numbers: None, opening: false, waiting });
                at
            }
        };
        &mut self.0[at]
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A number for a new write, or a place in the line.
    pub fn take(&mut self, partition: u32, id: Id) -> Take {
        let writer = self.get_or_insert(partition);
        if writer.waiting.is_empty()
            && let Some(number) = writer.numbers.as_mut().and_then(Numbers::take)
        {
            return Take::Number(number);
        }
        writer.waiting.push_back(id);
        writer.wait()
    }

    /// The next write in line together with a number for it.
    pub fn next(
        &mut self,
        partition: u32,
        is_current: impl Fn(Id) -> bool,
    ) -> Option<(Id, RequestId)> {
        let writer = self.get(partition)?;
        while let Some(&id) = writer.waiting.front() {
            if is_current(id) {
                let number = writer.numbers.as_mut()?.take()?;
                writer.waiting.pop_front();
                return Some((id, number));
            }
            writer.waiting.pop_front();
        }
        None
    }

    /// Any write in line, to be failed.
    pub fn pop_waiting(&mut self, partition: u32) -> Option<Id> {
        self.get(partition)?.waiting.pop_front()
    }

    /// Whether writes are in line and the caller is to send `OpenSession` for them.
    pub fn wants_open(&mut self, partition: u32) -> bool {
        self.get(partition)
            .is_some_and(|w| !w.waiting.is_empty() && w.wait() == Take::WaitsAndOpens)
    }

    /// The partition answered `OpenSession`. The same session again keeps its numbering.
    pub fn opened(&mut self, partition: u32, session: SessionId) {
        let writer = self.get_or_insert(partition);
        writer.opening = false;
        if writer.numbers.as_ref().is_none_or(|n| n.session() != session) {
            writer.numbers = Some(Numbers::new(session));
        }
    }

    /// `OpenSession` was answered, one way or the other.
    pub fn open_ended(&mut self, partition: u32) {
        if let Some(writer) = self.get(partition) {
            writer.opening = false;
        }
    }

    /// The partition does not know the session any more. Writes to come open another.
    pub fn lost(&mut self, session: SessionId) {
        for writer in &mut self.0 {
            if writer.numbers.as_ref().is_some_and(|n| n.session() == session) {
                writer.numbers = None;
            }
        }
    }

    /// The request was answered or is given up. The partition whose window moved, if one did.
    pub fn finish(&mut self, id: RequestId) -> Option<u32> {
        // Nearly always the partition that opened the session; after a split, an heir of it.
        let writer = self.get(id.session.partition)?;
        let moved = writer.numbers.as_mut()?.finish(id);
        moved.then_some(writer.partition)
    }

    /// `id` as it travels.
    pub fn numbered(&mut self, id: RequestId) -> Numbered {
        match self.get(id.session.partition).and_then(|w| w.numbers.as_ref()) {
            Some(numbers) => numbers.numbered(id),
            None => Numbered { id, answered_to: 0 },
        }
    }

    /// Forgets writers of partitions that are no more: ids are never used again. One that is still busy goes another time.
    pub fn forget_gone(&mut self, is_there: impl Fn(u32) -> bool) {
        self.0.retain(|w| w.opening || !w.waiting.is_empty() || is_there(w.partition));
    }

    /// Takes those out of the lines that are over.
    pub fn forget_waiting(&mut self, is_current: impl Fn(Id) -> bool) {
        for writer in &mut self.0 {
            writer.waiting.retain(|&id| is_current(id));
        }
    }
}

impl Writer {
    /// Whether a write in line waits for a session that nobody has asked for yet.
    fn wait(&mut self) -> Take {
        let needs = match &self.numbers {
            None => true,
            Some(n) => n.is_used_up() && n.is_quiet(),
        };
        if !needs || self.opening {
            return Take::Waits;
        }
        self.opening = true;
        Take::WaitsAndOpens
    }
}
