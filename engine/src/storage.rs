//! The storage thread: one thread of a brick that makes the file calls which may block, so that no
//! data core ever does.
//!
//! Each data core has a [`Desk`]: a ring of jobs to the thread and a ring of answers back. The thread
//! takes one job of each core in turn, so that a core that opens many partitions does not keep the
//! others from their spares; jobs of one core are done in their order. A core has at most
//! [`JOBS_MAX`] jobs that it has not seen the answer of, which is why the ring of answers never
//! overflows and nothing here waits for a core.

use std::sync::mpsc;
use std::thread::{self, JoinHandle, Thread};

use rtrb::{Consumer, Producer, RingBuffer};

use crate::error::BrickError;
use crate::runtime::stand_back;

/// Jobs of one core that are under way.
pub const JOBS_MAX: usize = 256;

/// Wakes a data core; called on the storage thread after each answer.
pub type Waker = Box<dyn Fn() + Send>;

/// A data core's end.
pub struct Desk<J, D> {
    jobs: Producer<J>,
    done: Consumer<D>,
    under_way: usize,
    /// Last, because fields go in order: it rings when the rings are already given up.
    bell: Bell,
}

impl<J, D> Desk<J, D> {
    /// Gives the thread a job. Gives it back when too many are under way; try again after an answer.
    pub fn submit(&mut self, job: J) -> Result<(), J> {
        if self.under_way == JOBS_MAX {
            return Err(job);
        }
        match self.jobs.push(job) {
            Ok(()) => {
                self.under_way += 1;
                // A system call only when the thread sleeps.
                self.bell.0.unpark();
                Ok(())
            }
            Err(rtrb::PushError::Full(job)) => Err(job),
        }
    }

    /// The next answer, in the order of the jobs.
    pub fn poll(&mut self) -> Option<D> {
        let done = self.done.pop().ok()?;
        self.under_way -= 1;
        Some(done)
    }

    /// Jobs whose answers have not been polled.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// The thread is gone while jobs wait: their answers will never come.
    pub fn is_broken(&self) -> bool {
        self.under_way > 0 && self.done.is_abandoned() && self.done.is_empty()
    }
}

/// Wakes the storage thread; once more when its desk goes, so that the thread looks who is left.
struct Bell(Thread);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.unpark();
    }
}

/// The storage thread's end of a desk.
pub struct Window<J, D> {
    jobs: Consumer<J>,
    done: Producer<D>,
    wake: Waker,
}

/// For tests and the simulator, which do the jobs themselves, at moments of their choice.
impl<J, D> Window<J, D> {
    /// A desk and the other end of its rings.
    pub fn by_hand() -> (Desk<J, D>, Self) {
        let (to, jobs) = RingBuffer::new(JOBS_MAX);
        let (done, from) = RingBuffer::new(JOBS_MAX);
        let bell = Bell(thread::current());
        (
            Desk { jobs: to, done: from, under_way: 0, bell },
            Self { jobs, done, wake: Box::new(|| ()) },
        )
    }

    /// The next job.
    pub fn take(&mut self) -> Option<J> {
        self.jobs.pop().ok()
    }

    /// Its answer.
    pub fn answer(&mut self, done: D) {
        assert!(self.done.push(done).is_ok(), "the ring holds an answer for every job");
    }
}

/// The running thread. It ends when all desks have been dropped and their jobs are done.
pub struct StorageThread(JoinHandle<()>);

impl StorageThread {
    /// Starts the thread, with one desk for each waker. `perform` gets the core's number and the job.
    pub fn spawn<J, D>(
        wakers: Vec<Waker>,
        mut perform: impl FnMut(u16, J) -> D + Send + 'static,
    ) -> Result<(Self, Vec<Desk<J, D>>), BrickError>
    where
        J: Send + 'static,
        D: Send + 'static,
    {
        let (send_windows, windows) = mpsc::sync_channel::<Vec<Window<J, D>>>(1);
        let handle = thread::Builder::new()
            .name("storage".into())
            .spawn(move || {
                stand_back();
                if let Ok(windows) = windows.recv() {
                    serve(windows, &mut perform);
                }
            })
            .map_err(|error| BrickError::Thread {
                name: "storage".into(),
                what: error.to_string(),
            })?;
        let mut desks = Vec::with_capacity(wakers.len());
        let mut windows = Vec::with_capacity(wakers.len());
        for wake in wakers {
            let (to, jobs) = RingBuffer::new(JOBS_MAX);
            let (done, from) = RingBuffer::new(JOBS_MAX);
            windows.push(Window { jobs, done, wake });
            let bell = Bell(handle.thread().clone());
            desks.push(Desk { jobs: to, done: from, under_way: 0, bell });
        }
        // The thread cannot have gone: it waits for exactly this.
        let _ = send_windows.send(windows);
        Ok((Self(handle), desks))
    }

