//! `firebrick up`: bricks on this machine, kept running.

mod keep;
mod place;

use std::path::PathBuf;

use clap::Args;
use firebrick_engine::BrickConfig;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::child;
use crate::commands::brick::{Tuning, from_brick};
use crate::error::CliError;
use crate::output::{Out, Output, warn};
use keep::{Keeping, Said};
use place::Place;

/// Bricks that one command runs: each takes ten ports and a data core.
const BRICKS_MAX: u32 = 16;

/// Flags of `up`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Ctrl-C or SIGTERM stops the bricks cleanly: they answer what is in flight, flush, and end. A brick
that dies is started again, after 0.2 s at first and up to 10 s when it keeps dying. The ports of
each further brick are 10 higher. With --json, one object is printed when all bricks are ready.")]
pub struct UpArgs {
    /// How many bricks: each a process, and a keeper of the cluster's maps while there are up to 5.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub bricks: u32,
    /// Leave a brick down that dies.
    #[arg(long)]
    pub no_restart: bool,
    /// Where the data lives; one folder a brick [default: ~/.local/share/firebrick]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where records live while it runs: a folder in tmpfs; one folder a brick
    /// [default: a folder of its own in /dev/shm when that has room]
    #[arg(long, value_name = "DIR")]
    pub memory_dir: Option<PathBuf>,
    /// Native port of the first brick.
    #[arg(long, value_name = "PORT", default_value_t = 7400, help_heading = "Addresses", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Control port of the first brick: keepers, heartbeats, joins.
    #[arg(long, value_name = "PORT", default_value_t = 7401, help_heading = "Addresses", value_parser = clap::value_parser!(u16).range(1..))]
    pub control_port: u16,
    /// RESP port of the first brick.
    #[arg(long, value_name = "PORT", default_value_t = 7379, help_heading = "Addresses", value_parser = clap::value_parser!(u16).range(1..))]
    pub resp_port: u16,
    /// HTTP port of the first brick.
    #[arg(long, value_name = "PORT", default_value_t = 7480, help_heading = "Addresses", value_parser = clap::value_parser!(u16).range(1..))]
    pub http_port: u16,
    /// Flags passed on to the bricks.
    #[command(flatten)]
    pub tuning: Tuning,
}

/// Runs them until told to stop.
pub async fn run(args: &UpArgs, out: &Out) -> Result<Output, CliError> {
    let places = places(args)?;
    // Wrong flags are said here, once, and not by a child that is started again and again.
    for place in &places {
        BrickConfig::load(None, &place.brick.overrides()).map_err(from_brick)?;
    }
    let interrupted = child::interrupted();
    tokio::pin!(interrupted);
    let (stop, stopped) = watch::channel(false);
    let (say, mut said) = mpsc::channel(64);
    let mut keepers = JoinSet::new();
    let mut waiting: Vec<Option<u32>> = vec![None; places.len()];
    for (number, place) in places.iter().cloned().enumerate() {
        let restart = !args.no_restart;
        let keeping =
            Keeping { number, place, restart, say: say.clone(), stopped: stopped.clone() };
        keepers.spawn(keeping.run());
    }
    drop(say);
    let mut result = Ok(Output::default());
    let mut announced = false;
    while !keepers.is_empty() {
        tokio::select! {
            signal = &mut interrupted, if !*stop.borrow() => {
                if announced {
                    out.note("firebrick: stopping");
                }
                result = result.and(signal.map(|()| Output::default()));
                let _ = stop.send(true);
            }
            Some(ended) = keepers.join_next() => {
                let ended = ended.map_err(|e| CliError::Failed(format!("a supervisor ended: {e}")));
                if let Err(error) = ended.and_then(|ended| ended) {
                    // The first error is the one to tell; the others need not run on.
                    result = result.and(Err(error));
                    let _ = stop.send(true);
                }
            }
            Some(word) = said.recv() => match word {
                Said::Ready { number, pid } => {
                    let first = waiting[number].replace(pid).is_none();
                    if !first {
                        warn(&format!("{} is ready again", places[number].name()));
                    } else if waiting.iter().all(Option::is_some) {
                        announced = true;
                        out.print(&describe(&places, &waiting))?;
                    }
                }
                Said::Note(text) => warn(&text),
            },
        }
    }
    result
}

fn places(args: &UpArgs) -> Result<Vec<Place>, CliError> {
    if !(1..=BRICKS_MAX).contains(&args.bricks) {
        return Err(CliError::Usage(format!(
            "--bricks {}: give a number from 1 to {BRICKS_MAX}",
            args.bricks
        )));
    }
    let root = match &args.dir {
        Some(dir) => dir.clone(),
        None => place::default_dir()?,
    };
    let places = (0..args.bricks).map(|number| Place::new(args, &root, number)).collect();
    if let Some(warning) = place::left_out(&root, args.bricks, BRICKS_MAX) {
        warn(&warning);
    }
    places
}

fn describe(places: &[Place], pids: &[Option<u32>]) -> Output {
    let bricks: Vec<_> = places.iter().zip(pids).map(|(p, pid)| p.to_json(*pid)).collect();
    let mut text: String = places.iter().map(Place::to_text).collect();
    text.push_str(if places.len() == 1 {
        "Ctrl-C stops it\n"
    } else {
        "Ctrl-C stops them; `firebrick status` shows the cluster\n"
    });
    Output::new(json!({ "bricks": bricks }), text)
}
