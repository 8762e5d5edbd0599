//! Keys whose values are there for a while: what is called on them, and when the values go.
//!
//! Only a primary decides that a key has expired, by the clock on its wall, and by a record: from then on it is gone for
//! everybody. The clocks on the walls are wrong by up to the plan's `skew_ms`, and change by as much at any moment.

use super::brick::UNIX_MS;
use super::world::World;
use crate::check::{Call, Life};
use crate::random::Random;
use crate::sim::clock::{MS, Ns};
use crate::sim::workload;

/// The name of such a key begins with it.
pub const LETTER: char = 'e';

/// The longest that a value is there.
const LIFE_MS: u64 = 1_500;

/// The key's values are there for a while.
pub fn is_expiring(key: &str) -> bool {
    key.starts_with(LETTER)
}

impl World {
    /// A random one, that ends at a time or after one.
    pub fn life(&mut self, from_now: bool) -> Life {
        let most = [20, 200, LIFE_MS][self.sim.random.below(3) as usize];
        let for_ms = 1 + self.sim.random.below(most);
        let skew_ns = self.sim.plan.skew_ms * MS;
        let stale_ns = self.stale_ns();
        if from_now {
            // The front that adds the time to its own may have stood still, for as long as anybody does.
            let early_ns = (for_ms * MS).saturating_sub(2 * skew_ns + 5 * stale_ns);
            let late_ns = for_ms * MS + 2 * skew_ns + stale_ns;
            return Life { ms: for_ms, from_now, early_ns, late_ns };
        }
        let at_ms = self.sim.now / MS + for_ms;
        let at_ns: Ns = at_ms * MS;
        let (early_ns, late_ns) = (at_ns.saturating_sub(skew_ns), at_ns + skew_ns + stale_ns);
        Life { ms: UNIX_MS + at_ms, from_now, early_ns, late_ns }
    }

    /// How long after a clock showed a time it may still be taken for the present: what a turn does it does at the time
    /// of its beginning; its answers leave while the lease of that time lasts.
    fn stale_ns(&self) -> Ns {
        self.sim.plan.lease_ms * MS * 11 / 10 + 2 * MS
    }

    /// From then on all is gone that was to be there until a time.
    pub fn all_is_over(&self) -> Ns {
        self.sim.load_until + (LIFE_MS + self.sim.plan.skew_ms) * MS + self.stale_ns()
    }

    /// What a session calls on such a key.
    pub fn call_expiring(&mut self, reads: u64, key: &str, unique: &str) -> Call {
        let life = self.life(false);
        match self.sim.random.below(100) {
            die if die < reads => Call::Get,
            die => match die % 10 {
                0..=4 => Call::PutFor { value: unique.into(), life },
                5 => Call::Expire { life },
                6 => Call::Persist,
                _ => workload::call(&mut self.sim.random, 0, key, unique, None),
            },
        }
    }
}

/// What a RESP client calls on such a key beside what it calls on others, and the words of it.
pub fn command(
    random: &mut Random,
    key: &str,
    value: &str,
    life: Life,
) -> (Vec<Call>, Vec<String>) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let ms = life.ms.to_string();
    let (px, expire) = if life.from_now { ("PX", "PEXPIRE") } else { ("PXAT", "PEXPIREAT") };
    let put = Call::PutFor { value: value.into(), life };
    match random.below(16) {
        0..=6 => (vec![put], words(&["SET", key, value, px, &ms])),
        7..=9 => (vec![Call::Expire { life }], words(&[expire, key, &ms])),
        10 | 11 => (vec![Call::Persist], words(&["PERSIST", key])),
        12 => (vec![Call::Get, Call::Expire { life }], words(&["GETEX", key, px, &ms])),
        13 => (vec![Call::Get, Call::Persist], words(&["GETEX", key, "PERSIST"])),
        _ => (vec![Call::Left], words(&["PTTL", key])),
    }
}
