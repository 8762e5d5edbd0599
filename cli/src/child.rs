//! A brick in a process of its own: started, waited for, killed, and never left behind.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::error::CliError;
use crate::http;

/// How often readiness is asked for.
const READY_EVERY: Duration = Duration::from_millis(10);

/// A brick's process. Dropped, it is killed and gone before the drop returns, so that its folders can
/// be removed after it.
pub struct BrickProcess {
    child: Child,
    /// Where its HTTP is.
    http: SocketAddr,
}

/// How a process of ours dies with us.
#[derive(Clone, Copy, Debug)]
pub enum Orphan {
    /// It is to stop cleanly.
    Stop,
    /// It is of no use any more.
    Kill,
}

impl BrickProcess {
    /// Starts this executable as a brick. What it says goes to `log`.
    pub fn start(
        args: &[OsString],
        http: SocketAddr,
        log: Stdio,
        orphan: Orphan,
    ) -> Result<Self, CliError> {
        let program = std::env::current_exe()
            .map_err(|e| CliError::io("cannot find this program's own file", &e))?;
        let mut command = Command::new(program);
        command.arg("brick").args(args);
        // Its own process group: a Ctrl-C in the terminal is ours to pass on.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        command.kill_on_drop(true);
        die_with_parent(&mut command, orphan);
        let child = command.spawn().map_err(|e| CliError::io("cannot start a brick", &e))?;
        Ok(Self { child, http })
    }

    /// Its process id; `None` once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it answers that it serves.
    pub async fn ready(&mut self, timeout: Duration) -> Result<(), CliError> {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait().map_err(|e| CliError::io("cannot wait", &e))?;
            if let Some(status) = ended {
                return Err(CliError::Failed(format!(
                    "the brick ended ({}) before it was ready",
                    describe(status)
                )));
            }
            // Another brick on the same port answers for itself.
            if let Ok((200, _)) = http::get(self.http, "/readyz").await
                && self.is_it().await
            {
                return Ok(());
            }
            if start.elapsed() > timeout {
                return Err(CliError::Unavailable(format!(
                    "the brick was not ready after {} s; http://{}/readyz says what it waits for",
                    timeout.as_secs(),
                    self.http
                )));
            }
            tokio::time::sleep(READY_EVERY).await;
        }
    }

    /// The process behind the port is this one.
    async fn is_it(&self) -> bool {
        let Ok((200, body)) = http::get(self.http, "/status").await else { return false };
        let status: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        self.id().is_some_and(|id| status["pid"] == id)
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> Result<ExitStatus, CliError> {
        self.child.wait().await.map_err(|e| CliError::io("cannot wait for the brick", &e))
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) -> Result<(), CliError> {
        self.child.kill().await.map_err(|e| CliError::io("cannot kill the brick", &e))
    }

    /// SIGTERM; SIGKILL when it has not ended after `patience`. Says whether it ended by itself.
    pub async fn stop(&mut self, patience: Duration) -> Result<bool, CliError> {
        if let Some(id) = self.child.id() {
            // SAFETY: kill takes no pointers. The id is our child's: it has not been waited for, so
            // the kernel has not given the number to another process.
            unsafe { libc::kill(id as libc::pid_t, libc::SIGTERM) };
        }
        if let Ok(status) = tokio::time::timeout(patience, self.child.wait()).await {
            let status = status.map_err(|e| CliError::io("cannot wait for the brick", &e))?;
            // One that the signal ended as it ends any program had not begun: before it serves it catches it.
            return Ok(status.success() || status.signal() == Some(libc::SIGTERM));
        }
        self.kill().await?;
        Ok(false)
    }
}

impl Drop for BrickProcess {
    fn drop(&mut self) {
        // A kill that fails is one of a process that has ended.
        let _ = self.child.start_kill();
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(5)
        {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Asks the kernel to signal the child when this process ends, however it ends.
fn die_with_parent(command: &mut Command, orphan: Orphan) {
    let signal = match orphan {
        Orphan::Stop => libc::SIGTERM,
        Orphan::Kill => libc::SIGKILL,
    };
    let parent = std::process::id();
    let ask = move || {
        // SAFETY: between fork and exec only async-signal-safe calls are made; prctl and getppid are
        // plain system calls, and nothing here allocates or takes a lock.
        let (set, now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, signal), libc::getppid()) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the request was made.
        if now as u32 != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: `ask` is async-signal-safe, as said above; it captures two integers by copy.
    unsafe { command.pre_exec(ask) };
}

/// `exit code 1`, `signal 9`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "for an unknown reason".to_owned(),
    }
}

/// Below the ports that Linux gives to outgoing connections: a client that tries to reach a brick which
/// is just being started again could else be given the brick's own port, and take it.
const PORTS: std::ops::Range<u16> = 16_000..32_000;

/// Ports of this machine that nobody uses now.
pub fn free_ports<const N: usize>() -> Result<[SocketAddr; N], CliError> {
    use std::hash::{BuildHasher as _, RandomState};
    // Anywhere in the range, so that two who look at once rarely find the same.
    let first = RandomState::new().hash_one(std::process::id()) % PORTS.len() as u64;
    let mut ports = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    let candidates = PORTS.cycle().skip(first as usize).take(PORTS.len());
    // Held until all are found, so that no two are the same.
    let mut held = Vec::with_capacity(N);
    for port in candidates {
        if held.len() == N {
            break;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let Ok(listener) = TcpListener::bind(address) {
            ports[held.len()] = address;
            held.push(listener);
        }
    }
    if held.len() < N {
        return Err(CliError::Failed(format!(
            "there are not {N} free ports from {} to {}: end what uses them",
            PORTS.start, PORTS.end
        )));
    }
    Ok(ports)
}

/// Resolves at the first Ctrl-C or SIGTERM.
pub async fn interrupted() -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: io::Error| CliError::io("cannot listen to signals", &e);
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_free_different_and_out_of_the_way() {
        let ports: [SocketAddr; 8] = free_ports().unwrap();
        for (at, port) in ports.iter().enumerate() {
            assert!(!ports[..at].contains(port), "{ports:?}");
            assert!(PORTS.contains(&port.port()), "{port}");
        }
    }
}
