//! Promise: tables come and go while the brick works, whatever core a request arrives on; what was dropped
//! leaves no file and harms no other table.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use firebrick_client::{Client, Error, Options as ClientOptions};
use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::files::listing;
use firebrick_tests::resp::Value;
use firebrick_tests::runtime;

/// The folders of partitions, `p<id>`, below a folder.
fn partitions(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut partitions: Vec<String> = names
        .filter(|name| name.strip_prefix('p').is_some_and(|n| n.parse::<u32>().is_ok()))
        .collect();
    partitions.sort();
    partitions
}

/// Tells the load to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Puts and gets through the native client until told to stop or the table is gone.
async fn work(
    address: String,
    table: String,
    stop: &AtomicBool,
    count: &AtomicU64,
) -> (u64, Option<Error>) {
    // Making the files of a new table takes a busy disk a while, and until then requests wait.
    let options = ClientOptions { deadline: Duration::from_mins(1), ..ClientOptions::default() };
    let client = Client::connect_with(&address, options).await.expect("a connection");
    let table = client.table(&table).await.expect("the table");
    let mut done = 0;
    while !stop.load(Ordering::SeqCst) {
        let one = async {
            table.put(done, done.to_le_bytes()).await?;
            let read = table.get(done / 2).await?.map(|read| read.bytes);
            assert_eq!(read, Some((done / 2).to_le_bytes().to_vec()), "key {}", done / 2);
            Ok::<(), Error>(())
        };
        if let Err(error) = one.await {
            return (done, Some(error));
        }
        done += 1;
        count.store(done, Ordering::SeqCst);
    }
    (done, None)
}

fn come_and_go_under_load(cores: &'static str, durability: &'static str) {
    let mut brick = Brick::start(&Options { cores, durability, ..Options::default() });
    let before = [partitions(brick.memory_dir()), partitions(brick.data_dir())];
    let (stop, address) = (AtomicBool::new(false), brick.native.to_string());
    std::thread::scope(|scope| {
        let (steady_address, stop) = (address.clone(), &stop);
        let stopping = Stop(stop);
        let counts: [AtomicU64; 5] = Default::default();
        let counts: &[AtomicU64; 5] = Box::leak(Box::new(counts));
        let steady = scope.spawn(move || {
            runtime().block_on(work(steady_address, "default".into(), stop, &counts[4]))
        });
        for (round, count) in counts.iter().take(4).enumerate() {
            let name = format!("round{round}");
            brick.cli(&["table", "create", &name, "--durability", durability]);
            let (address, table) = (address.clone(), name.clone());
            let passing =
                scope.spawn(move || runtime().block_on(work(address, table, stop, count)));
            let begin = Instant::now();
            while count.load(Ordering::SeqCst) < 100 && !passing.is_finished() {
                assert!(begin.elapsed() < Duration::from_mins(1), "no put into a new table");
                std::thread::sleep(Duration::from_millis(5));
            }
            brick.cli(&["table", "drop", &name, "--yes"]);
            let (done, error) = passing.join().expect("the load on the passing table");
            assert!(done > 10, "{done} puts before the drop, then {error:?}");
            let error = error.expect("requests of a dropped table fail");
            let text = error.to_string();
            assert!(text.contains("table"), "{text:?} does not speak of the table");
        }
        drop(stopping);
        let (done, error) = steady.join().expect("the steady load");
        assert!(error.is_none(), "the other table was harmed: {error:?}");
        assert!(done > 100, "{done} puts: no load");
    });
    // The files go once nothing reads them.
    let begin = Instant::now();
    loop {
        let after = [partitions(brick.memory_dir()), partitions(brick.data_dir())];
        if after == before {
            break;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "files of dropped tables are left: {after:?}, {:?}",
            listing(brick.data_dir())
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(brick.connect().ask("SET still here").is_ok());
    brick.kill9();
    brick.restart().unwrap_or_else(|refused| panic!("{refused:#?}"));
    assert_eq!(brick.connect().ask("GET still"), Value::Bulk(b"here".to_vec()));
    assert!(!brick.cli(&["table", "list"]).contains("round"), "a dropped table came back");
}

#[test]
fn tables_come_and_go_under_load() {
    come_and_go_under_load("0", "memory");
}

#[test]
fn tables_come_and_go_under_load_with_two_data_cores() {
    come_and_go_under_load("0-1", "async");
}
