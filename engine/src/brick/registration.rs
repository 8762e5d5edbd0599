//! What a brick says of itself when it registers with the keepers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use firebrick_partition::keeper::{LockFile, Registration};

use crate::check::Plan;
use crate::clock::boot_ns;
use crate::config::BrickConfig;
use crate::error::BrickError;
use crate::keeper::{self, KeeperSetup};
use crate::lock::{BrickLock, Identity, Memory};
use crate::notices::Notices;

/// Opens the control port and says who this brick is.
pub(super) fn keeper_setup(
    plan: &Plan,
    (lock, identity): (&BrickLock, &Identity),
    (listen, resp): (SocketAddr, Option<SocketAddr>),
    notices: Notices,
) -> Result<KeeperSetup, BrickError> {
    let config = &plan.config;
    let listener = keeper::listen(config.control)?;
    let control =
        listener.local_addr().map_err(|e| BrickError::listen("control", config.control, e))?;
    let at = |address: SocketAddr| advertised(config, address).to_string();
    let [(device, inode), _] =
        lock.lock_files().map_err(BrickError::file("look at the lock file in", &plan.data_dir))?;
    if identity.copied {
        notices.say(format!(
            "{} is a copy, as from a backup: what it has does not count, and is copied from the other bricks",
            plan.data_dir.display()
        ));
    }
    let registration = Registration {
        identity: identity.brick_id,
        name: config.name.clone(),
        incarnation: identity.nonce,
        boot: identity.boot_id.clone(),
        lock: LockFile { device, inode },
        started_ns: boot_ns(),
        memory_intact: identity.memory == Memory::Intact,
        disk_intact: identity.memory != Memory::New && !identity.copied,
        before: identity.before.clone(),
        flushed: identity.flushed,
        cores: plan.cores.len() as u16,
        memory_bytes: plan.memory_bytes,
        host: config.host.clone().unwrap_or_else(|| advertised(config, listen).ip().to_string()),
        rack: config.rack.clone().unwrap_or_default(),
        listen: at(listen),
        control: at(control),
        resp: resp.map(at).unwrap_or_default(),
        http: config.http.map(at).unwrap_or_default(),
    };
    let (data_dir, join) = (plan.data_dir.clone(), config.join.clone());
    let snapshot_entries = keeper::SNAPSHOT_ENTRIES;
    Ok(KeeperSetup { data_dir, listener, control, join, registration, snapshot_entries, notices })
}

/// Where others reach an address of this brick.
fn advertised(config: &BrickConfig, address: SocketAddr) -> SocketAddr {
    let ip = match config.advertise {
        Some(ip) => ip,
        None if address.ip().is_unspecified() => own_ip(),
        None => address.ip(),
    };
    SocketAddr::new(ip, address.port())
}

/// This host's address on the way out, as the kernel would choose it. Nothing is sent.
fn own_ip() -> IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    let found = socket.and_then(|socket| {
        // An address of documentation's: any that is not on this host does.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    found.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}
