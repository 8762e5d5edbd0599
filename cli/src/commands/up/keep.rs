//! Keeps one brick running until told to stop.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::place::Place;
use crate::child::{self, BrickProcess};
use crate::error::CliError;

/// A first start, with an old log to read back, may take a while.
const READY_TIMEOUT: Duration = Duration::from_mins(5);
/// How long a brick may take to answer what is in flight and to flush.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// A brick that ran this long before it died is not one that keeps dying.
const STEADY: Duration = Duration::from_mins(1);

/// A brick that was removed from its cluster ends with this: starting it again would be of no use.
const REMOVED: u8 = 7;

/// What happened to a brick.
pub enum Said {
    /// It serves.
    Ready {
        /// Which.
        number: usize,
        /// Its process.
        pid: u32,
    },
    /// Something that a person wants to read.
    Note(String),
}

/// See the module's text.
pub struct Keeping {
    /// Which brick.
    pub number: usize,
    /// Where it lives.
    pub place: Place,
    /// Start it again when it dies.
    pub restart: bool,
    /// Where to say what happens.
    pub say: mpsc::Sender<Said>,
    /// `true`: stop it.
    pub stopped: watch::Receiver<bool>,
}

impl Keeping {
    /// Runs the brick until told to stop. A first start that fails is an error.
    pub async fn run(mut self) -> Result<(), CliError> {
        let mut brick = self.place.start()?;
        let ready = self.is_ready(&mut brick).await;
        if !ready.map_err(|error| say_where(error.about(self.place.name())))? {
            return self.stop(brick).await;
        }
        let mut back_off = BACK_OFF_MIN;
        loop {
            let started = Instant::now();
            let how = tokio::select! {
                ended = brick.wait() => {
                    let ended = ended?;
                    let removed = ended.code() == Some(i32::from(REMOVED));
                    Some((child::describe(ended), removed))
                }
                () = told(&mut self.stopped) => None,
            };
            let Some((how, removed)) = how else { return self.stop(brick).await };
            if removed || !self.restart {
                let how = if removed { "it was removed from the cluster".to_owned() } else { how };
                self.note(format!("{} ended ({how}); it stays down", self.place.name())).await;
                told(&mut self.stopped).await;
                return Ok(());
            }
            if started.elapsed() > STEADY {
                back_off = BACK_OFF_MIN;
            }
            let (name, ms) = (self.place.name(), back_off.as_millis());
            self.note(format!("{name} ended ({how}); starting it again in {ms} ms")).await;
            tokio::select! {
                () = tokio::time::sleep(back_off) => {}
                () = told(&mut self.stopped) => return Ok(()),
            }
            back_off = (back_off * 2).min(BACK_OFF_MAX);
            brick = self.place.start()?;
            // One that ends before it is ready is seen by the wait above.
            if let Ok(false) = self.is_ready(&mut brick).await {
                return self.stop(brick).await;
            }
        }
    }

    /// Waits until it serves; `false`: it is to stop.
    async fn is_ready(&mut self, brick: &mut BrickProcess) -> Result<bool, CliError> {
        tokio::select! {
            ready = brick.ready(READY_TIMEOUT) => {
                ready?;
                let pid = brick.id().unwrap_or(0);
                let _ = self.say.send(Said::Ready { number: self.number, pid }).await;
                Ok(true)
            }
            () = told(&mut self.stopped) => Ok(false),
        }
    }

    async fn note(&self, text: String) {
        let _ = self.say.send(Said::Note(text)).await;
    }

    async fn stop(&self, mut brick: BrickProcess) -> Result<(), CliError> {
        if brick.stop(STOP_PATIENCE).await? {
            return Ok(());
        }
        Err(CliError::Failed(format!(
            "{} did not stop cleanly; what it acknowledged is found again at the next start",
            self.place.name()
        )))
    }
}

/// Resolves when the bricks are to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // An error: whoever could say so is gone, which says it too.
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn say_where(error: CliError) -> CliError {
    match error {
        CliError::Failed(text) => {
            // What it said names the flags of a brick, which are not those of `up`.
            CliError::Failed(format!(
                "{text}: what it said on standard error is above (with `up`, ports are chosen by --port, \
                 --control-port, --resp-port and --http-port, folders by --dir and --memory-dir)"
            ))
        }
        other => other,
    }
}
