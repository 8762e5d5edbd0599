//! Rare requests that clients make through a data core: JSON in, JSON out.
//!
//! | request | answer |
//! | --- | --- |
//! | `{"do":"status"}` | `{"ok":true,"status":{...}}` as `/status` |
//! | `{"do":"table-list"}` | `{"ok":true,"tables":[{"name","id","durability","partitions"}]}` |
//! | `{"do":"table-create","name":"t","durability":"sync","partitions":4,"replicas":2}` | `{"ok":true,"table":{...}}` |
//! | `{"do":"table-drop","name":"t"}` | `{"ok":true}` |
//! | `{"do":"brick-drain","brick":"b","on":true,"fewer_replicas":false}` | `{"ok":true,"version":7}` |
//! | `{"do":"move","partition":7,"from":"a","to":"b"}` | `{"ok":true,"version":7}` |
//! | `{"do":"hand-over","partition":7,"to":"b"}` | `{"ok":true,"version":7}` |
//! | `{"do":"move-cancel","partition":7}` | `{"ok":true,"version":7}` |
//! | `{"do":"brick-remove","brick":"b"}` | `{"ok":true}` |
//! | `{"do":"lead-anyway","partition":7,"brick":"b"}` | `{"ok":true,"version":7,"loss":"a sentence"}` |
//!
//! `durability`, `partitions` (per data core), `replicas` and `fewer_replicas` may be left out. `version` is that of the
//! maps; a move that is answered is wished, not done: status shows it until it is. What cannot be done is answered
//! `{"error":"a sentence","kind":"refused","ok":false}`; kinds: `refused`, `not-found`, `exists`, `not-now`, `in-doubt`. Changes go to the keepers; they are answered once this brick's
//! cores have been given the maps that show them.

use std::sync::Arc;
use std::time::Duration;

use firebrick_partition::keeper::{Applied, CopyFigure, Figure, Lack, Report};
use firebrick_partition::maps::{Durability, REPLICAS_MAX, TableOptions};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Shared, status};
use crate::config::partitions_per_core;
use crate::keeper::{Admin, Answer, Ask as Question, Finder, News, Refusal, Why};

/// Longest request.
const REQUEST_BYTES_MAX: usize = 4096;
/// Changes that clients may have asked for and not been answered yet.
pub(super) const CHANGES_MAX: usize = 256;
/// Of those, how many are under way; the others wait their turn.
const TURNS_MAX: usize = 16;
/// Looks at the cluster that are under way.
const LOOKS_MAX: usize = 64;
/// For the keepers to agree, and for the maps to come here.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Before a change is tried again while the keepers have no leader.
const AGAIN: Duration = Duration::from_millis(100);

/// A request on its way.
#[derive(Debug)]
pub enum ControlRequest {
    /// Of a client, through a core.
    Json {
        /// Who asks.
        core: u16,
        /// Their word.
        token: u64,
        /// The request.
        body: Box<[u8]>,
    },
    /// The files of dropped partitions are gone.
    Removed(Vec<u32>),
    /// A replica has something to say to the keepers.
    Report(Report),
    /// Replicas in figures.
    Figures(Vec<Figure>),
    /// How far all copies to replicas of a core are.
    Copies {
        /// The core.
        core: u16,
        /// The copies.
        copies: Vec<CopyFigure>,
    },
    /// All bricks that a core cannot reach now.
    Unreachable {
        /// The core.
        core: u16,
        /// The bricks.
        bricks: Vec<u32>,
    },
    /// What a core has no room for.
    Lack {
        /// The core.
        core: u16,
        /// Nothing: it has room.
        lack: Option<Lack>,
    },
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlAnswer {
    /// The asking core's own word.
    pub token: u64,
    /// JSON.
    pub json: String,
}

/// The control thread has too much to do, or has ended; or the request is over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// A data core's end of the queue to the control thread. Never blocks.
#[derive(Clone)]
pub struct ControlPort(mpsc::Sender<ControlRequest>);

impl ControlPort {
    pub(super) fn new(sender: mpsc::Sender<ControlRequest>) -> Self {
        Self(sender)
    }

    /// Asks; the answer comes through [`super::Cores::answer`] with this core and token, exactly once,
    /// unless the brick stops first.
    pub fn ask(&self, core: u16, token: u64, body: &[u8]) -> Result<(), Busy> {
        if body.len() > REQUEST_BYTES_MAX {
            return Err(Busy);
        }
        self.0.try_send(ControlRequest::Json { core, token, body: body.into() }).map_err(|_| Busy)
    }

