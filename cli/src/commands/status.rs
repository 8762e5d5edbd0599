//! `firebrick status`.

mod text;

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::args::Connect;
use crate::child;
use crate::commands::cluster;
use crate::error::CliError;
use crate::output::{Out, Output};
use crate::store::connect;
use crate::units::parse_duration;

pub use text::lack_text;

/// Flags of `status`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Any brick shows the whole cluster, as the leader of the keepers sees it; the data cores are those of
the brick that is asked. Lines that begin with `!` want a person's attention.")]
pub struct StatusArgs {
    /// Print again and again until Ctrl-C. Not with --json.
    #[arg(long)]
    pub watch: bool,
    /// How often, with --watch.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub every: Duration,
    /// List every partition, however many there are.
    #[arg(long)]
    pub partitions: bool,
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
        let status = cluster::status(&client).await?;
        let text = text::of(&status, args.partitions);
        return Ok(Output::new(status, text));
    }
    let mut ticks = tokio::time::interval(args.every.max(Duration::from_millis(50)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let interrupted = child::interrupted();
    tokio::pin!(interrupted);
    let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "\n" };
    loop {
        let looked = tokio::select! {
            signal = &mut interrupted => return signal.map(|()| Output::default()),
            looked = async { ticks.tick().await; cluster::status(&client).await } => looked,
        };
        let text = match looked {
            Ok(status) => text::of(&status, args.partitions),
            // A brick that is away may be back, and that is what somebody watches for.
            Err(error @ CliError::Unavailable(_)) => format!("! {error}\n"),
            Err(error) => return Err(error),
        };
        out.print(&Output::new(Value::Null, format!("{clear}{text}")))?;
    }
}
