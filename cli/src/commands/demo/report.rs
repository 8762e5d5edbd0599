//! What the demo found: a short table, or one JSON object.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::writes::{Found, Written};
use crate::commands::load::to_json;
use crate::error::CliError;
use crate::output::Output;
use crate::transfer::Tally;
use crate::units::{count, micros, size};

/// Failures that are named; the rest is counted.
const FAILURES_SHOWN: usize = 10;

/// Titles of the phases, in the table's words.
const TITLES: [(&str, &str); 6] = [
    ("load", "load files (put)"),
    ("verify_client", "verify by client (get)"),
    ("verify_resp", "verify by RESP (GET)"),
    ("write", "write load (put, increment)"),
    ("verify_restarted", "verify after kill -9 (get)"),
    ("read", "read load (get)"),
];

/// All of it.
#[derive(Debug)]
pub struct Report {
    tree: String,
    phases: Map<String, Value>,
    rows: Vec<String>,
    /// From the start of the killed brick until it served again.
    pub restart: Duration,
    /// The longest time without an acknowledged write of one writer, while the brick was away.
    pub write_gap: Duration,
    /// The same while it came back and caught up.
    pub copy_gap: Duration,
    /// Requests that failed in all, and while the brick came back and caught up.
    pub failed: u64,
    /// Likewise.
    pub failed_by_copy: u64,
    /// From the start of the killed brick until every partition had all its replicas.
    recovery: Duration,
    /// What came to it meanwhile.
    recovered: u64,
    acked: u64,
    in_doubt: u64,
    /// What did not hold.
    pub failures: Vec<String>,
}

impl Report {
    /// Nothing yet.
    pub fn new(tree: String) -> Self {
        Self {
            tree,
            phases: Map::new(),
            rows: Vec::new(),
            restart: Duration::ZERO,
            write_gap: Duration::ZERO,
            copy_gap: Duration::ZERO,
            failed: 0,
            failed_by_copy: 0,
            recovery: Duration::ZERO,
            recovered: 0,
            acked: 0,
            in_doubt: 0,
            failures: Vec::new(),
        }
    }

    /// A phase's figures.
    pub fn phase(&mut self, name: &str, tally: &Tally) {
        let title = TITLES.iter().find(|(n, _)| *n == name).map_or(name, |(_, title)| title);
        let quantile = |q| match tally.latency.len() {
            0 => "-".to_owned(),
            _ => micros(tally.latency.value_at_quantile(q) / 1000),
        };
        self.rows.push(format!(
            "{title:28} {:>10} {:>10} {:>10} {:>10} {:>10}",
            count(tally.items),
            size(tally.bytes),
            count(tally.rate() as u64),
            quantile(0.5),
            quantile(0.999),
        ));
        self.phases.insert(name.to_owned(), to_json(tally).into());
    }

    /// A phase that compared files: all that were loaded, and no difference.
    pub fn files(&mut self, name: &str, tally: &Tally, loaded: u64) {
        self.phase(name, tally);
        let differences = &tally.differences;
        if differences.total() > 0 {
            self.failures.push(format!(
                "{name}: {} of {loaded} files are missing, {} differ",
                differences.missing, differences.different
            ));
            let named = differences.examples.iter().map(|e| format!("{name}: {e}"));
            self.failures.extend(named);
        }
        if loaded == 0 {
            self.failures.push(format!("{name}: there was no file to compare"));
        }
    }

    /// The check after the restart.
    pub fn writes(&mut self, found: Found, written: &Written) {
        self.acked = written.tally.items;
        self.in_doubt = written.in_doubt;
        self.failures.extend(found.failures);
        if self.acked == 0 {
            self.failures.push("the write load had no write acknowledged".to_owned());
        }
    }

    /// How long the killed brick took to have everything again, and what came to it meanwhile.
    pub fn recovery(&mut self, took: Duration, bytes: u64) {
        (self.recovery, self.recovered) = (took, bytes);
    }

    /// Bytes a second of the recovery.
    fn recovery_rate(&self) -> f64 {
        self.recovered as f64 / (self.recovery.saturating_sub(self.restart)).as_secs_f64().max(1e-3)
    }

