//! How fast a core copies, as a source and as a learner: as fast as it can while foreground requests do not suffer,
//! and less when they do.
//!
//! What a foreground request waits for at a core is noted as it happens: in the queue of the turn before it, and for
//! the votes of a write. Ten times a second the 99th percentile of that is compared with what it was while nothing was
//! copied. Worse: half as fast, but never slower than the floor, so that every copy ends. As before: a step
//! faster. Without foreground there is no bound at all. What requests wait for in the network is not seen here: the source
//! keeps its queue there short while there is foreground.

/// Between two looks.
const LOOK_NS: u64 = 100_000_000;
/// A copy may not be slower, bytes a second.
const FLOOR: u64 = 10_000_000;
/// What a good look adds, bytes a second.
const STEP: u64 = 10_000_000;
/// Fewer requests than this say nothing yet: they are judged with those of the next looks,
const NOTES_MIN: u32 = 20;
/// of so many at most. Past that there is no foreground to speak of.
const FEW_LOOKS: u32 = 10;
/// Of what a request may wait, one part in so many is for its way.
const WAY_PART: u64 = 4;
/// What may be moved at once after a pause.
const BURST_NS: u64 = 2_000_000;
/// Something was moved in the last so many looks: a copy is going on.
const COPYING_LOOKS: u32 = 3;
/// Classes of times, four to a power of two, from about a microsecond on.
const CLASSES: usize = 96;

/// See the module's text.
#[derive(Debug)]
pub struct Pace {
    /// What 1% of foreground requests may wait anyway.
    bound_ns: u64,
    notes: [u32; CLASSES],
    /// Looks that left them.
    few_looks: u32,
    /// There were requests lately.
    foreground: bool,
    looked_ns: u64,
    /// Bytes moved since.
    moved: u64,
    /// Looks since something was moved.
    calm_looks: u32,
    /// The percentile while nothing is copied, smoothed; 0: not known.
    calm_ns: u64,
    /// Bytes a second; `None`: no bound.
    rate: Option<u64>,
    /// What may be moved now; below 0 after a large piece.
    credit: i64,
    credit_ns: u64,
}

impl Pace {
    /// Copies slow down when more than 1% of foreground requests wait longer than `bound_ns`, and than
    /// one and a half times of what they wait without a copy; 0: they never do.
    pub fn new(bound_ns: u64) -> Self {
        Self {
            bound_ns,
            notes: [0; CLASSES],
            few_looks: 0,
            foreground: false,
            looked_ns: 0,
            moved: 0,
            calm_looks: COPYING_LOOKS,
            calm_ns: 0,
            rate: None,
            credit: 0,
            credit_ns: 0,
        }
    }

    /// So many requests waited for so long.
    #[inline]
    pub fn note(&mut self, waited_ns: u64, requests: u32) {
        self.notes[class(waited_ns)] += requests;
    }

    /// Bytes were moved by copies.
    pub fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
        self.credit -= bytes as i64;
    }

    /// Whether more may be moved now.
    pub fn is_open(&mut self, now_ns: u64) -> bool {
        let Some(rate) = self.rate else { return true };
        let past_ns = now_ns.saturating_sub(self.credit_ns).min(LOOK_NS);
        let most = share(rate, BURST_NS);
        self.credit = (self.credit + share(rate, past_ns)).min(most);
        self.credit_ns = now_ns;
        self.credit > 0
    }

    /// Bytes a second that copies may move; 0: there is no bound.
    pub fn bytes_per_second(&self) -> u64 {
        self.rate.unwrap_or(0)
    }

    /// How much longer foreground requests may wait on their way because of copies; 0: there is no foreground.
    pub fn way_bound_ns(&self) -> u64 {
        if self.foreground { self.bound_ns / WAY_PART } else { 0 }
    }

    /// Looks at what was noted, when it is time.
    pub fn look(&mut self, now_ns: u64) {
        let past_ns = now_ns.saturating_sub(self.looked_ns);
        if past_ns < LOOK_NS || self.bound_ns == 0 {
            return;
        }
        self.looked_ns = now_ns;
        let p99_ns = self.take_p99();
        let moved = std::mem::take(&mut self.moved);
        // Too few of them are judged later.
        self.foreground = p99_ns.is_some() || (self.foreground && self.few_looks > 0);
        self.calm_looks = if moved > 0 { 0 } else { self.calm_looks.saturating_add(1) };
        if self.calm_looks >= COPYING_LOOKS {
            self.rate = None;
            if let Some(p99_ns) = p99_ns {
                self.calm_ns =
                    if self.calm_ns == 0 { p99_ns } else { (7 * self.calm_ns + p99_ns) / 8 };
            }
            return;
        }
        let Some(p99_ns) = p99_ns else {
            if self.few_looks == 0 {
                self.rate = None;
            }
            return;
        };
        let speed = (u128::from(moved) * 1_000_000_000 / u128::from(past_ns)) as u64;
        let suffers = p99_ns > self.bound_ns.max(self.calm_ns + self.calm_ns / 2);
        if suffers {
            let now = self.rate.map_or(speed, |rate| rate.min(speed));
            self.slow_down((now / 2).max(FLOOR), now_ns);
        } else if let Some(rate) = &mut self.rate {
            // A bound that is not reached says nothing about a higher one.
            *rate = (*rate + STEP).min(2 * speed.max(FLOOR));
        }
    }

    fn slow_down(&mut self, rate: u64, now_ns: u64) {
        if self.rate.is_none() {
            (self.credit, self.credit_ns) = (0, now_ns);
        }
        self.rate = Some(rate);
    }

    /// The end of the class that the 99th percentile is in; `None`: there was hardly a request.
    fn take_p99(&mut self) -> Option<u64> {
        let all: u32 = self.notes.iter().sum();
        if all < NOTES_MIN && self.few_looks < FEW_LOOKS {
            self.few_looks += 1;
            return None;
        }
        self.few_looks = 0;
        let notes = std::mem::replace(&mut self.notes, [0; CLASSES]);
        if all < NOTES_MIN {
            return None;
        }
        let mut left = all / 100 + 1;
        for (class, &count) in notes.iter().enumerate().rev() {
            if count >= left {
                return Some(end_of(class));
            }
            left -= count;
        }
        None
    }
}