    /// Says that the files of these dropped partitions are gone. May be said again later when it is
    /// refused now; at the latest the next start removes them anew.
    pub fn removed(&self, partitions: Vec<u32>) -> Result<(), Busy> {
        self.0.try_send(ControlRequest::Removed(partitions)).map_err(|_| Busy)
    }

    /// Says what a replica reports to the keepers. It goes along with the next heartbeats for a second, so
    /// it is to be said again until the maps show that it took effect.
    pub fn report(&self, report: Report) -> Result<(), Busy> {
        self.0.try_send(ControlRequest::Report(report)).map_err(|_| Busy)
    }

    /// Gives figures of some of a core's replicas, for placement and for a group that lost everything.
    pub fn figures(&self, figures: Vec<Figure>) -> Result<(), Busy> {
        self.0.try_send(ControlRequest::Figures(figures)).map_err(|_| Busy)
    }

    /// Tells how far all copies to replicas of a core are.
    pub fn copies(&self, core: u16, copies: Vec<CopyFigure>) -> Result<(), Busy> {
        self.0.try_send(ControlRequest::Copies { core, copies }).map_err(|_| Busy)
    }

    /// Says what a core has no room for, each time that changes.
    pub fn lack(&self, core: u16, lack: Option<Lack>) -> Result<(), Busy> {
        self.0.try_send(ControlRequest::Lack { core, lack }).map_err(|_| Busy)
    }

    /// Says which bricks a core cannot reach now: all of them, each time that changes.
    pub fn unreachable(&self, core: u16, bricks: Vec<u32>) -> Result<(), Busy> {
        self.0.try_send(ControlRequest::Unreachable { core, bricks }).map_err(|_| Busy)
    }
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Ask {
    Status {},
    TableList {},
    TableCreate {
        name: String,
        #[serde(default)]
        durability: Option<String>,
        #[serde(default)]
        partitions: Option<u32>,
        #[serde(default)]
        replicas: Option<u8>,
    },
    TableDrop {
        name: String,
    },
    BrickDrain {
        brick: String,
        on: bool,
        #[serde(default)]
        fewer_replicas: bool,
    },
    BrickRemove {
        brick: String,
    },
    Move {
        partition: u32,
        from: String,
        to: String,
    },
    HandOver {
        partition: u32,
        to: String,
    },
    MoveCancel {
        partition: u32,
    },
    LeadAnyway {
        partition: u32,
        #[serde(default)]
        brick: Option<String>,
    },
}

/// Does the requests.
pub(super) struct Office {
    pub(super) shared: Arc<Shared>,
    pub(super) partitions_per_core: Option<u32>,
    pub(super) durability: Durability,
    pub(super) replicas: u8,
    pub(super) news: Arc<News>,
    pub(super) finder: Finder,
    /// Version of the maps that the cores have been given.
    pub(super) shown: watch::Receiver<u64>,
    /// Room for changes.
    pub(super) changes: Arc<Semaphore>,
    pub(super) brick: u32,
}

impl Office {
    pub(super) async fn serve(self, mut requests: mpsc::Receiver<ControlRequest>) {
        let turns = Arc::new(Semaphore::new(TURNS_MAX));
        let looks = Arc::new(Semaphore::new(LOOKS_MAX));
        // They end with this one.
        let mut tasks = JoinSet::new();
        while let Some(request) = requests.recv().await {
            while tasks.try_join_next().is_some() {}
            let Some((asker, doing)) = self.sort(request) else { continue };
            // Nothing waits here: what replicas report comes through the same queue.
            let places = if matches!(doing, Doing::Look) { &looks } else { &self.changes };
            let Ok(place) = Arc::clone(places).try_acquire_owned() else {
                let text = "too many others ask as well; try again";
                let answer = failure(Why::NotNow, text);
                if let Some((core, token)) = asker {
                    self.answer(core, token, &answer);
                }
                continue;
            };
            let change = Change {
                shared: Arc::clone(&self.shared),
                finder: self.finder.clone(),
                shown: self.shown.clone(),
                turns: Arc::clone(&turns),
            };
            tasks.spawn(async move {
                let json = match doing {
                    Doing::Look => {
                        let status = status::brick(&change.shared).await;
                        format!("{{\"ok\":true,\"status\":{}}}", String::from_utf8_lossy(&status))
                    }
                    Doing::Change(admin) => change.perform(admin).await.to_string(),
                };
                if let Some((core, token)) = asker {
                    let answer = ControlAnswer { token, json };
                    change.shared.cores.answer(core, answer);
                }
                drop(place);
            });
        }
    }

