//! The brick in JSON, for `firebrick status` and `/status`.
//!
//! On a large cluster it is long, and leases are given on the same thread: so it is written on another one, once for all
//! who asked before it was begun, and never for more than a part of the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use firebrick_partition::maps::{Member, RouteEntry, RouteTable, Routes};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::Shared;
use crate::clock::boot_ns;
use crate::counters::FIGURES;

/// Who waits for the next status; more wait to be let in.
pub(super) const ASKED_MAX: usize = 1024;
/// After one, in times of how long it took.
const REST: u32 = 4;
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(1);

/// Who waits for a status.
pub(super) type Waits = oneshot::Sender<Bytes>;

/// Everything: this brick, its data cores, tables and partitions; and the whole cluster, as the leader of the
/// keepers sees it.
pub(super) async fn brick(shared: &Shared) -> Bytes {
    let (waits, made) = oneshot::channel();
    // (It fails when the brick has ended.)
    let _ = shared.statuses.send(waits).await;
    made.await.unwrap_or_default()
}

/// Makes them; see the module's text.
pub(super) async fn serve(shared: Arc<Shared>, mut asked: mpsc::Receiver<Waits>) {
    let mut waiting = Vec::new();
    while asked.recv_many(&mut waiting, ASKED_MAX).await > 0 {
        let cluster = match (shared.node.get(), shared.finder.get()) {
            (Some(node), Some(finder)) => node.cluster_status(finder).await,
            _ => Value::Null,
        };
        let own_of = Arc::clone(&shared);
        let write = move || {
            let began = Instant::now();
            let mut status = own(&own_of);
            if let (Value::Object(fields), Value::Object(cluster)) = (&mut status, cluster) {
                fields.extend(cluster);
            }
            (Bytes::from(status.to_string()), began.elapsed())
        };
        let (text, took) = tokio::task::spawn_blocking(write).await.unwrap_or_default();
        for waits in waiting.drain(..) {
            let _ = waits.send(text.clone());
        }
        sleep((took * REST).min(REST_MAX)).await;
    }
}

fn own(shared: &Shared) -> Value {
    let board = &shared.board;
    let ready = board.ready(boot_ns());
    let routes = shared.newest_routes();
    let cores: Vec<Value> = board
        .cores()
        .iter()
        .enumerate()
        .map(|(core, published)| {
            let mut figures = Map::new();
            for (figure, value) in FIGURES.iter().zip(published.read().values()) {
                figures.insert(figure.field.into(), value.into());
            }
            figures.insert("longest_turn_ns".into(), published.longest_turn_ns().into());
            json!({ "core": core, "state": published.state().word(), "figures": figures })
        })
        .collect();
    json!({
        "name": shared.name,
        "id": format!("{:016x}", shared.brick_id),
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "started_unix_ms": board.started_unix_ms(),
        "ready": ready.is_ok(),
        "not_ready_because": ready.err(),
        "lack": board.lack(),
        "listen": shared.listen,
        "resp": shared.resp,
        "cores": cores,
        "tables": tables(&routes),
        "partitions": partitions(&routes),
    })
}

/// All partitions: who holds them, and in which epoch. `active` is the epoch in which writes may commit.
fn partitions(routes: &Routes) -> Vec<Value> {
    let name = |brick: u32| {
        let entry = routes.bricks().iter().find(|b| b.id == brick);
        entry.map_or_else(|| brick.to_string(), |b| b.name.clone())
    };
    let entries = routes.tables().iter().flat_map(|t| t.entries().iter().map(move |e| (t, e)));
    let partition = |(table, entry): (&RouteTable, &RouteEntry)| {
        let group = &entry.replicas;
        let names = |members: &[Member]| members.iter().map(|m| name(m.brick)).collect::<Vec<_>>();
        json!({
            "partition": entry.route.partition,
            "table": table.name,
            "leaf": { "depth": entry.leaf.depth, "suffix": entry.leaf.suffix },
            "replicas": table.options.replicas,
            "epoch": group.epoch,
            "active": group.active,
            "members": names(&group.members),
            "learners": names(&group.learners),
        })
    };
    entries.map(partition).collect()
}

/// All tables.
pub(super) fn tables(routes: &Routes) -> Vec<Value> {
    routes.tables().iter().map(table).collect()
}

/// One table.
pub(super) fn table(table: &RouteTable) -> Value {
    json!({
        "name": table.name,
        "id": table.id,
        "durability": table.durability().to_string(),
        "partitions": table.entries().len(),
        "replicas": table.options.replicas,
    })
}
