//! What each connection has among the forwards: a question about one looks at nothing of the others.
//!
//! Forwards are many exactly when somebody has failed, and each of those that wait is looked at every millisecond.
//!
//! A connection that has none has no entry. Between two calls of [`Forwards`](super::Forwards) one with requests
//! [`behind`](Lines::behind) has one that somebody has, or one that waits to be tried.

use std::collections::HashMap;

use super::forward::Forward;
use crate::shard::asker::ConnId;

/// Where a request is, other than behind others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not tried yet.
    Fresh,
    /// To be tried when it is time.
    Waiting,
    /// Somebody has it.
    Sent,
    /// Somebody has it, and the route of its key has changed; it is at `Sent` too.
    Stray,
}

#[derive(Debug, Default)]
struct Line {
    /// By [`Place`].
    counts: [u32; 4],
    behind: Vec<Forward>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Lines {
    all: HashMap<ConnId, Line>,
    strays: usize,
    behind: usize,
}

impl Lines {
    /// Requests behind others, of all connections.
    pub fn behind(&self) -> usize {
        self.behind
    }

    /// Strays, of all connections.
    pub fn strays(&self) -> usize {
        self.strays
    }

    /// It has a request there.
    pub fn has(&self, conn: ConnId, place: Place) -> bool {
        self.all.get(&conn).is_some_and(|line| line.counts[place as usize] > 0)
    }

    /// It has a request behind others.
    pub fn has_behind(&self, conn: ConnId) -> bool {
        self.all.get(&conn).is_some_and(|line| !line.behind.is_empty())
    }

    /// One more of its requests is there.
    pub fn enter(&mut self, conn: ConnId, place: Place) {
        self.strays += usize::from(place == Place::Stray);
        self.all.entry(conn).or_default().counts[place as usize] += 1;
    }

    /// One less.
    pub fn leave(&mut self, conn: ConnId, place: Place) {
        self.strays -= usize::from(place == Place::Stray);
        let line = self.all.get_mut(&conn).expect("what leaves has entered");
        line.counts[place as usize] -= 1;
        self.tidy(conn);
    }

    /// It waits for others of its connection.
    pub fn put_behind(&mut self, forward: Forward) {
        self.behind += 1;
        self.all.entry(forward.conn).or_default().behind.push(forward);
    }

    /// The first of those behind others.
    pub fn take_first(&mut self, conn: ConnId, order: impl Fn(&Forward) -> u64) -> Option<Forward> {
        let line = self.all.get_mut(&conn)?;
        let (at, _) = line.behind.iter().enumerate().min_by_key(|(_, f)| order(f))?;
        let first = line.behind.swap_remove(at);
        self.behind -= 1;
        self.tidy(conn);
        Some(first)
    }

    /// Those behind others that are as wanted.
    pub fn take_behind(
        &mut self,
        conn: ConnId,
        wanted: impl FnMut(&mut Forward) -> bool,
    ) -> Vec<Forward> {
        let Some(line) = self.all.get_mut(&conn).filter(|line| !line.behind.is_empty()) else {
            return Vec::new();
        };
        let taken: Vec<_> = line.behind.extract_if(.., wanted).collect();
        self.behind -= taken.len();
        self.tidy(conn);
        taken
    }

    /// Those behind others stay where they are.
    pub fn behind_of(&mut self, conn: ConnId) -> &mut [Forward] {
        self.all.get_mut(&conn).map_or(&mut [], |line| &mut line.behind)
    }

    fn tidy(&mut self, conn: ConnId) {
        if self.all.get(&conn).is_some_and(Line::is_empty) {
            self.all.remove(&conn);
        }
    }

    /// Everything here is what a count of the requests themselves gives.
    #[cfg(test)]
    pub fn check(&self, places: impl Iterator<Item = (ConnId, Place)>) {
        let mut counted = Lines::default();
        places.for_each(|(conn, place)| counted.enter(conn, place));
        assert_eq!(self.strays, counted.strays);
        assert_eq!(self.behind, self.all.values().map(|line| line.behind.len()).sum::<usize>());
        for (conn, line) in &self.all {
            assert!(!line.is_empty());
            assert_eq!(line.counts, counted.all.remove(conn).unwrap_or_default().counts);
            assert!(line.behind.iter().all(|forward| forward.conn == *conn));
            let front = [Place::Sent, Place::Waiting].map(|place| self.has(*conn, place));
            assert!(line.behind.is_empty() || front[0] || front[1]);
            assert!(line.counts[Place::Waiting as usize] <= 1);
        }
        assert!(counted.all.is_empty());
    }
}

impl Line {
    fn is_empty(&self) -> bool {
        self.counts == [0; 4] && self.behind.is_empty()
    }
}
