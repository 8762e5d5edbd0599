//! What the data cores have to tell the keepers, until a heartbeat takes it along.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use firebrick_partition::keeper::{CopyFigure, Figure, PARTITIONS_MAX, Report};
use tokio::sync::Notify;

use super::node::lock;
use crate::clock::boot_ns;

/// A report goes along with heartbeats for so long after it was said last: one of them may be lost.
const REPORT_NS_MAX: u64 = 1_000_000_000;
/// The same of a complaint, which ends by not being said again. (Replicas repeat theirs each 100 ms.)
const SILENT_NS_MAX: u64 = 200_000_000;
/// Reports that are kept; replicas repeat those that found no room.
const REPORTS_MAX: usize = 4 * PARTITIONS_MAX;
/// Figures of one heartbeat.
const FIGURES_MAX: usize = 512;

/// What was heard: no clock, no lock.
#[derive(Debug, Default)]
pub struct Heard {
    /// When each was said last.
    reports: BTreeMap<Report, u64>,
    figures: BTreeMap<u32, Figure>,
    unreachable: BTreeMap<u16, Vec<u32>>,
    copies: BTreeMap<u16, Vec<CopyFigure>>,
}

fn is_said(now_ns: u64, report: &Report, said_ns: u64) -> bool {
    let most = match report {
        Report::Silent { .. } => SILENT_NS_MAX,
        _ => REPORT_NS_MAX,
    };
    now_ns < said_ns + most
}

/// What goes along.
#[derive(Debug, Default)]
pub struct Taken {
    /// What replicas have to say.
    pub reports: Vec<Report>,
    /// Figures of replicas that were not told yet.
    pub figures: Vec<Figure>,
    /// Bricks that some core cannot reach.
    pub unreachable: Vec<u32>,
    /// All copies to this brick.
    pub copies: Vec<CopyFigure>,
}

impl Heard {
    /// A replica says something. `true`: it is new.
    pub fn report(&mut self, now_ns: u64, report: Report) -> bool {
        if self.reports.len() >= REPORTS_MAX {
            self.reports.retain(|report, said_ns| is_said(now_ns, report, *said_ns));
        }
        self.reports.len() < REPORTS_MAX && self.reports.insert(report, now_ns).is_none()
    }

    /// Replicas in figures.
    pub fn figures(&mut self, figures: Vec<Figure>) {
        for figure in figures {
            if self.figures.len() < PARTITIONS_MAX || self.figures.contains_key(&figure.partition) {
                self.figures.insert(figure.partition, figure);
            }
        }
    }

    /// All bricks that a core cannot reach now.
    pub fn unreachable(&mut self, core: u16, bricks: Vec<u32>) {
        self.unreachable.insert(core, bricks);
    }

    /// How far all copies to replicas of a core are.
    pub fn copies(&mut self, core: u16, copies: Vec<CopyFigure>) {
        self.copies.insert(core, copies);
    }

    /// For a heartbeat.
    pub fn take(&mut self, now_ns: u64) -> Taken {
        self.reports.retain(|report, said_ns| is_said(now_ns, report, *said_ns));
        let reports = self.reports.keys().copied().collect();
        let first: Vec<u32> = self.figures.keys().copied().take(FIGURES_MAX).collect();
        let figures = first.iter().filter_map(|id| self.figures.remove(id)).collect();
        let all: BTreeSet<u32> = self.unreachable.values().flatten().copied().collect();
        let copies = self.copies.values().flatten().copied().collect();
        Taken { reports, figures, unreachable: all.into_iter().collect(), copies }
    }
}

/// What was heard, for the tasks of the control thread.
#[derive(Default)]
pub(crate) struct News {
    heard: Mutex<Heard>,
    /// Something is worth a heartbeat before its time.
    pub(crate) urgent: Notify,
}

impl News {
    /// A replica says something. One that is new does not wait for the next heartbeat's time.
    pub(crate) fn report(&self, report: Report) {
        if lock(&self.heard).report(boot_ns(), report) {
            self.urgent.notify_one();
        }
    }

    /// The rest of what cores tell.
    pub(crate) fn hear(&self, hear: impl FnOnce(&mut Heard)) {
        hear(&mut lock(&self.heard));
    }

    /// For a heartbeat.
    pub(crate) fn take(&self) -> Taken {
        lock(&self.heard).take(boot_ns())
    }
}
