//! `firebrick up`: a brick on this machine, kept running.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::Args;
use firebrick_engine::BrickConfig;
use serde_json::json;

use crate::child::{self, BrickProcess, Orphan};
use crate::commands::brick::{BrickArgs, Tuning, from_brick};
use crate::error::CliError;
use crate::output::{Out, Output};

/// Flags of `up`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Ctrl-C or SIGTERM stops the brick cleanly: it answers what is in flight, flushes, and ends. A brick
that dies is started again, after 0.2 s at first and up to 10 s when it keeps dying.
With --json, one object is printed when the brick is ready.")]
pub struct UpArgs {
    /// How many bricks. Only 1 today: bricks do not replicate to each other yet.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub bricks: u32,
    /// Where the data lives; one folder a brick [default: ~/.local/share/firebrick]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where records live while it runs: a folder in tmpfs; one folder a brick
    /// [default: a folder of its own in /dev/shm when that has room]
    #[arg(long, value_name = "DIR")]
    pub memory_dir: Option<PathBuf>,
    /// Native port of the first brick.
    #[arg(long, value_name = "PORT", default_value_t = 7400, help_heading = "Addresses")]
    pub port: u16,
    /// RESP port of the first brick.
    #[arg(long, value_name = "PORT", default_value_t = 7379, help_heading = "Addresses")]
    pub resp_port: u16,
    /// HTTP port of the first brick.
    #[arg(long, value_name = "PORT", default_value_t = 7480, help_heading = "Addresses")]
    pub http_port: u16,
    /// Flags passed on to the brick.
    #[command(flatten)]
    pub tuning: Tuning,
}

/// A first start, with an old log to read back, may take a while.
const READY_TIMEOUT: Duration = Duration::from_mins(5);
/// How long a brick may take to answer what is in flight and to flush.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// A brick that ran this long before it died is not one that keeps dying.
const STEADY: Duration = Duration::from_mins(1);

/// Runs it until it is told to stop.
pub async fn run(args: &UpArgs, out: &Out) -> Result<Output, CliError> {
    one_brick(args.bricks)?;
    let place = Place::new(args)?;
    // Wrong flags are said here, once, and not by a child that is started again and again.
    BrickConfig::load(None, &place.brick.overrides()).map_err(from_brick)?;
    let interrupted = child::interrupted();
    tokio::pin!(interrupted);
    let mut brick = place.start()?;
    tokio::select! {
        ready = brick.ready(READY_TIMEOUT) => ready.map_err(say_where)?,
        signal = &mut interrupted => {
            signal?;
            brick.stop(STOP_PATIENCE).await?;
            return Ok(Output::default());
        }
    }
    out.print(&place.describe(&brick))?;
    let mut back_off = BACK_OFF_MIN;
    loop {
        let started = Instant::now();
        tokio::select! {
            ended = brick.wait() => {
                let how = child::describe(ended?);
                if started.elapsed() > STEADY {
                    back_off = BACK_OFF_MIN;
                }
                out.note(&format!(
                    "firebrick: the brick ended ({how}); starting it again in {} ms",
                    back_off.as_millis()
                ));
            }
            signal = &mut interrupted => {
                signal?;
                out.note("firebrick: stopping");
                return stopped(brick.stop(STOP_PATIENCE).await?);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(back_off) => {}
            signal = &mut interrupted => return signal.map(|()| Output::default()),
        }
        back_off = (back_off * 2).min(BACK_OFF_MAX);
        brick = place.start()?;
        tokio::select! {
            // One that ends before it is ready is seen by the wait above.
            ready = brick.ready(READY_TIMEOUT) => if ready.is_ok() {
                out.note("firebrick: the brick is ready again");
            },
            signal = &mut interrupted => {
                signal?;
                return stopped(brick.stop(STOP_PATIENCE).await?);
            }
        }
    }
}

fn one_brick(bricks: u32) -> Result<(), CliError> {
    if bricks == 1 {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "--bricks {bricks}: bricks do not replicate to each other yet, so more than one would be \
         stores that know nothing of each other; start one, or run `firebrick brick` with ports \
         and folders of its own for each"
    )))
}

fn stopped(cleanly: bool) -> Result<Output, CliError> {
    if cleanly {
        return Ok(Output::default());
    }
    Err(CliError::Failed(
        "the brick did not stop cleanly; what it acknowledged is found again at the next start"
            .to_owned(),
    ))
}

fn say_where(error: CliError) -> CliError {
    match error {
        CliError::Failed(text) => {
            CliError::Failed(format!("{text}: what it said on standard error is above"))
        }
        other => other,
    }
}

/// Where the brick lives and listens.
struct Place {
    dir: PathBuf,
    brick: BrickArgs,
    listen: SocketAddr,
    resp: SocketAddr,
    http: SocketAddr,
}

impl Place {
    fn new(args: &UpArgs) -> Result<Self, CliError> {
        let root = match &args.dir {
            Some(dir) => dir.clone(),
            None => default_dir()?,
        };
        let name = "brick-1".to_owned();
        let dir = root.join(&name);
        std::fs::create_dir_all(&dir).map_err(|e| {
            CliError::io(&format!("cannot make {}; give another with --dir", dir.display()), &e)
        })?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (listen, resp, http) = (local(args.port), local(args.resp_port), local(args.http_port));
        let brick = BrickArgs {
            name: Some(name.clone()),
            listen: Some(listen.to_string()),
            resp: Some(resp.to_string()),
            http: Some(http.to_string()),
            data_dir: Some(dir.clone()),
            memory_dir: args.memory_dir.as_ref().map(|memory| memory.join(&name)),
            tuning: args.tuning.clone(),
            ..BrickArgs::default()
        };
        Ok(Self { dir, brick, listen, resp, http })
    }

    fn start(&self) -> Result<BrickProcess, CliError> {
        let args = self.brick.to_args();
        BrickProcess::start(&args, self.http, Stdio::inherit(), Orphan::Stop)
    }

    fn describe(&self, brick: &BrickProcess) -> Output {
        let Self { dir, listen, resp, http, .. } = self;
        let dir = dir.display().to_string();
        Output::new(
            json!({ "bricks": [{
                "name": self.brick.name, "listen": listen, "resp": resp, "http": http,
                "dir": dir, "pid": brick.id(),
            }] }),
            format!(
                "brick-1 is ready; Ctrl-C stops it\n\
                 \x20 native  {listen}   firebrick --connect {listen} status\n\
                 \x20 RESP    {resp}   redis-cli -p {}\n\
                 \x20 HTTP    {http}   curl http://{http}/metrics\n\
                 \x20 data    {dir}\n",
                resp.port()
            ),
        )
    }
}

/// `$XDG_DATA_HOME/firebrick`, else `~/.local/share/firebrick`.
fn default_dir() -> Result<PathBuf, CliError> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("XDG_DATA_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("firebrick"))
        .ok_or_else(|| {
            CliError::Usage("HOME is not set: say where the data is to live with --dir".to_owned())
        })
}
