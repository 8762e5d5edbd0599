//! How many pieces of a copy are under way at once.
//!
//! As many as the learner takes while nobody else needs the way there: that rides over its stalls. Where foreground
//! requests share the way, whatever a copy has queued in it they wait behind, at a shared link as in a switch. So then
//! the queue is kept short, by the time that a piece takes to the learner and back, as in LEDBAT (RFC 6817): one more
//! piece for each trip that was hardly longer than the shortest, a quarter fewer after one that was.

/// Whatever the learner says.
const MOST: u32 = 64;
/// One on its way while the learner works on another.
const FEWEST: u32 = 2;
/// After a word that there is foreground.
const BEGIN: u32 = 4;

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pieces: u32,
    /// How much longer than the shortest trip one may take; 0: as long as it likes.
    bound_ns: u64,
    /// The shortest trip, as far as is known; 0: not yet.
    base_ns: u64,
    /// A piece whose arrival is being timed, and when it was sent.
    timed: Option<(u32, u64)>,
}

impl Ahead {
    pub fn new(bound_ns: u64) -> Self {
        let mut ahead = Self { pieces: MOST, bound_ns: 0, base_ns: 0, timed: None };
        ahead.bound(bound_ns);
        ahead
    }

    /// Pieces that may be sent and not known to have come.
    pub fn pieces(&self) -> usize {
        self.pieces as usize
    }

    /// Foreground requests share the way.
    pub fn is_bound(&self) -> bool {
        self.bound_ns > 0
    }

    /// Foreground requests share the way and may wait so much longer for it; 0: there are none.
    pub fn bound(&mut self, bound_ns: u64) {
        match (self.bound_ns, bound_ns) {
            (_, 0) => self.pieces = MOST,
            (0, _) => {
                self.pieces = BEGIN;
                // It was sent behind a queue of any length.
                self.timed = None;
            }
            _ => {}
        }
        self.bound_ns = bound_ns;
    }

    pub fn sent(&mut self, piece: u32, now_ns: u64) {
        self.timed.get_or_insert((piece, now_ns));
    }

    /// What is under way is lost.
    pub fn lost(&mut self) {
        self.timed = None;
    }

    /// The pieces before this one came.
    pub fn came(&mut self, came: u32, now_ns: u64) {
        let Some((_, sent_ns)) = self.timed.take_if(|(piece, _)| *piece < came) else { return };
        let trip_ns = now_ns.saturating_sub(sent_ns).max(1);
        if self.bound_ns == 0 {
            return;
        }
        if self.base_ns == 0 || trip_ns < self.base_ns {
            self.base_ns = trip_ns;
        }
        if trip_ns <= self.base_ns + self.bound_ns {
            self.pieces = (self.pieces + 1).min(MOST);
        } else if self.pieces > FEWEST {
            self.pieces = (self.pieces - self.pieces.div_ceil(4)).max(FEWEST);
        } else {
            // There is nothing of ours to wait behind: the way itself became longer.
            self.base_ns += (trip_ns - self.base_ns) / 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A way that takes so long and passes a piece each `piece_ns`: pieces under way, and the longest queue, over a second
    /// after another to get used to it.
    fn run(ahead: &mut Ahead, way_ns: u64, piece_ns: u64) -> (usize, u64) {
        let (mut now, mut free, mut longest, mut most) = (MS, 0, 0, 0);
        let (mut sent, mut came) = (0, 0);
        let mut arrivals = std::collections::VecDeque::new();
        while now < 2_000 * MS {
            while arrivals.front().is_some_and(|&at| at <= now) {
                arrivals.pop_front();
                came += 1;
                ahead.came(came, now);
            }
            while arrivals.len() < ahead.pieces() {
                free = now.max(free) + piece_ns;
                ahead.sent(sent, now);
                sent += 1;
                arrivals.push_back(free + way_ns);
                if now > 1_000 * MS {
                    longest = longest.max(free - now);
                    most = most.max(arrivals.len());
                }
            }
            now += MS / 100;
        }
        (most, longest)
    }

    #[test]
    fn with_nobody_else_it_is_what_the_learner_takes() {
        assert_eq!(run(&mut Ahead::new(0), MS / 10, MS / 2).0, MOST as usize);
    }

    #[test]
    fn with_foreground_the_queue_stays_short_and_the_link_busy() {
        for (way_ns, piece_ns) in [(MS / 10, MS / 2), (MS / 10, MS / 20), (2 * MS, MS / 2)] {
            let mut ahead = Ahead::new(MS);
            let (most, longest) = run(&mut ahead, way_ns, piece_ns);
            assert!(
                longest <= 2 * MS + 2 * piece_ns,
                "{way_ns} {piece_ns}: a queue of {longest} ns"
            );
            let full = way_ns.div_ceil(piece_ns) as usize;
            assert!(most >= full, "{way_ns} {piece_ns}: {most} of {full} pieces");
        }
    }

    #[test]
    fn a_way_that_became_longer_is_the_new_measure() {
        let mut ahead = Ahead::new(MS);
        run(&mut ahead, MS / 10, MS / 2);
        ahead.lost();
        let (most, _) = run(&mut ahead, 20 * MS, MS / 2);
        assert!(most > 20, "{most} pieces under way");
        ahead.bound(0);
        assert_eq!(ahead.pieces(), MOST as usize);
    }
}
