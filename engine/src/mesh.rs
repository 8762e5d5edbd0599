//! Core to core: one SPSC ring each way between every two data cores of a brick.
//!
//! Frames are *copied* into the ring, because a receive buffer belongs to the ring that received it.
//! A request that arrives on the wrong core takes exactly one hop; its answer comes back by the same
//! pair of rings. Nothing is dropped: what finds the ring full waits in a queue of its sender, and that
//! queue is bounded for requests (`Busy`), and for answers by the requests they belong to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rtrb::{Consumer, Producer, RingBuffer};

/// Messages a ring holds.
const RING_MESSAGES: usize = 1024;
/// Requests that may wait for a full ring.
const OVERFLOW_REQUESTS_MAX: usize = 64 << 10;
/// Bytes of long answers on their way to a core past which its requests wait. (An answer is copied, so a pipeline of
/// large reads would fill the memory before the asking core's next turn.)
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes kept inside the ring's slot; longer payloads are boxed.
const INLINE_BYTES: usize = 216;

/// What a hop carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// A wire-encoded request.
    Request,
    /// A wire-encoded answer.
    Answer,
    /// A message between replicas; the token is the brick that sent it.
    Peer,
}

/// One copied frame.
#[derive(Debug)]
pub struct Hop {
    /// Request or answer.
    pub leg: Leg,
    /// The asking core's own word, returned with the answer.
    pub token: u64,
    payload: Payload,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // a box would be an allocation for each frame
enum Payload {
    Inline { len: u8, bytes: [u8; INLINE_BYTES] },
    Boxed(Box<[u8]>),
}

const _: () = assert!(INLINE_BYTES <= u8::MAX as usize);
const _: () = assert!(size_of::<Hop>() <= 256);

impl Hop {
    /// Copies `payload`.
    pub fn new(leg: Leg, token: u64, payload: &[u8]) -> Self {
        let payload = if payload.len() <= INLINE_BYTES {
            let mut bytes = [0; INLINE_BYTES];
            bytes[..payload.len()].copy_from_slice(payload);
            Payload::Inline { len: payload.len() as u8, bytes }
        } else {
            Payload::Boxed(payload.into())
        };
        Self { leg, token, payload }
    }

    /// Bytes outside of the ring.
    fn boxed(&self) -> usize {
        if let Payload::Boxed(bytes) = &self.payload { bytes.len() } else { 0 }
    }

    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        match &self.payload {
            Payload::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Payload::Boxed(bytes) => bytes,
        }
    }
}

/// One core's ends of the rings to and from one other core.
struct Peer {
    to: Producer<Hop>,
    from: Consumer<Hop>,
    waiting: VecDeque<Hop>,
    /// Requests from there that wait until answers have been taken.
    held: VecDeque<Hop>,
    /// Bytes of long answers on their way there, and from there.
    answers_to: Arc<AtomicUsize>,
    answers_from: Arc<AtomicUsize>,
    /// Something was pushed since the last [`Mesh::flush`].
    pushed: bool,
}

impl Peer {
    fn new(
        to: (Producer<Hop>, &Arc<AtomicUsize>),
        from: (Consumer<Hop>, &Arc<AtomicUsize>),
    ) -> Self {
        Self {
            to: to.0,
            from: from.0,
            waiting: VecDeque::new(),
            held: VecDeque::new(),
            answers_to: Arc::clone(to.1),
            answers_from: Arc::clone(from.1),
            pushed: false,
        }
    }

    fn push(&mut self, hop: Hop) {
        if self.waiting.is_empty() {
            match self.to.push(hop) {
                Ok(()) => {}
                Err(rtrb::PushError::Full(hop)) => self.waiting.push_back(hop),
            }
        } else {
            self.waiting.push_back(hop);
        }
        self.pushed = true;
    }

