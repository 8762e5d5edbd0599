//! The brick in JSON, for `firebrick status` and `/status`.

use firebrick_partition::maps::{Member, RouteEntry, RouteTable, Routes};
use serde_json::{Map, Value, json};

use super::Shared;
use crate::clock::boot_ns;
use crate::counters::FIGURES;

/// Everything: this brick, its data cores, tables and partitions; and the whole cluster, as the leader of the
/// keepers sees it.
pub(super) async fn brick(shared: &Shared) -> Value {
    let mut status = own(shared);
    if let (Some(node), Some(finder)) = (shared.node.get(), shared.finder.get())
        && let (Value::Object(fields), Value::Object(cluster)) =
            (&mut status, node.cluster_status(finder).await)
    {
        fields.extend(cluster);
    }
    status
}

fn own(shared: &Shared) -> Value {
    let board = &shared.board;
    let ready = board.serves(boot_ns());
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
