//! Who waits for whom where threads share a CPU: a data core that wakes goes before the storage thread.
//!
//! On CPUs of their own nobody waits and none of this matters. Where fewer CPUs than busy threads are, the kernel gives
//! each its slice in turn, and a data core with requests would wait for the end of the storage thread's, which may be
//! filling a segment with pages. So a data core asks for short slices (Linux 6.12 and later: who asks for less
//! is let in sooner, and gets no more in all), and the storage thread counts for less.
//!
//! A wish each: a kernel that does not know it, or a sandbox that refuses it, changes nothing but latency.

/// A data core's slice. (The shortest that the kernel takes.)
const SLICE_NS: u64 = 100_000;
/// How far the storage thread stands back. With all CPUs busy it still has a third of what a data core has: writes wait for
/// its segments.
const STORAGE_NICE: libc::c_int = 5;

/// The calling thread is let in soon when it wakes.
pub fn ask_for_short_slices() {
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    // SAFETY: plain numbers, for which all zeros is valid.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: `attr` is writable and `size` bytes long.
    if unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) } != 0 {
        return;
    }
    // A real-time policy that an operator gave it has no slices.
    if attr.sched_policy == libc::SCHED_OTHER as u32 {
        attr.sched_runtime = SLICE_NS;
        // SAFETY: `attr` is readable and holds its own size.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    }
}

/// The calling thread stands back behind data cores.
pub fn stand_back() {
    // SAFETY: changes nothing but the scheduling of the calling thread (0), which may always lower its own.
    unsafe {
        let nice = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, nice + STORAGE_NICE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(field: usize) -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1;
        fields.split(' ').nth(field - 3).unwrap().into()
    }

    #[test]
    fn the_storage_thread_stands_back_and_nobody_else() {
        let here = stat(19);
        let there = std::thread::spawn(|| {
            stand_back();
            stat(19)
        });
        let nice = |text: &str| text.parse::<i32>().unwrap();
        assert_eq!(nice(&there.join().unwrap()), (nice(&here) + STORAGE_NICE).min(19));
        assert_eq!(stat(19), here);
    }

    #[test]
    fn slices_get_short_and_nothing_else_changes() {
        let slice = || {
            let sched = std::fs::read_to_string("/proc/thread-self/sched").ok()?;
            let line = sched.lines().find(|l| l.starts_with("se.slice"))?;
            line.rsplit(' ').next()?.parse::<u64>().ok()
        };
        let run = std::thread::spawn(move || {
            let before = (slice(), stat(19), stat(41));
            ask_for_short_slices();
            (before, (slice(), stat(19), stat(41)))
        });
        let (before, after) = run.join().unwrap();
        assert_eq!((&before.1, &before.2), (&after.1, &after.2), "nice and policy");
        // A kernel before 6.12, or one that does not tell.
        if before.0.is_some() && before.0 != after.0 {
            assert_eq!(after.0, Some(SLICE_NS));
        }
    }
}
