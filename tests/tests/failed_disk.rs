//! Promise: a disk that fails costs those who write to it an error at once, in words that say why, and nobody else
//! anything. Needs root, to mount.

use std::time::{Duration, Instant};

use firebrick_client::{Client, Error};
use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::machine::{Mount, is_root, skip};
use firebrick_tests::resp::Value;

#[test]
fn a_disk_that_fails_refuses_writes_at_once_and_is_told() {
    let test = "a_disk_that_fails_refuses_writes_at_once_and_is_told";
    let mount = match Mount::ext4(256) {
        Ok(mount) if is_root() => mount,
        Ok(_) => return skip(test, "only root may mount a file system"),
        Err(error) => return skip(test, &error),
    };
    let mut brick = Brick::start(&Options {
        durability: "sync",
        memory: "64MiB",
        data_dir: Some(mount.path().join("brick")),
        ..Options::default()
    });
    brick.cli(&["table", "create", "cache", "--durability", "memory"]);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let fails = runtime.block_on(async {
        let client = Client::connect(&brick.native.to_string()).await.expect("a connection");
        let table = client.table("default").await.expect("the table");
        table.put("key", "value").await.expect("a disk that works");
        mount.fail()?;
        let begin = Instant::now();
        // What becomes of the one that meets the failure nobody knows; the next one is refused.
        let first = table.put("key", "other").await;
        assert!(matches!(first, Err(Error::InDoubt)), "{first:?}");
        let second = table.put("key", "other").await;
        assert!(matches!(second, Err(Error::Unavailable(_))), "{second:?}");
        assert!(begin.elapsed() < Duration::from_secs(2), "after {:?}", begin.elapsed());
        Ok::<_, std::io::Error>(())
    });
    if let Err(error) = fails {
        return skip(test, &error.to_string());
    }
    let begin = Instant::now();
    let told = brick.try_cli(&["put", "key", "other"]).expect_err("a write without a disk");
    assert!(begin.elapsed() < Duration::from_secs(2), "{told} after {:?}", begin.elapsed());
    assert!(told.contains("the disk of its only replica failed"), "{told}");
    let mut resp = brick.connect();
    let answer = resp.ask("SET key other");
    assert!(answer.error().is_some_and(|error| error.starts_with("MISCONF ")), "{answer:?}");
    assert_eq!(resp.ask("GET key"), Value::Bulk(b"value".to_vec()));
    assert_eq!(resp.ask("PING"), Value::Simple("PONG".to_owned()));
    brick.cli(&["put", "key", "value", "--table", "cache"]);
    let begin = Instant::now();
    loop {
        let ready = brick.http_get("/readyz").expect("an answer");
        if ready.starts_with("HTTP/1.1 503") && ready.contains("because its disk failed") {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{ready}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = brick.cli(&["status"]);
    assert!(status.contains("because its disk failed"), "{status}");
    brick.stop(libc::SIGTERM);
}