fn share(rate: u64, ns: u64) -> i64 {
    (u128::from(rate) * u128::from(ns) / 1_000_000_000) as i64
}

/// Four classes to a power of two; the first is everything below 2 us.
fn class(ns: u64) -> usize {
    let ns = ns.max(1 << 10);
    let power = ns.ilog2();
    let quarter = (ns >> (power - 2)) & 3;
    (((power - 10) * 4) as usize + quarter as usize).min(CLASSES - 1)
}

fn end_of(class: usize) -> u64 {
    let (power, quarter) = (class as u32 / 4 + 10, class as u64 % 4);
    (5 + quarter) << (power - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// A core under load: `wait_ns` of a foreground request by the speed of the copy, for so many seconds.
    fn run(
        pace: &mut Pace,
        now_ns: &mut u64,
        seconds: u64,
        link: u64,
        wait: impl Fn(u64) -> u64,
    ) -> u64 {
        let (mut total, begin_ns) = (0, *now_ns);
        let mut speed = 0;
        while *now_ns < begin_ns + seconds * 1_000_000_000 {
            let mut moved = 0;
            let look_ns = *now_ns + LOOK_NS;
            while *now_ns < look_ns {
                *now_ns += 500_000;
                if link > 0 && pace.is_open(*now_ns) {
                    let bytes = link / 2_000;
                    pace.moved(bytes);
                    moved += bytes;
                }
                if wait(speed) > 0 {
                    pace.note(wait(speed), 3);
                }
            }
            pace.look(*now_ns);
            speed = moved * 10;
            total += moved;
        }
        total / seconds
    }

    #[test]
    fn without_foreground_a_copy_is_not_slowed_down() {
        let (mut pace, mut now) = (Pace::new(1_000_000), 0);
        assert_eq!(run(&mut pace, &mut now, 3, 1000 * MB, |_| 0), 1000 * MB);
    }

    #[test]
    fn foreground_that_does_not_suffer_slows_nothing_down() {
        let (mut pace, mut now) = (Pace::new(1_000_000), 0);
        assert_eq!(run(&mut pace, &mut now, 3, 1000 * MB, |_| 900_000), 1000 * MB);
        assert_eq!(pace.bytes_per_second(), 0);
    }

    #[test]
    fn a_copy_is_as_fast_as_foreground_bears() {
        let (mut pace, mut now) = (Pace::new(1_000_000), 0);
        let wait = |speed| if speed > 60 * MB { 5_000_000 } else { 100_000 };
        run(&mut pace, &mut now, 1, 0, wait);
        let speed = run(&mut pace, &mut now, 20, 120 * MB, wait);
        assert!((30 * MB..65 * MB).contains(&speed), "{speed}");
        // And as fast as it can when the foreground is gone for a while.
        run(&mut pace, &mut now, 2, 120 * MB, |_| 0);
        assert_eq!(run(&mut pace, &mut now, 1, 120 * MB, |_| 0) / MB, 120);
    }

    #[test]
    fn foreground_is_known_while_it_lasts() {
        let mut pace = Pace::new(1_000_000);
        assert_eq!(pace.way_bound_ns(), 0);
        for look in 1..=30 {
            // Few requests are foreground too.
            pace.note(1_000, 3);
            pace.look(look * LOOK_NS);
        }
        assert_eq!(pace.way_bound_ns(), 250_000);
        for look in 31..=60 {
            pace.look(look * LOOK_NS);
        }
        assert_eq!(pace.way_bound_ns(), 0);
    }

    #[test]
    fn a_copy_always_ends() {
        let (mut pace, mut now) = (Pace::new(1_000_000), 0);
        let speed = run(&mut pace, &mut now, 10, 120 * MB, |_| 50_000_000);
        assert!((9 * MB..25 * MB).contains(&speed), "{speed}");
    }

    #[test]
    fn what_is_slow_anyway_is_no_reason() {
        let (mut pace, mut now) = (Pace::new(1_000_000), 0);
        run(&mut pace, &mut now, 3, 0, |_| 20_000_000);
        let speed = run(&mut pace, &mut now, 3, 120 * MB, |_| 22_000_000);
        assert_eq!(speed / MB, 120);
        let speed = run(&mut pace, &mut now, 10, 120 * MB, |_| 50_000_000);
        assert!(speed < 30 * MB, "{speed}");
    }

    #[test]
    fn classes_of_times_follow_each_other() {
        for class_n in 0..CLASSES - 1 {
            assert_eq!(class(end_of(class_n)), class_n + 1);
            assert_eq!(class(end_of(class_n) - 1), class_n);
        }
        assert_eq!(class(u64::MAX), CLASSES - 1);
    }
}
