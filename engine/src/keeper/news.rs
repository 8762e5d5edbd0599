//! What the data cores have to tell the keepers, until a heartbeat takes it along.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use firebrick_partition::keeper::{CopyFigure, Figure, PARTITIONS_MAX, Report};
use tokio::sync::Notify;

use super::node::lock;

/// A report goes along with heartbeats for so long after it was said last: one of them may be lost.
const REPORT_AGE_MAX: Duration = Duration::from_secs(1);
/// The same of a complaint, which ends by not being said again. (Replicas repeat theirs each 100 ms.)
const SILENT_AGE_MAX: Duration = Duration::from_millis(200);
/// Reports that are kept; replicas repeat those that found no room.
const REPORTS_MAX: usize = 4 * PARTITIONS_MAX;
/// Figures of one heartbeat.
const FIGURES_MAX: usize = 512;

/// See the module's text.
#[derive(Default)]
pub(crate) struct News {
    heard: Mutex<Heard>,
    /// Something is worth a heartbeat before its time.
    pub(crate) urgent: Notify,
}

#[derive(Default)]
struct Heard {
    reports: BTreeMap<Report, Instant>,
    figures: BTreeMap<u32, Figure>,
    unreachable: BTreeMap<u16, Vec<u32>>,
    copies: BTreeMap<u16, Vec<CopyFigure>>,
}

fn is_said(report: &Report, said: &mut Instant) -> bool {
    let most = match report {
        Report::Silent { .. } => SILENT_AGE_MAX,
        _ => REPORT_AGE_MAX,
    };
    said.elapsed() < most
}

/// What goes along.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) reports: Vec<Report>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) unreachable: Vec<u32>,
    pub(crate) copies: Vec<CopyFigure>,
}

impl News {
    /// A replica says something. One that is new does not wait for the next heartbeat's time.
    pub(crate) fn report(&self, report: Report) {
        let mut heard = lock(&self.heard);
        if heard.reports.len() >= REPORTS_MAX {
            heard.reports.retain(is_said);
        }
        if heard.reports.len() < REPORTS_MAX
            && heard.reports.insert(report, Instant::now()).is_none()
        {
            self.urgent.notify_one();
        }
    }

    /// Replicas in figures.
    pub(crate) fn figures(&self, figures: Vec<Figure>) {
        let mut heard = lock(&self.heard);
        for figure in figures {
            if heard.figures.len() < PARTITIONS_MAX || heard.figures.contains_key(&figure.partition)
            {
                heard.figures.insert(figure.partition, figure);
            }
        }
    }

    /// All bricks that a core cannot reach now.
    pub(crate) fn unreachable(&self, core: u16, bricks: Vec<u32>) {
        lock(&self.heard).unreachable.insert(core, bricks);
    }

    /// How far all copies to replicas of a core are.
    pub(crate) fn copies(&self, core: u16, copies: Vec<CopyFigure>) {
        lock(&self.heard).copies.insert(core, copies);
    }

    /// For a heartbeat.
    pub(crate) fn take(&self) -> Taken {
        let mut heard = lock(&self.heard);
        heard.reports.retain(is_said);
        let reports = heard.reports.keys().copied().collect();
        let first: Vec<u32> = heard.figures.keys().copied().take(FIGURES_MAX).collect();
        let figures = first.iter().filter_map(|id| heard.figures.remove(id)).collect();
        let all: BTreeSet<u32> = heard.unreachable.values().flatten().copied().collect();
        let copies = heard.copies.values().flatten().copied().collect();
        Taken { reports, figures, unreachable: all.into_iter().collect(), copies }
    }
}
