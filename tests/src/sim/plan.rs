//! What a run is like: everything that its seed decides beforehand. A smaller plan of the same seed is
//! how a failure is made readable.

use firebrick_partition::log::storage::shared_bytes_least;
use firebrick_partition::maps::Durability;

use super::clock::{MS, Ns, US};
use super::machine::Crash;
use super::mistake::Mistake;
use super::net::Weather;
use crate::random::Random;

/// Something that goes wrong, or is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // the fields say which machines, which direction and for how long
pub enum Fault {
    /// Two machines do not hear each other, in one direction or both.
    Cut { a: usize, b: usize, both: bool, for_ns: Ns },
    /// The keepers and a machine do not hear each other.
    CutKeeper { a: usize, to: bool, from: bool, for_ns: Ns },
    /// Nobody hears a machine.
    Isolate { a: usize, for_ns: Ns },
    /// A process stands still.
    Pause { a: usize, for_ns: Ns },
    /// A process ends and is started again.
    Crash { a: usize, how: Crash, for_ns: Ns },
    /// The keepers have no leader for a while, then another.
    KeeperFalls { for_ns: Ns, entries_lost: bool },
    /// The network is worse.
    Storm { for_ns: Ns },
    /// The primary of a partition is asked to hand over.
    HandOver { partition: usize },
    /// A machine hears clients, but neither bricks nor keepers.
    CutOff { a: usize, for_ns: Ns },
    /// A brick is to be emptied, or not any more.
    Drain { a: usize, on: bool, for_ns: Ns },
    /// All machines lose their memory at once (a `sync` table only).
    PowerOff { for_ns: Ns },
    /// The disk of a machine is slow.
    SlowDisk { a: usize, for_ns: Ns },
    /// Connections between two machines are lost.
    Sever { a: usize, b: usize },
    /// One data core stands still, and the rest of its brick does not. (In level one the brick.)
    Stuck { a: usize, core: usize, for_ns: Ns },
    /// An operator wishes that a replica goes from one brick to another.
    Move { partition: usize },
    /// The clock of a machine goes faster or slower from now on.
    Drift { a: usize },
    /// Of all bricks and keepers the primary of a partition hears, and is heard by, one of its backups only.
    HalfHeard { partition: usize, for_ns: Ns },
    /// A client writes so often at once; soon its process ends, and another begins.
    ClientEnds { client: usize, calls: usize, after_ns: Ns },
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was made of.
    pub seed: u64,
    /// Bricks.
    pub machines: usize,
    /// Data cores of a brick. (In level one there are none.)
    pub cores: u16,
    /// Replicas of a partition.
    pub replicas: u8,
    /// Partitions.
    pub partitions: u32,
    /// How safe the table's writes are.
    pub durability: Durability,
    /// Clients.
    pub clients: usize,
    /// Clients that speak RESP. (In level one there are none.)
    pub redis: usize,
    /// Calls that a client has open at once.
    pub open_max: usize,
    /// Keys of each family.
    pub keys: usize,
    /// Reads, of a hundred calls.
    pub reads: u64,
    /// A client pauses this long between two calls, at most.
    pub think_ns: Ns,
    /// Clients call for so long.
    pub load_ns: Ns,
    /// The network.
    pub weather: Weather,
    /// A process stops in the middle of a turn, in thousands of turns with an answer.
    pub stumbles: u64,
    /// The keepers' settings.
    pub lease_ms: u64,
    /// How long a group waits for a member that went.
    pub repair_delay_ms: u64,
    /// When what goes wrong.
    pub faults: Vec<(Ns, Fault)>,
    /// Clocks on walls are wrong by so much at most. (Level one has none.)
    pub skew_ms: u64,
    /// A rule that is broken on purpose.
    pub mistake: Mistake,
    /// A machine whose replicas have room for so many bytes only. (In level two: each of its data cores; a number past
    /// the last machine stands for all.)
    pub small: Option<(usize, u64)>,
    /// A machine that makes so many segments for a replica and no more.
    pub ration: Option<(usize, usize)>,
}

/// Reads of a hundred calls, usually.
const READS: u64 = 45;

fn length(random: &mut Random, least: Ns, most: Ns) -> Ns {
    // Short ones are likelier.
    let span = (most - least).max(1);
    least + random.below(span).min(random.below(span))
}

impl Plan {
    /// For a script: one partition on all machines, calm weather, nothing that happens by itself.
    pub fn scripted(machines: usize) -> Self {
        Self {
            seed: 1,
            machines,
            cores: 1,
            replicas: machines as u8,
            partitions: 1,
            durability: Durability::Memory,
            clients: 4,
            redis: 0,
            open_max: 64,
            keys: 3,
            reads: READS,
            think_ns: MS,
            load_ns: 0,
            weather: Weather::CALM,
            stumbles: 0,
            lease_ms: 200,
            repair_delay_ms: 0,
            faults: Vec::new(),
            skew_ms: 0,
            mistake: Mistake::None,
            small: None,
            ration: None,
        }
    }