    /// What takes a while, and who waits for it (core, token). The rest is done when this returns.
    fn sort(&self, request: ControlRequest) -> Option<(Option<(u16, u64)>, Doing)> {
        match request {
            ControlRequest::Json { core, token, body } => match self.read(&body) {
                Ok(Asked::For(doing)) => return Some((Some((core, token)), doing)),
                Ok(Asked::Answered(answer)) => self.answer(core, token, &answer),
                Err(sentence) => self.answer(core, token, &failure(Why::Refused, &sentence)),
            },
            ControlRequest::Removed(partitions) => {
                let admin = Admin::Forgotten { brick: self.brick, partitions };
                return Some((None, Doing::Change(admin)));
            }
            ControlRequest::Report(report) => self.news.report(report),
            ControlRequest::Figures(figures) => self.news.hear(|heard| heard.figures(figures)),
            ControlRequest::Copies { core, copies } => {
                self.news.hear(|heard| heard.copies(core, copies));
            }
            ControlRequest::Unreachable { core, bricks } => {
                self.news.hear(|heard| heard.unreachable(core, bricks));
            }
            ControlRequest::Lack { core, lack } => self.shared.board.set_lack(core, lack),
        }
        None
    }

    fn answer(&self, core: u16, token: u64, answer: &Value) {
        self.shared.cores.answer(core, ControlAnswer { token, json: answer.to_string() });
    }

    fn read(&self, body: &[u8]) -> Result<Asked, String> {
        let ask: Ask = serde_json::from_slice(body).map_err(|error| {
            format!(
                "not a request: {error}; the requests are status, table-list, table-create, table-drop, \
                 brick-drain, brick-remove, move, hand-over, move-cancel and lead-anyway"
            )
        })?;
        let admin = match ask {
            Ask::Status {} => return Ok(Asked::For(Doing::Look)),
            Ask::TableList {} => {
                let tables = status::tables(&self.shared.newest_routes());
                return Ok(Asked::Answered(json!({ "ok": true, "tables": tables })));
            }
            Ask::TableCreate { name, durability, partitions, replicas } => {
                self.create_table(name, durability, partitions, replicas)?
            }
            Ask::TableDrop { name } => {
                let id = self.shared.newest_routes().table_named(&name).map(|table| table.id);
                Admin::DropTable { name, id }
            }
            Ask::BrickDrain { brick, on, fewer_replicas } => {
                Admin::Drain { brick, on, fewer_replicas }
            }
            Ask::Move { partition, from, to } => Admin::Move { partition, from, to },
            Ask::HandOver { partition, to } => Admin::HandOver { partition, to },
            Ask::MoveCancel { partition } => Admin::CancelMove { partition },
            Ask::BrickRemove { brick } => Admin::RemoveBrick { brick },
            Ask::LeadAnyway { partition, brick } => Admin::LeadAnyway { partition, brick },
        };
        if self.shared.board.is_stopping() {
            let text = "the brick is stopping; try again once it is back";
            return Ok(Asked::Answered(failure(Why::NotNow, text)));
        }
        Ok(Asked::For(Doing::Change(admin)))
    }

