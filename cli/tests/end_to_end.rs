//! The command as a person uses it: against a real brick, in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod tool;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tool::{Up, firebrick, json};

const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn a_value_is_put_read_and_removed_byte_for_byte() {
    let up = Up::start();
    let run = |words: &[&str]| firebrick().args(words).args(up.connect()).output().unwrap();
    assert_eq!(run(&["put", "k", "v"]).status.code(), Some(0));
    let got = run(&["get", "k"]);
    assert_eq!(got.stdout, b"v", "nothing is added to a value");

    let odd: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let file = up.dir().join("odd");
    fs::write(&file, &odd).unwrap();
    assert!(run(&["put", "odd", "--file", file.to_str().unwrap()]).status.success());
    assert_eq!(run(&["get", "odd"]).stdout, odd);
    let got = json(&run(&["get", "odd", "--json"]), 0);
    assert_eq!(got["bytes"], 100_000);
    assert!(got["value_base64"].as_str().unwrap().starts_with("AAECAw"));

    let key = std::ffi::OsStr::from_bytes(b"\xff key");
    let put = firebrick().arg("put").arg(key).arg("").args(up.connect()).output().unwrap();
    assert!(put.status.success());
    let got = firebrick().arg("get").arg(key).args(up.connect()).output().unwrap();
    assert_eq!((got.status.code(), got.stdout), (Some(0), Vec::new()));

    assert_eq!(run(&["remove", "k"]).status.code(), Some(0));
    assert_eq!(run(&["remove", "k"]).status.code(), Some(3));
    let gone = run(&["get", "k"]);
    assert_eq!(gone.status.code(), Some(3));
    let said = String::from_utf8(gone.stderr).unwrap();
    assert!(said.starts_with("firebrick: no value under k"), "{said}");
    assert_eq!(json(&run(&["get", "k", "--json"]), 3)["error"]["kind"], "not_found");
}

#[test]
fn a_value_of_8_mib_goes_through_standard_input_and_one_byte_more_does_not() {
    let up = Up::start();
    for (size, code) in [(8 << 20, 0), ((8 << 20) + 1, 2)] {
        let file = up.dir().join("value");
        fs::write(&file, vec![7; size]).unwrap();
        let input = fs::File::open(&file).unwrap();
        let mut put = firebrick();
        put.args(["put", "big", "-"]).args(up.connect()).stdin(input);
        assert_eq!(put.output().unwrap().status.code(), Some(code), "{size}");
    }
    let got = firebrick().args(["get", "big"]).args(up.connect()).output().unwrap();
    assert_eq!(got.stdout, vec![7; 8 << 20]);
}

#[test]
fn conditions_and_increments_say_what_happened() {
    let up = Up::start();
    let run = |words: &[&str]| firebrick().args(words).args(up.connect()).output().unwrap();
    let first = json(&run(&["put", "k", "1", "--if-absent", "--json"]), 0);
    let version = first["version"].as_str().unwrap();
    let refused = json(&run(&["put", "k", "2", "--if-absent", "--json"]), 7);
    assert_eq!(refused["error"]["kind"], "refused");
    assert!(run(&["put", "k", "2", "--if-version", version]).status.success());
    assert_eq!(run(&["put", "k", "3", "--if-version", version]).status.code(), Some(7));
    assert_eq!(run(&["increment", "k", "40"]).stdout, b"42\n");
    assert_eq!(json(&run(&["increment", "k", "-2", "--json"]), 0)["value"], 40);
    run(&["put", "word", "x"]);
    assert_eq!(run(&["increment", "word"]).status.code(), Some(1));
}

#[test]
fn a_folder_is_loaded_and_every_difference_is_found() {
    let up = Up::start();
    let tree = up.dir().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    for (name, bytes) in [(&b"a"[..], &b"1"[..]), (b"sub/\xff\n", b"2"), (b"empty", b"")] {
        fs::write(tree.join(std::ffi::OsStr::from_bytes(name)), bytes).unwrap();
    }
    fs::File::create(tree.join("over")).unwrap().set_len((8 << 20) + 1).unwrap();
    let run = |word: &str| {
        let mut command = firebrick();
        command.args([word, "--json", "--tree"]).arg(&tree).args(up.connect());
        command.output().unwrap()
    };
    let loaded = json(&run("load"), 0);
    assert_eq!((&loaded["items"], &loaded["bytes"]), (&3.into(), &2.into()));
    assert_eq!(loaded["skipped"]["too_large"], 1);
    assert_eq!(json(&run("verify"), 0)["items"], 3);

    fs::write(tree.join("a"), b"changed").unwrap();
    fs::write(tree.join("new"), b"").unwrap();
    let found = json(&run("verify"), 1);
    assert_eq!(found["differences"]["missing"], 1);
    assert_eq!(found["differences"]["different"], 1);
    assert_eq!(found["error"]["exit"], 1);
}

