//! Keys whose values fill a brick that has little memory. A history has their values without what makes them long.

use std::fmt::Write as _;

use super::brick::Brick;
use super::world::World;
use crate::check::{Back, Bytes, Call};
use crate::random::Random;
use crate::sim::clock::{MS, Ns};
use crate::sim::run::run_for;
use crate::sim::workload;

/// How many there are.
const KEYS: usize = 64;
/// The least that is stored of a value.
const BYTES_MIN: usize = 48 << 10;
/// Values are longer by less than this.
const BYTES_MORE: usize = 80 << 10;
/// After so long of mostly writes there is as long of mostly removes.
const TIDE_NS: Ns = 300 * MS;
/// A store that is full, and of which all is to be removed, takes the removes within this time.
const EMPTY_NS: Ns = 60_000 * MS;
/// And then takes writes again.
const AGAIN_NS: Ns = 20_000 * MS;
/// Writes that it takes then.
const AGAIN: usize = 12;

/// Their names.
pub fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|n| format!("f{n}"))
}

/// A random call on one of them.
pub fn call(random: &mut Random, now: Ns, unique: &str) -> (String, Call) {
    let key = format!("f{}", random.below(KEYS as u64));
    let puts = if (now / TIDE_NS).is_multiple_of(3) { 20 } else { 75 };
    let call = match random.below(100) {
        0..10 => Call::Get,
        die if die < 10 + puts => Call::Put { value: unique.into() },
        _ => Call::Remove,
    };
    (key, call)
}

/// The call as it is made: with a long value.
pub fn long(call: &Call) -> Call {
    let Call::Put { value } = call else { return call.clone() };
    let mut bytes = value.0.clone();
    let sum = bytes.iter().fold(7usize, |sum, &byte| sum.wrapping_mul(31) + usize::from(byte));
    bytes.resize(BYTES_MIN + sum % BYTES_MORE, b'.');
    Call::Put { value: Bytes(bytes) }
}

/// What a history has of an answer. `Err`: a value came damaged.
pub fn told(back: Back) -> Result<Back, String> {
    let Back::Value { value, version } = back else { return Ok(back) };
    if value.0.len() < BYTES_MIN {
        return Ok(Back::Value { value, version });
    }
    let end = value.0.iter().position(|&byte| byte == b']').map_or(0, |at| at + 1);
    let short = Bytes(value.0[..end].to_vec());
    if long(&Call::Put { value: short.clone() }) == (Call::Put { value }) {
        Ok(Back::Value { value: short, version })
    } else {
        Err(format!("a value that began with {short:?} came damaged"))
    }
}

/// What each replica has, for people.
pub fn rooms(bricks: &[Brick]) -> String {
    let mut text = String::new();
    for brick in bricks {
        let cores = brick.process.iter().flat_map(|process| &process.cores);
        for replica in cores.flat_map(|core| core.shard.replicas()) {
            let (log, at) = (replica.log(), brick.at + 1);
            let (used, room, live) = (log.used_bytes(), log.room_bytes(), log.stats().live_bytes);
            let partition = replica.partition();
            let line = writeln!(
                text,
                "brick{at} partition {partition}: {used} used, {live} live, room for {room}; {:?}",
                log.stats()
            );
            line.unwrap_or_default();
        }
    }
    text
}

impl World {
    /// Calls at a client, again until it is done.
    fn insist(&mut self, key: &str, call: &Call, for_ns: Ns) -> Result<(), String> {
        let until = self.sim.now + for_ns;
        let mut why = String::new();
        while self.sim.now < until {
            if !self.clients[0].has_room() {
                self.clients[0].find_table(self.sim.now);
                run_for(self, MS)?;
                continue;
            }
            let id = self.sim.begin(0, key, call);
            assert!(
                self.clients[0].call(self.sim.now, id, key, workload::op(&long(call))),
                "it had room"
            );
            self.client_turn(0);
            while !self.clients[0].is_idle() {
                run_for(self, MS)?;
            }
            match self.sim.history.back(id) {
                Some(Back::Done { .. } | Back::Absent) => return Ok(()),
                Some(back) => write!(why, " {back};").unwrap_or_default(),
                None => why.push_str(" nobody knows;"),
            }
            run_for(self, 20 * MS)?;
        }
        why.truncate(200);
        let rooms = rooms(&self.bricks);
        Err(format!("{key}: {call} is not done in {} s:{why}\n{rooms}", for_ns / 1_000 / MS))
    }

    /// Removes all that fills it.
    pub fn empty(&mut self) -> Result<(), String> {
        keys().try_for_each(|key| self.insist(&key, &Call::Remove, EMPTY_NS))
    }

    /// Then there is room for as much again.
    pub fn fill_again(&mut self) -> Result<(), String> {
        for key in keys().take(AGAIN) {
            let value = format!("[again.{}]", self.sim.next_call).as_str().into();
            self.insist(&key, &Call::Put { value }, AGAIN_NS)?;
        }
        self.sim.cover.saw("a full store is emptied and takes writes again");
        Ok(())
    }
}
