//! The command line itself: help, exit codes, broken pipes, files of every kind, signals.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use super::support::{Engine, Receiver, Server, postroom, run, stderr, stdout, wait_until, write};

/// Every command and subcommand there is, read from the help itself.
fn all_commands() -> Vec<Vec<String>> {
    let mut found = vec![vec![]];
    let mut next = 0;
    while next < found.len() {
        let path: Vec<String> = found[next].clone();
        let help = stdout(&postroom().args(&path).arg("--help").output().unwrap());
        let list = help.split("Commands:\n").nth(1).unwrap_or_default();
        let names = list.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
            line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?.split_whitespace().next()
        });
        found.extend(names.filter(|name| *name != "help").map(|name| [path.clone(), vec![name.to_owned()]].concat()));
        next += 1;
    }
    found
}

#[test]
fn help_is_everywhere_on_standard_output_with_exit_code_0() {
    let commands = all_commands();
    assert!(commands.len() > 35, "{commands:?}");
    for command in commands {
        let output = postroom().args(&command).arg("--help").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert!(stdout(&output).contains("Usage:") && output.stderr.is_empty(), "{command:?}");
    }
}

#[test]
fn wrong_usage_exits_2_and_says_so_on_standard_error() {
    let cases: &[&[&str]] = &[
        &[],
        &["frobnicate"],
        &["serve", "--frobnicate"],
        &["send"],
        &["events"],
        &["events", "show"],
        &["send", "--type", "a", "--count", "0"],
        &["send", "--type", "a", "--rate", "5"],
        &["send", "--type", "a", "--count", "many"],
        &["bench", "--kill", "0"],
        &["bench", "--bare", "--own"],
        &["verify", "--provider", "github"],
        &["completions", "tcl"],
        &["apikey", "create", "--organization", "a"],
        &["apikey", "create", "--organization", "a", "--name", ""],
        &["admin", "create", "--email", "ada"],
        &["users", "list", "--limit", "0"],
        &["dead-letters", "requeue"],
    ];
    for arguments in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
    let not_text = postroom().arg(OsString::from_vec(vec![0xff, 0xfe])).output().unwrap();
    assert_eq!(not_text.status.code(), Some(2));
}

#[test]
fn a_failure_is_one_plain_sentence_and_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Case<'_>] = &[
        (&["events", "list"], &[], "no API key: set POSTROOM_API_KEY"),
        (&["events", "list"], &[("POSTROOM_API_KEY", "prk_x"), ("POSTROOM_URL", &url)], "no server answers at"),
        (
            &["events", "list"],
            &[("POSTROOM_API_KEY", "prk_x"), ("POSTROOM_URL", "localhost")],
            "is not a server's address",
        ),
        (
            &["events", "list"],
            &[("POSTROOM_API_KEY", "a\nb"), ("POSTROOM_URL", &url)],
            "characters that no API key has",
        ),
        (&["tail"], &[("POSTROOM_API_KEY", "prk_x"), ("POSTROOM_URL", &url)], "no server answers at"),
        (&["events", "list"], &[("POSTROOM_API_KEY_FILE", "/nonexistent")], "cannot be read"),
    ];
    for (arguments, environment, expected) in cases {
        let output =
            postroom().args(*arguments).envs(environment.iter().copied()).current_dir(dir.path()).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        assert!(output.stdout.is_empty());
    }
}

pub fn a_reader_that_goes_away_is_no_panic(engine: Engine) {
    let server = Server::start(engine);
    let tenant = server.tenant("Acme", None);
    let loud: &[&[&str]] = &[
        &["--help"],
        &["completions", "bash"],
        &["config", "show"],
        &["events", "list", "--json"],
        &["sources", "providers"],
    ];
    for arguments in loud {
        let mut child = server
            .command(arguments)
            .env("POSTROOM_API_KEY", &tenant.key)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(!stderr(&output).contains("panicked"), "{arguments:?}: {}", stderr(&output));
        assert!(output.status.code().is_some_and(|code| code <= 1), "{arguments:?}: {:?}", output.status);
    }
}

