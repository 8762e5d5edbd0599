//! Reads at one member, whoever else there is: a connection of its own for each.

use std::net::SocketAddr;

use firebrick_net::fake::Fake;
use firebrick_net::{Ep, Event, Fabric, Port, Token};
use firebrick_partition::op::{Op, Request, Route};
use firebrick_partition::wire::{self, Hello, Message};

use crate::check::Back;
use crate::sim::clock::Ns;
use crate::sim::workload::back_of;

/// One read, from the dial on.
pub struct Reader {
    /// Its call.
    pub id: u64,
    /// When it began.
    pub since: Ns,
    fabric: Fake,
    ep: Ep,
    frame: Vec<u8>,
}

impl Reader {
    /// Asks a brick for a key.
    pub fn ask(
        since: Ns,
        id: u64,
        mut fabric: Fake,
        address: SocketAddr,
        route: Route,
        key: &str,
    ) -> Self {
        let ep = fabric.dial(address, Port::Frames).expect("the fake fabric");
        let request = Request { route, numbered: None, key: key.as_bytes(), op: Op::Get };
        let mut frame = Vec::new();
        wire::request(&mut frame, 1, &request);
        Self { id, since, fabric, ep, frame }
    }

    /// When it has something to do.
    pub fn due(&self) -> Option<u64> {
        self.fabric.next_ns()
    }

    /// Goes on. `Some`: it is over, with an answer or with why there is none.
    pub fn turn(&mut self, now_ns: u64) -> Option<Result<Back, String>> {
        let mut events = Vec::new();
        self.fabric.poll(now_ns, &mut events);
        let mut over = None;
        for event in events {
            match event {
                Event::Opened { .. } => {
                    let hello = Hello { client: "reader", ..Hello::default() };
                    let mut frame = Vec::new();
                    wire::hello(&mut frame, 0, &hello);
                    for frame in [&frame, &self.frame] {
                        if self.fabric.send(self.ep, frame, None, Token(0)).is_err() {
                            over = Some(Err("the connection is gone".to_owned()));
                        }
                    }
                }
                Event::Frame { rx, .. } => {
                    if let Ok(Message::Answer { answer, .. }) = wire::decode(self.fabric.bytes(&rx))
                    {
                        over = Some(back_of(&answer).ok_or_else(|| format!("{answer:?}")));
                    }
                    self.fabric.release(rx);
                }
                Event::Closed { reason, .. } => over = Some(Err(format!("{reason:?}"))),
                _ => {}
            }
        }
        self.fabric.flush().expect("the fake fabric");
        over
    }
}
