//! Every brick's heartbeats: a lease and the maps, from the keepers to the data cores.
//!
//! The lease counts from before the request. What the cores are given, and in which order, is `grants`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use firebrick_partition::keeper::{DEFAULT_TABLE, LeaseAnswer};
use firebrick_partition::maps::{Routes, TableOptions};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::ask::Finder;
use super::grants::{Grants, Sender};
use super::net::{Admin, Answer, Ask, Refusal, Why};
use super::news::News;
use super::node::Node;
use crate::clock::boot_ns;
use crate::control::Cores;
use crate::counters::Board;
use crate::error::BrickError;

/// Between two heartbeats.
const EVERY: Duration = Duration::from_millis(100);
/// Between two that something urgent asks for.
const URGENT_EVERY: Duration = Duration::from_millis(5);
/// Before another keeper is asked when one did not answer.
const AGAIN: Duration = Duration::from_millis(20);
/// For one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);
/// Between two looks at a core that had not taken its lease yet.
const LATE_EVERY: Duration = Duration::from_millis(2);

/// What the heartbeats are made with.
pub(crate) struct BeatSetup {
    pub(crate) node: Arc<Node>,
    pub(crate) finder: Finder,
    pub(crate) founder: bool,
    pub(crate) cores: Arc<dyn Cores>,
    pub(crate) board: Arc<Board>,
    pub(crate) news: Arc<News>,
    pub(crate) memory_bytes: u64,
    /// The table that a founder makes.
    pub(crate) default_table: (TableOptions, u32),
}

/// See the module's text.
pub(crate) struct Beats {
    setup: BeatSetup,
    grants: Grants,
    shown: watch::Sender<u64>,
}

/// Why the heartbeats end.
pub(crate) enum Ended {
    /// The keepers say that another process acts for its brick.
    Superseded,
    /// Its brick was removed.
    Removed,
}

impl Beats {
    pub(crate) fn new(setup: BeatSetup) -> Self {
        let grants = Grants::new(setup.board.cores().len());
        Self { setup, grants, shown: watch::Sender::new(0) }
    }

    /// Tells the version of the maps that the cores have been given.
    pub(crate) fn shown(&self) -> watch::Receiver<u64> {
        self.shown.subscribe()
    }

    /// The first maps, with the default table, for cores that are not there yet.
    pub(crate) async fn first(&mut self) -> Result<Arc<Routes>, BrickError> {
        loop {
            match self.ask().await {
                Ok(None)
                    if self.grants.maps().table(DEFAULT_TABLE).is_some() || !self.setup.founder =>
                {
                    break;
                }
                Ok(None) => self.create_default().await?,
                Ok(Some(Ended::Superseded)) => return Err(superseded()),
                Ok(Some(Ended::Removed)) => return Err(removed()),
                Err(_) => sleep(AGAIN).await,
            }
        }
        Ok(Arc::clone(self.grants.routes()))
    }

    async fn create_default(&mut self) -> Result<(), BrickError> {
        let (options, per_core) = self.setup.default_table;
        let name = DEFAULT_TABLE.into();
        let admin = Admin::CreateTable { name, options, per_core, exact: false };
        match self.setup.finder.ask(&Ask::Admin(admin), Duration::from_secs(5)).await {
            Ok(Answer::Declined(Refusal { why: Why::Refused, text })) => {
                Err(BrickError::Cluster(text))
            }
            // Another keeper may have been quicker, or this is to be asked again.
            _ => Ok(()),
        }
    }

    /// Beats until this process is not its brick's any more.
    pub(crate) async fn run(mut self) -> Ended {
        let mut changed = self.setup.node.watch_maps();
        let news = Arc::clone(&self.setup.news);
        // What the first answer granted, for the cores that are there now.
        self.push();
        loop {
            let began = Instant::now();
            changed.borrow_and_update();
            let wait = match self.ask().await {
                Ok(None) => EVERY,
                Ok(Some(ended)) => return ended,
                Err(_) => AGAIN,
            };
            self.push();
            while began.elapsed() < wait {
                let left = wait.saturating_sub(began.elapsed());
                if self.grants.is_late(boot_ns()) {
                    sleep(LATE_EVERY.min(left)).await;
                    self.push();
                    continue;
                }
                let woken = async {
                    tokio::select! {
                        () = news.urgent.notified() => true,
                        // This brick's keeper has applied something: a leader knows it first.
                        changed = changed.changed() => changed.is_ok(),
                    }
                };
                if timeout(left, woken).await == Ok(true) {
                    sleep(URGENT_EVERY.saturating_sub(began.elapsed())).await;
                    break;
                }
            }
        }
    }

    /// One heartbeat and what its answer says.
    async fn ask(&mut self) -> Result<Option<Ended>, String> {
        let setup = &self.setup;
        let sender = Sender {
            brick: setup.node.brick,
            incarnation: setup.node.incarnation,
            pid: std::process::id(),
            memory_bytes: setup.memory_bytes,
        };
        let beat = self.grants.heartbeat(sender, &setup.board, setup.news.take());
        let since_ns = boot_ns();
        let asked = setup.finder.ask(&Ask::Heartbeat(beat), ANSWER_TIMEOUT).await;
        match asked.map_err(|refusal| refusal.text)? {
            Answer::Lease(LeaseAnswer::Granted { lease_ms, delta }) => {
                if self.grants.take(sender.brick, since_ns, lease_ms, &delta)? {
                    let bricks = &self.grants.maps().bricks;
                    let places: Vec<String> = bricks.iter().map(|b| b.control.clone()).collect();
                    setup.finder.add(places);
                }
                Ok(None)
            }
            Answer::Lease(LeaseAnswer::Register) => Ok(Some(Ended::Superseded)),
            Answer::Lease(LeaseAnswer::Removed) => Ok(Some(Ended::Removed)),
            Answer::Refused(why) => Err(why),
            _ => Err("a keeper answered something else than was asked".into()),
        }
    }

    /// Gives the cores what they may be given now.
    fn push(&mut self) {
        let cores = &self.setup.cores;
        let give = |core, routes, end_ns| cores.give(core, routes, end_ns);
        self.grants.push(boot_ns(), &self.setup.board, give);
        if let Some(shown) = self.grants.shown(boot_ns())
            && shown > *self.shown.borrow()
        {
            self.shown.send_replace(shown);
        }
    }
}

pub(crate) fn superseded() -> BrickError {
    BrickError::Cluster(
        "the keepers say that another process acts for this brick: it ends here; see status on another brick"
            .into(),
    )
}

pub(crate) fn removed() -> BrickError {
    BrickError::Removed(
        "this brick was removed from its cluster: it ends here; to let it join again as a new brick, delete \
         its data_dir and its folder in memory_dir, and start it with --join"
            .into(),
    )
}
