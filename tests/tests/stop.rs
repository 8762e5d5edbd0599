//! Promise: SIGTERM and Ctrl-C end a brick in order: what is in flight is answered, everything acked is there
//! afterwards, the exit code is 0. And a brick that cannot start says why in a sentence.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use firebrick_tests::binary::firebrick;
use firebrick_tests::brick::{Brick, Options};
use firebrick_tests::resp::{Resp, command};

/// Puts numbered keys until the brick stops; how many were acked, in order. `all` counts those of every
/// writer.
fn write_until_stopped(mut resp: Resp, writer: usize, all: &AtomicU64) -> u64 {
    let mut acked = 0;
    loop {
        let batch: Vec<u8> = (acked..acked + 8)
            .flat_map(|n| command(&["SET", &format!("{writer}:{n}"), &format!("value {n}")]))
            .collect();
        if resp.send(&batch).is_err() {
            return acked;
        }
        for _ in 0..8 {
            match resp.receive() {
                Ok(answer) if answer.is_ok() => {
                    acked += 1;
                    all.fetch_add(1, Ordering::Relaxed);
                }
                // A stopping brick may refuse what it did not begin.
                _ => return acked,
            }
        }
    }
}

fn stops_in_order(number: i32, durability: &'static str, cores: &'static str) {
    let mut brick = Brick::start(&Options { durability, cores, ..Options::default() });
    let (mut acked, all) = (Vec::new(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let resp = brick.connect();
                let all = &all;
                scope.spawn(move || write_until_stopped(resp, writer, all))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(150));
        let begin = Instant::now();
        while all.load(Ordering::Relaxed) <= 100 && begin.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let begin = Instant::now();
        let status = brick.stop(number);
        assert!(begin.elapsed() < Duration::from_secs(30), "the end took {:?}", begin.elapsed());
        assert_eq!(status.code(), Some(0), "{}", brick.said());
        acked = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
    });
    assert!(acked.iter().sum::<u64>() > 100, "{acked:?}: the load was no load");
    if durability != "memory" {
        // An orderly stop leaves everything on the disk.
        brick.lose_memory();
    }
    brick.restart().unwrap_or_else(|refused| panic!("{refused:#?}"));
    let status = brick.cli(&["status"]);
    assert!(durability == "memory" || !status.contains("may be lost"), "{status}");
    let mut resp = brick.connect();
    for (writer, acked) in acked.iter().enumerate() {
        for n in 0..*acked {
            let found = resp.ask(&format!("GET {writer}:{n}"));
            let wanted = format!("value {n}").into_bytes();
            assert_eq!(
                found,
                firebrick_tests::resp::Value::Bulk(wanted),
                "{writer}:{n} of {acked}"
            );
        }
    }
}

#[test]
fn sigterm_under_load_loses_nothing() {
    stops_in_order(libc::SIGTERM, "async", "0");
}

#[test]
fn ctrl_c_under_load_loses_nothing() {
    stops_in_order(libc::SIGINT, "memory", "0");
}

#[test]
fn sync_tables_stop_in_order_too() {
    stops_in_order(libc::SIGTERM, "sync", "0");
}

#[test]
fn two_data_cores_stop_in_order() {
    stops_in_order(libc::SIGTERM, "async", "0-1");
}

#[test]
fn a_connection_that_never_reads_does_not_hold_up_the_end() {
    let mut brick = Brick::start(&Options::default());
    let mut resp = brick.connect();
    assert!(resp.call(&[b"SET", &b"big"[..], &vec![7; 1 << 20]]).unwrap().is_ok());
    let mut deaf = brick.connect();
    deaf.send(&command(&["GET", "big"]).repeat(64)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(brick.stop(libc::SIGTERM).code(), Some(0), "{}", brick.said());
}

/// Runs `firebrick brick` with these arguments; it must end by itself. Its exit code and words.
fn refused(args: &[&str]) -> (i32, String) {
    let output = Command::new("timeout")
        .args(["--signal=KILL", "60"])
        .arg(firebrick())
        .arg("brick")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("timeout(1)");
    let code = output.status.code().expect("it ends by itself");
    assert_ne!(code, 0, "{args:?} was taken");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (code, said)
}

#[test]
fn a_port_in_use_is_named() {
    let brick = Brick::start(&Options::default());
    let folder = tempfile::tempdir().unwrap();
    let (data, memory) = (folder.path().join("d"), folder.path().join("m"));
    let (data, memory) = (data.to_str().unwrap(), memory.to_str().unwrap());
    for port in [brick.native, brick.resp, brick.http] {
        let free = || format!("127.0.0.1:{}", firebrick_tests::machine::free_port());
        let pick = |mine| if mine == port { port.to_string() } else { free() };
        let (listen, resp, http) = (pick(brick.native), pick(brick.resp), pick(brick.http));
        let (_, said) = refused(&[
            "--name",
            "b",
            "--cores",
            "0",
            "--memory",
            "64MiB",
            "--durability",
            "memory",
            "--listen",
            &listen,
            "--resp",
            &resp,
            "--http",
            &http,
            "--data-dir",
            data,
            "--memory-dir",
            memory,
        ]);
        assert!(said.contains(&port.port().to_string()), "{port}: {said}");
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "{port}: folders of a brick that never was");
    }
}

#[test]
fn wrong_options_are_named_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, memory) = (path("d"), path("m"));
    for (args, word) in [
        (&["--durability", "sometimes"][..], "sometimes"),
        (&["--poll", "lazy"], "lazy"),
        (&["--memory", "much"], "much"),
        (&["--memory", "1"], "memory"),
        (&["--cores", "900"], "900"),
        (&["--cores", "x"], "x"),
        (&["--listen", "nowhere"], "nowhere"),
        (&["--memory-dir", "/proc/firebrick"], "/proc/firebrick"),
        (&["--config", "/nonexistent.toml"], "/nonexistent.toml"),
        (&["--bogus"], "bogus"),
    ] {
        let mut folders = vec!["--data-dir", &data];
        if !args.contains(&"--memory-dir") {
            folders.extend(["--memory-dir", &memory]);
        }
        let (_, said) = refused(&[&folders, args].concat());
        assert!(said.contains(word), "{args:?}: {said}");
        assert!(said.lines().count() < 12, "{args:?}: {said}");
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "{args:?} left something behind");
    }
}

#[test]
fn an_unknown_key_in_the_configuration_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("firebrick.toml");
    std::fs::write(&file, "colour = \"red\"\n").unwrap();
    let (_, said) = refused(&["--config", file.to_str().unwrap()]);
    assert!(said.contains("colour"), "{said}");
}
