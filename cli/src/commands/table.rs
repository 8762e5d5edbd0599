//! `firebrick table`.

use std::fmt::Write as _;
use std::time::Instant;

use clap::{Args, Subcommand};
use firebrick_client::{Client, CreateTable, Durability};
use serde_json::{Value, json};

use super::cluster::{self, Progress, items};
use super::status::lack_text;
use crate::args::Connect;
use crate::error::CliError;
use crate::output::{Out, Output};
use crate::progress;
use crate::store::{connect, from_change, from_client, parse_answer};

/// What to do with tables.
#[derive(Subcommand, Debug, Clone)]
pub enum TableCommand {
    /// Create a table.
    Create(CreateArgs),
    /// List the tables.
    List(ListArgs),
    /// Drop a table and everything in it.
    Drop(DropArgs),
}

/// Flags of `table create`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
It is there at once, and the command waits, --timeout at most, until its partitions are served. Where
a brick has no room for one, it ends with code 6 and says which: they are served as soon as there is
room, or the table can be dropped.")]
pub struct CreateArgs {
    /// Its name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// When a write counts as done: `memory`, `async`, `async(20ms)` or `sync` [default: the brick's]
    #[arg(long, value_name = "WHEN")]
    pub durability: Option<Durability>,
    /// Partitions on each data core, 1 to 64 [default: the brick's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub partitions: Option<u32>,
    /// Bricks that hold each partition, at most as many as there are [default: the brick's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub replicas: Option<u8>,
    /// Where.
    #[command(flatten)]
    pub connect: Connect,
}

/// Flags of `table list`.
#[derive(Args, Debug, Clone)]
pub struct ListArgs {
    /// Where.
    #[command(flatten)]
    pub connect: Connect,
}

/// Flags of `table drop`.
#[derive(Args, Debug, Clone)]
pub struct DropArgs {
    /// Its name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Really: what was in the table cannot be brought back.
    #[arg(long)]
    pub yes: bool,
    /// Where.
    #[command(flatten)]
    pub connect: Connect,
}

/// Runs it.
pub async fn run(command: &TableCommand, out: &Out) -> Result<Output, CliError> {
    match command {
        TableCommand::Create(args) => {
            let client = connect(&args.connect).await?;
            let options = CreateTable {
                durability: args.durability,
                partitions: args.partitions,
                replicas: args.replicas,
            };
            client.create_table(&args.name, options).await.map_err(from_change)?;
            await_served(&client, args, out).await?;
            Ok(Output::new(json!({ "table": args.name, "created": true }), ""))
        }
        TableCommand::List(args) => {
            let client = connect(&args.connect).await?;
            let answer = parse_answer(&client.tables().await.map_err(from_client)?)?;
            let tables = answer.get("tables").cloned().unwrap_or(answer);
            let text = to_text(&tables);
            Ok(Output::new(json!({ "tables": tables }), text))
        }
        TableCommand::Drop(args) => {
            if !args.yes {
                return Err(CliError::Usage(format!(
                    "dropping {} takes away everything in it for good: say --yes if you mean it",
                    args.name
                )));
            }
            let client = connect(&args.connect).await?;
            client.drop_table(&args.name).await.map_err(from_change)?;
            Ok(Output::new(json!({ "table": args.name, "dropped": true }), ""))
        }
    }
}

/// Waits until every partition of a table that was just made is served, for as long as a request may take.
async fn await_served(client: &Client, args: &CreateArgs, out: &Out) -> Result<(), CliError> {
    let bar = progress::part(out, "partitions begin");
    let said = format!("the table {} is made; `firebrick status` shows how far it is", args.name);
    let begin = Instant::now();
    cluster::wait(client, &bar, &said, |status| {
        served(status, &args.name, begin.elapsed() >= args.connect.timeout)
    })
    .await
}

