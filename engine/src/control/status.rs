//! The brick in JSON, for `firebrick status` and `/status`.

use firebrick_partition::maps::{Durability, RouteTable, Routes};
use serde_json::{Map, Value, json};

use super::Shared;
use crate::counters::FIGURES;

/// Everything: the brick, its data cores, its tables.
pub(super) fn brick(shared: &Shared) -> Value {
    let board = &shared.board;
    let ready = board.ready();
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
        "listen": shared.listen,
        "resp": shared.resp,
        "cores": cores,
        "tables": tables(&shared.newest_routes()),
        "cluster": shared.node.get().map(|node| node.status()),
    })
}

/// All tables.
pub(super) fn tables(routes: &Routes) -> Vec<Value> {
    routes.tables().iter().map(table).collect()
}

/// One table.
pub(super) fn table(table: &RouteTable) -> Value {
    let durability = match table.durability() {
        Durability::Memory => "memory".to_owned(),
        Durability::Async { ms } => format!("async({ms}ms)"),
        Durability::Sync => "sync".to_owned(),
    };
    json!({
        "name": table.name,
        "id": table.id,
        "durability": durability,
        "partitions": table.entries().len(),
        "replicas": table.options.replicas,
    })
}
