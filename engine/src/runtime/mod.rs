//! The pinned executor of a data core. The only module that knows glommio.
//!
//! glommio pins the thread and runs the hot loop as its one task, on the core's own ring; the loop never
//! gives the executor a reason to park. Background work is a slice between two turns and not a task
//! queue of glommio's: with two queues the executor was seen to park for good with a runnable one (a
//! brick that hung for minutes under load, in glommio's `io_uring_enter`, until a signal came).

mod priority;

use std::time::Duration;

pub use priority::stand_back;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

/// Between two slices of background work while there is other work, nanoseconds.
const SLICE_EVERY_NS: u64 = 500_000;
/// glommio's own registered I/O memory, which this brick does not use; its default is 10 MB a core.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Entries of glommio's own rings, which this brick does not use either.
const RING_DEPTH: usize = 8;

/// What a turn of the hot loop asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Turn,
    /// Go on; there is background work. `now_ns` is the turn's clock.
    Background {
        /// `CLOCK_BOOTTIME`, nanoseconds.
        now_ns: u64,
        /// The turn had nothing else to do.
        idle: bool,
    },
    /// Everything is answered and flushed: leave.
    Stop,
}

/// A data core as its executor sees it.
pub trait Core {
    /// One turn of the hot loop; blocks in the core's own ring when idle.
    fn turn(&mut self) -> Flow;

    /// One bounded slice of background work.
    fn background(&mut self);
}

/// A running data core.
pub struct CoreThread(ExecutorJoinHandle<Result<(), String>>);

impl CoreThread {
    /// Pins a new thread to `cpu`, makes the core on it and runs it until it stops. What `make` does
    /// not manage is the error of [`CoreThread::join`].
    pub fn spawn<C: Core + 'static>(
        name: &str,
        cpu: usize,
        make: impl FnOnce() -> Result<C, String> + Send + 'static,
    ) -> Result<Self, String> {
        LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .name(name)
            .io_memory(IO_MEMORY_BYTES)
            .ring_depth(RING_DEPTH)
            .preempt_timer(Duration::from_hours(1))
            .spawn(move || async move {
                priority::ask_for_short_slices();
                run(make()?);
                Ok(())
            })
            .map(Self)
            .map_err(|e| format!("the executor of data core {name} on CPU {cpu}: {e}"))
    }

    /// Waits for the core to stop.
    pub fn join(self) -> Result<(), String> {
        self.0.join().map_err(|e| format!("a data core's executor ended: {e}"))?
    }
}

fn run(mut core: impl Core) {
    let mut sliced_ns = 0;
    loop {
        match core.turn() {
            Flow::Background { now_ns, idle } if idle || now_ns >= sliced_ns + SLICE_EVERY_NS => {
                sliced_ns = now_ns;
                core.background();
            }
            Flow::Turn | Flow::Background { .. } => {}
            Flow::Stop => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Counting {
        turns: u64,
        slices: Arc<AtomicU64>,
    }

    impl Core for Counting {
        fn turn(&mut self) -> Flow {
            self.turns += 1;
            if self.turns > 50 {
                return Flow::Stop;
            }
            Flow::Background { now_ns: self.turns * SLICE_EVERY_NS / 2, idle: self.turns > 40 }
        }

        fn background(&mut self) {
            self.slices.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn background_slices_run_between_turns_and_at_every_one_only_when_idle() {
        let slices = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&slices);
        let core =
            CoreThread::spawn("t", 0, move || Ok(Counting { turns: 0, slices: counted })).unwrap();
        core.join().unwrap();
        let n = slices.load(Ordering::Relaxed);
        assert_eq!(n, 20 + 10, "every second busy turn, and every idle one");
    }

    #[test]
    fn a_core_that_cannot_be_made_says_why() {
        let core = CoreThread::spawn("t", 0, || Err::<Counting, _>("no ring".to_owned())).unwrap();
        assert_eq!(core.join(), Err("no ring".to_owned()));
    }
}
