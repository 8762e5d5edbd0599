//! Nanoseconds per operation of the parts that every request goes through. Figures for
//! docs/results; run on a quiet machine: `cargo run --release -p firebrick-partition --example speed`.

use std::hint::black_box;

use firebrick_log::{Durability, Log, LogConfig};
use firebrick_partition::index::Index;
use firebrick_partition::maps::{Leaf, Replicas};
use firebrick_partition::replica::{Actions, Me, Outcome, Replica};
use firebrick_partition::{
    Answer, Condition, Expiry, Now, Op, Request, Route, Version, hash_key, hash_u64, wire,
};

const BATCH: usize = 64;

/// CPU time of this thread, so that a neighbour on the machine does not count.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn timed(name: &str, ops: u64, work: impl FnOnce()) {
    let start = cpu_ns();
    work();
    println!("{name:44} {:8.1} ns", (cpu_ns() - start) as f64 / ops as f64);
}

fn index(keys: u64) {
    let mut index = Index::new(0);
    timed(&format!("index insert, {keys} keys"), keys, || {
        for n in 1..=keys {
            index.insert(hash_u64(n), n);
        }
    });
    println!("{:44} {:8.2} bytes a key", "", index.bytes() as f64 / keys as f64);
    let order: Vec<u64> = (0..1_000_000u64).map(|i| hash_u64(hash_u64(i) % keys + 1)).collect();
    timed(&format!("index find, {keys} keys, one by one"), 1_000_000, || {
        for hash in &order {
            black_box(index.find(*hash, |_| true));
        }
    });
    timed(&format!("index find, {keys} keys, prefetched"), 1_000_000, || {
        for batch in order.chunks(BATCH) {
            for hash in batch {
                index.prefetch_bucket(*hash);
            }
            for hash in batch {
                black_box(index.find(*hash, |_| true));
            }
        }
    });
}

fn put(value: &[u8]) -> Op<'_> {
    Op::Put { value, expiry: Expiry::Never, condition: Condition::Always, want_old: false }
}

fn replica(keys: u64) {
    let cfg = LogConfig {
        table: 1,
        partition: 1,
        durability: Durability::Memory,
        bytes_max: 8 << 30,
        segment_bytes_max: 64 << 20,
    };
    let mut replica = Replica::new(Log::in_heap(cfg), Leaf { depth: 0, suffix: 0, partition: 1 });
    let route = Route { table: 1, partition: 1, epoch: 1, fingerprint: 9 };
    let (now, mut out) = (Now { boot_ns: 1, unix_ms: 1 }, Actions::default());
    let me = Me { brick: 1, incarnation: 1 };
    assert!(replica.set_group(now, me, route, &Replicas::alone(1, 1, 0, 1), &mut out), "begun");
    let name = |n: u64| format!("key:{n:012}").into_bytes();
    let names: Vec<Vec<u8>> = (0..keys).map(name).collect();
    let value = [7u8; 64];
    let mut execute = |replica: &mut Replica, batch: &[&Vec<u8>], op: Op<'_>, prefetch: bool| {
        let mut hashes = [0; BATCH];
        for (hash, key) in hashes.iter_mut().zip(batch) {
            *hash = hash_key(key);
            if prefetch {
                replica.prefetch_bucket(*hash);
            }
        }
        if prefetch {
            hashes[..batch.len()].iter().for_each(|hash| replica.prefetch_record(*hash));
        }
        for (hash, key) in hashes.iter().zip(batch) {
            let request = Request { route, numbered: None, key, op };
            match replica.execute(now, 0, *hash, &request, &mut out) {
                Outcome::Now(Answer::Failed(f)) => panic!("{f:?}"),
                Outcome::Now(answer) => drop(black_box(answer)),
                Outcome::Later => panic!("later"),
            }
        }
    };
    let all: Vec<&Vec<u8>> = names.iter().collect();
    timed(&format!("put new, {keys} keys"), keys, || {
        all.chunks(BATCH).for_each(|b| execute(&mut replica, b, put(&value), true));
    });
    // In the order of use, as a receive buffer has them.
    let copies: Vec<Vec<u8>> =
        (0..500_000u64).map(|i| names[(hash_u64(i) % keys) as usize].clone()).collect();
    let order: Vec<&Vec<u8>> = copies.iter().collect();
    for (what, op) in [("get", Op::Get), ("put over", put(&value))] {
        for (how, prefetch) in [("one by one", false), ("batch of 64, prefetched", true)] {
            timed(&format!("{what}, {keys} keys, {how}"), 500_000, || {
                order.chunks(BATCH).for_each(|b| execute(&mut replica, b, op, prefetch));
            });
        }
    }
}

fn wire_speed() {
    let route = Route { table: 1, partition: 1, epoch: 1, fingerprint: 9 };
    let (key, value) = ([3u8; 16], [7u8; 64]);
    let mut out = Vec::new();
    let many = 5_000_000;
    for (name, op) in [("get", Op::Get), ("put 64 B", put(&value))] {
        let request = Request { route, numbered: None, key: &key, op };
        timed(&format!("wire: encode {name}"), many, || {
            for slot in 0..many as u32 {
                out.clear();
                wire::request(&mut out, slot, black_box(&request));
                black_box(&out);
            }
        });
        timed(&format!("wire: decode {name} ({} B)", out.len()), many, || {
            for _ in 0..many {
                let _ = black_box(wire::decode(black_box(&out)));
            }
        });
    }
    let answer = Answer::Value { value: &value, version: Version::default(), expires_ms: 0 };
    timed("wire: encode a value of 64 B", many, || {
        for slot in 0..many as u32 {
            out.clear();
            wire::answer(&mut out, slot, black_box(&answer));
            black_box(&out);
        }
    });
    timed("wire: decode a value of 64 B", many, || {
        for _ in 0..many {
            let _ = black_box(wire::decode(black_box(&out)));
        }
    });
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("replica") {
        return replica(100_000);
    }
    wire_speed();
    for keys in [100_000, 1_000_000, 10_000_000] {
        index(keys);
    }
    for keys in [100_000, 1_000_000] {
        replica(keys);
    }
}
