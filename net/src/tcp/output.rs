//! What an endpoint has to send: a buffer being filled, a buffer in flight, and bodies that lie elsewhere.
//!
//! While a send is in flight its bytes must not move; replies meanwhile go into the other buffer, and leave with
//! the next send, in one piece. Buffers come from a pool and go back when they are empty, so an idle endpoint
//! holds none.

use crate::fabric::{Body, Token};

/// Buffers kept for reuse, and the largest that is worth keeping.
const POOLED_MAX: usize = 256;
const POOLED_BYTES_MAX: usize = 256 << 10;
const FRESH_BYTES: usize = 4 << 10;

/// Empty out buffers, last used first.
#[derive(Default)]
pub struct Pool(Vec<Vec<u8>>);

impl Pool {
    pub fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(FRESH_BYTES))
    }

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        let worth = (1..=POOLED_BYTES_MAX).contains(&buffer.capacity());
        if worth && self.0.len() < POOLED_MAX {
            self.0.push(buffer);
        }
    }
}

/// A body, and how many buffered bytes go before it.
#[derive(Clone, Copy)]
struct Piece {
    at: usize,
    body: Body,
    token: Token,
}

/// Boxed, because most endpoints never send a body.
struct Bodies {
    filling: Vec<Piece>,
    flight: Vec<Piece>,
    filling_bytes: usize,
    iov: Vec<libc::iovec>,
    message: libc::msghdr,
}

impl Bodies {
    fn new() -> Box<Self> {
        // SAFETY: all zeroes (null pointers, no lengths) is a valid `msghdr`.
        let message = unsafe { std::mem::zeroed() };
        Box::new(Self {
            filling: Vec::new(),
            flight: Vec::new(),
            filling_bytes: 0,
            iov: Vec::new(),
            message,
        })
    }
}

/// What to hand to the kernel.
pub enum Next {
    /// One run of bytes.
    Bytes(*const u8, u32),
    /// Several, gathered.
    Message(*const libc::msghdr),
}

/// The queue of one endpoint.
#[derive(Default)]
pub struct Output {
    filling: Vec<u8>,
    flight: Vec<u8>,
    /// Bytes of `flight` and its bodies that have not been sent.
    flight_left: usize,
    /// Bytes of them that have.
    sent: usize,
    bodies: Option<Box<Bodies>>,
}

impl Output {
    /// Bytes queued and in flight.
    pub fn queued(&self) -> usize {
        self.filling_len() + self.flight_left
    }

    /// Bytes of its buffers.
    pub fn kept(&self) -> usize {
        self.filling.len() + self.flight.len()
    }

    fn filling_len(&self) -> usize {
        self.filling.len() + self.bodies.as_ref().map_or(0, |b| b.filling_bytes)
    }

    /// Bodies queued and not in flight.
    pub fn bodies(&self) -> usize {
        self.bodies.as_ref().map_or(0, |b| b.filling.len())
    }

    /// The buffer to append to.
    pub fn buffer(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        if self.filling.capacity() == 0 {
            self.filling = pool.take();
        }
        &mut self.filling
    }

    /// Appends a body that stays where it is.
    pub fn push_body(&mut self, body: Body, token: Token) {
        let at = self.filling.len();
        let bodies = self.bodies.get_or_insert_with(Bodies::new);
        bodies.filling.push(Piece { at, body, token });
        bodies.filling_bytes += body.len as usize;
    }

    /// Begins the next flight with all that is queued. `false`: nothing is.
    pub fn take_off(&mut self, pool: &mut Pool) -> bool {
        assert_eq!(self.flight_left, 0, "one send in flight per endpoint");
        let total = self.filling_len();
        if total == 0 {
            self.recycle(pool);
            return false;
        }
        std::mem::swap(&mut self.filling, &mut self.flight);
        if let Some(bodies) = &mut self.bodies {
            std::mem::swap(&mut bodies.filling, &mut bodies.flight);
            bodies.filling_bytes = 0;
        }
        self.flight_left = total;
        self.sent = 0;
        true
    }

    /// What of the flight is still to be sent. The pointers are good until [`Self::landed`].
    pub fn next(&mut self) -> Next {
        match &mut self.bodies {
            Some(bodies) if !bodies.flight.is_empty() => {
                gather(&self.flight, bodies, self.sent);
                Next::Message(&raw const bodies.message)
            }
            _ => {
                let rest = &self.flight[self.sent..];
                Next::Bytes(rest.as_ptr(), rest.len() as u32)
            }
        }
    }

    /// `bytes` more of the flight have been sent. Bodies that are out are reported. `true`: all is.
    pub fn landed(
        &mut self,
        bytes: usize,
        pool: &mut Pool,
        mut done: impl FnMut(Token, u32),
    ) -> bool {
        assert!(bytes <= self.flight_left, "more was sent than queued");
        self.sent += bytes;
        self.flight_left -= bytes;
        if let Some(bodies) = &mut self.bodies {
            // A body is out when the buffered bytes before it, the bodies before it and itself are.
            let (mut out, mut bytes_out) = (0, 0);
            for piece in &bodies.flight {
                let len = piece.body.len as usize;
                if piece.at + bytes_out + len > self.sent {
                    break;
                }
                bytes_out += len;
                out += 1;
                done(piece.token, piece.body.len);
            }
            bodies.flight.drain(..out);
            // From here on `sent` counts without the bodies that are out; `at` counts buffered bytes anyway.
            self.sent -= bytes_out;
        }
        if self.flight_left > 0 {
            return false;
        }
        self.flight.clear();
        self.recycle(pool);
        true
    }

    /// Gives empty buffers back.
    fn recycle(&mut self, pool: &mut Pool) {
        if self.flight_left == 0 && self.flight.capacity() > 0 {
            pool.give(std::mem::take(&mut self.flight));
        }
        if self.filling.is_empty() && self.filling.capacity() > 0 {
            pool.give(std::mem::take(&mut self.filling));
        }
    }

    /// Drops everything; the tokens of bodies that were not sent are reported.
    pub fn abandon(&mut self, pool: &mut Pool, mut lost: impl FnMut(Token)) {
        if let Some(bodies) = self.bodies.take() {
            for piece in bodies.flight.iter().chain(&bodies.filling) {
                lost(piece.token);
            }
        }
        self.flight_left = 0;
        self.filling.clear();
        self.flight.clear();
        self.recycle(pool);
    }
}

/// Lists the runs of bytes after the first `skip`.
fn gather(buffer: &[u8], bodies: &mut Bodies, mut skip: usize) {
    bodies.iov.clear();
    let iov = &mut bodies.iov;
    let mut add = |ptr: *const u8, len: usize| {
        let cut = skip.min(len);
        skip -= cut;
        if len > cut {
            iov.push(libc::iovec {
                iov_base: ptr.wrapping_add(cut).cast_mut().cast(),
                iov_len: len - cut,
            });
        }
    };
    let mut at = 0;
    for piece in &bodies.flight {
        let run = &buffer[at..piece.at];
        add(run.as_ptr(), run.len());
        add(piece.body.ptr, piece.body.len as usize);
        at = piece.at;
    }
    let rest = &buffer[at..];
    add(rest.as_ptr(), rest.len());
    bodies.message.msg_iov = bodies.iov.as_mut_ptr();
    bodies.message.msg_iovlen = bodies.iov.len() as _;
}

#[cfg(test)]
mod tests;
