//! `firebrick brick-drain`, `brick-remove`, `lead-anyway`: a brick leaves, and what to do when one is lost.

use clap::Args;
use firebrick_client::Client;
use serde_json::{Value, json};

use super::cluster::{self, Progress, items};
use crate::args::Connect;
use crate::error::CliError;
use crate::output::{Out, Output};
use crate::progress;
use crate::store::connect;

/// Flags of `brick-drain`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Everything on the brick is copied to others while it is served; no request fails because of that.
The brick stays in the cluster, empty, until it is removed (`firebrick brick-remove`) or used again
(--off). Ctrl-C ends the wait, not the work.")]
pub struct DrainArgs {
    /// The brick's name.
    #[arg(value_name = "BRICK")]
    pub brick: String,
    /// Use the brick again.
    #[arg(long, conflicts_with = "fewer_replicas")]
    pub off: bool,
    /// Although tables want more replicas than bricks will be left.
    #[arg(long)]
    pub fewer_replicas: bool,
    /// Do not wait until the brick is empty.
    #[arg(long)]
    pub no_wait: bool,
    /// Where: better not the brick that goes.
    #[command(flatten)]
    pub connect: Connect,
}

/// Flags of `brick-remove`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
The brick is emptied first, as with `firebrick brick-drain`. Once nothing counts on it, it is
forgotten, and its process ends with exit code 7. A brick that is down for good is removed the same
way: what it held is copied from the others.")]
pub struct RemoveArgs {
    /// The brick's name.
    #[arg(value_name = "BRICK")]
    pub brick: String,
    /// Although tables want more replicas than bricks will be left.
    #[arg(long)]
    pub fewer_replicas: bool,
    /// Where: better not the brick that goes.
    #[command(flatten)]
    pub connect: Connect,
}

/// Flags of `lead-anyway`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
For a partition that has stopped because the bricks that have everything are gone for good. It goes
on with what another brick has; WRITES THAT WERE ACKNOWLEDGED MAY BE LOST, and bricks that come back
later throw away what they have of it. While a brick that has everything may be back, start that one
instead: the partition goes on by itself.")]
pub struct LeadArgs {
    /// The partition.
    #[arg(long, value_name = "ID")]
    pub partition: u32,
    /// The brick that is to lead it [default: the one that has the most of it]
    #[arg(long, value_name = "BRICK")]
    pub brick: Option<String>,
    /// Really: acknowledged writes may be lost.
    #[arg(long)]
    pub yes: bool,
    /// Where.
    #[command(flatten)]
    pub connect: Connect,
}

/// Runs `brick-drain`.
pub async fn run_drain(args: &DrainArgs, out: &Out) -> Result<Output, CliError> {
    let client = connect(&args.connect).await?;
    let name = &args.brick;
    if args.off {
        let request = json!({ "do": "brick-drain", "brick": name, "on": false });
        cluster::change(&client, &request).await?;
        let text = format!("{name} is used again\n");
        return Ok(Output::new(json!({ "brick": name, "draining": false }), text));
    }
    drain(&client, name, args.fewer_replicas, out).await?;
    if !args.no_wait {
        empty(&client, name, out).await?;
    }
    let empty = !args.no_wait;
    let text =
        if empty { format!("{name} is empty\n") } else { format!("{name} is being emptied\n") };
    Ok(Output::new(json!({ "brick": name, "draining": true, "empty": empty }), text))
}

/// Runs `brick-remove`.
pub async fn run_remove(args: &RemoveArgs, out: &Out) -> Result<Output, CliError> {
    let client = connect(&args.connect).await?;
    let name = &args.brick;
    drain(&client, name, args.fewer_replicas, out).await?;
    empty(&client, name, out).await?;
    cluster::change(&client, &json!({ "do": "brick-remove", "brick": name })).await?;
    Ok(Output::new(json!({ "brick": name, "removed": true }), format!("{name} is removed\n")))
}

/// Begins to empty a brick.
async fn drain(
    client: &Client,
    name: &str,
    fewer_replicas: bool,
    out: &Out,
) -> Result<(), CliError> {
    let status = cluster::status(client).await?;
    let brick = cluster::brick(&status, name)?;
    if brick["live"] == false {
        out.note(&format!("{name} is down: what it held is copied from other bricks"));
    }
    let request = json!({
        "do": "brick-drain", "brick": name, "on": true, "fewer_replicas": fewer_replicas,
    });
    cluster::change(client, &request).await.map(|_| ())
}