    /// Waits until all desks are dropped and their jobs done.
    pub fn join(self) -> Result<(), BrickError> {
        self.0.join().map_err(|panic| {
            let what = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".into());
            BrickError::Thread { name: "storage".into(), what }
        })
    }
}

fn serve<J, D>(mut windows: Vec<Window<J, D>>, perform: &mut impl FnMut(u16, J) -> D) {
    loop {
        // Asked before the rings are looked at: a desk that goes after that wakes this thread again.
        let gone = windows.iter().all(|window| window.jobs.is_abandoned());
        let mut worked = false;
        for (core, window) in windows.iter_mut().enumerate() {
            let Ok(job) = window.jobs.pop() else { continue };
            worked = true;
            let done = perform(core as u16, job);
            let pushed = window.done.push(done);
            assert!(
                pushed.is_ok() || window.done.is_abandoned(),
                "a desk has at most JOBS_MAX jobs under way, and the ring holds as many answers"
            );
            (window.wake)();
        }
        if !worked {
            if gone {
                return;
            }
            // A submit between the look and here leaves its token, so this returns at once.
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    fn wakers(n: usize) -> (Arc<AtomicUsize>, Vec<Waker>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let wakers = (0..n).map(|_| {
            let woken = Arc::clone(&woken);
            Box::new(move || {
                woken.fetch_add(1, Ordering::SeqCst);
            }) as Waker
        });
        let wakers = wakers.collect();
        (woken, wakers)
    }

    fn await_done<J, D>(desk: &mut Desk<J, D>) -> D {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(done) = desk.poll() {
                return done;
            }
            assert!(Instant::now() < deadline, "no answer");
            thread::yield_now();
        }
    }

    #[test]
    fn every_job_is_answered_in_order_to_its_own_core() {
        let (woken, wakers) = wakers(2);
        let (storage, desks) =
            StorageThread::spawn(wakers, |core, job: u64| (core, job * 2)).unwrap();
        let cores = desks.into_iter().enumerate().map(|(core, mut desk)| {
            thread::spawn(move || {
                let (mut sent, mut seen) = (0u64, 0u64);
                while seen < 20_000 {
                    while sent < 20_000 && desk.submit(sent).is_ok() {
                        sent += 1;
                    }
                    if let Some(done) = desk.poll() {
                        assert_eq!(done, (core as u16, seen * 2));
                        seen += 1;
                    } else {
                        thread::yield_now();
                    }
                }
                assert_eq!(desk.under_way(), 0);
            })
        });
        for core in cores.collect::<Vec<_>>() {
            core.join().unwrap();
        }
        storage.join().unwrap();
        assert_eq!(woken.load(Ordering::SeqCst), 40_000);
    }

    #[test]
    fn a_slow_disk_pushes_back_and_a_waiting_thread_wakes_up() {
        let (release, gate) = mpsc::channel::<()>();
        let (_, wakers) = wakers(1);
        let (storage, mut desks) = StorageThread::spawn(wakers, move |_, job: u64| {
            let _ = gate.recv();
            job
        })
        .unwrap();
        let mut desk = desks.remove(0);
        for job in 0..JOBS_MAX as u64 {
            desk.submit(job).unwrap();
        }
        assert_eq!(desk.submit(999), Err(999), "bounded, although the thread has taken a job");
        release.send(()).unwrap();
        assert_eq!(await_done(&mut desk), 0);
        desk.submit(999).unwrap();
        drop(release);
        for _ in 0..JOBS_MAX {
            await_done(&mut desk);
        }
        // Asleep for certain, then one more.
        thread::sleep(Duration::from_millis(20));
        desk.submit(5).unwrap();
        assert_eq!(await_done(&mut desk), 5);
        drop(desk);
        storage.join().unwrap();
    }

    #[test]
    fn jobs_given_before_the_end_are_still_done() {
        let (_, wakers) = wakers(1);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let (storage, mut desks) = StorageThread::spawn(wakers, move |_, ()| {
            counted.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
        for _ in 0..100 {
            desks[0].submit(()).unwrap();
        }
        drop(desks);
        storage.join().unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 100);
    }

    #[test]
    fn a_thread_that_dies_is_noticed() {
        let (_, wakers) = wakers(1);
        let (storage, mut desks) =
            StorageThread::spawn(wakers, |_, ()| panic!("the disk is a teapot")).unwrap();
        assert!(!desks[0].is_broken());
        desks[0].submit(()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !desks[0].is_broken() {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        let told = storage.join().unwrap_err().to_string();
        assert_eq!(told, "the thread storage ended: the disk is a teapot");
    }
}
