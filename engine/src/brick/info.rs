//! What a brick says of itself.

use std::net::SocketAddr;
use std::sync::Arc;

use firebrick_partition::log::limits as log_limits;
use firebrick_partition::maps::Routes;
use firebrick_partition::wire::{self, Known, Limits, Welcome};

use super::settings;
use crate::check::Plan;
use crate::counters::{Board, Counts};
use crate::lock::Identity;
use crate::notices::Notices;

/// What a brick is, for whoever asks it.
pub struct Info {
    /// Its name.
    pub name: String,
    /// Its cluster's id.
    pub cluster: u64,
    /// Its id in the maps.
    pub brick: u32,
    /// Differs in every process that ran as this brick.
    pub incarnation: u64,
    /// Data cores.
    pub cores: u16,
    /// The RESP port, or 0.
    pub resp_port: u16,
    /// Requests in flight on one native connection.
    pub in_flight_max: u32,
    /// The configuration as CONFIG GET shows it.
    pub settings: Vec<(String, String)>,
    /// The figures.
    pub board: Arc<Board>,
    /// Where damage is told.
    pub notices: Notices,
}

impl Info {
    pub(super) fn new(
        plan: &Plan,
        identity: &Identity,
        (cluster, brick): (u64, u32),
        resp: Option<SocketAddr>,
        board: &Arc<Board>,
        notices: Notices,
    ) -> Self {
        Self {
            name: plan.config.name.clone(),
            cluster,
            brick,
            incarnation: identity.nonce,
            cores: plan.cores.len() as u16,
            resp_port: resp.map_or(0, |a| a.port()),
            in_flight_max: plan.config.limits.in_flight_max,
            settings: settings(plan),
            board: Arc::clone(board),
            notices,
        }
    }

    /// The answer to a client's first message.
    pub fn welcome(&self, routes: &Routes, core: u16) -> Welcome<'_> {
        Welcome {
            name: &self.name,
            brick: self.brick,
            incarnation: self.incarnation,
            cores: self.cores,
            core,
            map_version: routes.version(),
            features: 0,
            limits: Limits {
                key_bytes: log_limits::KEY_BYTES_MAX as u32,
                value_bytes: log_limits::VALUE_BYTES_MAX as u32,
                in_flight: self.in_flight_max,
            },
        }
    }

    /// Appends what a client does not know of the maps yet.
    pub fn tell_map(&self, out: &mut Vec<u8>, slot: u32, routes: &Routes, known: Known) {
        // Another cluster may have had a map of any version.
        let since = if known.cluster == self.cluster { known.version } else { 0 };
        wire::map(out, slot, self.cluster, routes.changes_since(since));
    }

    /// A figure, summed over all cores.
    pub fn total(&self, figure: impl Fn(&Counts) -> u64) -> u64 {
        self.board.cores().iter().map(|core| figure(&core.read())).sum()
    }
}