#[test]
fn tables_come_and_go() {
    let up = Up::start();
    let run = |words: &[&str]| firebrick().args(words).args(up.connect()).output().unwrap();
    assert!(run(&["table", "create", "t"]).status.success());
    let names = |output| -> Vec<String> {
        let object = json(&output, 0);
        let tables = object["tables"].as_array().unwrap().iter();
        tables.map(|t| t["name"].as_str().unwrap().to_owned()).collect()
    };
    let mut listed = names(run(&["table", "list", "--json"]));
    listed.sort();
    assert_eq!(listed, ["default", "t"]);
    assert!(run(&["put", "k", "v", "--table", "t"]).status.success());
    assert_eq!(run(&["get", "k"]).status.code(), Some(3), "tables are apart");
    assert_eq!(run(&["table", "drop", "t"]).status.code(), Some(2), "not without --yes");
    assert!(run(&["table", "drop", "t", "--yes"]).status.success());
    assert_eq!(run(&["get", "k", "--table", "t"]).status.code(), Some(3));
    assert_eq!(names(run(&["table", "list", "--json"])), ["default"]);
}

#[test]
fn status_names_the_brick() {
    let up = Up::start();
    let status = firebrick().args(["status", "--json"]).args(up.connect()).output().unwrap();
    let status = json(&status, 0);
    assert_eq!(status["name"], "brick-1");
    let brick = &status["bricks"][0];
    assert_eq!((&brick["name"], &brick["live"]), (&"brick-1".into(), &true.into()), "{status}");
    assert_eq!((&brick["pid"], &brick["listen"]), (&status["pid"], &status["listen"]));
    assert_eq!(brick["lease_ms"], serde_json::Value::Null, "a lone brick's lease has no end");
    assert_eq!(status["cluster"]["leader"], "brick-1");
    assert!(status["partitions"][0]["epoch"].as_u64() >= Some(1), "{status}");
    assert_eq!(status["copies"].as_array().map(Vec::len), Some(0));
    let watched = firebrick().args(["status", "--watch", "--json"]).output().unwrap();
    assert_eq!(json(&watched, 2)["error"]["kind"], "usage");
}

#[test]
fn what_a_lone_brick_cannot_do_is_refused_in_a_sentence() {
    let up = Up::start();
    let refused = |words: &[&str], code: i32, said: &str| {
        let output = firebrick().args(words).arg("--json").args(up.connect()).output().unwrap();
        let message = json(&output, code)["error"]["message"].to_string();
        assert!(message.contains(said), "{words:?}: {message}");
    };
    refused(&["brick-remove", "brick-1"], 7, "there is no other brick");
    refused(&["brick-remove", "brick-9"], 3, "the bricks are brick-1");
    refused(&["table", "create", "t", "--replicas", "2"], 7, "there is 1 brick");
    refused(&["table", "create", "t", "--replicas", "0"], 2, "0 is not in 1..=16");
    refused(
        &["hand-over", "--partition", "1", "--to", "brick-1"],
        7,
        "is the primary of partition 1",
    );
    refused(&["move", "--partition", "1", "--from", "brick-1", "--to", "x"], 3, "no brick");
    refused(&["move", "--partition", "999", "--cancel"], 3, "there is no partition 999");
    refused(&["move", "--table", "default", "--cancel"], 7, "nothing to take back");
    refused(&["lead-anyway", "--partition", "1"], 2, "--yes");
    refused(&["lead-anyway", "--partition", "1", "--yes"], 7, "has not stopped");
}

