//! What needs no brick: help, errors, JSON shapes, exit codes.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::process::{Command, Output, Stdio};

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_firebrick")).args(words).output().unwrap()
}

fn error(output: &Output) -> serde_json::Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    let exit = object["error"]["exit"].as_i64().map(|exit| exit as i32);
    assert_eq!(output.status.code(), exit, "{text}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    object["error"].clone()
}

#[test]
fn help_names_every_command_and_every_exit_code() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).unwrap();
    for word in [
        "brick",
        "up",
        "demo",
        "put",
        "get",
        "remove",
        "increment",
        "load",
        "verify",
        "table",
        "status",
        "move",
        "hand-over",
        "brick-drain",
        "brick-remove",
        "lead-anyway",
        "bench",
        "in doubt",
        "--json",
    ] {
        assert!(text.contains(word), "{word}");
    }
}

#[test]
fn without_a_brick_every_command_says_how_to_start_one() {
    // Nobody listens on port 1.
    for words in [
        &["get", "k"][..],
        &["put", "k", "v"],
        &["remove", "k"],
        &["increment", "k"],
        &["status"],
        &["table", "list"],
        &["load", "--tree", "/usr/share/doc"],
        &["bench", "kv"],
    ] {
        let words = [words, &["--connect", "127.0.0.1:1"]].concat();
        let plain = run(&words);
        assert_eq!(plain.status.code(), Some(4), "{words:?}");
        assert!(plain.stdout.is_empty());
        let said = String::from_utf8(plain.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("firebrick up") && said.contains("127.0.0.1:1"), "{said}");
        assert_eq!(error(&run(&[&words[..], &["--json"]].concat()))["kind"], "unavailable");
    }
}

#[test]
fn usage_errors_are_json_too() {
    for words in [
        &["--json", "get"][..],
        &["--json", "frobnicate"],
        &["put", "k", "--json"],
        &["brick", "--cores", "all", "--json"],
        &["brick", "--memory", "3 potatoes", "--json"],
        &["up", "--bricks", "17", "--json"],
        &["get", "k", "--connect", "nowhere", "--json"],
        &["table", "drop", "t", "--json"],
    ] {
        let said = error(&run(words));
        assert_eq!(said["exit"], 2, "{words:?}: {said}");
        let message = said["message"].as_str().unwrap();
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn usage_errors_are_said_in_our_words() {
    for (words, what) in [
        (&["increment", "k", "x"][..], "invalid value 'x' for '[BY]': it is not a whole number"),
        (&["up", "--bricks", "-1"], "unexpected argument '-1' found"),
        (&["bench", "kv", "--keys", "99999999999999999999"], "it is too large"),
        (&["load", "--tree", ".", "--max-file", "1X"], "like \"1GiB\" (2^30) or \"512MB\""),
    ] {
        let output = run(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("firebrick: ") && said.contains(what), "{words:?}: {said}");
    }
}

#[test]
fn too_many_bricks_are_refused_with_the_number() {
    let up = run(&["up", "--bricks", "17"]);
    assert_eq!(up.status.code(), Some(2));
    let said = String::from_utf8(up.stderr).unwrap();
    assert!(said.contains("--bricks 17: give a number from 1 to 16"), "{said}");
}

#[test]
fn a_closed_pipe_is_quiet() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_firebrick"))
        .arg("--help")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let end = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&end.stderr), "");
}

#[test]
fn a_demo_without_files_fails_before_anything_is_started() {
    let demo = run(&["demo", "--json", "--tree", "/nowhere/at/all"]);
    let said = error(&demo);
    assert!(said["message"].as_str().unwrap().contains("/nowhere/at/all"), "{said}");
    let empty = tempfile::tempdir().unwrap();
    let said = error(&run(&["demo", "--json", "--tree", empty.path().to_str().unwrap()]));
    assert!(said["message"].as_str().unwrap().contains("has no file of up to 1.0 MiB"), "{said}");
}

/// No port is left for the bricks behind the first.
#[test]
fn ports_that_are_too_high_are_refused_with_their_flag() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--dir", dir.path().to_str().unwrap()];
    let words = [&["up", "--bricks", "3", "--http-port", "65530", "--json"][..], &place].concat();
    let said = error(&run(&words));
    assert_eq!(said["exit"], 2);
    assert!(said["message"].as_str().unwrap().starts_with("--http-port 65530 leaves no"), "{said}");
}

#[test]
fn a_server_that_is_not_there_is_unavailable_to_the_bench_of_redis_too() {
    let said = error(&run(&["bench", "redis", "--connect", "127.0.0.1:1", "--json"]));
    assert_eq!(said["kind"], "unavailable", "{said}");
    assert!(said["message"].as_str().unwrap().contains("127.0.0.1:1"), "{said}");
}
