//! A stream endpoint whose other end is the test's.

use std::cell::RefCell;
use std::rc::Rc;

use super::link::Arrival;
use super::world::{Network, Place};

/// The test's end of a stream.
pub struct Peer {
    pub(super) net: Rc<RefCell<Network>>,
    pub(super) place: Place,
    pub(super) link: usize,
}

impl Peer {
    /// Sends bytes.
    pub fn feed(&self, now_ns: u64, bytes: &[u8]) {
        self.net.borrow_mut().send(self.link, 1, now_ns, bytes.to_vec());
    }

    /// What has arrived by `now_ns`. Reading is what makes room at the other end: a peer that never calls this
    /// never reads.
    pub fn taken(&self, now_ns: u64) -> Vec<u8> {
        let mut net = self.net.borrow_mut();
        let mut bytes = Vec::new();
        while let Some((.., arrival)) = net.arrive(self.place, now_ns) {
            if let Arrival::Bytes(more) = arrival {
                bytes.extend_from_slice(&more);
            }
        }
        bytes
    }

    /// Loses the connection, with some of what was on its way.
    pub fn cut(&self, now_ns: u64) {
        self.net.borrow_mut().lose(self.link, now_ns);
    }

    /// Ends the connection.
    pub fn close(&self, now_ns: u64) {
        self.net.borrow_mut().close(self.link, 1, now_ns);
    }
}
