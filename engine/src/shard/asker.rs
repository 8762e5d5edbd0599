//! Who waits for an answer, in the one word that travels through a replica.

use firebrick_net::Ep;

const KIND_SHIFT: u32 = 62;
const SLOT_BITS: u32 = 14;
const GENERATION_BITS: u32 = 16;

/// The asker of a request: a connection of this core, or another core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A native connection and the number it gave its request.
    Native {
        /// The connection.
        conn: ConnId,
        /// The client's number.
        slot: u32,
    },
    /// A RESP connection and the front's own number for the reply.
    Resp {
        /// The connection.
        conn: ConnId,
        /// The front's number.
        part: u32,
    },
    /// A hop from another core: an entry in the table of hops.
    Hop {
        /// The entry.
        entry: u32,
    },
    /// A request of the Redis front that may be tried again: its number in the table of forwards.
    Forward {
        /// The number.
        slot: u32,
    },
}

/// An endpoint in 30 bits: its slot, and enough of its generation to make a late answer harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId(u32);

const _: () = assert!(firebrick_net::limits::ENDPOINTS_MAX <= 1 << SLOT_BITS);

impl ConnId {
    /// The id of an endpoint.
    pub fn new(ep: Ep) -> Self {
        Self(ep.slot << GENERATION_BITS | ep.generation & ((1 << GENERATION_BITS) - 1))
    }

    /// 30 bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Its slot in the table of connections.
    pub fn slot(self) -> usize {
        (self.0 >> GENERATION_BITS) as usize
    }
}

impl Asker {
    /// Packs it.
    pub fn token(self) -> u64 {
        match self {
            Asker::Native { conn, slot } => u64::from(conn.0) << 32 | u64::from(slot),
            Asker::Resp { conn, part } => {
                1 << KIND_SHIFT | u64::from(conn.0) << 32 | u64::from(part)
            }
            Asker::Hop { entry } => 2 << KIND_SHIFT | u64::from(entry),
            Asker::Forward { slot } => 3 << KIND_SHIFT | u64::from(slot),
        }
    }

    /// Unpacks it.
    pub fn from_token(token: u64) -> Self {
        let conn = ConnId((token >> 32) as u32 & ((1 << (SLOT_BITS + GENERATION_BITS)) - 1));
        match token >> KIND_SHIFT {
            0 => Asker::Native { conn, slot: token as u32 },
            1 => Asker::Resp { conn, part: token as u32 },
            2 => Asker::Hop { entry: token as u32 },
            _ => Asker::Forward { slot: token as u32 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        let conn = ConnId::new(Ep { slot: (1 << SLOT_BITS) - 1, generation: u32::MAX });
        assert_eq!(conn.slot(), (1 << SLOT_BITS) - 1);
        for asker in [
            Asker::Native { conn, slot: u32::MAX },
            Asker::Resp { conn, part: 7 },
            Asker::Hop { entry: u32::MAX },
            Asker::Forward { slot: u32::MAX },
        ] {
            assert_eq!(Asker::from_token(asker.token()), asker);
        }
    }

    #[test]
    fn a_reused_slot_is_another_connection() {
        let old = ConnId::new(Ep { slot: 3, generation: 8 });
        let new = ConnId::new(Ep { slot: 3, generation: 9 });
        assert_ne!(old, new);
    }
}