    fn pop(&mut self) -> Option<Hop> {
        // (A count that is a little old is as good: it bounds, and orders nothing.)
        let holds = self.answers_to.load(Ordering::Relaxed) >= ANSWER_BYTES_MAX;
        if !holds && let Some(hop) = self.held.pop_front() {
            return Some(hop);
        }
        while let Ok(hop) = self.from.pop() {
            match hop.leg {
                Leg::Request if holds => self.held.push_back(hop),
                Leg::Request | Leg::Peer => return Some(hop),
                Leg::Answer => {
                    if hop.boxed() > 0 {
                        self.answers_from.fetch_sub(hop.boxed(), Ordering::Relaxed);
                    }
                    return Some(hop);
                }
            }
        }
        None
    }

    fn drain_waiting(&mut self) {
        while let Some(hop) = self.waiting.pop_front() {
            if let Err(rtrb::PushError::Full(hop)) = self.to.push(hop) {
                self.waiting.push_front(hop);
                break;
            }
            self.pushed = true;
        }
    }
}

/// All rings of one data core.
pub struct Mesh {
    core: u16,
    peers: Vec<Option<Peer>>,
}

/// The other core has more waiting than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

impl Mesh {
    /// The meshes of `cores` data cores, in their order.
    pub fn connect(cores: usize) -> Vec<Self> {
        let mut meshes: Vec<Self> = (0..cores)
            .map(|core| Self { core: core as u16, peers: (0..cores).map(|_| None).collect() })
            .collect();
        for a in 0..cores {
            for b in a + 1..cores {
                let (a_to, b_from) = RingBuffer::new(RING_MESSAGES);
                let (b_to, a_from) = RingBuffer::new(RING_MESSAGES);
                let [to_a, to_b] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
                meshes[a].peers[b] = Some(Peer::new((a_to, &to_b), (a_from, &to_a)));
                meshes[b].peers[a] = Some(Peer::new((b_to, &to_a), (b_from, &to_b)));
            }
        }
        meshes
    }

    /// This core's number.
    pub fn core(&self) -> u16 {
        self.core
    }

    fn peer(&mut self, core: u16) -> &mut Peer {
        self.peers[usize::from(core)].as_mut().expect("a core sends no hop to itself")
    }

    /// Sends a request to `core`.
    pub fn request(&mut self, core: u16, token: u64, frame: &[u8]) -> Result<(), Overloaded> {
        let peer = self.peer(core);
        if peer.waiting.len() >= OVERFLOW_REQUESTS_MAX {
            return Err(Overloaded);
        }
        peer.push(Hop::new(Leg::Request, token, frame));
        Ok(())
    }

    /// Passes a message between replicas on to `core`.
    pub fn peer_message(&mut self, core: u16, from: u32, frame: &[u8]) -> Result<(), Overloaded> {
        let peer = self.peer(core);
        if peer.waiting.len() >= OVERFLOW_REQUESTS_MAX {
            return Err(Overloaded);
        }
        peer.push(Hop::new(Leg::Peer, u64::from(from), frame));
        Ok(())
    }

    /// Sends the answer to a request that `core` sent with `token`.
    pub fn answer(&mut self, core: u16, token: u64, frame: &[u8]) {
        let (peer, hop) = (self.peer(core), Hop::new(Leg::Answer, token, frame));
        if hop.boxed() > 0 {
            peer.answers_to.fetch_add(hop.boxed(), Ordering::Relaxed);
        }
        peer.push(hop);
    }

    /// The next hop from any core, with the core it came from.
    pub fn pop(&mut self) -> Option<(u16, Hop)> {
        self.peers.iter_mut().enumerate().find_map(|(core, peer)| {
            let hop = peer.as_mut()?.pop()?;
            Some((core as u16, hop))
        })
    }

    /// Nothing has arrived, and nothing waits for a full ring or for answers that have not been taken.
    pub fn is_idle(&self) -> bool {
        let is_idle = |p: &Peer| p.from.is_empty() && p.waiting.is_empty() && p.held.is_empty();
        self.peers.iter().flatten().all(is_idle)
    }

