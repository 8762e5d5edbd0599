//! The clients against several bricks on real sockets, some of them dead.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
mod brick;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use brick::store::Shared;
use brick::{Brick, Fault};
use firebrick_client::{Answer, Client, Direct, DirectOptions, Error, Op, Options, ReadFrom};

/// Three bricks that hold every partition of one table.
fn three() -> (Vec<Brick>, Shared) {
    let store = Shared::new(8);
    let any = "127.0.0.1:0".parse().unwrap();
    let bricks: Vec<_> =
        (1..=3).map(|id| Brick::start_as(id, any, Fault::None, store.clone())).collect();
    spread(&store, &bricks);
    (bricks, store)
}

fn listens(bricks: &[Brick]) -> Vec<(u32, String)> {
    bricks.iter().map(|b| (b.id, b.address())).collect()
}

/// From now on these bricks hold every partition.
fn spread(store: &Shared, bricks: &[Brick]) {
    let list = listens(bricks);
    store.with(move |store| store.spread(&list));
}

/// Nobody listens there.
fn nobody() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn seen(store: &Shared, brick: u32, reads: bool) -> u64 {
    store.with(move |store| store.seen_by.get(&(brick, reads)).copied().unwrap_or(0))
}

#[tokio::test]
async fn writes_go_to_primaries_and_reads_to_everybody_past_a_dead_seed() {
    let (bricks, store) = three();
    let client = Client::connect([nobody(), bricks[0].address()]).await.unwrap();
    let t = client.table("default").await.unwrap();
    for n in 0..200u64 {
        t.put(n, n.to_string()).await.unwrap();
    }
    for _ in 0..3 {
        let values = t.get_many(0..200u64).await.unwrap();
        assert!(values.iter().all(Option::is_some), "a write that was answered is seen anywhere");
    }
    let reads: Vec<_> = (1..=3).map(|b| seen(&store, b, true)).collect();
    assert_eq!(reads.iter().sum::<u64>(), 600);
    assert!(reads.iter().all(|&n| n > 120), "no brick is spared: {reads:?}");
    // Each wrote its share, and nobody was asked in vain but for what was not known yet.
    assert!((1..=3).all(|b| seen(&store, b, false) >= 20));
    assert!(bricks.iter().all(|b| b.accepted() <= 1), "one connection a brick");

    let options = Options { read_from: ReadFrom::Primary, ..Options::default() };
    let t = Client::connect_with(bricks[0].address(), options).await.unwrap();
    let t = t.table("default").await.unwrap();
    let before = seen(&store, 2, true);
    for _ in 0..20 {
        t.get(7u64).await.unwrap();
    }
    let after = seen(&store, 2, true);
    assert!(after == before || after == before + 20, "one brick has all reads of a key");
}

#[tokio::test]
async fn no_seed_answers_and_each_is_named() {
    let (a, b) = (nobody(), nobody());
    let error = Client::connect(format!("{a},{b}")).await.unwrap_err().to_string();
    assert!(error.contains(&format!("{a}: ")) && error.contains(&format!("{b}: ")), "{error}");
}

