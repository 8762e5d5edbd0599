//! `firebrick demo`: the promise, shown on this machine in under a minute.

mod report;
mod stage;
mod writes;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;

use crate::child;
use crate::commands::load::TreeArgs;
use crate::error::CliError;
use crate::output::{Out, Output};
use crate::progress;
use crate::resp::Resp;
use crate::store::Store;
use crate::transfer::{self, Tally};
use crate::units::{parse_size, size};
use report::Report;
use stage::{BRICKS, Stage};
use writes::{Writers, Written};

/// Requests in flight while files go to and fro.
const IN_FLIGHT: u32 = 64;
/// The write load runs this long before a brick is killed under it.
const WRITE_TIME: Duration = Duration::from_millis(1500);
/// The brick stays away for so long.
const AWAY_TIME: Duration = Duration::from_millis(2500);
/// And for so long the load goes on when it has caught up.
const AFTER_TIME: Duration = Duration::from_millis(500);
const READ_TIME: Duration = Duration::from_millis(1500);

/// Flags of `demo`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Starts three bricks in temporary folders, loads the files with three replicas, verifies them through
the native client and through RESP, kills a brick that leads partitions with SIGKILL in the middle of
a write load, sees that they go on without it, starts it again under the same load, waits until it has
caught up, and verifies that every file and every acknowledged write is there. Everything it made is
removed at the end. Ends with 0 when all of it held, with 1 when not, and says what did not.")]
pub struct DemoArgs {
    /// The folder to load.
    #[arg(long, value_name = "DIR", default_value = "/usr/share")]
    pub tree: PathBuf,
    /// Skip files larger than this.
    #[arg(long, value_name = "SIZE", default_value = "1m", value_parser = parse_size)]
    pub max_file: u64,
    /// Load this much in all.
    #[arg(long, value_name = "SIZE", default_value = "256m", value_parser = parse_size)]
    pub max_total: u64,
}

/// Runs it.
pub async fn run(args: &DemoArgs, out: &Out) -> Result<Output, CliError> {
    let mut stage = Stage::new(args.max_total)?;
    let result = tokio::select! {
        report = play(args, &mut stage, out) => report,
        signal = child::interrupted() => signal.and(Err(CliError::Interrupted)),
    };
    let result = result.map_err(|error| match (error, stage.last_words()) {
        (CliError::Failed(text), Some(words)) => {
            CliError::Failed(format!("{text}; the bricks' last words: {words}"))
        }
        (error, _) => error,
    });
    // Gone before the last word is printed: the process first, then its folders.
    drop(stage);
    result.map(Report::into_output)
}

async fn play(args: &DemoArgs, stage: &mut Stage, out: &Out) -> Result<Report, CliError> {
    let began = SystemTime::now();
    let files = Files { args, out, began };
    // A folder that cannot be read, or has nothing to show it with, is said before anything is started.
    if files.tree().walk()?.next().is_none() {
        return Err(CliError::Failed(format!(
            "{} has no file of up to {} to load, or the first one is over {} in all: give another --tree, or a larger \
             --max-file or --max-total",
            args.tree.display(),
            size(args.max_file),
            size(args.max_total)
        )));
    }
    let mut report = Report::new(args.tree.display().to_string());
    out.note(&format!("starting {BRICKS} bricks, {}", stage.describe()));
    stage.start_all().await?;
    let store = stage.connect().await?;

    let tally = files.load(&store).await?;
    report.phase("load", &tally);
    let loaded = tally.items;
    let tally = files.verify(&store, "verify by client").await?;
    report.files("verify_client", &tally, loaded);
    // Through one brick, whoever has the file.
    let at = stage.resp(BRICKS - 1);
    let mut resp = Resp::connect(at)
        .await
        .map_err(|e| CliError::Unavailable(format!("cannot connect to RESP at {at}: {e}")))?;
    let tally = files.verify_resp(&mut resp).await?;
    report.files("verify_resp", &tally, loaded);
    drop(resp);

    let written = fail_over(stage, &store, &mut report, out).await?;

    // A client of its own: it knows nothing of what the first one was told.
    drop(store);
    let store = stage.connect().await?;
    report.writes(writes::check(&store, &written).await?, &written);
    let tally = files.verify(&store, "verify after restart").await?;
    report.files("verify_restarted", &tally, loaded);
    let tally = writes::read_for(READ_TIME, &store).await?;
    report.phase("read", &tally);
    drop(store);
    if !stage.stop().await? {
        report.failures.push("a brick did not stop cleanly on SIGTERM".to_owned());
    }
    Ok(report)
}

/// A brick is killed under a write load, is away for a while, comes back and catches up; the load goes on all the
/// time.
async fn fail_over(
    stage: &mut Stage,
    store: &Store,
    report: &mut Report,
    out: &Out,
) -> Result<Written, CliError> {
    let victim = stage.victim().await?;
    let name = Stage::name(victim);
    out.note(&format!("writing, and kill -9 of {name} in the middle"));
    let writers = Writers::start(store);
    tokio::time::sleep(WRITE_TIME).await;
    writers.longest_gap();
    stage.kill(victim).await?;
    tokio::time::sleep(AWAY_TIME).await;
    report.write_gap = writers.longest_gap();
    out.note(&format!(
        "its partitions went on after {} ms; starting {name} again",
        report.write_gap.as_millis()
    ));

    let (failed, started) = (writers.failed(), Instant::now());
    stage.start(victim).await?;
    let ready = Instant::now();
    report.restart = ready - started;
    let whole = stage.whole().await?;
    report.recovery(whole - started, stage.received(victim).await);
    tokio::time::sleep(AFTER_TIME).await;
    report.copy_gap = writers.longest_gap();
    report.failed_by_copy = writers.failed() - failed;
    report.failed = writers.failed();
    out.note(&format!("whole again {} ms after the start", (whole - started).as_millis()));
    writers.stop();
    let written = writers.finish(Instant::now()).await?;
    report.phase("write", &written.tally);
    Ok(written)
}

/// The files, there and back.
struct Files<'a> {
    args: &'a DemoArgs,
    out: &'a Out,
    began: SystemTime,
}

impl Files<'_> {
    fn tree(&self) -> TreeArgs {
        TreeArgs {
            tree: self.args.tree.clone(),
            max_file: self.args.max_file,
            max_total: Some(self.args.max_total),
            in_flight: IN_FLIGHT,
        }
    }

    fn bar(&self, what: &str) -> Result<indicatif::ProgressBar, CliError> {
        Ok(progress::bar(self.out, what, self.tree().measure(self.out)?))
    }

    async fn load(&self, store: &Store) -> Result<Tally, CliError> {
        let bar = self.bar("load")?;
        let tally = transfer::load(self.tree().walk()?, store, IN_FLIGHT, &bar).await;
        bar.finish_and_clear();
        tally
    }

    async fn verify(&self, store: &Store, what: &str) -> Result<Tally, CliError> {
        let bar = self.bar(what)?;
        let walk = self.tree().walk()?;
        let tally = transfer::verify(walk, store, IN_FLIGHT, &bar, Some(self.began)).await;
        bar.finish_and_clear();
        tally
    }

    async fn verify_resp(&self, resp: &mut Resp) -> Result<Tally, CliError> {
        let bar = self.bar("verify by RESP")?;
        let walk = self.tree().walk()?;
        let tally = transfer::verify_resp(walk, resp, &bar, Some(self.began)).await;
        bar.finish_and_clear();
        tally
    }
}
