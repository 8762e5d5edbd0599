//! Huge pages for segments, made by a process of their own.
//!
//! `MADV_COLLAPSE` waits until a kernel worker ran on every CPU, with the lock of its caller's mappings held. Where
//! something spins, a data core or a load, that worker may not run for seconds (1.8 s were seen), and for so long every
//! thread of the process stops that changes a mapping itself, be it by an allocation: data cores, and what renews the
//! lease. So another process collapses, whose lock nobody waits for. It is forked at the start, keeps nothing but a
//! socket, and ends with it.
//!
//! All of it is a wish: without the process, or when it is late, pages are small ones.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::map::collapse;

/// A segment with small pages is better than a late one.
const PATIENCE: Duration = Duration::from_millis(100);
/// A path and the zero behind it.
const REQUEST_BYTES_MAX: usize = libc::PATH_MAX as usize;
/// How far the process stands back behind whoever shares its CPU.
const NICE: libc::c_int = 5;

/// The process that collapses pages.
#[derive(Debug)]
pub struct HugePages {
    socket: UnixStream,
    /// It has a file that it has not answered.
    owes: bool,
}

impl HugePages {
    /// Forks the process: before there are threads, sockets and much memory. `None`: it may not be; small pages do.
    pub fn start() -> Option<Self> {
        let (socket, theirs) = UnixStream::pair().ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        // SAFETY: the child calls `serve`, which makes system calls and takes no lock and no memory that another thread
        // of this process may have held, and never returns.
        match unsafe { libc::fork() } {
            -1 => return None,
            0 => serve(theirs.as_raw_fd()),
            child => {
                // SAFETY: plain numbers; the child that was just made, which ends at once (its own child is what stays).
                unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            }
        }
        Some(Self { socket, owes: false })
    }

    /// Fills a file with huge pages, as far as it comes to within the patience there is.
    pub(super) fn fill(&mut self, path: &Path) {
        let mut request = path.as_os_str().as_bytes().to_vec();
        request.push(0);
        if request.len() > REQUEST_BYTES_MAX || self.is_late() {
            return;
        }
        self.owes = self.socket.write_all(&request).is_ok();
        if self.owes {
            self.owes = !self.answered();
        }
    }

    /// It is still at an earlier file.
    fn is_late(&mut self) -> bool {
        if self.owes && self.socket.set_nonblocking(true).is_ok() {
            self.owes = !self.answered();
            drop(self.socket.set_nonblocking(false));
        }
        self.owes
    }

    fn answered(&mut self) -> bool {
        matches!(self.socket.read(&mut [0]), Ok(1))
    }
}

/// The process: never returns, and takes no memory from the heap, whose lock another thread may have held when the
/// process was forked.
fn serve(socket: RawFd) -> ! {
    // SAFETY: system calls on plain numbers, and a literal. What they close is known to nobody in this process, which
    // has only this function.
    unsafe {
        // Nobody waits for the one that is forked here: who started it may not be there to.
        if libc::fork() != 0 {
            libc::_exit(0);
        }
        // Ctrl-C goes to all processes of a terminal; this one ends with the socket.
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_IGN);
        }
        for (first, last) in [(0, socket - 1), (socket + 1, RawFd::MAX)] {
            libc::syscall(libc::SYS_close_range, first, last, 0);
        }
        libc::prctl(libc::PR_SET_NAME, c"huge-pages".as_ptr());
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
    let mut request = [0_u8; REQUEST_BYTES_MAX];
    while receive(socket, &mut request) {
        // SAFETY: the request ends with a zero (`receive`).
        let file = unsafe { libc::open(request.as_ptr().cast(), libc::O_RDWR) };
        // SAFETY: a plain system call on a descriptor, which may be none.
        let bytes = unsafe { libc::lseek(file, 0, libc::SEEK_END) };
        if bytes > 0 {
            // SAFETY: opened above, and known to nobody else.
            collapse(&unsafe { File::from_raw_fd(file) }, bytes as usize);
        }
        // SAFETY: a byte that lives through the call.
        unsafe { libc::send(socket, [1_u8].as_ptr().cast(), 1, libc::MSG_NOSIGNAL) };
    }
    // SAFETY: ends the process.
    unsafe { libc::_exit(0) }
}

/// The next request, up to its zero; whether there was one.
fn receive(socket: RawFd, request: &mut [u8; REQUEST_BYTES_MAX]) -> bool {
    let mut len = 0;
    while len == 0 || request[len - 1] != 0 {
        let room = &mut request[len..];
        // SAFETY: writes into `room`, and no more than it holds.
        let n = unsafe { libc::read(socket, room.as_mut_ptr().cast(), room.len()) };
        if n <= 0 {
            return false;
        }
        len += n as usize;
    }
    true
}
