//! When the logs whose votes wait for the disk flush: group commit over all partitions of a core.
//!
//! A disk needs as long for a flush of one record as of a hundred, and serves the flushes of several files
//! one after another. So the `sync` logs of a core flush in rounds: all that have something, at the end of
//! a turn, and again when the round has landed.
//!
//! Clients that wait for their answers before they write again would fall into two halves, one in flight
//! while the other is answered. So a round waits for those that the last one answered: until as many
//! writes wait as the last round carried and found waiting, at most [`WAIT_SHARE`] of the time that a round
//! takes and never longer than [`WAIT_NS_MAX`]. A client that writes alone does not wait: its one write is
//! what the last round carried.
//!
//! Waiting pays only where those that were answered are back sooner than a round takes. Where they are not (many
//! clients, a quick disk), the disk would idle while they trickle in: after a wait that was in vain the next rounds
//! begin at once, twice as many each time.

/// A larger write is not waited for by other partitions.
const ROUND_BYTES_MAX: u32 = 64 << 10;
/// The part of a round's time that the next one may wait: one in this many.
const WAIT_SHARE: u64 = 2;
/// Waits in vain double the rounds that do not wait, up to two to this power.
const VAIN_MAX: u32 = 7;
/// However slow the disk is.
const WAIT_NS_MAX: u64 = 500_000;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Rounds {
    /// Its writes that have not landed.
    under_way: u32,
    began_ns: u64,
    landed_ns: u64,
    /// How long a round takes, smoothed.
    takes_ns: u64,
    /// Records that the present or last round has made durable.
    carried: u64,
    /// Writes that waited when it landed.
    found: Option<u64>,
    /// The next one waits for more.
    gathers: bool,
    /// Waits in vain, one after the other.
    vain: u32,
    /// Rounds that begin without waiting.
    hasty: u32,
}

impl Rounds {
    /// Whether `sync` logs may flush now, when `waiting` writes wait for that.
    pub fn may_begin(&mut self, now_ns: u64, waiting: u64) -> bool {
        if self.under_way > 0 {
            return false;
        }
        let found = *self.found.get_or_insert(waiting);
        let enough = waiting == 0 || waiting >= self.carried + found;
        let late = now_ns >= self.landed_ns + self.wait_ns();
        if self.gathers && enough {
            self.vain = 0;
        } else if self.gathers && late {
            self.vain = (self.vain + 1).min(VAIN_MAX);
            self.hasty = 1 << self.vain;
        }
        let begins = enough || late || self.hasty > 0;
        self.gathers = !begins;
        if begins {
            self.began_ns = now_ns;
        }
        begins
    }

    fn wait_ns(&self) -> u64 {
        (self.takes_ns / WAIT_SHARE).min(WAIT_NS_MAX)
    }

    /// A write of this many bytes was submitted: whether the round waits for it.
    pub fn joins(&mut self, bytes: u32) -> bool {
        if bytes > ROUND_BYTES_MAX {
            return false;
        }
        if self.under_way == 0 {
            self.carried = 0;
            self.hasty = self.hasty.saturating_sub(1);
        }
        self.under_way += 1;
        true
    }

    /// A write of the round landed and made `carried` records durable.
    pub fn landed(&mut self, now_ns: u64, carried: u64) {
        self.under_way -= 1;
        self.carried += carried;
        if self.under_way == 0 {
            let took_ns = now_ns.saturating_sub(self.began_ns);
            self.takes_ns = (self.takes_ns * 7 + took_ns) / 8;
            self.landed_ns = now_ns;
            self.found = None;
        }
    }

