//! A status for people: what matters of it. `--json` has every figure.

use std::fmt::Write as _;

use serde_json::Value;

use crate::commands::cluster::items;
use crate::commands::moves::copy_text;
use crate::commands::table;
use crate::units::{count, size};

/// Partitions that are listed when all is well with them.
const PARTITIONS_SHOWN: usize = 32;
/// Notes that are shown.
const NOTES_SHOWN: usize = 8;

/// All of it.
pub fn of(status: &Value, all_partitions: bool) -> String {
    let mut out = headline(status);
    out.push_str(&bricks(status));
    out.push('\n');
    out.push_str(&table::to_text(&status["tables"]));
    out.push_str(&partitions(status, all_partitions));
    out.push_str(&copies(status));
    let cores = items(&status["cores"]);
    out.push_str(&cores_text(&word(&status["name"]), cores));
    out.push_str(&trouble(status, cores));
    out
}

/// A value in a column.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The brick that was asked, and its cluster.
fn headline(status: &Value) -> String {
    let state = match &status["not_ready_because"] {
        Value::String(why) => format!("not ready: {why}"),
        _ => "ready".to_owned(),
    };
    let name = word(&status["name"]);
    let mut out = format!("{name} is {state}; version {}\n", word(&status["version"]));
    let cluster = &status["cluster"];
    if let Some(id) = cluster["id"].as_str() {
        let leads =
            if cluster["answered"] == false { "led the keepers last" } else { "leads the keepers" };
        let leader = word(&cluster["leader"]);
        let _ = match items(&status["bricks"]).len() {
            // Who is no keeper knows only what keepers tell.
            0 => writeln!(out, "cluster {id}"),
            1 => writeln!(out, "cluster {id}: 1 brick; {leader} {leads}"),
            bricks => writeln!(out, "cluster {id}: {bricks} bricks; {leader} {leads}"),
        };
    }
    if cluster["answered"] == false {
        let why = word(&cluster["not_answered_because"]);
        let _ = writeln!(
            out,
            "! the keepers have no leader now ({why}): this is what {name} knew last, and nothing can be changed"
        );
    }
    out
}

/// A line for each brick.
fn bricks(status: &Value) -> String {
    let mut bricks: Vec<&Value> = items(&status["bricks"]).iter().collect();
    if bricks.is_empty() {
        return String::new();
    }
    bricks.sort_by_key(|brick| word(&brick["name"]));
    let wide = |name: &str, least: usize| {
        bricks.iter().map(|b| word(&b[name]).chars().count()).max().unwrap_or(0).max(least)
    };
    let (name, listen) = (wide("name", 5), wide("listen", 6));
    let mut out = format!(
        "\n{:name$}  {:8} {:>8}  {:6} {:>10} {:>10} {:>7} {:>7} {:>6}  {:listen$} {:>8}\n",
        "brick",
        "state",
        "lease",
        "keeper",
        "memory",
        "of",
        "primary",
        "backup",
        "copies",
        "native",
        "process"
    );
    for brick in &bricks {
        let state = match (brick["live"].as_bool(), brick["draining"] == true) {
            (Some(false), _) => "DOWN",
            (_, true) => "draining",
            (Some(true), _) => "alive",
            (None, _) => "?",
        };
        let lease = match (&brick["lease_ms"], brick["live"].as_bool()) {
            (Value::Null, Some(_)) => "no end".to_owned(),
            (Value::Null, None) => "?".to_owned(),
            (_, Some(false)) => "-".to_owned(),
            (ms, _) => format!("{ms} ms"),
        };
        let keeper = match (brick["leads"] == true, brick["keeper"] == true) {
            (true, _) => "leads",
            (_, true) => "yes",
            _ => "-",
        };
        let total = brick["memory_bytes"].as_u64();
        let used = total.map(|all| all.saturating_sub(number(&brick["memory_free_bytes"])));
        let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
        let _ = writeln!(
            out,
            "{:name$}  {state:8} {lease:>8}  {keeper:6} {:>10} {:>10} {:>7} {:>7} {:>6}  {:listen$} {:>8}",
            word(&brick["name"]),
            bytes(used),
            bytes(total),
            number(&brick["primaries"]),
            number(&brick["backups"]),
            number(&brick["learners"]),
            word(&brick["listen"]),
            word(&brick["pid"]),
        );
    }
    out
}

/// How many replicas a partition lacks, of how many there could be.
fn lacks(status: &Value, partition: &Value) -> (u64, u64) {
    let there = items(&status["bricks"]).iter().filter(|b| b["draining"] != true).count() as u64;
    let wanted = number(&partition["replicas"]).min(there.max(1));
    (wanted.saturating_sub(items(&partition["members"]).len() as u64), wanted)
}

