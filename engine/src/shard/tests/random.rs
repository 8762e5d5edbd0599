//! Seeded random schedules against a model.

use std::collections::BTreeMap;

use firebrick_net::fake::{Disk, Settings};
use firebrick_partition::Op;
use firebrick_partition::op::{Numbered, RequestId, SessionId};

use super::native_client::NativeClient;
use super::resp_client::RespClient;
use super::rig::{Build, Rig};
use firebrick_partition::maps::Durability;

const DURABILITIES: [Durability; 3] =
    [Durability::Memory, Durability::Async { ms: 2 }, Durability::Sync];

fn rig(seed: u64) -> Rig {
    let durability = DURABILITIES[(seed % 3) as usize];
    let rig = Rig::new(Build::new(seed, 1 + (seed / 3 % 2) as u16, durability)).serve();
    rig.world.set(Settings { disk: Disk::ByHand, ..Settings::default() });
    rig
}

fn resp_round(seed: u64) {
    let mut rig = rig(seed);
    let cores = rig.cores.len();
    let mut clients: Vec<RespClient> =
        (0..4).map(|n| RespClient::new(&mut rig, n % cores, &format!("c{n}"))).collect();
    for round in 0..4 {
        let until = rig.now + 8_000_000;
        while rig.now < until {
            for client in &mut clients {
                let busy = client.owed();
                if rig.random.one_in(4) && busy < 200 {
                    for _ in 0..=rig.random.below(16) {
                        client.any(rig.now, &mut rig.random);
                    }
                }
                if rig.random.one_in(2_000) {
                    client.reads_at = rig.now + 5_000_000;
                }
                client.read(rig.now);
            }
            if rig.random.one_in(500) {
                rig.disk_stalled = !rig.disk_stalled;
            }
            rig.step();
        }
        rig.disk_stalled = false;
        // One connection is lost with commands in flight; the others are answered whole.
        let lost = rig.random.below(clients.len() as u64) as usize;
        clients[lost].peer.cut(rig.now);
        let may = clients[lost].lose();
        rig.run_until(3_000_000_000, |rig| {
            let now = rig.now;
            let all = clients.iter_mut().enumerate().filter(|(n, _)| *n != lost);
            all.fold(true, |done, (_, client)| {
                client.read(now);
                done && client.owed() == 0
            })
        });
        rig.run_for(1_000_000);
        rig.run_until(1_000_000_000, Rig::is_quiet);
        let core = rig.random.below(cores as u64) as usize;
        clients[lost].reconnect(&mut rig, core, &may);
        if round == 1 {
            rig = rig.kill().serve();
            for (n, client) in clients.iter_mut().enumerate() {
                let may = client.lose();
                client.reconnect(&mut rig, n % cores, &may);
            }
        }
    }
    let replies: u64 = clients.iter().map(|c| c.replies).sum();
    assert!(replies > 500, "seed {seed}: {replies} replies");
}

#[test]
fn every_reply_comes_once_in_order_and_is_the_models() {
    let from: u64 = std::env::var("SHARD_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::var("SHARD_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    for seed in from..from + count {
        resp_round(seed);
    }
}

/// Promise 4: increments are retried over lost connections and a `kill -9`, and each counts once.
fn exactly_once_round(seed: u64) {
    let mut rig = rig(seed);
    let cores = rig.cores.len() as u64;
    let mut client = NativeClient::new(&mut rig, 0, "default");
    let key = client.key_on((seed % cores) as u16, seed as u32);
    let said = client.call(&mut rig, &key, Op::OpenSession { client: 9 });
    let mut numbers = said.split(' ').skip(1).map(|n| n.parse::<u64>().unwrap());
    let (partition, opened) = (numbers.next().unwrap() as u32, numbers.next().unwrap());
    let session = SessionId { partition, opened };
    let (mut issued, mut low) = (0u32, 0u32);
    let mut results: BTreeMap<u32, String> = BTreeMap::new();
    let mut slots: BTreeMap<u32, u32> = BTreeMap::new();
    for life in 0..12 {
        let until = rig.now + 3_000_000;
        while rig.now < until {
            while results.contains_key(&(low + 1)) {
                low += 1;
            }
            if issued < low + 60 && rig.random.one_in(2) {
                issued += 1;
                let id = RequestId { session, number: issued };
                let numbered = Some(Numbered { id, answered_to: low });
                let slot = client.ask(rig.now, &key, Op::Increment { by: 1 }, numbered);
                slots.insert(slot, issued);
            }
            rig.step();
            client.read(rig.now);
            for (slot, said) in std::mem::take(&mut client.got) {
                assert!(said.starts_with("integer "), "seed {seed}: {said}");
                results.insert(slots[&slot], said);
            }
        }
        if life % 4 == 3 {
            rig = rig.kill().serve();
        } else {
            rig.world.cut(&client.fake, rig.cores[client.core].shard.fabric());
        }
        client = NativeClient::new(&mut rig, (life % cores) as usize, "default");
        slots.clear();
        for number in (low + 1..=issued).filter(|n| !results.contains_key(n)) {
            let numbered = Numbered { id: RequestId { session, number }, answered_to: low };
            let slot = client.ask(rig.now, &key, Op::Increment { by: 1 }, Some(numbered));
            slots.insert(slot, number);
        }
    }
    client.settle(&mut rig, 2_000_000_000);
    for (slot, said) in std::mem::take(&mut client.got) {
        results.insert(slots[&slot], said);
    }
    let mut values: Vec<&String> = results.values().collect();
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), issued as usize, "seed {seed}: two requests have one answer");
    assert_eq!(client.call(&mut rig, &key, Op::Get), format!("value {issued}"), "seed {seed}");
}

#[test]
fn an_increment_counts_once_over_cuts_and_kills() {
    for seed in 0..3 {
        exactly_once_round(seed);
    }
}
