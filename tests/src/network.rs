//! A network of test hosts on this machine: a network namespace each, joined by a bridge, with cuts and
//! slow links. Needs root, `ip`, `nft` and `tc`.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::machine::{is_root, run};

/// Hosts and the bridge between them; taken apart when dropped.
#[derive(Debug)]
pub struct Network {
    id: String,
    hosts: usize,
    subnet: u8,
}

/// What keeps a network from being made on this machine.
pub fn missing() -> Option<String> {
    if !is_root() {
        return Some("namespaces need root".into());
    }
    let tools = ["ip", "nft", "tc"];
    let absent: Vec<_> = tools.into_iter().filter(|tool| which(tool).is_none()).collect();
    (!absent.is_empty()).then(|| format!("{} cannot be found", absent.join(", ")))
}

fn which(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(tool)).find(|file| file.exists())
}

impl Network {
    /// As many hosts, numbered from 0.
    pub fn new(hosts: usize) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("fb{:x}{next:x}", std::process::id());
        let subnet = (std::process::id().wrapping_add(next * 37) % 250) as u8;
        let network = Self { id, hosts, subnet };
        network.make()?;
        Ok(network)
    }

    fn make(&self) -> Result<(), String> {
        let switch = self.switch();
        run("ip", &["netns", "add", &switch])?;
        self.ip(&switch, "link add name br0 type bridge")?;
        self.ip(&switch, "link set br0 up")?;
        for host in 0..self.hosts {
            let name = self.name(host);
            run("ip", &["netns", "add", &name])?;
            let port = format!("p{host}");
            self.ip(&name, &format!("link add eth0 type veth peer name {port} netns {switch}"))?;
            self.ip(&switch, &format!("link set {port} master br0 up"))?;
            self.ip(&name, &format!("addr add {}/24 dev eth0", self.address(host)))?;
            self.ip(&name, "link set eth0 up")?;
            self.ip(&name, "link set lo up")?;
            self.nft(host, "add table inet cut")?;
            for chain in ["input", "output"] {
                let hook = format!("{{ type filter hook {chain} priority 0; }}");
                self.nft(host, &format!("add chain inet cut {chain} {hook}"))?;
            }
        }
        Ok(())
    }

    fn switch(&self) -> String {
        format!("{}sw", self.id)
    }

    /// The namespace of a host.
    pub fn name(&self, host: usize) -> String {
        format!("{}h{host}", self.id)
    }

    /// The address of a host.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.subnet, host as u8 + 1)
    }

    /// A port of a host.
    pub fn at(&self, host: usize, port: u16) -> SocketAddr {
        SocketAddr::from((self.address(host), port))
    }

    fn ip(&self, namespace: &str, words: &str) -> Result<String, String> {
        let mut args = vec!["-n", namespace];
        args.extend(words.split_whitespace());
        run("ip", &args)
    }

    fn nft(&self, host: usize, rule: &str) -> Result<String, String> {
        run("ip", &["netns", "exec", &self.name(host), "nft", rule])
    }

    /// Runs a program on a host.
    pub fn command(&self, host: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host)]).arg(program);
        command
    }

    /// Moves the calling thread to a host: sockets that it makes from now on are that host's.
    pub fn enter(&self, host: usize) -> Result<(), String> {
        enter(&self.name(host))
    }

    /// Nothing that `from` sends reaches `to` any more; the other direction is as it was.
    pub fn cut(&self, from: usize, to: usize) {
        let rule = format!("add rule inet cut input ip saddr {} drop", self.address(from));
        self.nft(to, &rule).expect("a cut");
    }

    /// Both directions.
    pub fn part(&self, a: usize, b: usize) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Ends all cuts at all hosts.
    pub fn heal(&self) {
        for host in 0..self.hosts {
            self.nft(host, "flush chain inet cut input").expect("the end of cuts");
        }
    }

    /// Bounds what a host sends, in Mbit/s.
    pub fn slow(&self, host: usize, mbit: u32) {
        let rate = format!("{mbit}mbit");
        let args = format!(
            "netns exec {} tc qdisc replace dev eth0 root tbf rate {rate} burst 256kb latency 20ms",
            self.name(host)
        );
        run("ip", &args.split_whitespace().collect::<Vec<_>>()).expect("a slow link");
    }

    /// Ends [`Network::slow`].
    pub fn fast(&self, host: usize) {
        let args = format!("netns exec {} tc qdisc del dev eth0 root", self.name(host));
        let _ = run("ip", &args.split_whitespace().collect::<Vec<_>>());
    }
}

/// As [`Network::enter`], by the name of a host.
pub fn enter(name: &str) -> Result<(), String> {
    let path = format!("/run/netns/{name}");
    let file = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    // SAFETY: takes an open file descriptor and a flag; changes the calling thread only.
    if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(format!("setns to {path}: {}", std::io::Error::last_os_error()));
    }
    Ok(())
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in (0..self.hosts).map(|h| self.name(h)).chain([self.switch()]) {
            let _ = run("ip", &["netns", "del", &namespace]);
        }
    }
}