    /// When to look again without another reason: writes wait for others to join them.
    pub fn wake_at(&self) -> Option<u64> {
        self.gathers.then(|| self.landed_ns + self.wait_ns())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1000;

    /// A round of `n` records in two files that takes 200 us, from `at` on.
    fn round(rounds: &mut Rounds, at: u64, n: u64) -> u64 {
        assert!(rounds.may_begin(at, n));
        assert!(rounds.joins(4096) && rounds.joins(4096));
        assert!(!rounds.may_begin(at + 100 * US, 0), "one round at a time");
        rounds.landed(at + 150 * US, n / 2);
        assert!(!rounds.may_begin(at + 150 * US, n), "half of it has landed");
        rounds.landed(at + 200 * US, n - n / 2);
        at + 200 * US
    }

    #[test]
    fn one_client_never_waits_for_others() {
        let mut rounds = Rounds::default();
        let mut now = 0;
        for _ in 0..100 {
            now = round(&mut rounds, now, 1);
            assert!(rounds.may_begin(now, 0));
            assert_eq!(rounds.wake_at(), None);
            now += 20 * US;
        }
    }

    #[test]
    fn two_halves_of_the_clients_become_one() {
        let mut rounds = Rounds::default();
        let mut now = 0;
        for _ in 0..50 {
            assert!(rounds.may_begin(now, 0));
            now = round(&mut rounds, now + 20 * US, 32);
        }
        // The other half waits; the answered half is on its way back.
        assert!(!rounds.may_begin(now, 32));
        assert!(!rounds.may_begin(now + 30 * US, 50));
        let due = rounds.wake_at().unwrap();
        assert!((90 * US..=100 * US).contains(&(due - now)), "half of a round: {}", due - now);
        now = round(&mut rounds, now + 40 * US, 64);
        // Together they stay together.
        assert!(rounds.may_begin(now, 0));
        assert!(!rounds.may_begin(now + 10 * US, 20));
        assert!(rounds.may_begin(now + 30 * US, 64));
    }

    #[test]
    fn clients_that_left_cost_one_bounded_wait() {
        let mut rounds = Rounds::default();
        let mut now = 0;
        for _ in 0..50 {
            assert!(rounds.may_begin(now, 0));
            now = round(&mut rounds, now + 20 * US, 64);
        }
        assert!(!rounds.may_begin(now, 1));
        now = rounds.wake_at().unwrap();
        assert!(rounds.may_begin(now, 1), "its time is up");
        now = round(&mut rounds, now, 1);
        assert!(rounds.may_begin(now, 0));
        assert!(rounds.may_begin(now + 20 * US, 1), "and the next one waits for nobody");
        // However slow the disk is.
        let mut rounds = Rounds { takes_ns: 1_000_000_000, carried: 9, ..Rounds::default() };
        assert!(!rounds.may_begin(0, 1));
        assert_eq!(rounds.wake_at(), Some(WAIT_NS_MAX));
    }

    #[test]
    fn where_waiting_is_in_vain_rounds_begin_at_once() {
        let mut rounds = Rounds::default();
        let (mut now, mut waits) = (0, 0);
        for _ in 0..1000 {
            assert!(rounds.may_begin(now, 0));
            now = round(&mut rounds, now + 20 * US, 20);
            // The others come one by one, all the time.
            if !rounds.may_begin(now, 20) {
                waits += 1;
                now = rounds.wake_at().unwrap();
                assert!(rounds.may_begin(now, 25));
            }
        }
        assert!((8..30).contains(&waits), "{waits} waits of 1,000 rounds");
        // Two halves of the clients become one again, sooner or later.
        for n in 0.. {
            assert!(n < 2 << VAIN_MAX, "nobody is waited for any more");
            assert!(rounds.may_begin(now, 0));
            now = round(&mut rounds, now + 20 * US, 32);
            if !rounds.may_begin(now, 32) {
                now = round(&mut rounds, now + 40 * US, 64);
                break;
            }
        }
        assert!(rounds.may_begin(now, 0));
        assert!(!rounds.may_begin(now + 10 * US, 20));
        assert!(rounds.may_begin(now + 30 * US, 64));
    }

    #[test]
    fn a_large_write_holds_nobody_up() {
        let mut rounds = Rounds::default();
        assert!(rounds.may_begin(0, 1));
        assert!(!rounds.joins(ROUND_BYTES_MAX + 1));
        assert!(rounds.may_begin(1, 2));
    }
}
