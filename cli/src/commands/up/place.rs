//! Where one brick of `up` lives and listens.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use super::UpArgs;
use crate::child::{BrickProcess, Orphan};
use crate::commands::brick::BrickArgs;
use crate::error::{CliError, plain};

/// Between the ports of two bricks.
const PORTS_APART: u16 = 10;

/// Bricks that hold each partition, when there are as many.
const REPLICAS: u32 = 3;

/// See the module's text.
#[derive(Clone)]
pub struct Place {
    dir: PathBuf,
    /// Its flags.
    pub brick: BrickArgs,
    listen: SocketAddr,
    control: SocketAddr,
    resp: SocketAddr,
    http: SocketAddr,
}

impl Place {
    /// That of the brick with this number, from 0; makes its folder.
    pub fn new(args: &UpArgs, root: &Path, number: u32) -> Result<Self, CliError> {
        let name = name(number);
        let dir = root.join(&name);
        std::fs::create_dir_all(&dir).map_err(|e| {
            CliError::Failed(format!(
                "cannot make the folder {}: {}; give another with --dir",
                dir.display(),
                plain(&e)
            ))
        })?;
        let ports = |number: u32| {
            let at = |flag: &str, first: u16| {
                let port = first.checked_add(PORTS_APART * number as u16).ok_or_else(|| {
                    CliError::Usage(format!(
                        "{flag} {first} leaves no port for {} bricks, each {PORTS_APART} higher: give a lower one",
                        args.bricks
                    ))
                })?;
                Ok::<_, CliError>(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            };
            Ok::<_, CliError>([
                at("--port", args.port)?,
                at("--control-port", args.control_port)?,
                at("--resp-port", args.resp_port)?,
                at("--http-port", args.http_port)?,
            ])
        };
        let [listen, control, resp, http] = ports(number)?;
        // The first one makes the cluster; each of the others asks whoever is there already.
        let mut join = Vec::new();
        for other in (0..args.bricks).filter(|&other| number > 0 && other != number) {
            join.push(ports(other)?[1].to_string());
        }
        let mut tuning = args.tuning.clone();
        if args.bricks > 1 && tuning.durability.as_deref() == Some("sync") {
            // The first brick makes the table `default`, and there is to be something for each.
            tuning.partitions.get_or_insert_with(|| args.bricks.to_string());
        }
        let brick = BrickArgs {
            name: Some(name.clone()),
            listen: Some(listen.to_string()),
            control: Some(control.to_string()),
            resp: Some(resp.to_string()),
            http: Some(http.to_string()),
            join: (!join.is_empty()).then(|| join.join(",")),
            replicas: (args.bricks > 1).then(|| args.bricks.min(REPLICAS).to_string()),
            // All on one machine; still each replica is to be on a brick of its own.
            host: Some(name.clone()),
            data_dir: Some(dir.clone()),
            memory_dir: args.memory_dir.as_ref().map(|memory| memory.join(&name)),
            tuning,
            ..BrickArgs::default()
        };
        Ok(Self { dir, brick, listen, control, resp, http })
    }

    /// The brick's name.
    pub fn name(&self) -> &str {
        self.brick.name.as_deref().unwrap_or("brick")
    }

    /// Starts it.
    pub fn start(&self) -> Result<BrickProcess, CliError> {
        BrickProcess::start(&self.brick.to_args(), self.http, Stdio::inherit(), Orphan::Stop)
    }

    /// For programs.
    pub fn to_json(&self, pid: Option<u32>) -> Value {
        let Self { dir, listen, control, resp, http, .. } = self;
        json!({
            "name": self.brick.name, "listen": listen, "control": control, "resp": resp,
            "http": http, "dir": dir.display().to_string(), "pid": pid,
        })
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let Self { dir, listen, resp, http, .. } = self;
        format!(
            "{} is ready\n\
             \x20 native  {listen}   firebrick status --connect {listen}\n\
             \x20 RESP    {resp}   redis-cli -p {}\n\
             \x20 HTTP    {http}   curl http://{http}/metrics\n\
             \x20 data    {}\n",
            self.name(),
            resp.port(),
            dir.display()
        )
    }
}

fn name(number: u32) -> String {
    format!("brick-{}", number + 1)
}

/// What to say when there are bricks of an earlier `up` that this one does not start: the others may need them.
pub fn left_out(root: &Path, bricks: u32, most: u32) -> Option<String> {
    let is_there = |number: &u32| root.join(name(*number)).join("keeper").exists();
    let last = (bricks..most).rev().find(is_there)?;
    Some(format!(
        "warning: {} has the folder of {} too, which is not started: bricks of one cluster wait for each other, so give \
         --bricks {} or another --dir, or delete that folder if the brick was removed",
        root.display(),
        name(last),
        last + 1
    ))
}

/// `$XDG_DATA_HOME/firebrick`, else `~/.local/share/firebrick`.
pub fn default_dir() -> Result<PathBuf, CliError> {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("XDG_DATA_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("firebrick"))
        .ok_or_else(|| {
            CliError::Usage("HOME is not set: say where the data is to live with --dir".to_owned())
        })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn bricks_of_an_earlier_up_that_are_left_out_are_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("brick-1/keeper")).unwrap();
        assert_eq!(left_out(dir.path(), 1, 16), None);
        // A start that was refused leaves an empty folder.
        std::fs::create_dir_all(dir.path().join("brick-4")).unwrap();
        assert_eq!(left_out(dir.path(), 1, 16), None);
        std::fs::create_dir_all(dir.path().join("brick-3/keeper")).unwrap();
        let told = left_out(dir.path(), 1, 16).expect("a warning");
        assert!(told.contains("brick-3") && told.contains("--bricks 3"), "{told}");
        assert_eq!(left_out(dir.path(), 3, 16), None);
    }

    #[test]
    fn what_up_says_can_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let Command::Up(args) = Cli::parse_from(["firebrick", "up"]).command else { panic!() };
        let text = Place::new(&args, dir.path(), 0).unwrap().to_text();
        let at = text.find("firebrick status").expect("a command");
        let line = text[at..].lines().next().unwrap();
        let Command::Status(_) = Cli::parse_from(line.split(' ')).command else { panic!("{line}") };
    }
}
