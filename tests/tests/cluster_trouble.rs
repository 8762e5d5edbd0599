//! Promise: what becomes of several bricks when one is full, when their keepers are gone, when all of them stop, and
//! when the power fails: nothing that was acked is lost, what cannot be served says so, and it goes on afterwards.
//!
//! (A data core that hangs under a healthy control thread cannot be made from outside: the simulator and the tests of
//! the keepers have it.)

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use firebrick_client::{Client, Error, Options, Table};
use firebrick_tests::cluster::{Cluster, PATIENCE, Shape, Small};
use firebrick_tests::hand::Hand;
use firebrick_tests::recorder::Recorder;
use firebrick_tests::resp::{Resp, Value, command};
use firebrick_tests::runtime;

const DEADLINE: Duration = Duration::from_secs(8);

async fn table(seeds: &str, deadline: Duration) -> Table {
    let options = Options { deadline, ..Options::default() };
    let begin = Instant::now();
    loop {
        if let Ok(client) = Client::connect_with(seeds, options.clone()).await
            && let Ok(table) = client.table("default").await
        {
            return table;
        }
        assert!(begin.elapsed() < PATIENCE, "no table");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn value(number: u64) -> Vec<u8> {
    let mut value = vec![number as u8; 16_000];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

/// Far more than a full brick has room for.
const ENOUGH: u64 = 8_000;

/// Writes until a write is refused for want of room, or there are so many that the others went on without the full
/// brick. How many were acked, and whether one was refused.
async fn fill(table: &Table) -> (u64, bool) {
    for number in 0..ENOUGH {
        match table.put(format!("fill:{number}"), value(number)).await {
            Ok(_) => {}
            Err(Error::NoSpace) => return (number, true),
            Err(error) => panic!("value {number}: {error}"),
        }
    }
    (ENOUGH, false)
}

async fn fills_up_and_goes_on(cluster: &Cluster) {
    let table = table(&cluster.seeds(), DEADLINE).await;
    let (acked, refused) = fill(&table).await;
    assert!(acked > 500, "only {acked} values fitted");
    eprintln!("{acked} values of 16 kB; refused: {refused}");
    for number in (0..acked).step_by(7) {
        let found = table.get(format!("fill:{number}")).await.expect("reads go on");
        assert!(found.is_some_and(|v| v.bytes == value(number)), "value {number}");
    }
    // What is full can be emptied, and then there is room again.
    for number in 0..acked * 9 / 10 {
        assert_eq!(table.remove(format!("fill:{number}")).await, Ok(true), "value {number}");
    }
    let begin = Instant::now();
    let mut again = 0;
    while again < acked / 4 {
        match table.put(format!("again:{again}"), value(again)).await {
            Ok(_) => again += 1,
            Err(Error::NoSpace) => {
                assert!(begin.elapsed() < PATIENCE, "no room after removes: {again}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("value {again} behind the removes: {error}"),
        }
    }
    for number in 0..again {
        let found = table.get(format!("again:{number}")).await.expect("an answer");
        assert!(found.is_some_and(|v| v.bytes == value(number)), "value {number}");
    }
    let kept = table.get(format!("fill:{}", acked - 1)).await.expect("an answer");
    assert!(kept.is_some_and(|v| v.bytes == value(acked - 1)));
}

#[test]
fn a_full_memory_dir_of_one_brick() {
    let small = vec![Small { brick: 1, memory: true, mib: 80 }];
    let shape = Shape { small, ..Shape::default() };
    let Some(cluster) = Cluster::for_test("a_full_memory_dir_of_one_brick", &shape) else { return };
    runtime().block_on(fills_up_and_goes_on(&cluster));
}

#[test]
fn a_full_data_dir_of_one_brick() {
    let small = vec![Small { brick: 2, memory: false, mib: 80 }];
    let shape = Shape { small, durability: "async", ..Shape::default() };
    let Some(cluster) = Cluster::for_test("a_full_data_dir_of_one_brick", &shape) else { return };
    runtime().block_on(fills_up_and_goes_on(&cluster));
}

#[test]
fn the_brick_that_leads_the_keepers_dies_and_writes_go_on() {
    let test = "the_brick_that_leads_the_keepers_dies_and_writes_go_on";
    let Some(mut cluster) = Cluster::for_test(test, &Shape::default()) else { return };
    let recorder = Recorder::default();
    let hand = Hand::new(&recorder, 1, &cluster.seeds(), DEADLINE);
    for round in 0..4 {
        for n in 0..24 {
            assert!(hand.put(&format!("key-{n}"), &format!("{round}")).is_some());
        }
        let leader = cluster.keepers_leader().expect("a leader");
        cluster.kill(leader);
        let died = Instant::now();
        for n in 0..24 {
            assert!(hand.put(&format!("key-{n}"), &format!("{round} after")).is_some());
        }
        assert!(died.elapsed() < Duration::from_secs(6), "{:?}", died.elapsed());
        let next = cluster.keepers_leader().expect("a leader");
        assert_ne!(next, leader);
        cluster.mend();
    }
    recorder.judge();
}

/// A brick does not reach the leader of the keepers, and everybody else does, and is reached: it keeps its lease through
/// another keeper, and its partitions with the others.
#[test]
fn a_brick_that_alone_does_not_reach_the_leader_of_the_keepers_keeps_its_lease() {
    let test = "a_brick_that_alone_does_not_reach_the_leader_of_the_keepers_keeps_its_lease";
    let Some(mut cluster) = Cluster::for_test(test, &Shape::default()) else { return };
    let recorder = Recorder::default();
    let hand = Hand::new(&recorder, 1, &cluster.seeds(), DEADLINE);
    let leader = cluster.keepers_leader().expect("a leader");
    let (far, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.network.part(far, leader);
    let begin = Instant::now();
    let (mut looks, mut live) = (0, 0);
    for round in 0.. {
        assert!(hand.put(&format!("key-{}", round % 24), &format!("{round}")).is_some());
        let status = cluster.status(other).unwrap_or_default();
        if status["cluster"]["leader"] != format!("brick-{leader}") {
            eprintln!("another leader after {:?}", begin.elapsed());
            break; // (On a busy machine there may be an election.)
        }
        let bricks = status["bricks"].as_array().map_or(&[][..], Vec::as_slice);
        let there = bricks.iter().find(|b| b["name"] == format!("brick-{far}"));
        looks += 1;
        live += u32::from(there.is_some_and(|brick| brick["live"] == true));
        if begin.elapsed() > Duration::from_secs(5) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("it was there in {live} of {looks} looks");
    assert!(live * 10 > looks * 8, "it was there in {live} of {looks} looks");
    // It says what the leader sees, too.
    let status = cluster.status(far).expect("a status");
    assert_eq!(status["cluster"]["answered"], true, "{}", status["cluster"]);
    cluster.mend();
    recorder.judge();
}

/// Redis clients of one brick ask for what another one leads; that one stands still past its lease, with what they
/// asked. It is alive to the kernels, and says nothing until all of them are done.
#[test]
fn a_primary_stands_still_and_redis_clients_of_another_brick_are_answered() {
    let test = "a_primary_stands_still_and_redis_clients_of_another_brick_are_answered";
    let Some(mut cluster) = Cluster::for_test(test, &Shape::default()) else { return };
    let leader = cluster.keepers_leader().expect("a leader");
    let (stuck, asked) = ((leader + 1) % 3, (leader + 2) % 3);
    let led = || cluster.key_of(|group| group.first() == Some(&stuck));
    let client = |_| Resp::connect(cluster.resp(asked)).expect("a connection");
    let mut clients: Vec<_> = (0..8).map(client).collect();
    // Primaries may still be handed over.
    let mut key = led();
    loop {
        for client in &mut clients {
            assert!(client.ask(&format!("SET {key} before")).is_ok());
        }
        let still = led();
        if std::mem::replace(&mut key, still.clone()) == still {
            break;
        }
    }
    cluster.pause(stuck);
    let begin = Instant::now();
    let both = [command(&["SET", &key, "meanwhile"]), command(&["GET", &key])].concat();
    for client in &mut clients {
        client.send(&both).expect("it takes them");
    }
    let mut replies = Vec::new();
    for client in &mut clients {
        for _ in 0..2 {
            replies.push((begin.elapsed(), client.receive().expect("a reply")));
        }
        let after = client.ask(&format!("SET {key} after"));
        assert!(after.is_ok(), "{after:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    let doubt = |reply: &Value| reply.error().is_some_and(|text| text.contains("may or may not"));
    let in_doubt = replies.iter().filter(|(_, reply)| doubt(reply)).count();
    assert!(in_doubt >= clients.len(), "what that brick has may be done: {replies:?}");
    // What it answers now is nobody's.
    cluster.mend();
    let get = format!("GET {key}");
    for client in &mut clients {
        assert_eq!(client.ask(&get), Value::Bulk(b"after".to_vec()));
    }
}

#[test]
fn without_a_majority_of_the_keepers_nothing_is_served_and_nothing_diverges() {
    let test = "without_a_majority_of_the_keepers_nothing_is_served_and_nothing_diverges";
    let Some(mut cluster) = Cluster::for_test(test, &Shape::default()) else { return };
    let recorder = Recorder::default();
    let seeds = cluster.seeds();
    let hand = Hand::new(&recorder, 1, &seeds, DEADLINE);
    for left in 0..3 {
        for n in 0..24 {
            assert!(hand.put(&format!("key-{n}"), &format!("{left}")).is_some());
        }
        for brick in (0..3).filter(|brick| *brick != left) {
            cluster.kill(brick);
        }
        // Its lease ends, and nobody gives it another one.
        std::thread::sleep(Duration::from_millis(700));
        let short = Hand::new(&recorder, 100 + left as u32, &cluster.native(left).to_string(), {
            Duration::from_millis(800)
        });
        for n in 0..3 {
            let read = short.get(&format!("key-{n}"));
            assert!(read.is_err(), "a brick without a lease gave {read:?}");
            assert!(short.put(&format!("key-{n}"), "nobody").is_none());
        }
        let ready = cluster.http_get(left, "/readyz").expect("HTTP");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("has no lease"), "{ready}");
        cluster.mend();
        for n in 3..24 {
            assert_eq!(hand.get(&format!("key-{n}")), Ok(Some(format!("{left}"))));
        }
        for n in 0..24 {
            assert!(hand.put(&format!("key-{n}"), "goes on").is_some());
        }
    }
    recorder.judge();
}

#[test]
fn all_bricks_die_and_any_that_kept_its_memory_leads() {
    let test = "all_bricks_die_and_any_that_kept_its_memory_leads";
    let Some(mut cluster) = Cluster::for_test(test, &Shape::default()) else { return };
    let recorder = Recorder::default();
    let hand = Hand::new(&recorder, 1, &cluster.seeds(), DEADLINE);
    for kept in 0..3 {
        for n in 0..40 {
            assert!(hand.put(&format!("key-{n}"), &format!("{kept}")).is_some());
        }
        // (On a busy machine one may just have lost its lease, and its place.)
        cluster.await_health();
        // At once; only one of them has its memory afterwards.
        for brick in 0..3 {
            cluster.kill(brick);
        }
        for brick in (0..3).filter(|brick| *brick != kept) {
            cluster.lose_memory(brick);
        }
        cluster.mend();
        for n in 0..40 {
            assert_eq!(hand.get(&format!("key-{n}")), Ok(Some(format!("{kept}"))));
        }
        // In turn, a moment apart, with memory kept, and back in another order.
        for brick in [kept, (kept + 1) % 3, (kept + 2) % 3] {
            cluster.kill(brick);
            std::thread::sleep(Duration::from_millis(300));
        }
        for brick in [(kept + 1) % 3, kept, (kept + 2) % 3] {
            cluster.spawn(brick);
            std::thread::sleep(Duration::from_millis(300));
        }
        cluster.mend();
        for n in 0..40 {
            assert_eq!(hand.get(&format!("key-{n}")), Ok(Some(format!("{kept}"))));
        }
    }
    recorder.judge();
}

/// A command, and what it is told within a time.
fn told(resp: &mut Resp, line: &str, within: Duration) -> Value {
    let begin = Instant::now();
    let reply = resp.ask(line);
    let took = begin.elapsed();
    eprintln!("{line}: {reply:?} after {took:?}");
    assert!(took < within, "{line}: {reply:?} after {took:?}");
    reply
}

/// Two of three hosts lose their power: the keepers have no majority, so no route changes, and nothing closes the
/// connections to those hosts.
#[test]
fn hosts_without_power_leave_no_redis_client_waiting() {
    let test = "hosts_without_power_leave_no_redis_client_waiting";
    let Some(mut cluster) = Cluster::for_test(test, &Shape::default()) else { return };
    let keys = [0, 1, 2].map(|brick| cluster.key_of(|group| group[0] == brick));
    let connect = || Resp::connect(cluster.resp(0)).expect("a connection");
    let mut asking = [connect(), connect(), connect(), connect()];
    for key in &keys {
        assert!(asking.iter_mut().all(|resp| resp.ask(&format!("SET {key} before")).is_ok()));
    }
    for (gone, others) in [(1, [0, 2, 3]), (2, [0, 1, 3])] {
        for other in others {
            cluster.network.part(gone, other);
        }
    }
    let quick = Duration::from_secs(4);
    let [own, write, read, many] = &mut asking;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Its own brick has it, and waits for votes that will not come.
            let within = Duration::from_secs(33);
            own.stream().set_read_timeout(Some(2 * within)).expect("a timeout");
            let reply = told(own, &format!("SET {} own", keys[0]), within);
            assert!(reply.error().is_some_and(|text| text.contains("may or may not")));
            assert!(own.receive().is_err(), "the connection is closed behind it");
        });
        scope.spawn(|| {
            let reply = told(write, &format!("SET {} far", keys[1]), quick);
            assert!(reply.error().is_some_and(|text| text.contains("may or may not")));
            // Now it is known, and this one does not leave.
            let reply = told(write, &format!("SET {} again", keys[1]), quick);
            assert!(reply.error().is_some_and(|text| text.starts_with("LOADING")));
        });
        scope.spawn(|| {
            let reply = told(read, &format!("GET {}", keys[2]), quick);
            assert!(reply.error().is_some_and(|text| text.starts_with("LOADING")));
        });
        scope.spawn(|| {
            let begin = Instant::now();
            let lines = keys[1..]
                .iter()
                .flat_map(|key| (0..50).map(move |n| command(&["SET", key, &format!("{n}")])));
            many.send(&lines.collect::<Vec<_>>().concat()).expect("the brick takes it");
            let replies: Vec<_> = (0..100).map(|_| many.receive().expect("a reply")).collect();
            assert!(replies.iter().all(|reply| reply.error().is_some()), "{replies:?}");
            assert!(begin.elapsed() < 2 * quick, "{:?}", begin.elapsed());
        });
    });
    cluster.mend();
    let answers = |key: &String| {
        let mut resp = Resp::connect(cluster.resp(0)).expect("a connection");
        matches!(resp.call(&["GET", key]), Ok(Value::Bulk(_)))
    };
    // (On a busy machine a lease may end in between.)
    let end = Instant::now() + Duration::from_secs(20);
    while !keys.iter().all(answers) {
        assert!(Instant::now() < end, "not served again");
    }
}

/// Writes until the power fails, each number under a key of its own; the numbers that were acked.
fn write_until(over: &AtomicBool, seeds: &str, host: &str, client: u32) -> Vec<u64> {
    firebrick_tests::network::enter(host).expect("the clients' host");
    runtime().block_on(async {
        let table = table(seeds, Duration::from_secs(2)).await;
        let mut acked = Vec::new();
        for number in 1.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let put = table.put(format!("{client}:{number}"), format!("{number}").into_bytes());
            if put.await.is_ok() {
                acked.push(number);
            }
        }
        acked
    })
}

/// All bricks lose their power while clients write; what each client had been told of.
fn power_fails(cluster: &mut Cluster) -> Vec<Vec<u64>> {
    let over = AtomicBool::new(false);
    let (seeds, host) = (cluster.seeds(), cluster.network.name(cluster.client_host()));
    let acked = std::thread::scope(|scope| {
        let write = |client| {
            let (over, seeds, host) = (&over, &seeds, &host);
            scope.spawn(move || write_until(over, seeds, host, client))
        };
        let writers: Vec<_> = (0..4).map(write).collect();
        std::thread::sleep(Duration::from_secs(2));
        // (Paused first: they die at one moment.)
        for brick in 0..3 {
            cluster.pause(brick);
        }
        over.store(true, Ordering::Relaxed);
        for brick in 0..3 {
            cluster.kill(brick);
            cluster.lose_memory(brick);
        }
        writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    });
    cluster.mend();
    acked
}

/// How many of the acked writes are there, and how many are not.
fn found(cluster: &Cluster, acked: &[Vec<u64>]) -> (u64, u64) {
    runtime().block_on(async {
        let table = table(&cluster.seeds(), DEADLINE).await;
        let (mut there, mut lost) = (0, 0);
        for (client, numbers) in acked.iter().enumerate() {
            for number in numbers {
                match table.get(format!("{client}:{number}")).await.expect("an answer") {
                    Some(value) => {
                        assert_eq!(value.bytes, format!("{number}").into_bytes());
                        there += 1;
                    }
                    None => lost += 1,
                }
            }
        }
        (there, lost)
    })
}

#[test]
fn power_fails_everywhere_and_a_sync_table_has_every_acked_write() {
    let test = "power_fails_everywhere_and_a_sync_table_has_every_acked_write";
    let shape = Shape { durability: "sync", ..Shape::default() };
    let Some(mut cluster) = Cluster::for_test(test, &shape) else { return };
    for _ in 0..2 {
        let acked = power_fails(&mut cluster);
        let (there, lost) = found(&cluster, &acked);
        assert!(there > 100, "only {there} writes were acked");
        assert_eq!(lost, 0, "of {there} acked writes");
    }
    let status = cluster.cli(0, &["status", "--json"]);
    assert!(!status.contains("may be lost"), "{status}");
}

#[test]
fn power_fails_everywhere_and_an_async_table_says_what_may_be_lost() {
    let test = "power_fails_everywhere_and_an_async_table_says_what_may_be_lost";
    let shape = Shape { durability: "async", ..Shape::default() };
    let Some(mut cluster) = Cluster::for_test(test, &shape) else { return };
    let acked = power_fails(&mut cluster);
    let (there, lost) = found(&cluster, &acked);
    eprintln!("{there} acked writes are there, {lost} are lost");
    // The bound of the table (by default some ms, and what the disk was at) is what may be lost, not more.
    assert!(there > 100 && lost * 4 < there, "{there} are there, {lost} are not");
    let status = cluster.cli(0, &["status", "--json"]);
    assert!(status.contains("may be lost"), "{status}");
    let said = (0..3).map(|brick| cluster.said(brick)).collect::<String>();
    assert!(said.contains("may be lost"), "no log tells of it");
    let metrics = cluster.http_get(0, "/metrics").expect("metrics");
    assert!(metrics.contains("firebrick_lost_records_total"), "{metrics}");
}