    fn create_table(
        &self,
        name: String,
        durability: Option<String>,
        partitions: Option<u32>,
        replicas: Option<u8>,
    ) -> Result<Admin, String> {
        let durability: Durability = match durability {
            Some(text) => text
                .parse()
                .map_err(|help| format!("durability \"{text}\" is not allowed: {help}"))?,
            None => self.durability,
        };
        let per_core = partitions_per_core(partitions.or(self.partitions_per_core), durability);
        if !(1..=64).contains(&per_core) {
            return Err(format!(
                "partitions = {per_core} is not allowed: give a number from 1 to 64"
            ));
        }
        let exact = replicas.is_some();
        let replicas = replicas.unwrap_or(self.replicas);
        if !(1..=REPLICAS_MAX).contains(&usize::from(replicas)) {
            return Err(format!(
                "replicas = {replicas} is not allowed: give a number from 1 to {REPLICAS_MAX}"
            ));
        }
        let options = TableOptions { durability, partitions: 0, replicas };
        Ok(Admin::CreateTable { name, options, per_core, exact })
    }
}

/// A change on its way to the keepers and back.
struct Change {
    shared: Arc<Shared>,
    finder: Finder,
    shown: watch::Receiver<u64>,
    turns: Arc<Semaphore>,
}

impl Change {
    async fn perform(&self, admin: Admin) -> Value {
        let removes = matches!(admin, Admin::RemoveBrick { .. });
        let created = match &admin {
            Admin::CreateTable { name, .. } => Some(name.clone()),
            _ => None,
        };
        let (applied, version) = match self.decide(admin).await {
            Ok(decided) => decided,
            Err(Refusal { why, text }) => return failure(why, &text),
        };
        let mut shown = self.shown.clone();
        let shows = timeout(CHANGE_TIMEOUT, shown.wait_for(|shown| *shown >= version)).await;
        let is_told = match shows {
            Ok(Ok(_)) => true,
            // (A brick that was removed gets no maps any more: it was asked for its own removal.)
            Ok(Err(_)) => removes,
            Err(_) => false,
        };
        if !is_told {
            let text = "it was done, but this brick has not got the new maps yet; see status";
            return failure(Why::InDoubt, text);
        }
        match created {
            None => {
                let loss = if let Applied::Led { loss, .. } = applied { loss } else { None };
                json!({ "ok": true, "version": version, "loss": loss })
            }
            Some(name) => {
                let routes = self.shared.newest_routes();
                json!({ "ok": true, "table": routes.table_named(&name).map(status::table) })
            }
        }
    }

    /// Asks the keepers; what came of it, and the version of the maps that shows it. An election is waited for.
    async fn decide(&self, admin: Admin) -> Result<(Applied, u64), Refusal> {
        let ends = matches!(admin, Admin::DropTable { .. } | Admin::RemoveBrick { .. });
        let question = Question::Admin(admin);
        let end = Instant::now() + CHANGE_TIMEOUT;
        let Ok(Ok(_turn)) = timeout_at(end, self.turns.acquire()).await else {
            let text = format!(
                "{TURNS_MAX} changes that were asked for before are not done yet; nothing was changed: try again"
            );
            return Err(Refusal::new(Why::NotNow, text));
        };
        // An earlier try may have been agreed on, although its answer was lost.
        let mut doubt = false;
        loop {
            let now = match timeout_at(end, self.finder.ask(&question, CHANGE_TIMEOUT)).await {
                Ok(Ok(Answer::Applied { applied, version })) => return Ok((applied, version)),
                Ok(Ok(Answer::Declined(refusal)) | Err(refusal)) => refusal,
                Ok(Ok(_)) => {
                    let text = "a keeper answered something else than was asked";
                    return Err(Refusal::new(Why::Refused, text));
                }
                Err(_) => Refusal::new(Why::InDoubt, "they gave no answer in time"),
            };
            match now.why {
                Why::InDoubt => doubt = true,
                Why::NotNow => {}
                // That is what was asked for.
                Why::NotFound if doubt && ends => {
                    if let Some(version) = timeout_at(end, self.version()).await.ok().flatten() {
                        return Ok((Applied::Done, version));
                    }
                }
                _ if doubt => {
                    let text = format!("{}: an earlier try may have done it, see status", now.text);
                    return Err(Refusal::new(Why::InDoubt, text));
                }
                _ => return Err(now),
            }
            if Instant::now() + AGAIN >= end {
                let (why, end) = if doubt {
                    (Why::InDoubt, "it may be done or not, see status")
                } else {
                    (Why::NotNow, "nothing was changed")
                };
                let text = format!("the keepers did not decide: {}; {end}", now.text);
                return Err(Refusal::new(why, text));
            }
            sleep(AGAIN).await;
        }
    }

    /// The version of the maps as the keepers have them now.
    async fn version(&self) -> Option<u64> {
        let since = *self.shown.borrow();
        match self.finder.ask(&Question::Maps { since }, CHANGE_TIMEOUT).await {
            Ok(Answer::Maps(delta)) => Some(delta.version),
            _ => None,
        }
    }
}

/// What a request turns out to be.
enum Asked {
    /// It has an answer.
    Answered(Value),
    /// It takes a while.
    For(Doing),
}

/// What takes a while.
enum Doing {
    /// A look at the whole cluster.
    Look,
    /// A change.
    Change(Admin),
}

/// Clients know a failure by `error` as the first key (the client library has no parser for JSON). It is: keys are in
/// alphabetical order.
pub(super) fn failure(why: Why, sentence: &str) -> Value {
    json!({ "ok": false, "error": sentence, "kind": why })
}

#[cfg(test)]
mod tests;
