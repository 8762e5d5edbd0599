//! The figures in Prometheus's text format, version 0.0.4.

use std::fmt::Write as _;

use super::Shared;
use crate::clock::boot_ns;
use crate::counters::{CoreState, FIGURES, Sort};

/// Writing to a `String` cannot fail.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {{ let _ = writeln!($out, $($arg)*); }};
}

/// All of it; begins a new interval of the longest turn.
pub(super) fn text(shared: &Shared) -> String {
    let mut out = String::with_capacity(16 << 10);
    let board = &shared.board;
    head(&mut out, "firebrick_info", "gauge", "The brick; always 1.");
    line!(
        out,
        "firebrick_info{{name=\"{}\",id=\"{:016x}\",version=\"{}\"}} 1",
        shared.name,
        shared.brick_id,
        env!("CARGO_PKG_VERSION")
    );
    head(
        &mut out,
        "firebrick_ready",
        "gauge",
        "1 while the brick serves everything that it has, and has a lease.",
    );
    line!(out, "firebrick_ready {}", u8::from(board.ready(boot_ns()).is_ok()));
    head(&mut out, "firebrick_tables", "gauge", "Tables.");
    line!(out, "firebrick_tables {}", shared.newest_routes().tables().len());
    head(&mut out, "process_start_time_seconds", "gauge", "When the brick was started, Unix time.");
    let started_ms = board.started_unix_ms();
    line!(out, "process_start_time_seconds {}.{:03}", started_ms / 1000, started_ms % 1000);
    if let Some(bytes) = resident_bytes() {
        let help = "Memory of the process, its mapped records included.";
        head(&mut out, "process_resident_memory_bytes", "gauge", help);
        line!(out, "process_resident_memory_bytes {bytes}");
    }
    head(&mut out, "firebrick_core_serving", "gauge", "1 while the data core serves.");
    for (core, published) in board.cores().iter().enumerate() {
        let serving = u8::from(published.state() == CoreState::Serving);
        line!(out, "firebrick_core_serving{{core=\"{core}\"}} {serving}");
    }
    let help =
        "Longest turn of the hot loop since the last scrape, of turns that no sleep followed.";
    head(&mut out, "firebrick_longest_turn_seconds", "gauge", help);
    for (core, published) in board.cores().iter().enumerate() {
        let seconds = published.take_longest_turn_ns() as f64 / 1e9;
        line!(out, "firebrick_longest_turn_seconds{{core=\"{core}\"}} {seconds}");
    }
    figures(&mut out, shared);
    out
}

fn figures(out: &mut String, shared: &Shared) {
    let values: Vec<_> = shared.board.cores().iter().map(|core| core.read().values()).collect();
    let mut last = "";
    for (at, figure) in FIGURES.iter().enumerate() {
        if figure.metric != last {
            let sort = match figure.sort {
                Sort::Counter => "counter",
                Sort::Gauge => "gauge",
            };
            head(out, figure.metric, sort, figure.help);
            last = figure.metric;
        }
        let comma = if figure.label.is_empty() { "" } else { "," };
        for (core, values) in values.iter().enumerate() {
            let (metric, label, value) = (figure.metric, figure.label, values[at]);
            line!(out, "{metric}{{core=\"{core}\"{comma}{label}}} {value}");
        }
    }
}

fn head(out: &mut String, metric: &str, sort: &str, help: &str) {
    line!(out, "# HELP {metric} {help}");
    line!(out, "# TYPE {metric} {sort}");
}

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}
