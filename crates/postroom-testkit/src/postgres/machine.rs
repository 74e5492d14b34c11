//! Programs of the machine: where PostgreSQL's are, as whom they run, and how all of a server's processes are signalled.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use uuid::Uuid;

/// How long anything on one machine may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The account of Debian's packages. PostgreSQL and PgBouncer refuse to run as root.
const ACCOUNT: &str = "postgres";

/// Waits until something is so.
///
/// # Panics
///
/// When it is not within [`PATIENCE`].
pub async fn wait_until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A port of the loopback address that nobody uses. It lies below those that the system gives out by itself, so that a
/// server finds it free again after a restart.
pub fn free_port() -> u16 {
    (0..100)
        .map(|_| 20_000 + (Uuid::new_v4().as_u128() % 12_000) as u16)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("one of a hundred ports is free")
}

/// An address on this machine.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The folder of PostgreSQL's programs, the newest where there are several. Debian keeps them out of PATH.
#[expect(clippy::disallowed_methods, reason = "programs are looked for where the surrounding says; no setting of ours")]
pub fn postgres_folder() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| folder.join("initdb").exists())
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path =
        std::env::split_paths(&path).find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists());
    let newest = versions.pop().map(|(_, folder)| folder);
    newest
        .or(on_path)
        .expect("PostgreSQL's programs: run scripts/test, which installs them, or apt-get install postgresql")
}

/// The program `pgbouncer`; Debian puts it where only root looks.
#[expect(clippy::disallowed_methods, reason = "programs are looked for where the surrounding says; no setting of ours")]
pub fn pgbouncer() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join("pgbouncer")).find(|program| program.exists());
    found.expect("PgBouncer: run scripts/test, which installs it, or apt-get install pgbouncer")
}

/// A command in a folder and a process group of its own, as somebody who is not root, without settings for PostgreSQL's
/// clients that happen to be in the surrounding.
pub fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    if let Some((user, group)) = account() {
        command.uid(user).gid(group);
    }
    command
}

/// Gives a folder to whoever [`command`] runs as.
pub fn give_away(folder: &Path) {
    if let Some((user, group)) = account() {
        std::os::unix::fs::chown(folder, Some(user), Some(group)).expect("root may give a folder away");
    }
}

/// User and group to become; `None` unless we are root.
fn account() -> Option<(u32, u32)> {
    let id = |flag: &str| -> Option<u32> {
        let output = Command::new("id").args([flag, ACCOUNT]).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    geteuid().is_root().then(|| id("-u").zip(id("-g")).expect("the account postgres, as Debian's package makes it"))
}

/// Sends a signal to a process; one that is gone already does not mind.
pub fn signal(process: u32, signal: Signal) {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).ok();
}

/// The processes that this one started and that still run. Each session of PostgreSQL leads a process group of its own, so
/// there is no group to signal.
pub fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|process| stat(*process).is_some_and(|(state, its)| its == parent && state != 'Z')).collect()
}

/// Whether a process still does something; a dead one may stay listed until its parent has taken note.
pub fn runs(process: u32) -> bool {
    stat(process).is_some_and(|(state, _)| state != 'Z')
}

/// State and parent of a process, see proc_pid_stat(5). Its name comes before them and may have anything in it.
fn stat(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Ends every process that works in a folder, and removes the folder, when the test process has gone without doing so, be it by
/// `kill -9`: the other end of the guardian's input closes then.
#[derive(Debug)]
pub struct Guardian(Child);

impl Guardian {
    const SCRIPT: &str = r#"
        read -r nothing
        tries=0
        while [ -e "$1" ] && [ "$tries" -lt 100 ]; do
            for process in /proc/[0-9]*; do
                case $(readlink "$process/cwd") in
                    "$1" | "$1"/*) kill -KILL "${process#/proc/}" ;;
                esac
            done
            rm -rf "$1" || sleep 0.1
            tries=$((tries + 1))
        done
    "#;

    pub fn of(folder: &Path) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", Self::SCRIPT, "guardian"]).arg(folder).process_group(0);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell"))
    }
}

impl Drop for Guardian {
    /// It looks for its folder one last time.
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    #[tokio::test]
    async fn a_guardian_ends_the_server_and_its_sessions_when_the_test_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Command::new("/bin/sh");
        server.args(["-c", "sleep 1000 & echo $!; wait"]).current_dir(folder.path()).stdout(Stdio::piped());
        let mut server = server.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let session: u32 = line.trim().parse().unwrap();
        assert_eq!(children(server.id()), [session]);

        let guardian = Guardian::of(folder.path());
        assert!(runs(server.id()) && runs(session));
        // The kernel closes it like this when the process that holds it dies.
        drop(guardian);

        server.wait().unwrap();
        wait_until("the end of the session", async || (!runs(session)).then_some(())).await;
        assert!(!folder.path().exists());
    }
}
