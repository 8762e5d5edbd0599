//! `firebrick table`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use firebrick_client::{CreateTable, Durability, Error};
use serde_json::{Value, json};

use crate::args::Connect;
use crate::error::CliError;
use crate::output::Output;
use crate::store::{connect, from_client, parse_answer};

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
pub async fn run(command: &TableCommand) -> Result<Output, CliError> {
    match command {
        TableCommand::Create(args) => {
            let client = connect(&args.connect).await?;
            let options = CreateTable {
                durability: args.durability,
                partitions: args.partitions,
                replicas: args.replicas,
            };
            client.create_table(&args.name, options).await.map_err(from_create)?;
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
            client.drop_table(&args.name).await.map_err(from_drop)?;
            Ok(Output::new(json!({ "table": args.name, "dropped": true }), ""))
        }
    }
}

/// The brick answers in sentences: it is refused.
fn from_create(error: Error) -> CliError {
    match error {
        Error::Control(why) => CliError::Refused(why.to_string()),
        other => from_client(other),
    }
}

/// The brick answers in sentences.
fn from_drop(error: Error) -> CliError {
    match error {
        Error::Control(why) if why.starts_with("no table ") => CliError::NotFound(why.to_string()),
        other => from_create(other),
    }
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