/// A brick dies under load and its partitions go to others: no increment is lost, none counted twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_brick_costs_nobody_an_increment() {
    let (mut bricks, store) = three();
    let client = Client::connect(bricks[0].address()).await.unwrap();
    let t = client.table("default").await.unwrap();
    let tasks: Vec<_> = (0..8u64)
        .map(|key| {
            let t = t.clone();
            tokio::spawn(async move {
                for n in 1..=100 {
                    assert_eq!(t.increment(key, 1).await.unwrap(), n, "lost, or counted twice");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        })
        .collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        let dead = bricks.remove(1);
        drop(dead.kill());
        tokio::time::sleep(Duration::from_millis(40)).await;
        let id = 10 + bricks.len() as u32;
        let any = "127.0.0.1:0".parse().unwrap();
        bricks.push(Brick::start_as(id, any, Fault::None, store.clone()));
        spread(&store, &bricks);
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// These bricks at these addresses.
fn start_at(ids: [u32; 3], addresses: &[SocketAddr], store: &Shared) -> Vec<Brick> {
    let start = |(id, at): (_, &SocketAddr)| Brick::start_as(id, *at, Fault::None, store.clone());
    ids.into_iter().zip(addresses).map(start).collect()
}

/// All bricks stop, and each comes back where another one was. A client of before finds them.
#[tokio::test]
async fn bricks_that_changed_places_are_found() {
    let (bricks, store) = three();
    let client = Client::connect(bricks[0].address()).await.unwrap();
    let t = client.table("default").await.unwrap();
    for n in 0..40u64 {
        t.put(n, "before").await.unwrap();
    }
    let addresses: Vec<_> = bricks.iter().map(|b| b.address).collect();
    drop(bricks);
    let moved = start_at([2, 3, 1], &addresses, &store);
    spread(&store, &moved);
    for n in 0..40u64 {
        t.put(n, "after").await.unwrap();
        assert_eq!(t.get(n).await.unwrap().unwrap().bytes, b"after");
    }
    // They change back, which no map says, and once more to where the map has them.
    let addresses: Vec<_> = moved.iter().map(|b| b.address).collect();
    drop(moved);
    let wrong = start_at([1, 2, 3], &addresses, &store);
    let brief = t.with_deadline(Duration::from_millis(300));
    assert!(brief.put(0u64, "nobody serves it").await.is_err());
    drop(wrong);
    let _back = start_at([2, 3, 1], &addresses, &store);
    for n in 0..40u64 {
        t.put(n, "again").await.unwrap();
    }
}

/// One brick takes connections and says nothing. Keys of the others are served as ever, and what only that brick
/// could serve names it.
#[tokio::test]
async fn a_mute_brick_holds_up_nobody_else() {
    let (bricks, store) = three();
    let any = "127.0.0.1:0".parse().unwrap();
    let mute = Brick::start_as(4, any, Fault::Mute, store.clone());
    let mut list = listens(&bricks);
    list[1] = (4, mute.address());
    store.with(move |store| store.spread(&list));
    let options = Options { deadline: Duration::from_millis(700), ..Options::default() };
    let client = Client::connect_with(bricks[0].address(), options).await.unwrap();
    let t = client.table("default").await.unwrap();
    let began = Instant::now();
    let puts: Vec<_> = (0..64u64)
        .map(|n| {
            let t = t.clone();
            tokio::spawn(async move { (t.put(n, "v").await, began.elapsed()) })
        })
        .collect();
    let (mut served, mut named) = (0, 0);
    for put in puts {
        match put.await.unwrap() {
            (Ok(_), took) => {
                assert!(took < Duration::from_millis(600), "held up for {took:?}");
                served += 1;
            }
            (Err(error), _) => {
                assert!(error.is_temporary(), "{error}");
                assert!(error.to_string().contains(&mute.address()), "{error}");
                named += 1;
            }
        }
    }
    assert!(served > 20 && named > 5, "{served} served, {named} not");
    // Reads of its keys are answered by the others.
    let values = t.get_many(0..64u64).await.unwrap();
    assert_eq!(values.iter().flatten().count(), served);
}

#[test]
fn the_direct_client_over_three_bricks_of_which_one_dies() {
    let (mut bricks, store) = three();
    let seeds = format!("{},{}", nobody(), bricks[2].address());
    let mut direct = Direct::connect(seeds, &DirectOptions::default()).unwrap();
    let table = direct.table("default").unwrap();
    let mut sums = [0i64; 8];
    for round in 0..60 {
        if round == 20 {
            drop(bricks.remove(0));
            spread(&store, &bricks);
        }
        for (key, sum) in sums.iter_mut().enumerate() {
            let key = (key as u64).to_le_bytes();
            *sum += 1;
            let now = direct.call(table, &key, Op::Increment { by: 1 }, |answer| match answer {
                Answer::Integer { value, .. } => Ok(value),
                other => Err(Error::Protocol(format!("{other:?}").into())),
            });
            assert_eq!(now.unwrap(), *sum);
            let mut out = Vec::new();
            direct.get(table, &key, &mut out).unwrap();
            assert_eq!(out, sum.to_string().as_bytes());
        }
    }
}
