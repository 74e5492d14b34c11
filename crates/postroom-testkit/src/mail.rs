//! A mail server of another make (`tests/sdks/smtp.py`, on the library aiosmtpd), as a process of its own.
//!
//! Tests that need it stand in a module named `sdks`, as it comes with the same libraries.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::sdks;

/// How long a mail may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server; it ends with its test.
pub struct MailServer {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    child: Child,
    told: Receiver<Value>,
}

impl MailServer {
    /// Starts one; `tests/sdks/smtp.py` says what it can be asked to be like.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(like: &Value) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sdks/smtp.py");
        let mut child = Command::new(sdks::python())
            .arg(script)
            .arg(like.to_string())
            .env_clear()
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONWARNINGS", "ignore")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the mail server of scripts/with-sdks starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if tell.send(serde_json::from_str(&line).expect("the mail server tells JSON")).is_err() {
                    return;
                }
            }
        });
        let mut server = Self { port: 0, child, told };
        server.port = u16::try_from(server.next()["port"].as_u64().expect("a port")).expect("a port");
        server
    }

    /// What it tells next: a mail that it took, with `data` as text, or that it refused one.
    ///
    /// # Panics
    /// When nothing comes.
    #[must_use]
    pub fn next(&self) -> Value {
        readable(self.told.recv_timeout(PATIENCE).expect("the mail server tells something"))
    }

    /// What it has told already and nobody has asked for.
    #[must_use]
    pub fn try_next(&self) -> Option<Value> {
        self.told.try_recv().ok().map(readable)
    }

    /// Whether it has nothing to tell so far.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.try_next().is_none()
    }
}

fn readable(mut told: Value) -> Value {
    if let Some(data) = told["data"].as_str() {
        let text = STANDARD.decode(data).expect("base64");
        told["data"] = String::from_utf8(text).expect("mails are ASCII").into();
    }
    told
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
