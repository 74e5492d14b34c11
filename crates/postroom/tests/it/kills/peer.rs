//! A mail server that stops answering at one command and keeps the connection, as a machine does that hangs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::support::PATIENCE;

/// See the module. It ends with the test process.
pub struct Peer {
    port: u16,
    hangs_at: Arc<Mutex<Option<&'static str>>>,
    hung: Receiver<()>,
    mails: Receiver<String>,
}

/// What one connection works with.
#[derive(Clone)]
struct Session {
    hangs_at: Arc<Mutex<Option<&'static str>>>,
    hung: Sender<()>,
    mails: Sender<String>,
}

impl Peer {
    /// One that takes every mail, until it is told otherwise.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let ((tell, hung), (keep, mails)) = (channel(), channel());
        let session = Session { hangs_at: Arc::default(), hung: tell, mails: keep };
        let hangs_at = session.hangs_at.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let session = session.clone();
                std::thread::spawn(move || session.serve(&stream));
            }
        });
        Self { port, hangs_at, hung, mails }
    }

    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}?tls=none", self.port)
    }

    /// From now on it answers no such command: `greeting`, `EHLO`, `MAIL`, `RCPT`, `DATA`, or `.`, the end of a mail, which it
    /// then has. With none it answers all.
    pub fn hang_at(&self, command: Option<&'static str>) {
        *self.hangs_at.lock().expect("no panic") = command;
    }

    /// Waits until somebody waits for its answer.
    pub fn wait(&self) {
        self.hung.recv_timeout(PATIENCE).expect("somebody who sends a mail");
    }

    /// The next mail it has.
    pub fn next(&self) -> String {
        self.mails.recv_timeout(PATIENCE).expect("a mail")
    }
}

impl Session {
    fn serve(&self, stream: &TcpStream) {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let answer = |text: &str| (&*stream).write_all(format!("{text}\r\n").as_bytes()).is_ok();
        if self.hangs("greeting") || !answer("220 localhost") {
            // Whoever calls goes when it is killed.
            lines.for_each(drop);
            return;
        }
        while let Some(line) = lines.next() {
            let command = line.get(..4).unwrap_or_default().to_uppercase();
            let mut goes_on = !self.hangs(&command);
            if goes_on && command == "DATA" {
                goes_on = answer("354 go on");
                let mail: Vec<String> = lines.by_ref().take_while(|line| line != ".").collect();
                let _ = self.mails.send(mail.join("\r\n"));
                goes_on = goes_on && !self.hangs(".");
            }
            if !goes_on {
                lines.for_each(drop);
                return;
            }
            if !answer(if command == "QUIT" { "221 bye" } else { "250 ok" }) {
                return;
            }
        }
    }

    fn hangs(&self, command: &str) -> bool {
        let hangs = *self.hangs_at.lock().expect("no panic") == Some(command);
        if hangs {
            let _ = self.hung.send(());
        }
        hangs
    }
}