/// The partition's epoch has begun: writes commit in it.
fn is_active(partition: &Value) -> bool {
    partition["epoch"] == partition["active"]
}

fn partitions(status: &Value, all: bool) -> String {
    let partitions = items(&status["partitions"]);
    let well =
        |p: &Value| is_active(p) && lacks(status, p).0 == 0 && items(&p["learners"]).is_empty();
    let few = all || partitions.len() <= PARTITIONS_SHOWN;
    let shown: Vec<&Value> = partitions.iter().filter(|p| few || !well(p)).collect();
    let mut out = String::new();
    if !shown.is_empty() {
        let _ = writeln!(
            out,
            "
{:>9}  {:16} {:>6}  group, the primary first",
            "partition", "table", "epoch"
        );
    }
    let most = if all { usize::MAX } else { 2 * PARTITIONS_SHOWN };
    for partition in shown.iter().take(most) {
        let names = |name: &str| items(&partition[name]).iter().map(word).collect::<Vec<_>>();
        let mut group = names("members").join(", ");
        for learner in names("learners") {
            let _ = write!(group, ", + {learner} (copy)");
        }
        if !is_active(partition) {
            group.push_str("; begins");
        }
        let _ = writeln!(
            out,
            "{:>9}  {:16} {:>6}  {group}",
            number(&partition["partition"]),
            word(&partition["table"]),
            number(&partition["epoch"]),
        );
    }
    let hidden = partitions.len() - shown.len().min(most);
    if hidden > 0 {
        let _ = writeln!(out, "\n{hidden} more partitions; --partitions lists all");
    }
    out
}

/// Copies under way, and what operators wish.
fn copies(status: &Value) -> String {
    let mut out = String::new();
    let copies = items(&status["copies"]);
    if !copies.is_empty() {
        let rate: u64 = copies.iter().map(|copy| number(&copy["bytes_per_second"])).sum();
        let _ = writeln!(out, "\n{} copies under way, {}/s in all", copies.len(), size(rate));
    }
    for copy in copies.iter().take(2 * PARTITIONS_SHOWN) {
        let _ = writeln!(
            out,
            "  partition {} of {} to {} ({}): {}",
            number(&copy["partition"]),
            word(&copy["table"]),
            word(&copy["to"]),
            word(&copy["why"]),
            copy_text(copy),
        );
    }
    let slowed = |brick: &&Value| brick["copy_pace_bytes_per_second"].as_u64().is_some();
    for brick in items(&status["bricks"]).iter().filter(slowed) {
        let _ = writeln!(
            out,
            "  copies at {} move at most {}/s, because requests wait for them there",
            word(&brick["name"]),
            size(number(&brick["copy_pace_bytes_per_second"])),
        );
    }
    let moves = items(&status["moves"]);
    if !moves.is_empty() {
        let _ = writeln!(out, "\n{} moves wished", moves.len());
    }
    for wish in moves.iter().take(2 * PARTITIONS_SHOWN) {
        let _ = writeln!(out, "  partition {} {}", number(&wish["partition"]), word(&wish["text"]));
    }
    out
}

fn figure(core: &Value, name: &str) -> u64 {
    core["figures"][name].as_u64().unwrap_or(0)
}

/// A line for each data core.
fn cores_text(name: &str, cores: &[Value]) -> String {
    let mut out = format!(
        "\n{:<6} {:<9} {:>12} {:>10} {:>10} {:>13} {:>13} {:>13} {:>11}   ({name})\n",
        "core", "state", "items", "memory", "of", "gets", "puts", "removes", "to disk"
    );
    for core in cores {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:<6} {:<9} {:>12} {:>10} {:>10} {:>13} {:>13} {:>13} {:>11}",
            number(&core["core"]),
            word(&core["state"]),
            count(figure(core, "items")),
            size(figure(core, "log_used_bytes")),
            size(figure(core, "log_capacity_bytes")),
            count(figure(core, "gets")),
            count(figure(core, "puts")),
            count(figure(core, "removes")),
            size(figure(core, "flush_lag_bytes")),
        );
    }
    out
}

