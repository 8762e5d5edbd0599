//! Poll modes: when a core spins, when it blocks, and for how many completions.
//!
//! Blocking for one completion under load wakes the core once per message (0.7 operations a turn were measured),
//! so a loaded core waits for several, but never longer than [`BATCH_WAIT_NS`] for the rest of them.

use crate::fabric::Load;

/// The longest wait for more completions when one is enough to go on.
pub const BATCH_WAIT_NS: u64 = 50_000;
/// The longest wait for the first answer behind sends that may not have completed. Short of it a core that answered
/// its only client would wake for nothing.
const SENT_WAIT_NS: u64 = 500_000;
/// How long `adaptive` spins after the last work, unless configured otherwise.
pub const SPIN_US: u32 = 50;
/// Answers waited for at most.
const BATCH_MAX: u32 = 16;

/// What a core does when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Spin for ever: the lowest latency, one CPU.
    Busy,
    /// Spin for a while, then block: the default.
    Adaptive {
        /// How long to spin after the last work.
        spin_us: u32,
    },
    /// Block at once: the least CPU time.
    Park,
}

impl Default for Mode {
    fn default() -> Self {
        Self::Adaptive { spin_us: SPIN_US }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Busy => "busy",
            Self::Adaptive { .. } => "adaptive",
            Self::Park => "park",
        })
    }
}

/// How a turn ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// [`crate::Fabric::flush`], and the next turn at once.
    Flush,
    /// [`crate::Fabric::wait`] with these.
    Wait {
        /// Completions to wait for.
        want: u32,
        /// At most this long.
        timeout_ns: u64,
    },
}

/// Decides how each turn ends.
#[derive(Clone, Copy, Debug)]
pub struct Poller {
    mode: Mode,
    /// When there was work last.
    worked_ns: u64,
}

impl Poller {
    /// A poller in this mode.
    pub fn new(mode: Mode) -> Self {
        Self { mode, worked_ns: 0 }
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// After a turn at `boot_ns` that saw `events` and leaves `load`, with the next timer of the caller in
    /// `timer_ns`. Work that is left over (a background queue, unparsed input) is told as `timer_ns` 0.
    pub fn after(&mut self, boot_ns: u64, events: usize, load: Load, timer_ns: u64) -> Next {
        if events > 0 {
            self.worked_ns = boot_ns;
        }
        if timer_ns == 0 {
            return Next::Flush;
        }
        let spin_us = match self.mode {
            Mode::Busy => return Next::Flush,
            Mode::Park => 0,
            Mode::Adaptive { spin_us } => spin_us,
        };
        if boot_ns.saturating_sub(self.worked_ns) < u64::from(spin_us) * 1000 {
            return Next::Flush;
        }
        if events == 0 && load.sends == 0 {
            return Next::Wait { want: 1, timeout_ns: timer_ns };
        }
        // A send completes at once, as a rule, so one completion more than the sends is the first receive. The
        // rule's exceptions (a peer that does not read) cost one short wait: the next turn sends nothing.
        let answers = load.answers.clamp(1, BATCH_MAX);
        let limit_ns = match (load.sends, answers) {
            (0, 1) => u64::MAX,
            (_, 1) if !load.large => SENT_WAIT_NS,
            _ => BATCH_WAIT_NS,
        };
        Next::Wait { want: load.sends + answers, timeout_ns: timer_ns.min(limit_ns) }
    }
}

#[cfg(test)]
mod tests;