#[test]
fn bench_measures_a_brick() {
    let up = Up::start();
    let args = ["bench", "kv", "--json", "--time", "200ms", "--warm-up", "50ms", "--keys", "100"];
    let report = firebrick().args(args).args(up.connect()).output().unwrap();
    let report = json(&report, 0);
    assert!(report["ops_per_second"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["misses"], 0);
}

#[test]
fn up_starts_a_brick_that_died_again_and_finds_what_was_acknowledged() {
    let mut up = Up::start();
    let run =
        |up: &Up, words: &[&str]| firebrick().args(words).args(up.connect()).output().unwrap();
    assert!(run(&up, &["put", "k", "v"]).status.success());
    up.kill_brick();
    up.wait_ready();
    assert_eq!(run(&up, &["get", "k"]).stdout, b"v");
    assert_eq!(up.stop(), Some(0), "SIGTERM is passed on and ends with 0");
    // Its one object was printed long before.
    let said = up.said();
    let died = "firebrick: brick-1 ended (signal 9); starting it again in 200 ms\n";
    assert!(said.contains(died), "{said}");
}

#[test]
fn a_brick_that_is_stopped_while_it_waits_for_its_keepers_ends_with_0() {
    let dir = tempfile::tempdir().unwrap();
    let mut brick = firebrick()
        .args(["brick", "--join", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--memory", "64MiB"])
        .args(["--control", "127.0.0.1:0", "--resp", "off", "--http", "off", "--memory-dir"])
        .arg(dir.path().join("memory"))
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(brick.stderr.take().unwrap());
    let waits = |line: std::io::Result<String>| line.unwrap().contains("waits for its keepers");
    assert!(said.lines().any(waits));
    // SAFETY: kill takes no pointers; the child has not been waited for.
    assert_eq!(unsafe { libc::kill(brick.id() as i32, libc::SIGTERM) }, 0);
    assert_eq!(brick.wait().unwrap().code(), Some(0));
}

/// A brick that has not begun, or waits for its keeper, has nothing to lose.
#[test]
fn up_that_is_stopped_while_its_brick_starts_ends_with_0() {
    for ms in [10, 30, 60, 100, 150, 250] {
        let mut up = Up::begin();
        std::thread::sleep(Duration::from_millis(ms));
        let code = up.stop();
        // (No code: the signal came before it was caught.)
        assert!(code.is_none_or(|code| code == 0), "after {ms} ms: {code:?}, {}", up.said());
    }
}

#[test]
fn demo_holds_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, temp) = (dir.path().join("tree"), dir.path().join("tmp"));
    fs::create_dir_all(&tree).unwrap();
    fs::create_dir_all(&temp).unwrap();
    for i in 0..200_u32 {
        fs::write(tree.join(i.to_string()), vec![i as u8; i as usize * 37]).unwrap();
    }
    let mut demo = firebrick();
    demo.args(["demo", "--json", "--max-total", "8m", "--tree"]).arg(&tree).env("TMPDIR", &temp);
    let report = json(&demo.output().unwrap(), 0);
    assert_eq!(report["ok"], true);
    assert_eq!(report["failures"].as_array().map(Vec::len), Some(0));
    for phase in ["load", "verify_client", "verify_resp", "verify_restarted"] {
        assert_eq!(report["phases"][phase]["items"], 200, "{phase}");
    }
    assert!(report["acked_writes"].as_u64().unwrap() > 0);
    assert_eq!(report["requests_failed_by_copy"], 0, "{report}");
    for figure in ["longest_write_gap_seconds", "restart_seconds", "recovery_bytes_per_second"] {
        assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}: {report}");
    }
    assert_eq!(fs::read_dir(&temp).unwrap().count(), 0, "its folders are gone");
}

fn status(up: &Up) -> Value {
    json(&firebrick().args(["status", "--json"]).args(up.connect()).output().unwrap(), 0)
}

fn brick<'a>(status: &'a Value, name: &str) -> &'a Value {
    let bricks = status["bricks"].as_array().unwrap();
    bricks.iter().find(|brick| brick["name"] == name).unwrap()
}

/// Waits until the first brick's status is as it should be.
fn wait_for(up: &Up, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begin = Instant::now();
    loop {
        let status = status(up);
        if is_so(&status) {
            return status;
        }
        assert!(begin.elapsed() < PATIENCE, "{what}: {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_whole(status: &Value) -> bool {
    let partitions = status["partitions"].as_array().unwrap();
    !partitions.is_empty()
        && partitions.iter().all(|p| {
            p["members"].as_array().unwrap().len() == 3 && p["learners"] == Value::Array(vec![])
        })
}

fn kill(brick: &Value) {
    let pid = brick["pid"].as_i64().unwrap() as i32;
    // SAFETY: kill takes no pointers; `up` waits for this child only after it has died.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

fn run(up: &Up, words: &[&str]) -> String {
    let output = firebrick().args(words).args(up.connect()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn three_bricks_are_one_cluster_and_one_that_dies_is_started_again() {
    let mut up = Up::start_with(3, &[]);
    let before = wait_for(&up, "three replicas of each", is_whole);
    assert_eq!(before["cluster"]["voters"].as_array().unwrap().len(), 3, "{before}");
    run(&up, &["put", "key", "value"]);
    let died = brick(&before, "brick-3");
    kill(died);
    let after = wait_for(&up, "the brick is back in all groups", |status| {
        let now = brick(status, "brick-3");
        now["pid"] != died["pid"] && now["live"] == true && is_whole(status)
    });
    assert!(brick(&after, "brick-3")["lease_ms"].as_u64().unwrap() > 0, "{after}");
    assert_eq!(run(&up, &["get", "key"]).trim_end(), "value");
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn without_restarts_a_brick_that_dies_stays_down_and_the_others_serve() {
    let mut up = Up::start_with(3, &["--no-restart"]);
    let before = wait_for(&up, "three replicas of each", is_whole);
    kill(brick(&before, "brick-3"));
    wait_for(&up, "the brick is missed", |status| brick(status, "brick-3")["live"] == false);
    run(&up, &["put", "key", "value"]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(brick(&status(&up), "brick-3")["live"], false);
    assert_eq!(run(&up, &["get", "key"]).trim_end(), "value");
    assert_eq!(up.stop(), Some(0));
}
