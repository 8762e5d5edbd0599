//! The native protocol with fixed answers.

use firebrick_net::{Ep, Fabric, Rx, Tcp, Token};
use firebrick_partition::maps::{Durability, MapDelta, Maps, TableMap, TableOptions};
use firebrick_partition::op::{Answer, Failure, Op, SessionId, Version};
use firebrick_partition::wire::{self, Limits, Message, Welcome};

use super::VALUE_BYTES;

/// What every write is answered with.
const VERSION: Version = Version { epoch: 1, seq: 1 };

/// Answers frames.
pub struct Native {
    maps: Maps,
    out: Vec<u8>,
}

impl Native {
    /// One table, `default`, of one partition.
    pub fn new() -> Self {
        let options = TableOptions { durability: Durability::Memory, partitions: 1, replicas: 1 };
        let table = TableMap::on_one_brick(1, "default", options, 1, 1, 1, 1);
        let tables = table.map(|table| vec![table]).unwrap_or_default();
        assert_eq!(tables.len(), 1, "one partition on one core is a table");
        Self {
            maps: Maps { version: 1, tables, ..Maps::default() },
            out: Vec::with_capacity(1 << 12),
        }
    }

    /// Decodes a frame and answers it. A full endpoint loses its answer and is closed: a client that has
    /// that much unread is not measuring.
    pub fn handle_frame(&mut self, tcp: &mut Tcp, ep: Ep, rx: &Rx) {
        self.out.clear();
        let understood = match wire::decode(tcp.bytes(rx)) {
            Ok(message) => answer(&self.maps, &message, &mut self.out),
            Err(_) => false,
        };
        if !understood || tcp.send(ep, &self.out, None, Token::NONE).is_err() {
            tcp.close(ep);
        }
    }
}

/// Encodes the answer; `false` when a client does not send such a message.
fn answer(maps: &Maps, message: &Message<'_>, out: &mut Vec<u8>) -> bool {
    match message {
        Message::Request { slot, request } => {
            wire::answer(out, *slot, &fixed(&request.op));
        }
        Message::Hello { slot, .. } => wire::welcome(out, *slot, &welcome()),
        Message::FetchMap { slot, .. } => wire::map(out, *slot, 1, MapDelta::whole(maps.clone())),
        Message::Control { slot, .. } => {
            wire::control_answer(out, *slot, r#"{"error":"a null brick has no tables"}"#);
        }
        _ => return false,
    }
    true
}

fn fixed(op: &Op<'_>) -> Answer<'static> {
    match op {
        Op::Get => Answer::Value { value: &[b'x'; VALUE_BYTES], version: VERSION, expires_ms: 0 },
        Op::Look => Answer::Seen { len: VALUE_BYTES as u32, version: VERSION, expires_ms: 0 },
        Op::Put { want_old: false, .. } | Op::Remove { want_old: false, .. } => {
            Answer::Done { version: VERSION }
        }
        Op::OpenSession { .. } => {
            Answer::Session { session: SessionId { partition: 1, opened: 1 } }
        }
        Op::EndSession { .. } | Op::Clear => Answer::Done { version: VERSION },
        Op::Count => Answer::Count { count: 0 },
        _ => Answer::Failed(Failure::Malformed),
    }
}

fn welcome() -> Welcome<'static> {
    Welcome {
        name: "null",
        brick: 1,
        incarnation: 1,
        cores: 1,
        core: 0,
        map_version: 1,
        features: 0,
        limits: Limits { key_bytes: 32 << 10, value_bytes: 8 << 20, in_flight: u32::MAX },
    }
}
