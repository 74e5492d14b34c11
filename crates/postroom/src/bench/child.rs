//! A process under test: the same program again, as a server or as the bare gateway.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::config::Flags;

/// How long a server may take to be ready, recovery included.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running process, killed when this is dropped.
pub struct Process {
    child: Child,
    pid: u32,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Process {
    /// Starts this very program with other arguments, and waits for the line that says where it listens.
    pub async fn start(arguments: &[String], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's own file is not to be found")?;
        let mut child = Command::new(program)
            .args(arguments)
            // Of a token that is given directly and as a file the server would not know which to take.
            .env_remove("POSTROOM_ADMIN_TOKEN_FILE")
            .envs(environment.iter().copied())
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the process under test cannot be started")?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                let said: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(url) = said["url"].as_str() {
                    return url.trim_start_matches("http://").trim_end_matches('/').parse().context("an address");
                }
            }
            anyhow::bail!("the process under test ended before it was ready: see what it said above")
        };
        let address = tokio::time::timeout(READY_TIMEOUT, ready)
            .await
            .context("the process under test was not ready within 60 seconds")??;
        let pid = child.id().context("it runs")?;
        Ok(Self { child, pid, address })
    }

    /// A server with the settings in force, but all roles, a free port, the receiver allowed, and on the embedded engine
    /// a directory of its own.
    pub async fn server(
        flags: &Flags,
        data_dir: Option<&Path>,
        admin_token: &str,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let mut environment = vec![
            ("POSTROOM_LISTEN", "127.0.0.1:0"),
            ("POSTROOM_ROLES", "all"),
            ("POSTROOM_ADMIN_TOKEN", admin_token),
            ("POSTROOM_ALLOW_PRIVATE_NETWORKS", "127.0.0.0/8"),
        ];
        if let Some(data_dir) = data_dir {
            environment.push(("POSTROOM_DATA_DIR", data_dir.to_str().context("the data directory's name is UTF-8")?));
        }
        environment.extend_from_slice(more);
        let decided = ["listen", "data_dir", "roles", "allow_private_networks"];
        let arguments: Vec<String> = ["serve".to_owned()].into_iter().chain(flags.to_arguments(&decided)).collect();
        Self::start(&arguments, &environment).await
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// SIGSTOP, and SIGCONT after this time: as a machine that is frozen for a while.
    pub async fn pause(&self, time: Duration) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("it runs")?;
        kill_process(pid, Signal::STOP)?;
        tokio::time::sleep(time).await;
        Ok(kill_process(pid, Signal::CONT)?)
    }

    /// CPU time of all its threads so far, in seconds.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let ticks = stat(self.pid).and_then(|fields| cpu_ticks(&fields));
        Ok(seconds(ticks.context("/proc says how long the process under test has run")?))
    }

    /// The most memory it had, in MiB.
    pub fn memory_mib(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
    }
}

/// The fields of `/proc/PID/stat` behind the name, which may hold spaces: its first is the state, its second the parent.
pub fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// User and system time in these fields, in ticks of the clock.
pub fn cpu_ticks(fields: &[String]) -> Option<u64> {
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Ticks of the clock in seconds.
pub fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}
