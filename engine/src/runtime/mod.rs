//! The pinned executor of a data core. The only module that knows glommio.
//!
//! glommio pins the thread and schedules background work; the hot loop runs as its foreground task,
//! on the core's own ring. The hot loop never lets glommio park: when idle it blocks in its own ring
//! until work or its next timer. It yields to the background queue only when there is work in it, and
//! at most once a millisecond, because a full executor turn costs 15-20 us.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, Shares, executor};

/// Between two yields to the background queue, nanoseconds.
const YIELD_EVERY_NS: u64 = 1_000_000;
/// glommio's own registered I/O memory, which this brick does not use; its default is 10 MB a core.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// Never, in effect. glommio parks for good, with tasks that could run, when this timer fires between its
/// arming and the run of the queues, as on a busy CPU (seen with 1 ms). Both of our tasks yield by
/// themselves and glommio's own rings carry nothing of ours, so nothing needs the timer.
const PREEMPT_TIMER: Duration = Duration::from_hours(24);

/// What a turn of the hot loop asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Turn,
    /// Go on; there is work for the background queue. `now_ns` is the turn's clock.
    Background {
        /// `CLOCK_BOOTTIME`, nanoseconds.
        now_ns: u64,
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
            .preempt_timer(PREEMPT_TIMER)
            .spawn(move || async move {
                let core = make()?;
                run(core).await;
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

async fn run<C: Core + 'static>(core: C) {
    let core = Rc::new(RefCell::new(core));
    let queue =
        executor().create_task_queue(Shares::Static(200), Latency::NotImportant, "background");
    let slices = {
        let core = Rc::clone(&core);
        glommio::spawn_local_into(
            async move {
                loop {
                    core.borrow_mut().background();
                    executor().yield_task_queue_now().await;
                }
            },
            queue,
        )
        .expect("the background queue was just made")
    };
    let mut yielded_ns = 0;
    loop {
        let flow = core.borrow_mut().turn();
        match flow {
            Flow::Turn => {}
            Flow::Background { now_ns } if now_ns < yielded_ns + YIELD_EVERY_NS => {}
            Flow::Background { now_ns } => {
                yielded_ns = now_ns;
                executor().yield_task_queue_now().await;
            }
            Flow::Stop => break,
        }
    }
    slices.cancel().await;
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
            Flow::Background { now_ns: self.turns * YIELD_EVERY_NS / 2 }
        }

        fn background(&mut self) {
            self.slices.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn background_slices_run_between_turns_and_not_at_every_turn() {
        let slices = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&slices);
        let core =
            CoreThread::spawn("t", 0, move || Ok(Counting { turns: 0, slices: counted })).unwrap();
        core.join().unwrap();
        let n = slices.load(Ordering::Relaxed);
        // The executor shares by time run, and these turns take none: some yields pick no slice.
        assert!((1..=25).contains(&n), "{n} slices in 50 turns that are half a millisecond apart");
    }

    #[test]
    fn a_core_that_cannot_be_made_says_why() {
        let core = CoreThread::spawn("t", 0, || Err::<Counting, _>("no ring".to_owned())).unwrap();
        assert_eq!(core.join(), Err("no ring".to_owned()));
    }
}
