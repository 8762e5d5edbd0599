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
use crate::transfer::{self, Tally};
use crate::units::parse_size;
use report::Report;
use stage::Stage;
use writes::Writers;

/// Requests in flight while files go to and fro.
const IN_FLIGHT: u32 = 64;
/// The write load runs this long before the brick is killed under it.
const WRITE_TIME: Duration = Duration::from_secs(3);
const READ_TIME: Duration = Duration::from_millis(1500);

/// Flags of `demo`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Starts a brick in a temporary folder, loads the files, verifies them through the native client and
through RESP, kills the brick with SIGKILL in the middle of a write load, starts it again, and
verifies that every acknowledged write is there. Everything it made is removed at the end.
Ends with 0 when all of it held, with 1 when not, and says what did not.")]
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
            CliError::Failed(format!("{text}; the brick's last words: {words}"))
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
    // A folder that cannot be read is said before anything is started.
    files.tree().walk()?;
    let mut report = Report::new(args.tree.display().to_string());
    out.note(&format!("starting a brick: {}", stage.describe()));
    stage.start().await?;
    let store = stage.connect().await?;

    let tally = files.load(&store).await?;
    report.phase("load", &tally);
    let loaded = tally.items;
    let tally = files.verify(&store, "verify by client").await?;
    report.files("verify_client", &tally, loaded);
    let mut resp = Resp::connect(stage.resp()).await.map_err(|e| {
        CliError::Unavailable(format!("cannot connect to RESP at {}: {e}", stage.resp()))
    })?;
    let tally = files.verify_resp(&mut resp).await?;
    report.files("verify_resp", &tally, loaded);
    drop(resp);

    out.note("writing, and kill -9 in the middle");
    let writers = Writers::start(&store);
    tokio::time::sleep(WRITE_TIME).await;
    let killed = Instant::now();
    stage.kill().await?;
    writers.stop();
    stage.start().await?;
    report.restart = killed.elapsed();
    out.note(&format!("ready again {} ms after the kill", report.restart.as_millis()));
    let written = writers.finish(killed).await?;
    report.phase("write", &written.tally);

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
        report.failures.push("the brick did not stop cleanly on SIGTERM".to_owned());
    }
    Ok(report)
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

    async fn load(&self, store: &crate::store::Store) -> Result<Tally, CliError> {
        let bar = self.bar("load")?;
        let tally = transfer::load(self.tree().walk()?, store, IN_FLIGHT, &bar).await;
        bar.finish_and_clear();
        tally
    }

    async fn verify(&self, store: &crate::store::Store, what: &str) -> Result<Tally, CliError> {
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
