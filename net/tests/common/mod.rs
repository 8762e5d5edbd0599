//! A server on the test's own thread, driven turn by turn, and peers as plain sockets.
#![allow(dead_code)] // each test binary uses its part

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use firebrick_net::frame::Hello;
use firebrick_net::{CloseReason, Config, Ep, Event, Fabric, Port, Tcp, boot_ns};

/// What a server saw. Received bytes are copied and their buffers given back.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Seen {
    Opened(Ep),
    Frame(Ep, Vec<u8>),
    Bytes(Ep, Vec<u8>),
    Finished(Ep),
    Drained(Ep),
    Done(u64, i32),
    Closed(Ep, CloseReason),
    Woken,
}

pub struct Server {
    pub tcp: Tcp,
    pub address: SocketAddr,
    /// A stream whose peer has finished is the test's to close.
    pub lingers: bool,
    events: Vec<Event>,
}

impl Server {
    pub fn new(port: Port) -> Self {
        Self::with(Config::default(), port)
    }

    pub fn with(config: Config, port: Port) -> Self {
        let mut tcp = Tcp::new(config).unwrap();
        let address = tcp.listen("127.0.0.1:0".parse().unwrap(), port).unwrap();
        Self { tcp, address, lingers: false, events: Vec::new() }
    }

    pub fn connect(&self) -> TcpStream {
        let peer = TcpStream::connect(self.address).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        peer.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        peer.set_nodelay(true).unwrap();
        peer
    }

    /// One turn at a time of the test's choosing; blocks at most a moment.
    pub fn turn_at(&mut self, boot_ns: u64) -> Vec<Seen> {
        self.tcp.wait(1, 2_000_000).unwrap();
        self.tcp.poll(boot_ns, &mut self.events);
        let mut seen = Vec::new();
        for event in self.events.drain(..) {
            seen.push(match event {
                Event::Opened { ep, .. } => Seen::Opened(ep),
                Event::Frame { ep, rx } => {
                    let bytes = self.tcp.bytes(&rx).to_vec();
                    self.tcp.release(rx);
                    Seen::Frame(ep, bytes)
                }
                Event::Bytes { ep, rx } => {
                    let bytes = self.tcp.bytes(&rx).to_vec();
                    self.tcp.release(rx);
                    Seen::Bytes(ep, bytes)
                }
                Event::Finished { ep } => {
                    if !self.lingers {
                        self.tcp.close(ep);
                    }
                    Seen::Finished(ep)
                }
                Event::Drained { ep } => Seen::Drained(ep),
                Event::Done { token, result } => Seen::Done(token.0, result),
                Event::Closed { ep, reason } => Seen::Closed(ep, reason),
                Event::Woken => Seen::Woken,
            });
        }
        seen
    }

    /// Turns until `wanted` finds what it looks for; everything else is dropped. Fails after ten seconds.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&mut Tcp, Seen) -> Option<T>,
    ) -> T {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            let mut found = None;
            for seen in self.turn_at(boot_ns()) {
                found = found.or(wanted(&mut self.tcp, seen));
            }
            if let Some(found) = found {
                return found;
            }
        }
        panic!("ten seconds without {what}");
    }

    pub fn opened(&mut self) -> Ep {
        self.until("an opened endpoint", |_, seen| match seen {
            Seen::Opened(ep) => Some(ep),
            _ => None,
        })
    }

    pub fn closed(&mut self, ep: Ep) -> CloseReason {
        self.until("a closed endpoint", |_, seen| match seen {
            Seen::Closed(gone, reason) if gone == ep => Some(reason),
            _ => None,
        })
    }

    /// Turns for a while in which nothing of interest may happen.
    pub fn quiet(&mut self, turns: usize) -> Vec<Seen> {
        (0..turns).flat_map(|_| self.turn_at(boot_ns())).collect()
    }

    /// A connection says hello, and the server still answers: nobody was harmed.
    pub fn still_serves(&mut self) {
        use std::io::{Read, Write};
        let mut peer = self.connect();
        peer.write_all(&Hello::OURS.encode()).unwrap();
        let ep = self.opened();
        peer.read_exact(&mut [0; 16]).unwrap();
        drop(peer);
        assert_eq!(self.closed(ep), CloseReason::Finished);
    }
}
