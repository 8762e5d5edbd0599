//! `firebrick move` and `firebrick hand-over`: where single replicas are, and who leads.

use clap::{ArgGroup, Args};
use firebrick_client::Client;
use serde_json::{Value, json};

use super::cluster::{self, Progress, items};
use crate::args::Connect;
use crate::error::CliError;
use crate::output::{Out, Output};
use crate::progress;
use crate::store::connect;
use crate::units::{micros, size};

/// What both commands have.
#[derive(Args, Debug, Clone)]
#[command(group(ArgGroup::new("what").required(true).args(["partition", "table"])))]
pub struct Which {
    /// The partition; `firebrick status` lists them.
    #[arg(long, value_name = "ID")]
    pub partition: Option<u32>,
    /// All partitions of a table that can go.
    #[arg(long, value_name = "NAME")]
    pub table: Option<String>,
    /// Say that it is wished, and do not wait until it is done.
    #[arg(long)]
    pub no_wait: bool,
}

/// Flags of `move`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
The partition is copied while it is served, and no request fails because of that. It stays where
it was put: nothing that only makes bricks more even moves it until a brick joins, is emptied or is
removed. What cannot be done within a minute is given up, and said. Ctrl-C ends the wait, not the
move; --cancel takes it back. A brick that has a replica already can become the primary instead:
see `firebrick hand-over`.")]
pub struct MoveArgs {
    /// What is moved.
    #[command(flatten)]
    pub which: Which,
    /// The brick that has a replica.
    #[arg(long, value_name = "BRICK", required_unless_present = "cancel")]
    pub from: Option<String>,
    /// The brick that gets it.
    #[arg(long, value_name = "BRICK", required_unless_present = "cancel")]
    pub to: Option<String>,
    /// Take back a move or a hand-over that is under way.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub cancel: bool,
    /// Where. (Last: its heading is that of all behind it.)
    #[command(flatten)]
    pub connect: Connect,
}

/// Flags of `hand-over`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
The primary holds new requests for a moment, lets those in flight commit, and becomes a backup; no
request fails. It stays so until a brick fails, joins, is emptied or is removed.")]
pub struct HandOverArgs {
    /// What is handed over.
    #[command(flatten)]
    pub which: Which,
    /// The brick that is to be primary; it has a replica.
    #[arg(long, value_name = "BRICK")]
    pub to: String,
    /// Where.
    #[command(flatten)]
    pub connect: Connect,
}

/// Runs `move`.
pub async fn run_move(args: &MoveArgs, out: &Out) -> Result<Output, CliError> {
    let client = connect(&args.connect).await?;
    let status = cluster::status(&client).await?;
    let (Some(from), Some(to)) = (&args.from, &args.to) else {
        return cancel(&client, &status, &args.which).await;
    };
    cluster::brick(&status, from)?;
    cluster::brick(&status, to)?;
    let fits = |partition: &Value| {
        let members = &partition["members"];
        items(members).iter().any(|m| m == from) && items(members).iter().all(|m| m != to)
    };
    let partitions = chosen(&status, &args.which, fits, || {
        format!("none of its partitions has a replica on {from} and none on {to}")
    })?;
    let request =
        |partition: u32| json!({ "do": "move", "partition": partition, "from": from, "to": to });
    let what = format!("moved to {to}");
    perform(&client, &args.which, out, &partitions, request, &what).await
}

/// Runs `hand-over`.
pub async fn run_hand_over(args: &HandOverArgs, out: &Out) -> Result<Output, CliError> {
    let client = connect(&args.connect).await?;
    let status = cluster::status(&client).await?;
    let to = &args.to;
    cluster::brick(&status, to)?;
    let fits = |partition: &Value| items(&partition["members"]).iter().skip(1).any(|m| m == to);
    let partitions = chosen(&status, &args.which, fits, || {
        format!("none of its partitions has a backup on {to}")
    })?;
    let request = |partition: u32| json!({ "do": "hand-over", "partition": partition, "to": to });
    let what = format!("handed over to {to}");
    perform(&client, &args.which, out, &partitions, request, &what).await
}

