//! A data core: a shard on its own ring, with a clock and a poll mode.

use firebrick_net::poll::{Next, Poller};
use firebrick_net::{Fabric, Tcp};

use crate::clock::Clock;
use crate::runtime::{Core, Flow};
use crate::shard::Shard;

/// See the module's text.
pub struct DataCore {
    shard: Shard<Tcp>,
    poller: Poller,
    clock: Clock,
    /// When the last turn began, unless the core slept after it: a turn is timed by the clock of the
    /// next one.
    began_ns: Option<u64>,
}

/// A core whose ring fails cannot say so to anybody but the log.
const RING_FAILED: &str = "the core's ring failed";

impl DataCore {
    /// A core over its shard.
    pub fn new(shard: Shard<Tcp>, poller: Poller) -> Self {
        Self { shard, poller, clock: Clock::default(), began_ns: None }
    }
}

impl Drop for DataCore {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shard.panicked();
        }
    }
}

impl Core for DataCore {
    fn turn(&mut self) -> Flow {
        let now = self.clock.now();
        let took_ns = self.began_ns.take().map_or(0, |began| now.boot_ns.saturating_sub(began));
        self.shard.note_turn(took_ns);
        let turn = self.shard.turn(now);
        if turn.stopped {
            self.shard.ended();
            return Flow::Stop;
        }
        let fabric = self.shard.fabric();
        let mut load = fabric.load();
        if turn.awaits_disk {
            // Waiting for several requests would hold back the answers of a flush that has ended.
            load.answers = load.answers.min(1);
        }
        let left_ns = turn.next_ns.saturating_sub(now.boot_ns);
        let done = match self.poller.after(now.boot_ns, turn.work, load, left_ns) {
            Next::Flush => {
                self.began_ns = Some(now.boot_ns);
                self.shard.flush()
            }
            Next::Wait { want, timeout_ns } => {
                self.shard.count_park();
                self.shard.wait(want, timeout_ns)
            }
        };
        if let Err(error) = done {
            panic!("{RING_FAILED}: {error}");
        }
        if turn.background {
            Flow::Background { now_ns: now.boot_ns, idle: turn.work == 0 }
        } else {
            Flow::Turn
        }
    }

    fn background(&mut self) {
        self.shard.background(self.clock.now());
    }
}