/// How far its partitions are. `late`: it has been long enough.
fn served(status: &Value, table: &str, late: bool) -> Progress {
    let of_table = |p: &&Value| p["table"] == table;
    let all: Vec<&Value> = items(&status["partitions"]).iter().filter(of_table).collect();
    let waiting: Vec<&Value> = all.iter().filter(|p| p["epoch"] != p["active"]).copied().collect();
    // (None at all: the brick that is asked has not heard of the table yet.)
    if waiting.is_empty() && !all.is_empty() {
        return Progress::Done;
    }
    let full = |name: &Value| {
        items(&status["bricks"]).iter().any(|b| b["name"] == *name && !b["lack"].is_null())
    };
    let mut short = Vec::new();
    let mut in_vain = false;
    for brick in items(&status["bricks"]) {
        let lack = &brick["lack"];
        let waits = |p: &&&Value| items(&lack["partitions"]).contains(&p["partition"]);
        let here: Vec<&Value> = waiting.iter().filter(waits).copied().collect();
        if here.is_empty() {
            continue;
        }
        // (Else a brick that has room leads it in a moment.)
        in_vain |= here.iter().any(|p| items(&p["members"]).iter().all(full));
        let numbers: Vec<&Value> = here.iter().map(|p| &p["partition"]).collect();
        let lack = json!({ "partitions": numbers, "why": lack["why"] });
        let name = brick["name"].as_str().unwrap_or("a brick");
        short.push(format!("at {name}, {}", lack_text(&lack)));
    }
    let (n, of, made) = (waiting.len(), all.len(), format!("the table {table} is made"));
    if !short.is_empty() && (in_vain || late) {
        return Progress::Failed(CliError::NoSpace(format!(
            "{made}, but {}; the table is served once there is room, or can be dropped",
            short.join("; ")
        )));
    }
    if late {
        let lacks = match of {
            0 => "the brick that was asked does not know it yet".to_owned(),
            _ => format!("{n} of its {of} partitions are not served yet"),
        };
        let text = format!("{made}, but {lacks}: see `firebrick status`");
        return Progress::Failed(CliError::Failed(text));
    }
    Progress::Waits(format!("{n} of {of} begin"), ((of - n) * 100 / of.max(1)) as u64)
}

/// A line for each table.
pub fn to_text(tables: &Value) -> String {
    let mut text =
        format!("{:24} {:>14} {:>10} {:>8}\n", "table", "durability", "partitions", "replicas");
    for table in tables.as_array().into_iter().flatten() {
        let word = |name: &str| match table.get(name) {
            Some(Value::String(word)) => word.clone(),
            Some(other) => other.to_string(),
            None => "-".to_owned(),
        };
        let (name, durability) = (word("name"), word("durability"));
        // Writing to a String cannot fail.
        let (partitions, replicas) = (word("partitions"), word("replicas"));
        let _ = writeln!(text, "{name:24} {durability:>14} {partitions:>10} {replicas:>8}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a command that looks at this ends with.
    fn told(status: &Value, late: bool) -> Result<bool, CliError> {
        match served(status, "t", late) {
            Progress::Done => Ok(true),
            Progress::Waits(..) => Ok(false),
            Progress::Failed(error) => Err(error),
        }
    }

    #[test]
    fn a_table_is_there_when_all_its_partitions_are_served() {
        let partition = |n: u64, table: &str, active: u64, members: &[&str]| json!({ "partition": n, "table": table, "epoch": 2, "active": active, "members": members });
        let mut status = json!({
            "bricks": [{ "name": "a", "lack": null }, { "name": "b", "lack": null }],
            "partitions": [partition(1, "t", 2, &["a"]), partition(2, "u", 1, &["a"])],
        });
        assert_eq!(told(&status, true), Ok(true));
        // The brick that is asked may not have heard of the table yet.
        let partitions = status["partitions"].take();
        assert_eq!(told(&status, false), Ok(false));
        assert!(matches!(told(&status, true), Err(CliError::Failed(_))));
        status["partitions"] = partitions;
        status["partitions"][1] = partition(2, "t", 1, &["b", "a"]);
        assert_eq!(told(&status, false), Ok(false));
        let why = "the table t is made, but 1 of its 2 partitions are not served yet";
        assert!(
            matches!(told(&status, true), Err(CliError::Failed(text)) if text.starts_with(why))
        );
        status["bricks"][1]["lack"] = json!({ "why": "it is full", "partitions": [2, 9] });
        assert_eq!(told(&status, false), Ok(false), "a leads it in a moment");
        let why = "the table t is made, but at b, partition 2 is not served as it should be: it is \
                   full; ";
        let short = |told| matches!(told, Err(CliError::NoSpace(text)) if text.starts_with(why));
        assert!(short(told(&status, true)), "{:?}", told(&status, true));
        status["bricks"][0]["lack"] = json!({ "why": "it is full", "partitions": [] });
        assert!(short(told(&status, false)), "{:?}", told(&status, false));
    }
}