    /// A short run with a few faults.
    pub fn short(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let lease_ms = [100, 200, 500][random.below(3) as usize];
        let load_ns = (1_500 + random.below(1_500)) * MS;
        let mut plan = Self {
            seed,
            machines: if random.below(4) == 0 { 4 } else { 3 },
            cores: 1,
            replicas: if random.below(4) == 0 { 2 } else { 3 },
            partitions: if random.below(4) == 0 { 2 } else { 1 },
            durability: match random.below(8) {
                0 | 1 => Durability::Sync,
                2 => Durability::Async { ms: 20 },
                _ => Durability::Memory,
            },
            clients: 2 + random.below(3) as usize,
            redis: 0,
            open_max: 1 + random.below(6) as usize,
            keys: [1, 1, 1, 1, 2, 2, 2, 20][random.below(8) as usize],
            reads: [READS, READS, READS, 85][random.below(4) as usize],
            think_ns: (2 + random.below(25)) * MS,
            load_ns,
            weather: weather(&mut random),
            stumbles: random.below(3) * 3,
            lease_ms,
            repair_delay_ms: random.below(600),
            faults: Vec::new(),
            skew_ms: 0,
            mistake: Mistake::None,
            small: None,
            ration: None,
        };
        if random.below(6) == 0 {
            let bytes = (5 + random.below(6)) * (16 << 10);
            plan.small = Some((random.below(plan.machines as u64) as usize, bytes));
        }
        let count = random.below(10);
        for _ in 0..count {
            let at = random.below(load_ns);
            let fault = fault(&mut random, &plan);
            plan.faults.push((at, fault));
        }
        plan.faults.sort_by_key(|f| f.0);
        plan
    }
}

impl Plan {
    /// A short run of whole bricks.
    pub fn whole(seed: u64) -> Self {
        let mut plan = Self { small: None, ..Self::short(seed) };
        let mut random = Random::new(seed ^ 0x0b71);
        plan.cores = 1 + random.below(2) as u16;
        plan.skew_ms = [0, 20, 1_500][random.below(3) as usize];
        plan.redis = random.below(plan.clients as u64) as usize;
        plan.clients -= plan.redis;
        if random.below(16) == 0 {
            // One of them, or all.
            let at = random.below(plan.machines as u64 + 1) as usize;
            (plan.cores, plan.partitions) = (1, 1 << random.below(3));
            // With less one partition may be refused writes though all are nearly empty (`brick` warns of it).
            let least = shared_bytes_least(plan.partitions.into());
            plan.small = Some((at, least + (random.below(4) << 20)));
            plan.think_ns = plan.think_ns.min(5 * MS);
        }
        for (_, fault) in &mut plan.faults {
            if let Fault::Move { partition } | Fault::HandOver { partition } = fault {
                *partition = (*partition).min(plan.partitions as usize - 1);
            }
            let a = random.below(plan.machines as u64) as usize;
            let b = (a + 1 + random.below(plan.machines as u64 - 1) as usize) % plan.machines;
            let core = random.below(u64::from(plan.cores)) as usize;
            let for_ns = length(&mut random, 5 * MS, 4 * plan.lease_ms * MS);
            match random.below(12) {
                0 => *fault = Fault::Sever { a, b },
                1 => *fault = Fault::Stuck { a, core, for_ns },
                _ => {}
            }
        }
        plan
    }
}

fn weather(random: &mut Random) -> Weather {
    match random.below(3) {
        0 => Weather::CALM,
        1 => Weather { lost: 5, twice: 10, late: 20, late_ns: 5 * MS, usual_ns: 300 * US },
        _ => Weather {
            lost: random.below(40),
            twice: random.below(40),
            late: random.below(100),
            late_ns: (1 + random.below(200)) * MS,
            usual_ns: (50 + random.below(1500)) * US,
        },
    }
}

/// A random one for a plan.
pub fn fault(random: &mut Random, plan: &Plan) -> Fault {
    let a = random.below(plan.machines as u64) as usize;
    let b = (a + 1 + random.below(plan.machines as u64 - 1) as usize) % plan.machines;
    let lease = plan.lease_ms * MS;
    let for_ns = length(random, 5 * MS, 4 * lease);
    let partition = random.below(u64::from(plan.partitions)) as usize;
    match random.below(26) {
        0..=2 => Fault::Cut { a, b, both: random.below(2) == 0, for_ns },
        3 | 4 => {
            let which = random.below(3);
            Fault::CutKeeper { a, to: which != 0, from: which != 1, for_ns }
        }
        5 if plan.durability == Durability::Sync => Fault::PowerOff { for_ns },
        5 => Fault::Isolate { a, for_ns },
        6..=8 => Fault::Pause { a, for_ns },
        9..=12 => {
            let how = [Crash::Kill, Crash::Power, Crash::Lost][random.below(3) as usize];
            Fault::Crash { a, how, for_ns: length(random, MS, 3 * lease) }
        }
        13 | 14 => Fault::KeeperFalls { for_ns, entries_lost: random.below(2) == 0 },
        15 | 16 => Fault::Storm { for_ns },
        17 => Fault::SlowDisk { a, for_ns },
        18 => Fault::CutOff { a, for_ns },
        19 => Fault::Drain { a, on: true, for_ns },
        20 => Fault::Drift { a },
        21 | 22 => Fault::Move { partition },
        23 => Fault::HalfHeard { partition, for_ns },
        24 => {
            let client = random.below(plan.clients as u64) as usize;
            let calls = random.below(40) as usize;
            Fault::ClientEnds { client, calls, after_ns: random.below(lease) }
        }
        _ => Fault::HandOver { partition },
    }
}

/// A storm.
pub fn storm(random: &mut Random) -> Weather {
    Weather {
        lost: 50 + random.below(400),
        twice: random.below(200),
        late: random.below(500),
        late_ns: (1 + random.below(300)) * MS,
        usual_ns: (100 + random.below(5_000)) * US,
    }
}