pub fn data_comes_from_files_pipes_and_arguments_and_everything_else_is_refused(engine: Engine) {
    let receiver = Receiver::answering(&[200]);
    let server = Server::start(engine);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    let dir = tempfile::tempdir().unwrap();
    let good = write(dir.path(), "good.json", "{\"a\": [1, 2]}\n");
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let writer = {
        let fifo = fifo.clone();
        std::thread::spawn(move || std::fs::write(fifo, "{\"from\": \"a pipe\"}"))
    };
    let send = |data: &str, input: &[u8]| {
        let mut child = server
            .command(&["send", "--type", "a.b", "--data", data])
            .env("POSTROOM_API_KEY", &tenant.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    };
    for (data, input) in [
        (good.to_str().unwrap(), &b""[..]),
        ("{\"inline\": true}", b""),
        ("-", b"[1,2,3]"),
        (fifo.to_str().unwrap(), b""),
    ] {
        let output = send(data, input);
        assert_eq!(output.status.code(), Some(0), "{data}: {}", stderr(&output));
    }
    writer.join().unwrap().unwrap();
    let received: Vec<String> = (0..4).map(|_| String::from_utf8(receiver.next().body).unwrap()).collect();
    assert!(received.iter().any(|body| body.contains("\"data\":{\"a\": [1, 2]}")), "bytes as they were: {received:?}");

    let binary = write(dir.path(), "binary", [0xff, 0x00]);
    let broken = write(dir.path(), "broken.json", "{\"a\": ");
    let endless = std::path::Path::new("/dev/zero");
    for (data, input, expected) in [
        ("/nonexistent", &b""[..], "cannot be read"),
        (dir.path().to_str().unwrap(), b"", "is a directory"),
        (binary.to_str().unwrap(), b"", "not UTF-8"),
        (broken.to_str().unwrap(), b"", "is not JSON"),
        (endless.to_str().unwrap(), b"", "larger than 64 MiB"),
        ("-", b"", "standard input is not JSON"),
        ("{oops}", b"", "--data is not JSON"),
    ] {
        let output = send(data, input);
        assert_eq!(output.status.code(), Some(1), "{data}");
        assert!(stderr(&output).contains(expected), "{data}: {}", stderr(&output));
    }
}

pub fn tail_follows_live_and_ends_with_ctrl_c(engine: Engine) {
    let receiver = Receiver::answering(&[200]);
    let server = Server::start(engine);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    let mut tail = server
        .command(&["tail", "--json"])
        .env("POSTROOM_API_KEY", &tenant.key)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    // What happened before it listened is not told, so events are sent until one is seen.
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let sending = {
        let (url, key) = (server.url.clone(), tenant.key.clone());
        std::thread::spawn(move || {
            while stopped.recv_timeout(std::time::Duration::from_millis(100)).is_err() {
                super::support::post(
                    &format!("{url}/v1/events"),
                    &key,
                    &serde_json::json!({ "type": "order.paid", "data": 1 }),
                );
            }
        })
    };
    let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    stop.send(()).unwrap();
    sending.join().unwrap();
    assert!(line.to_string().contains("order.paid"), "{line}");
    assert!(Command::new("kill").args(["-INT", &tail.id().to_string()]).status().unwrap().success());
    let status = wait_until("the end of tail", || tail.try_wait().unwrap());
    assert!(status.signal() == Some(2) || status.code().is_some(), "{status:?}");
}

#[test]
fn output_for_pipes_and_plain_terminals_has_no_colours() {
    let odd = [("TERM", "dumb"), ("NO_COLOR", "1"), ("LANG", "C"), ("COLUMNS", "20")];
    let output = postroom().args(["config", "show"]).env_remove("HOME").envs(odd).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!output.stdout.contains(&0x1b));
    assert!(!run(&["frobnicate"]).stderr.contains(&0x1b));
}

pub fn many_events_are_sent_at_a_rate_and_added_up(engine: Engine) {
    let receiver = Receiver::answering(&[200]);
    let server = Server::start(engine);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    let arguments = ["send", "--type", "load.test", "--count", "50", "--rate", "500", "--json"];
    let output = server.command(&arguments).env("POSTROOM_API_KEY", &tenant.key).output().unwrap();
    let sum: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&sum["accepted"], &sum["deliveries"]), (&50.into(), &50.into()), "{sum}");
}

pub fn sample_webhooks_are_sent_signed_and_a_wrong_secret_is_told(engine: Engine) {
    let receiver = Receiver::answering(&[200]);
    let server = Server::start(engine);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    tenant.source("stripe", "whsec_right");
    let url = format!("{}/in/acme/stripe", server.url);
    let right = write(server.dir(), "right", "whsec_right\n");
    let wrong = write(server.dir(), "wrong", "whsec_wrong\n");
    let send = |file: &std::path::Path, more: &[&str]| {
        let arguments = ["send", "--provider", "stripe", "--to", &url, "--secret-file", file.to_str().unwrap()];
        server.command(&arguments).args(more).output().unwrap()
    };
    let output = send(&right, &["--count", "5", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["accepted"], 5);
    let ids: std::collections::HashSet<String> =
        (0..5).map(|_| receiver.next().header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 5, "each is another event");
    let output = send(&wrong, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("signature_invalid"), "{}", stderr(&output));
}
