//! Time: one true time that nobody in the simulation knows, and clocks that drift from it.

use crate::random::Random;

/// Nanoseconds of true time.
pub type Ns = u64;
/// A millisecond.
pub const MS: Ns = 1_000_000;
/// A microsecond.
pub const US: Ns = 1_000;

/// Clocks run at most this much too slow or too fast: the ratio of any two is under 1.1.
const DRIFT_PPM_MAX: i64 = 47_000;

fn drift(random: &mut Random) -> i64 {
    let span = (2 * DRIFT_PPM_MAX + 1) as u64;
    match random.below(3) {
        0 => 0,
        1 => [DRIFT_PPM_MAX, -DRIFT_PPM_MAX][random.below(2) as usize],
        _ => random.below(span) as i64 - DRIFT_PPM_MAX,
    }
}

/// A machine's clock. It goes on while a process is stopped.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it showed at a true time.
    offset: u64,
    since: Ns,
    drift_ppm: i64,
}

impl Clock {
    /// A clock that began somewhere and drifts somehow.
    pub fn new(random: &mut Random) -> Self {
        let drift_ppm = drift(random);
        Self { offset: 1_000_000 * MS + random.below(1_000_000) * MS, since: 0, drift_ppm }
    }

    /// From now on it drifts in another way.
    pub fn drift_anew(&mut self, now: Ns, random: &mut Random) {
        *self = Self { offset: self.at(now), since: now, drift_ppm: drift(random) };
    }

    /// What it shows at a true time.
    pub fn at(&self, now: Ns) -> u64 {
        let gone = i128::from(now.saturating_sub(self.since));
        let drift = gone * i128::from(self.drift_ppm) / 1_000_000;
        self.offset + (gone + drift) as u64
    }

    /// The true time at which it shows `local` (not before, and at most some nanoseconds after).
    pub fn when(&self, local: u64) -> Ns {
        let since = i128::from(local.saturating_sub(self.offset));
        self.since + (since * 1_000_000 / i128::from(1_000_000 + self.drift_ppm)) as u64 + 2
    }
}
