//! A thread on one CPU.

use std::io;

/// Keeps the calling thread on this CPU.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    let bits = libc::CPU_SETSIZE as usize;
    if cpu >= bits {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("CPU {cpu} is past the last that Linux knows ({})", bits - 1),
        ));
    }
    // SAFETY: a cpu_set_t is plain integers; all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` is below CPU_SETSIZE, checked above.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set lives through the call and its size is given; 0 is the calling thread.
    let failed = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