/// The partitions that are meant: one by number, whatever the keepers say to it; of a table those that fit.
fn chosen(
    status: &Value,
    which: &Which,
    fits: impl Fn(&Value) -> bool,
    none: impl Fn() -> String,
) -> Result<Vec<u32>, CliError> {
    if let Some(number) = which.partition {
        cluster::partition(status, number)?;
        return Ok(vec![number]);
    }
    let table = which.table.as_deref().unwrap_or_default();
    if items(&status["tables"]).iter().all(|t| t["name"] != table) {
        return Err(CliError::NotFound(format!(
            "no table \"{table}\": `firebrick table list` lists them"
        )));
    }
    let partitions = items(&status["partitions"]).iter().filter(|p| p["table"] == table);
    let found: Vec<u32> = partitions.filter(|p| fits(p)).filter_map(number).collect();
    if found.is_empty() {
        return Err(CliError::Refused(format!("table \"{table}\": {}; nothing to do", none())));
    }
    Ok(found)
}

fn number(partition: &Value) -> Option<u32> {
    partition["partition"].as_u64().and_then(|n| u32::try_from(n).ok())
}

async fn cancel(client: &Client, status: &Value, which: &Which) -> Result<Output, CliError> {
    let table = |partition: u32| {
        let found = items(&status["partitions"]).iter().find(|p| p["partition"] == partition);
        found.is_some_and(|p| which.table.as_deref().is_some_and(|table| p["table"] == table))
    };
    let wished = items(&status["moves"]).iter().filter_map(number);
    let partitions: Vec<u32> = match which.partition {
        Some(partition) => vec![partition],
        None => wished.filter(|partition| table(*partition)).collect(),
    };
    if partitions.is_empty() {
        return Err(CliError::Refused("nothing is wished of it; nothing to take back".to_owned()));
    }
    for partition in &partitions {
        cluster::change(client, &json!({ "do": "move-cancel", "partition": partition })).await?;
    }
    Ok(Output::new(json!({ "cancelled": partitions }), ""))
}

/// Wishes, and waits until all of them are met.
async fn perform(
    client: &Client,
    which: &Which,
    out: &Out,
    partitions: &[u32],
    request: impl Fn(u32) -> Value,
    what: &str,
) -> Result<Output, CliError> {
    let mut version = u64::MAX;
    for partition in partitions {
        let answer = cluster::change(client, &request(*partition)).await?;
        version = version.min(answer["version"].as_u64().unwrap_or(0));
    }
    if which.no_wait {
        let json = json!({ "partitions": partitions, "done": false });
        return Ok(Output::new(json, "wished; `firebrick status` shows how far it is\n"));
    }
    let bar = progress::part(out, "move");
    let interrupted = "it goes on: `firebrick status` shows how far it is, `firebrick move --cancel` takes it back";
    cluster::wait(client, &bar, interrupted, |status| look(status, partitions, version)).await?;
    let text = match partitions {
        [one] => format!("partition {one} is {what}\n"),
        many => format!("{} partitions are {what}\n", many.len()),
    };
    Ok(Output::new(json!({ "partitions": partitions, "done": true }), text))
}

/// A wish that is gone is met, unless a note since says that it was given up.
fn look(status: &Value, partitions: &[u32], since: u64) -> Progress {
    let ours = |value: &&Value| number(value).is_some_and(|n| partitions.contains(&n));
    let failed = items(&status["notes"]).iter().filter(ours).find(|note| {
        note["kind"] == "withdrawn" && note["version"].as_u64().is_some_and(|v| v >= since)
    });
    if let Some(note) = failed {
        let why = note["text"].as_str().unwrap_or("it was given up");
        return Progress::Failed(CliError::Failed(why.to_owned()));
    }
    let left = items(&status["moves"]).iter().filter(ours).count();
    if left == 0 {
        return Progress::Done;
    }
    let copy = items(&status["copies"]).iter().find(ours);
    let done = (partitions.len() - left) as u64 * 100;
    let (text, part) = copy.map_or((String::new(), 0), |copy| (copy_text(copy), copy_part(copy)));
    let text = match partitions.len() {
        1 if text.is_empty() => "waits for its turn".to_owned(),
        1 => text,
        all => format!("{left} of {all} left {text}"),
    };
    Progress::Waits(text, (done + part) / partitions.len() as u64)
}