/// Waits until nothing counts on the brick.
async fn empty(client: &Client, name: &str, out: &Out) -> Result<(), CliError> {
    let bar = progress::part(out, "drain");
    let interrupted = format!(
        "{name} is still being emptied: `firebrick brick-drain {name} --off` ends that, the same command goes on"
    );
    let mut most = 0;
    cluster::wait(client, &bar, &interrupted, |status| look(status, name, &mut most)).await
}

/// How far a brick is from being empty. `most`: how many partitions it had.
fn look(status: &Value, name: &str, most: &mut u64) -> Progress {
    let brick = match cluster::brick(status, name) {
        Ok(brick) => brick,
        Err(error) => return Progress::Failed(error),
    };
    let left = brick["counts_in"].as_u64().unwrap_or(0);
    *most = left.max(*most);
    let only: Vec<String> = items(&brick["only_in"]).iter().map(Value::to_string).collect();
    if brick["draining"] == false {
        return Progress::Failed(CliError::Failed(format!(
            "{name} is not being emptied any more: somebody took that back"
        )));
    }
    if left > 0 && brick["live"] == false && !only.is_empty() {
        return Progress::Failed(CliError::Unavailable(format!(
            "{name} is down, and nobody else has everything of partitions {}: start it again and it \
             is emptied; if it is gone for good, `firebrick lead-anyway --partition {} --yes` goes on \
             without what only it had",
            only.join(", "),
            only[0],
        )));
    }
    if left == 0 && brick["keeper"] == false {
        return Progress::Done;
    }
    let done = *most - left;
    let part = (done * 100).checked_div(*most).unwrap_or(100);
    let text = if left > 0 {
        format!("{left} partitions left")
    } else {
        "another keeper takes over".to_owned()
    };
    Progress::Waits(text, part)
}

/// Runs `lead-anyway`.
pub async fn run_lead(args: &LeadArgs) -> Result<Output, CliError> {
    let partition = args.partition;
    if !args.yes {
        return Err(CliError::Usage(format!(
            "partition {partition} would go on with what one brick has, and writes that were acknowledged may be \
             lost for good: say --yes if the bricks that have them will not come back"
        )));
    }
    let client = connect(&args.connect).await?;
    let status = cluster::status(&client).await?;
    cluster::partition(&status, partition)?;
    let mut request = json!({ "do": "lead-anyway", "partition": partition });
    if let Some(brick) = &args.brick {
        cluster::brick(&status, brick)?;
        request["brick"] = json!(brick);
    }
    let answer = cluster::change(&client, &request).await?;
    let loss = answer["loss"].as_str();
    let text = loss.map_or_else(
        || format!("partition {partition} goes on, and nothing is lost\n"),
        |loss| format!("{loss}\n"),
    );
    Ok(Output::new(json!({ "partition": partition, "loss": loss }), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brick_is_empty_when_nothing_counts_on_it_and_it_is_no_keeper() {
        let status = |left: u64, keeper: bool, live: bool, only: Value| {
            json!({ "bricks": [{ "name": "b", "counts_in": left, "keeper": keeper, "live": live,
                                 "draining": true, "only_in": only }] })
        };
        let mut most = 0;
        let mut look = |status: &Value| look(status, "b", &mut most);
        let Progress::Waits(text, 0) = look(&status(4, true, true, json!([]))) else { panic!() };
        assert_eq!(text, "4 partitions left");
        assert!(matches!(look(&status(1, true, true, json!([1]))), Progress::Waits(_, 75)));
        assert!(matches!(look(&status(0, true, true, json!([]))), Progress::Waits(_, 100)));
        assert!(matches!(look(&status(0, false, true, json!([]))), Progress::Done));
        let Progress::Failed(error) = look(&status(2, false, false, json!([3, 4]))) else {
            panic!()
        };
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().contains("partitions 3, 4"), "{error}");
        let none = json!({ "bricks": [{ "name": "a" }] });
        let Progress::Failed(error) = look(&none) else { panic!() };
        assert_eq!(error.to_string(), "no brick \"b\"; the bricks are a");
    }
}