/// What an operator should know, when it is so.
fn trouble(status: &Value, cores: &[Value]) -> String {
    let mut out = cluster_trouble(status);
    const SIGNS: [(&str, &str); 6] = [
        ("partitions_sick", "partitions take no writes: their disk failed"),
        ("flush_errors", "disk writes failed"),
        ("corrupt_records", "damaged records were found by scans"),
        ("corrupt_reads", "reads met a damaged record"),
        ("no_space", "writes were refused for want of space"),
        ("overloaded", "requests were refused because too many were in flight"),
    ];
    for (name, what) in SIGNS {
        let sum: u64 = cores.iter().map(|core| figure(core, name)).sum();
        if sum > 0 {
            let _ = writeln!(out, "! {} {what}", count(sum));
        }
    }
    out
}

/// Bricks that are down, replicas that are behind, what was lost.
fn cluster_trouble(status: &Value) -> String {
    let mut out = String::new();
    let down = |name: &str| {
        items(&status["bricks"]).iter().any(|b| b["name"] == name && b["live"] == false)
    };
    for brick in items(&status["bricks"]).iter().filter(|b| b["live"] == false) {
        let since = brick["heard_ms"].as_u64();
        let since = since.map_or_else(String::new, |ms| format!(" for {} s", ms / 1_000));
        let _ = writeln!(out, "! {} has not been heard{since}", word(&brick["name"]));
    }
    out.push_str(&short_of_room(status));
    let partitions = items(&status["partitions"]);
    let stopped = partitions.iter().filter(|p| {
        let members = items(&p["members"]);
        !members.is_empty() && members.iter().all(|m| m.as_str().is_some_and(down))
    });
    let stopped: Vec<String> = stopped.map(|p| word(&p["partition"])).take(NOTES_SHOWN).collect();
    if !stopped.is_empty() {
        let _ = writeln!(
            out,
            "! partitions {} serve nothing while their bricks are down: start those again",
            stopped.join(", ")
        );
    }
    let behind: u64 = partitions.iter().map(|partition| lacks(status, partition).0).sum();
    if behind > 0 {
        let of: u64 = partitions.iter().map(|partition| lacks(status, partition).1).sum();
        let _ = writeln!(
            out,
            "! {} of {} replicas are behind: gone, or being copied to",
            count(behind),
            count(of)
        );
    }
    let notes = items(&status["notes"]);
    for note in notes.iter().rev().take(NOTES_SHOWN).rev() {
        let _ = writeln!(out, "! {}", word(&note["text"]));
    }
    out
}

/// Bricks without room or with failed files, and the partitions that suffer. While the keepers have no leader, the brick that was asked.
fn short_of_room(status: &Value) -> String {
    let all = items(&status["bricks"]).iter().filter(|brick| !brick["lack"].is_null());
    let mut short: Vec<(String, &Value)> =
        all.map(|brick| (word(&brick["name"]), &brick["lack"])).collect();
    if short.is_empty() && !status["lack"].is_null() {
        short.push((word(&status["name"]), &status["lack"]));
    }
    let mut out = String::new();
    for (name, lack) in short {
        let waiting = items(&lack["partitions"]).len() as u64;
        let _ = match waiting {
            0 => writeln!(out, "! {name} takes nothing more: {}", word(&lack["why"])),
            _ => writeln!(out, "! {name}: {}", lack_text(lack)),
        };
    }
    out
}