    /// The lines about the brick that was killed.
    fn fail_over_text(&self) -> String {
        let ms = |time: Duration| micros(time.as_micros() as u64);
        let mut text = String::new();
        let mut row = |what: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{what:48} {value:>12}");
        };
        row("longest write gap after kill -9 of a primary", ms(self.write_gap));
        row("restart after kill -9", ms(self.restart));
        row("until it had caught up", ms(self.recovery));
        row("sent to it meanwhile", size(self.recovered));
        row("recovery", format!("{:.1} MB/s", self.recovery_rate() / 1e6));
        row("longest write gap while it came back", ms(self.copy_gap));
        row("requests failed by the copy", count(self.failed_by_copy));
        row("requests failed in all", count(self.failed));
        row("acknowledged writes", count(self.acked));
        row("writes in doubt", count(self.in_doubt));
        text
    }

    /// To be printed.
    pub fn into_output(mut self) -> Output {
        if self.failed_by_copy > 0 {
            let failed = count(self.failed_by_copy);
            self.failures.push(format!("{failed} requests failed while a brick came back"));
        }
        let mut text = format!(
            "\n{:28} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
            self.tree, "items", "bytes", "per second", "p50", "p99.9"
        );
        for row in &self.rows {
            text.push_str(row);
            text.push('\n');
        }
        let _ = writeln!(text, "\n{}", self.fail_over_text());
        let verdict = if self.failures.is_empty() {
            "every file and every acknowledged write is there\n"
        } else {
            "NOT everything is there:\n"
        };
        text.push_str(verdict);
        for failure in self.failures.iter().take(FAILURES_SHOWN) {
            let _ = writeln!(text, "  {failure}");
        }
        let json = json!({
            "ok": self.failures.is_empty(),
            "tree": self.tree,
            "phases": self.phases,
            "longest_write_gap_seconds": self.write_gap.as_secs_f64(),
            "restart_seconds": self.restart.as_secs_f64(),
            "recovery_seconds": self.recovery.as_secs_f64(),
            "recovery_bytes": self.recovered,
            "recovery_bytes_per_second": self.recovery_rate(),
            "longest_write_gap_of_recovery_seconds": self.copy_gap.as_secs_f64(),
            "requests_failed_by_copy": self.failed_by_copy,
            "requests_failed": self.failed,
            "acked_writes": self.acked,
            "in_doubt_writes": self.in_doubt,
            "failures": &self.failures[..self.failures.len().min(FAILURES_SHOWN)],
        });
        let output = Output::new(json, text);
        match self.failures.first() {
            None => output,
            Some(first) => output.failed(CliError::Failed(format!(
                "{} promises did not hold; the first: {first}",
                self.failures.len()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::Differences;

    #[test]
    fn a_report_without_failures_ends_with_0_and_one_with_any_with_1() {
        let mut tally = Tally::new();
        tally.items = 3;
        tally.latency.record(1_000).unwrap();
        let report = || {
            let mut report = Report::new("/usr/share".to_owned());
            report.phase("load", &tally);
            report.files("verify_client", &tally, 3);
            report
        };
        let output = report().into_output();
        assert_eq!(output.error, None);
        assert_eq!(output.json["ok"], true);
        assert_eq!(output.json["phases"]["load"]["items"], 3);
        assert!(String::from_utf8(output.text).unwrap().contains("load files (put)"));

        let mut broken = report();
        let missing = Differences {
            missing: 1,
            examples: vec!["a is missing".to_owned()],
            ..Differences::default()
        };
        broken.files("verify_resp", &Tally { differences: missing, ..Tally::new() }, 3);
        let output = broken.into_output();
        assert_eq!(output.error.as_ref().map(CliError::exit_code), Some(1));
        assert_eq!(output.json["ok"], false);
        assert!(output.json["failures"][0].as_str().unwrap().contains("1 of 3"));

        let mut empty = Report::new(String::new());
        empty.files("verify_client", &Tally::new(), 0);
        assert!(empty.into_output().error.is_some(), "an empty folder shows nothing");
    }
}
