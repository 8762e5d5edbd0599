//! Rare requests that clients make through a data core: JSON in, JSON out.
//!
//! | request | answer |
//! | --- | --- |
//! | `{"do":"status"}` | `{"ok":true,"status":{...}}` as `/status` |
//! | `{"do":"table-list"}` | `{"ok":true,"tables":[{"name","id","durability","partitions"}]}` |
//! | `{"do":"table-create","name":"t","durability":"sync","partitions":4}` | `{"ok":true,"table":{...}}` |
//! | `{"do":"table-drop","name":"t"}` | `{"ok":true}` |
//!
//! `durability` and `partitions` (per data core) may be left out. What cannot be done is answered
//! `{"ok":false,"error":"a sentence"}`.

use std::sync::Arc;

use firebrick_partition::keeper::Report;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Shared, status};
use crate::catalog::Catalog;
use crate::config::Durability;
use crate::error::BrickError;

/// Longest request.
const REQUEST_BYTES_MAX: usize = 4096;

/// A request on its way.
pub(super) enum ControlRequest {
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
    },
    TableDrop {
        name: String,
    },
}

/// Does the requests, one after the other.
pub(super) struct Office {
    pub(super) shared: Arc<Shared>,
    pub(super) partitions_per_core: u32,
    pub(super) durability: Durability,
}

impl Office {
    pub(super) async fn serve(
        self,
        mut catalog: Catalog,
        mut requests: mpsc::Receiver<ControlRequest>,
    ) {
        while let Some(request) = requests.recv().await {
            match request {
                ControlRequest::Json { core, token, body } => {
                    let answer = match self.change(&body) {
                        Ok(Doing::Answer(answer)) => answer,
                        Ok(Doing::Change(change)) => {
                            let (kept, answer) = self.apply(catalog, change).await;
                            let Some(kept) = kept else { return };
                            catalog = kept;
                            answer
                        }
                        Err(sentence) => failure(&sentence),
                    };
                    self.shared
                        .cores
                        .answer(core, ControlAnswer { token, json: answer.to_string() });
                }
                // A lone brick's groups are active from the start, and have no other members.
                ControlRequest::Report(_) => {}
                ControlRequest::Removed(partitions) => {
                    let change = Box::new(move |catalog: &mut Catalog| {
                        catalog.forget_dropped(&partitions).map(|()| Value::Null)
                    });
                    let (kept, _) = self.apply(catalog, change).await;
                    let Some(kept) = kept else { return };
                    catalog = kept;
                }
            }
        }
    }

    /// Changes the catalog on a blocking thread, and gives the cores what came of it.
    async fn apply(&self, mut catalog: Catalog, change: Change) -> (Option<Catalog>, Value) {
        let before = catalog.routes().version();
        let done = tokio::task::spawn_blocking(move || {
            let result = change(&mut catalog);
            (catalog, result)
        });
        let Ok((catalog, result)) = done.await else {
            // A panic on the blocking thread: the catalog on disk is whole, the one in memory is gone.
            self.shared.begin_stop();
            return (None, Value::Null);
        };
        if catalog.routes().version() != before {
            self.shared.push_routes(catalog.routes());
        }
        let answer = result.unwrap_or_else(|error| failure(&error.to_string()));
        (Some(catalog), answer)
    }

    fn change(&self, body: &[u8]) -> Result<Doing, String> {
        let ask: Ask = serde_json::from_slice(body).map_err(|error| {
            format!(
                "not a request: {error}; the requests are status, table-list, table-create and \
                 table-drop"
            )
        })?;
        match ask {
            Ask::Status {} => {
                Ok(Doing::Answer(json!({ "ok": true, "status": status::brick(&self.shared) })))
            }
            Ask::TableList {} => {
                let tables = status::tables(&self.shared.newest_routes());
                Ok(Doing::Answer(json!({ "ok": true, "tables": tables })))
            }
            Ask::TableCreate { name, durability, partitions } => {
                let durability = match durability {
                    Some(text) => text
                        .parse()
                        .map_err(|help| format!("durability \"{text}\" is not allowed: {help}"))?,
                    None => self.durability,
                };
                let per_core = partitions.unwrap_or(self.partitions_per_core);
                if !(1..=64).contains(&per_core) {
                    return Err(format!(
                        "partitions = {per_core} is not allowed: give a number from 1 to 64"
                    ));
                }
                self.refuse_while_stopping()?;
                Ok(Doing::Change(Box::new(move |catalog| {
                    catalog.create(&name, per_core, durability)?;
                    let routes = catalog.routes();
                    let table = routes.table_named(&name).map(status::table);
                    Ok(json!({ "ok": true, "table": table }))
                })))
            }
            Ask::TableDrop { name } => {
                self.refuse_while_stopping()?;
                Ok(Doing::Change(Box::new(move |catalog| {
                    catalog.drop_table(&name)?;
                    Ok(json!({ "ok": true }))
                })))
            }
        }
    }

    fn refuse_while_stopping(&self) -> Result<(), String> {
        if self.shared.board.is_stopping() {
            return Err("the brick is stopping; try again once it is back".into());
        }
        Ok(())
    }
}

type Change = Box<dyn FnOnce(&mut Catalog) -> Result<Value, BrickError> + Send>;

enum Doing {
    Answer(Value),
    Change(Change),
}

fn failure(sentence: &str) -> Value {
    json!({ "ok": false, "error": sentence })
}