/// Which partitions a brick does not serve as it should, and why.
pub fn lack_text(lack: &Value) -> String {
    let all: Vec<String> = items(&lack["partitions"]).iter().map(word).collect();
    let more = if all.len() > PARTITIONS_SHOWN { ", ..." } else { "" };
    let shown = all[..all.len().min(PARTITIONS_SHOWN)].join(", ");
    let wait = if all.len() == 1 {
        format!("partition {shown} is not served as it should be")
    } else {
        format!("partitions {shown}{more} are not served as they should be")
    };
    format!("{wait}: {}", word(&lack["why"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lone() -> Value {
        serde_json::json!({
            "name": "b", "id": "07", "version": "0.1.0", "pid": 5, "listen": "127.0.0.1:7400",
            "resp": null, "not_ready_because": null,
            "tables": [{ "name": "default", "durability": "sync", "partitions": 4, "replicas": 1 }],
            "cores": [{ "core": 0, "state": "serving", "figures": {
                "items": 1234, "log_used_bytes": 3 << 20, "no_space": 2, "new_figure": 1,
            } }],
        })
    }

    #[test]
    fn status_says_what_matters_and_what_is_wrong() {
        let text = of(&lone(), false);
        assert!(text.starts_with("b is ready; version 0.1.0\n"), "{text}");
        assert!(text.contains("1,234    3.0 MiB"), "{text}");
        assert!(text.ends_with("! 2 writes were refused for want of space\n"), "{text}");
        let stopping = serde_json::json!({ "name": "b", "not_ready_because": "it stops" });
        assert!(of(&stopping, false).starts_with("b is not ready: it stops;"));
    }

    fn cluster() -> Value {
        let brick = |name: &str, live: bool| {
            serde_json::json!({
                "name": name, "pid": 7, "listen": "127.0.0.1:7400", "live": live, "lease_ms": 480,
                "heard_ms": 9_100, "keeper": true, "leads": name == "a", "draining": name == "b",
                "memory_bytes": 1 << 30, "memory_free_bytes": 1 << 29, "primaries": 2, "backups": 1,
                "learners": 0, "copy_pace_bytes_per_second": (name == "a").then_some(10 << 20),
            })
        };
        let partition = |n: u64, members: &[&str], active: u64| {
            serde_json::json!({
                "partition": n, "table": "t", "replicas": 2, "epoch": 4, "active": active,
                "members": members, "learners": if n == 2 { vec!["b"] } else { vec![] },
            })
        };
        let mut status = lone();
        status["cluster"] = serde_json::json!({ "id": "07", "leader": "a", "answered": true });
        status["bricks"] =
            serde_json::json!([brick("a", true), brick("b", true), brick("c", false)]);
        status["partitions"] = serde_json::json!([
            partition(1, &["a", "b"], 4),
            partition(2, &["a"], 3),
            partition(3, &["c"], 4),
        ]);
        status["copies"] = serde_json::json!([{
            "partition": 2, "table": "t", "to": "b", "why": "repair", "copied_bytes": 1 << 20,
            "bytes_per_second": 2 << 20, "left_ms": 1_500,
        }]);
        status["moves"] =
            serde_json::json!([{ "partition": 1, "text": "is handed over to \"b\"" }]);
        status["bricks"][0]["lack"] =
            serde_json::json!({ "why": "memory is short", "partitions": [] });
        status["bricks"][1]["lack"] =
            serde_json::json!({ "why": "data_dir is short", "partitions": [8, 9] });
        status["notes"] = serde_json::json!([{ "text": "partition 9 lost something" }]);
        status
    }

    #[test]
    fn a_cluster_is_shown_with_who_is_down_and_what_is_under_way() {
        let text = of(&cluster(), false);
        for line in [
            "cluster 07: 3 bricks; a leads the keepers",
            "a      alive      480 ms  leads   512.0 MiB    1.0 GiB       2       1      0  127.0.0.1:7400        7",
            "b      draining   480 ms  yes",
            "c      DOWN            -  yes",
            "        1  t                     4  a, b\n",
            "        2  t                     4  a, + b (copy); begins\n",
            "1 copies under way, 2.0 MiB/s in all\n",
            "  partition 2 of t to b (repair): 1.0 MiB, 2.0 MiB/s, 1.50 s left\n",
            "  copies at a move at most 10.0 MiB/s, because requests wait for them there\n",
            "  partition 1 is handed over to \"b\"\n",
            "! c has not been heard for 9 s\n",
            "! partitions 3 serve nothing",
            "! a takes nothing more: memory is short\n",
            "! b: partitions 8, 9 are not served as they should be: data_dir is short\n",
            "! 2 of 6 replicas are behind",
            "! partition 9 lost something\n",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn of_many_partitions_only_those_that_lack_something_are_listed() {
        let mut status = cluster();
        let whole = status["partitions"][0].clone();
        let many: Vec<Value> = std::iter::repeat_n(whole, 100).collect();
        status["partitions"].as_array_mut().unwrap().extend(many);
        let text = of(&status, false);
        assert!(text.contains("101 more partitions; --partitions lists all"), "{text}");
        assert!(of(&status, true).lines().count() > text.lines().count() + 90);
    }

    #[test]
    fn without_a_leader_nobody_is_said_to_be_alive() {
        let mut status = cluster();
        status["cluster"]["answered"] = false.into();
        for brick in status["bricks"].as_array_mut().unwrap() {
            for unknown in ["live", "lease_ms", "pid", "memory_bytes", "heard_ms"] {
                brick[unknown] = Value::Null;
            }
        }
        let text = of(&status, false);
        assert!(
            text.contains("a led the keepers last\n! the keepers have no leader now"),
            "{text}"
        );
        assert!(text.contains("a      ?               ?  leads"), "{text}");
        assert!(!text.contains("alive") && !text.contains("DOWN"), "{text}");
        // A brick that is no keeper knows none of them then.
        status["bricks"] = serde_json::json!([]);
        let text = of(&status, false);
        assert!(text.contains("\ncluster 07\n! the keepers have no leader now"), "{text}");
    }
}