/// How much of 100 of a copy is done.
fn copy_part(copy: &Value) -> u64 {
    let (passed, total) = (copy["passed_bytes"].as_u64(), copy["total_bytes"].as_u64());
    total.filter(|total| *total > 0).map_or(0, |total| passed.unwrap_or(0) * 100 / total)
}

/// A copy's figures, short.
pub fn copy_text(copy: &Value) -> String {
    let bytes = |name: &str| copy[name].as_u64().unwrap_or(0);
    let left = copy["left_ms"].as_u64();
    let left = left.map_or_else(String::new, |ms| format!(", {} left", micros(ms * 1_000)));
    format!("{}, {}/s{left}", size(bytes("copied_bytes")), size(bytes("bytes_per_second")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(moves: &Value, notes: &Value) -> Value {
        json!({ "moves": moves, "notes": notes, "copies": [
            { "partition": 7, "copied_bytes": 1 << 20, "passed_bytes": 30, "total_bytes": 60,
              "bytes_per_second": 2 << 20, "left_ms": 1500 },
        ] })
    }

    #[test]
    fn a_move_is_over_when_nothing_is_wished_any_more_and_failed_when_a_newer_note_says_so() {
        let going = status(&json!([{ "partition": 7 }]), &json!([]));
        let Progress::Waits(text, 50) = look(&going, &[7], 5) else { panic!() };
        assert_eq!(text, "1.0 MiB, 2.0 MiB/s, 1.50 s left");
        let Progress::Waits(text, 75) = look(&going, &[6, 7], 5) else { panic!() };
        assert!(text.starts_with("1 of 2 left"), "{text}");
        assert!(matches!(look(&going, &[6], 5), Progress::Done));
        let note = |version: u64| json!([{ "partition": 7, "kind": "withdrawn", "version": version, "text": "it is away" }]);
        assert!(matches!(look(&status(&json!([]), &note(4)), &[7], 5), Progress::Done));
        let Progress::Failed(error) = look(&status(&json!([]), &note(6)), &[7], 5) else {
            panic!()
        };
        assert_eq!(error, CliError::Failed("it is away".to_owned()));
    }

    #[test]
    fn the_partitions_of_a_table_are_those_that_can_go() {
        let status = json!({ "tables": [{ "name": "t" }, { "name": "u" }], "partitions": [
            { "partition": 1, "table": "t", "members": ["a", "b"] },
            { "partition": 2, "table": "t", "members": ["b", "c"] },
            { "partition": 3, "table": "u", "members": ["a", "b"] },
        ] });
        let which = |partition, table: Option<&str>| Which {
            partition,
            table: table.map(str::to_owned),
            no_wait: false,
        };
        let fits = |p: &Value| items(&p["members"]).iter().any(|m| m == "a");
        let choose = |which| chosen(&status, &which, fits, || "none fits".to_owned());
        assert_eq!(choose(which(None, Some("t"))), Ok(vec![1]));
        assert_eq!(choose(which(Some(3), None)), Ok(vec![3]));
        assert_eq!(choose(which(Some(9), None)).unwrap_err().exit_code(), 3);
        assert_eq!(choose(which(None, Some("x"))).unwrap_err().exit_code(), 3);
        let none = chosen(&status, &which(None, Some("u")), |_| false, || "none fits".to_owned());
        assert!(none.unwrap_err().to_string().contains("none fits"));
    }
}
