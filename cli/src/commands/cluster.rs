//! What the commands about a cluster share: its status, requests that change it, waiting until they took effect.

use std::io::Write as _;
use std::time::{Duration, Instant};

use firebrick_client::Client;
use serde_json::Value;

use crate::child;
use crate::error::CliError;
use crate::store::{from_change, from_client, parse_answer};

/// Between two looks while a command waits.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks that fail are tried again for so long: bricks may die while a command waits.
const LOST_FOR: Duration = Duration::from_secs(30);

/// The whole status, as the brick tells it.
pub async fn status(client: &Client) -> Result<Value, CliError> {
    let mut answer = parse_answer(&client.status().await.map_err(from_client)?)?;
    // The brick wraps it; people and scripts want what is inside.
    Ok(answer.get_mut("status").map(Value::take).unwrap_or(answer))
}

/// A request that changes something. What the keepers refuse ends with the code for that.
pub async fn change(client: &Client, request: &Value) -> Result<Value, CliError> {
    parse_answer(&client.control(request.to_string(), true).await.map_err(from_change)?)
}

/// How far what a command waits for is.
pub enum Progress {
    /// Not yet; what a person reads meanwhile, and how much of 100 is done.
    Waits(String, u64),
    /// It is done.
    Done,
    /// It will not be done, and why.
    Failed(CliError),
}

/// Looks at the cluster until `look` says that it is over. Ctrl-C ends the wait, not what goes on.
pub async fn wait(
    client: &Client,
    bar: &indicatif::ProgressBar,
    interrupted: &str,
    mut look: impl FnMut(&Value) -> Progress,
) -> Result<(), CliError> {
    let signal = child::interrupted();
    tokio::pin!(signal);
    let mut seen = Instant::now();
    let result = loop {
        let looked = tokio::select! {
            signal = &mut signal => break signal.and(Err(CliError::Interrupted)),
            looked = status(client) => looked,
        };
        match looked.map(|status| (status["cluster"]["answered"] == true).then_some(status)) {
            Ok(Some(status)) => {
                seen = Instant::now();
                match look(&status) {
                    Progress::Waits(text, part) => {
                        bar.set_position(part.min(100));
                        bar.set_message(text);
                    }
                    Progress::Done => break Ok(()),
                    Progress::Failed(error) => break Err(error),
                }
            }
            Err(error) if seen.elapsed() > LOST_FOR => break Err(error),
            Ok(None) if seen.elapsed() > LOST_FOR => {
                break Err(CliError::Unavailable(format!(
                    "the keepers have had no leader for {} s: see `firebrick status`; what was asked \
                     for goes on once they have one",
                    LOST_FOR.as_secs()
                )));
            }
            Ok(None) => bar.set_message("the keepers have no leader now".to_owned()),
            Err(_) => bar.set_message("the brick does not answer now".to_owned()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    bar.finish_and_clear();
    if result == Err(CliError::Interrupted) {
        // A closed standard error is nobody's loss.
        let _ = writeln!(std::io::stderr(), "firebrick: {interrupted}");
    }
    result
}

/// The members of an array, whatever it is.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The brick of this name, or which names there are.
pub fn brick<'a>(status: &'a Value, name: &str) -> Result<&'a Value, CliError> {
    let bricks = items(&status["bricks"]);
    bricks.iter().find(|brick| brick["name"] == name).ok_or_else(|| {
        let names: Vec<&str> = bricks.iter().filter_map(|brick| brick["name"].as_str()).collect();
        CliError::NotFound(format!("no brick \"{name}\"; the bricks are {}", names.join(", ")))
    })
}

/// The partition of this number.
pub fn partition(status: &Value, number: u32) -> Result<&Value, CliError> {
    let found = items(&status["partitions"]).iter().find(|p| p["partition"] == number);
    found.ok_or_else(|| {
        CliError::NotFound(format!("there is no partition {number}: `firebrick status` lists them"))
    })
}
