//! `firebrick status`.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use firebrick_client::Client;
use serde_json::Value;

use crate::args::Connect;
use crate::child;
use crate::commands::table;
use crate::error::CliError;
use crate::output::{Out, Output};
use crate::store::{connect, from_client, parse_answer};
use crate::units::{count, parse_duration, size};

/// Flags of `status`.
#[derive(Args, Debug, Clone)]
pub struct StatusArgs {
    /// Print again and again until Ctrl-C. Not with --json.
    #[arg(long)]
    pub watch: bool,
    /// How often, with --watch.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub every: Duration,
    /// Which brick.
    #[command(flatten)]
    pub connect: Connect,
}

/// Runs it.
pub async fn run(args: &StatusArgs, out: &Out) -> Result<Output, CliError> {
    if args.watch && out.is_json() {
        return Err(CliError::Usage(
            "--watch goes on for ever and --json prints one object: use one of them".to_owned(),
        ));
    }
    let client = connect(&args.connect).await?;
    if !args.watch {
        let status = ask(&client).await?;
        let text = to_text(&status);
        return Ok(Output::new(status, text));
    }
    let mut ticks = tokio::time::interval(args.every.max(std::time::Duration::from_millis(50)));
    let interrupted = child::interrupted();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            signal = &mut interrupted => return signal.map(|()| Output::default()),
            _ = ticks.tick() => {
                let status = ask(&client).await?;
                let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "\n" };
                out.print(&Output::new(Value::Null, format!("{clear}{}", to_text(&status))))?;
            }
        }
    }
}

async fn ask(client: &Client) -> Result<Value, CliError> {
    let mut answer = parse_answer(&client.status().await.map_err(from_client)?)?;
    // The brick wraps it; people and scripts want what is inside.
    Ok(answer.get_mut("status").map(Value::take).unwrap_or(answer))
}

/// What matters of it, for people; `--json` has every figure.
fn to_text(status: &Value) -> String {
    let word = |name: &str| match &status[name] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let state = match &status["not_ready_because"] {
        Value::String(why) => format!("not ready: {why}"),
        _ => "ready".to_owned(),
    };
    let mut out = format!(
        "{} is {state}\n  id {}, version {}, process {}; native {}, RESP {}\n\n",
        word("name"),
        word("id"),
        word("version"),
        word("pid"),
        word("listen"),
        word("resp"),
    );
    out.push_str(&table::to_text(&status["tables"]));
    let cores = status["cores"].as_array().map_or(&[][..], Vec::as_slice);
    out.push_str(&cores_text(cores));
    out.push_str(&trouble(cores));
    out
}

fn figure(core: &Value, name: &str) -> u64 {
    core["figures"][name].as_u64().unwrap_or(0)
}

/// A line for each data core.
fn cores_text(cores: &[Value]) -> String {
    let mut out = format!(
        "\n{:<6} {:<9} {:>12} {:>10} {:>10} {:>13} {:>13} {:>13} {:>11}\n",
        "core", "state", "items", "memory", "of", "gets", "puts", "removes", "to disk"
    );
    for core in cores {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:<6} {:<9} {:>12} {:>10} {:>10} {:>13} {:>13} {:>13} {:>11}",
            core["core"].as_u64().unwrap_or(0),
            core["state"].as_str().unwrap_or("-"),
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
fn trouble(cores: &[Value]) -> String {
    const SIGNS: [(&str, &str); 7] = [
        (
            "memory_full",
            "data cores have no room for another segment in memory_dir, data_dir or `memory`",
        ),
        ("partitions_sick", "partitions serve nothing: a flush failed or records are damaged"),
        ("flush_errors", "disk writes failed"),
        ("corrupt_records", "damaged records were found by scans"),
        ("corrupt_reads", "reads met a damaged record"),
        ("no_space", "writes were refused for want of space"),
        ("overloaded", "requests were refused because too many were in flight"),
    ];
    let mut out = String::new();
    for (name, what) in SIGNS {
        let sum: u64 = cores.iter().map(|core| figure(core, name)).sum();
        if sum > 0 {
            let _ = writeln!(out, "! {} {what}", count(sum));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_says_what_matters_and_what_is_wrong() {
        let status = serde_json::json!({
            "name": "b", "id": "07", "version": "0.1.0", "pid": 5, "listen": "127.0.0.1:7400",
            "resp": null, "not_ready_because": null,
            "tables": [{ "name": "default", "durability": "sync", "partitions": 4 }],
            "cores": [{ "core": 0, "state": "serving", "figures": {
                "items": 1234, "log_used_bytes": 3 << 20, "no_space": 2, "new_figure": 1,
            } }],
        });
        let text = to_text(&status);
        assert!(text.starts_with("b is ready\n"), "{text}");
        assert!(text.contains("native 127.0.0.1:7400, RESP -\n"), "{text}");
        assert!(text.contains("1,234    3.0 MiB"), "{text}");
        assert!(text.ends_with("! 2 writes were refused for want of space\n"), "{text}");
        let stopping = serde_json::json!({ "name": "b", "not_ready_because": "it stops" });
        assert!(to_text(&stopping).starts_with("b is not ready: it stops\n"));
    }
}
