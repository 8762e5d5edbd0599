//! `firebrick status`.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use firebrick_client::Client;
use serde_json::Value;

use crate::args::Connect;
use crate::child;
use crate::error::CliError;
use crate::output::{Out, Output};
use crate::store::{connect, from_client, parse_answer};
use crate::units::parse_duration;

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

/// JSON as aligned lines, whatever a brick of another version may say.
fn to_text(status: &Value) -> String {
    let mut out = String::new();
    lines(&mut out, status, 0);
    out
}

fn lines(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            let width = map.keys().map(|k| k.chars().count()).max().unwrap_or(0);
            for (key, value) in map {
                match value {
                    Value::Object(_) | Value::Array(_) if !is_flat(value) => {
                        let _ = writeln!(out, "{indent}{key}");
                        lines(out, value, depth + 1);
                    }
                    _ => {
                        let _ = writeln!(out, "{indent}{key:width$}  {}", flat(value));
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                if is_flat(item) {
                    let _ = writeln!(out, "{indent}- {}", flat(item));
                } else {
                    let _ = writeln!(out, "{indent}-");
                    lines(out, item, depth + 1);
                }
            }
        }
        other => {
            let _ = writeln!(out, "{indent}{}", flat(other));
        }
    }
}

/// Fits on the line of its name.
fn is_flat(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.iter().all(|i| !i.is_object() && !i.is_array()),
        _ => true,
    }
}

fn flat(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join(", "),
        Value::Object(_) => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_lines_for_people() {
        let status = serde_json::json!({
            "name": "b", "cores": [0, 1], "none": null,
            "tables": [{ "name": "default", "keys": 3 }], "memory": { "used": 5 }
        });
        let text = to_text(&status);
        assert_eq!(
            text,
            "cores   0, 1\nmemory\n  used  5\nname    b\nnone    -\n\
             tables\n  -\n    keys  3\n    name  default\n"
        );
    }
}
