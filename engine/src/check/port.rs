//! Who listens on a port.

use std::fs;

use crate::lock::process_text;

/// The process that listens on a TCP port, where /proc tells (own processes, or all for root).
pub fn port_holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| listening_inodes(&text, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            if links.iter().any(|link| target.as_os_str() == link.as_str()) {
                return Some(process_text(pid));
            }
        }
    }
    None
}

/// Inodes of the listening sockets of a port in the text of /proc/net/tcp or tcp6.
pub(super) fn listening_inodes(text: &str, port: u16) -> Vec<String> {
    /// `TCP_LISTEN` in the kernel's table of states.
    const LISTEN: &str = "0A";
    let mut found = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(local), Some(state), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9))
        else {
            continue;
        };
        let local_port = local.rsplit(':').next().and_then(|hex| u16::from_str_radix(hex, 16).ok());
        if *state == LISTEN && local_port == Some(port) {
            found.push((*inode).to_owned());
        }
    }
    found
}
