//! Values of the configuration from text. Each error is the part of a sentence that follows the value:
//! what is allowed, and what to do.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{Cores, Poll};

/// CPUs that one brick may have.
pub(super) const CORES_MAX: usize = 64;
/// Highest CPU number taken.
pub(super) const CPU_MAX: usize = 1023;

/// Bytes with a unit: `64MiB`, `1 GiB`, `500000000`, `2GB`; one letter alone is the binary unit. The one parser of sizes,
/// in files and on the command line.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let help =
        "give a whole number of bytes with a unit, like \"1GiB\" (2^30) or \"512MB\" (512,000,000)";
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| help.to_owned())?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(help.to_owned()),
    };
    number.checked_mul(unit).ok_or_else(|| help.to_owned())
}

/// Bytes for people: the largest binary unit, one decimal where it is not whole.
pub fn bytes_text(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        if bytes >> shift > 0 {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return match tenths % 10 {
                0 => format!("{} {unit}", tenths / 10),
                tenth => format!("{}.{tenth} {unit}", tenths / 10),
            };
        }
    }
    format!("{bytes} B")
}

pub(super) fn parse_cores(text: &str) -> Result<Cores, String> {
    let help = "give \"auto\" or CPU numbers like \"0\", \"0-1\" or \"0,2\"";
    if text.trim() == "auto" {
        return Ok(Cores::Auto);
    }
    let number = |part: &str| {
        part.trim().parse::<usize>().ok().filter(|&cpu| cpu <= CPU_MAX).ok_or(help.to_owned())
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(help.to_owned());
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("CPU {cpu} is named twice; name each once"));
            }
            cpus.push(cpu);
        }
    }
    if cpus.len() > CORES_MAX {
        return Err(format!("a brick takes at most {CORES_MAX} CPUs; start several bricks"));
    }
    Ok(Cores::List(cpus))
}

/// Bricks that `join` may name.
const PEERS_MAX: usize = 64;

/// `HOST:PORT`, several separated by commas, or `none`.
pub(super) fn parse_peers(text: &str) -> Result<Vec<String>, String> {
    let help = "give control ports like \"10.0.0.1:7401,10.0.0.2:7401\", or \"none\"";
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let peers: Vec<String> = text.split(',').map(|peer| peer.trim().to_owned()).collect();
    let named = |peer: &String| {
        let (host, port) = peer.rsplit_once(':')?;
        let port = port.parse::<u16>().ok().filter(|&port| port > 0)?;
        (!host.is_empty()).then_some(port)
    };
    if peers.len() > PEERS_MAX || peers.iter().any(|peer| named(peer).is_none()) {
        return Err(help.into());
    }
    Ok(peers)
}

/// The name of a host or a rack.
pub(super) fn parse_place(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
        return Err("give 1 to 64 letters, digits, '-', '_', '.' or ':'".into());
    }
    Ok(text.to_owned())
}

pub(super) fn parse_advertise(text: &str) -> Result<Option<IpAddr>, String> {
    if text.trim() == "auto" {
        return Ok(None);
    }
    let address: Option<IpAddr> = text.trim().parse().ok();
    address.filter(|address| !address.is_unspecified()).map(Some).ok_or_else(|| {
        "give the IP address under which others reach this brick, or \"auto\"".to_owned()
    })
}

pub(super) fn parse_poll(text: &str) -> Result<Poll, String> {
    match text {
        "busy" => Ok(Poll::Busy),
        "adaptive" => Ok(Poll::Adaptive),
        "park" => Ok(Poll::Park),
        _ => Err("give \"busy\", \"adaptive\" or \"park\"".into()),
    }
}

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| {
        "give an IP address and a port, like \"127.0.0.1:7400\" or \"[::]:7400\"".to_owned()
    })
}

pub(super) fn parse_address_or_off(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.trim() == "off" {
        return Ok(None);
    }
    parse_address(text).map(Some).map_err(|help| format!("{help}, or \"off\""))
}

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
        return Err("give 1 to 64 letters, digits, '-', '_' or '.'".into());
    }
    Ok(text.to_owned())
}

pub(super) fn parse_folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("give the path of a folder".into());
    }
    Ok(PathBuf::from(text))
}

pub(super) fn parse_number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = text.trim().parse::<u32>().ok().filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| format!("give a number from {least} to {most}"))
}