    /// Moves what waited into rings with room, then names each core to wake.
    pub fn flush(&mut self, mut wake: impl FnMut(u16)) {
        for (core, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            peer.drain_waiting();
            if std::mem::take(&mut peer.pushed) {
                wake(core as u16);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_arrive_in_order_even_when_the_ring_was_full() {
        let mut meshes = Mesh::connect(2);
        let mut b = meshes.pop().unwrap();
        let mut a = meshes.pop().unwrap();
        let sent = RING_MESSAGES as u64 * 3;
        for token in 0..sent {
            a.request(1, token, &token.to_le_bytes().repeat(1 + token as usize % 60)).unwrap();
        }
        let mut next = 0;
        let mut woken = 0;
        while next < sent {
            a.flush(|core| {
                assert_eq!(core, 1);
                woken += 1;
            });
            while let Some((from, hop)) = b.pop() {
                assert_eq!((from, hop.token, hop.leg), (0, next, Leg::Request));
                assert_eq!(hop.bytes(), next.to_le_bytes().repeat(1 + next as usize % 60));
                next += 1;
            }
        }
        assert_eq!(woken, 3);
        a.flush(|_| panic!("nothing new, nobody to wake"));
        assert!(a.is_idle() && b.is_idle());
    }

    #[test]
    fn requests_are_bounded_and_answers_are_not_lost() {
        let mut meshes = Mesh::connect(2);
        let mut a = meshes.swap_remove(0);
        let mut refused = None;
        for n in 0.. {
            if a.request(1, n, b"x").is_err() {
                refused = Some(n);
                break;
            }
        }
        assert_eq!(refused, Some((RING_MESSAGES + OVERFLOW_REQUESTS_MAX) as u64));
        a.answer(1, 7, b"y"); // still accepted: somebody waits for it
    }

    /// Long answers that are not taken hold up further requests, in their order, and nothing else.
    #[test]
    fn requests_wait_while_many_answers_are_not_taken() {
        let mut meshes = Mesh::connect(2);
        let mut b = meshes.pop().unwrap();
        let mut a = meshes.pop().unwrap();
        let long = vec![7; 1 << 20];
        for token in 0..100 {
            a.request(1, token, b"get").unwrap();
        }
        let served = |b: &mut Mesh, from: u64| {
            let mut next = from;
            while let Some((_, hop)) = b.pop() {
                assert_eq!((hop.leg, hop.token), (Leg::Request, next));
                b.answer(0, hop.token, &long);
                next += 1;
            }
            next
        };
        assert_eq!(served(&mut b, 0), 16);
        assert!(!b.is_idle());
        a.answer(1, 200, b"answer");
        a.peer_message(1, 3, b"peer").unwrap();
        let passing: Vec<_> = std::iter::from_fn(|| b.pop()).map(|(_, hop)| hop.leg).collect();
        assert_eq!(passing, [Leg::Answer, Leg::Peer]);
        for token in 0..4 {
            assert_eq!(a.pop().unwrap().1.token, token);
        }
        assert_eq!(served(&mut b, 16), 20);
        while a.pop().is_some() {}
        assert_eq!(served(&mut b, 20), 36);
    }

    #[test]
    fn two_threads_exchange_hops() {
        let mut meshes = Mesh::connect(2);
        let mut b = meshes.pop().unwrap();
        let mut a = meshes.pop().unwrap();
        let hops = 200_000;
        let other = std::thread::spawn(move || {
            let mut answered = 0;
            while answered < hops {
                while let Some((from, hop)) = b.pop() {
                    b.answer(from, hop.token, hop.bytes());
                    answered += 1;
                }
                b.flush(|_| {});
            }
            while !b.is_idle() {
                b.flush(|_| {});
            }
        });
        let (mut sent, mut got) = (0, 0);
        while got < hops {
            while sent < hops && sent < got + 5000 {
                a.request(1, sent, &sent.to_le_bytes()).unwrap();
                sent += 1;
            }
            a.flush(|_| {});
            while let Some((_, hop)) = a.pop() {
                assert_eq!(hop.token, got);
                assert_eq!(hop.bytes(), got.to_le_bytes());
                got += 1;
            }
        }
        other.join().unwrap();
    }
}
