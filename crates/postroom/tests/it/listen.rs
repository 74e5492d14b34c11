//! Forwarding to a program on this computer, playing providers, and mending rejected requests, all by command.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use http::{HeaderMap, HeaderName, HeaderValue};
use postroom_domain::verify::{Outcome, Request, Verifier};
use postroom_domain::{Secret, Timestamp, provider};
use serde_json::{Map, Value, json};

use super::support::{Engine, PATIENCE, Receiver, Server, Tenant, postroom, request, stderr, stdout, write};

const SECRET: &str = "whsec_text";

/// `postroom listen --json` under way, killed at the end of the test.
struct Listening {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

impl Listening {
    fn begin(server: &Server, tenant: &Tenant, to: &str, more: &[&str]) -> Self {
        let arguments = [&["listen", "stripe", "--forward-to", to, "--json"], more].concat();
        let mut child = server
            .command(&arguments)
            .env("POSTROOM_API_KEY", &tenant.key)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (tell, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> Value {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends so many samples of Stripe to the source; returns nothing: their ids come with the lines of listen.
fn send(server: &Server, tenant: &Tenant, count: &str) {
    let arguments = ["send", "--provider", "stripe", "--source", "stripe", "--secret", SECRET, "--count", count];
    let output = server.command(&arguments).env("POSTROOM_API_KEY", &tenant.key).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

fn newest(tenant: &Tenant, count: usize) -> Vec<String> {
    let page = tenant.get(&format!("/v1/events?limit={count}"));
    page["data"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

pub fn listen_hands_over_what_arrived_so_that_it_verifies_there_and_replays_the_last(engine: Engine) {
    let program = Receiver::answering(&[200]);
    let server = Server::start(engine);
    let tenant = server.tenant("Acme", None);
    tenant.source("stripe", SECRET);
    send(&server, &tenant, "3");
    let expected = newest(&tenant, 2);
    let listening = Listening::begin(&server, &tenant, &program.url(), &["--last", "2"]);
    for id in expected.iter().rev() {
        let line = listening.next();
        assert_eq!((&line["event_id"], &line["status"]), (&json!(id), &json!(200)), "{line}");
        program.next();
    }
    send(&server, &tenant, "1");
    let line = listening.next();
    assert_eq!(line["event_id"], json!(newest(&tenant, 1)[0]));

    let arrived = program.next();
    let mut headers = HeaderMap::new();
    for name in ["stripe-signature", "content-type"] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(arrived.header(name)).unwrap());
    }
    let now: Timestamp = line["created_at"].as_str().unwrap().parse().unwrap();
    let verifier = Verifier::compile("stripe", &Map::new(), &[Secret::from(SECRET)]).unwrap();
    let whole = Request { method: "POST", url: "http://x/", headers: &headers, body: &arrived.body };
    assert!(matches!(verifier.verify(&whole, now), Outcome::Verified(_)), "{}", arrived.head);
    assert!(program.is_quiet(), "nothing is handed over twice");
}

pub fn listen_survives_restarts_of_the_server_without_a_gap_and_without_doubles(engine: Engine) {
    let program = Receiver::answering(&[200]);
    let mut server = Server::start(engine);
    let tenant = server.tenant("Acme", None);
    tenant.source("stripe", SECRET);
    send(&server, &tenant, "1");
    let listening = Listening::begin(&server, &tenant, &program.url(), &["--last", "1"]);
    let mut seen = HashSet::from([listening.next()["event_id"].clone()]);
    // The first time there is nothing to resume after, the second time there is.
    for _ in 0..2 {
        let address = server.url.trim_start_matches("http://").to_owned();
        server.kill();
        server.restart(&[("POSTROOM_LISTEN", &address)]);
        // Accepted before listen is back: it tries again after a pause only.
        send(&server, &tenant, "5");
        for _ in 0..5 {
            let line = listening.next();
            assert_eq!(line["status"], 200, "{line}");
            assert!(seen.insert(line["event_id"].clone()), "{line} came twice");
        }
    }
    let all: HashSet<Value> = newest(&tenant, 50).into_iter().map(Value::from).collect();
    assert_eq!(seen, all);
}

pub fn listen_says_what_does_not_work_and_goes_on(engine: Engine) {
    let server = Server::start(engine);
    let tenant = server.tenant("Acme", None);
    let listen = |source: &str, to: &str| {
        let arguments = ["listen", source, "--forward-to", to];
        server.command(&arguments).env("POSTROOM_API_KEY", &tenant.key).output().unwrap()
    };
    let output = listen("stripe", "3000");
    assert!(
        stderr(&output).contains("there are none yet, make one with `postroom sources create`"),
        "{}",
        stderr(&output)
    );
    tenant.source("stripe", SECRET);
    let output = listen("strype", "3000");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there is no source \"strype\"; there are stripe"), "{}", stderr(&output));
    let output = listen("stripe", "ftp://x");
    assert!(stderr(&output).contains("is not an address such as http://localhost:3000/webhook"), "{}", stderr(&output));

    send(&server, &tenant, "2");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listening = Listening::begin(&server, &tenant, &closed.to_string(), &["--last", "2"]);
    for _ in 0..2 {
        let line = listening.next();
        assert_eq!(line["status"], Value::Null);
        assert!(line["error"].as_str().unwrap().contains("is the program running?"), "{line}");
    }
    let elsewhere = Receiver::answering(&[302]);
    let listening = Listening::begin(&server, &tenant, &elsewhere.url(), &["--last", "1"]);
    assert_eq!(listening.next()["status"], 302, "a redirect is told and not followed");
}

pub fn rejected_requests_are_explained_and_verified_again_by_command(engine: Engine) {
    let server = Server::start(engine);
    let tenant = server.tenant("Acme", None);
    tenant.source("stripe", "whsec_of_test_mode");
    let run = |arguments: &[&str]| server.command(arguments).env("POSTROOM_API_KEY", &tenant.key).output().unwrap();
    for _ in 0..2 {
        let output = run(&["send", "--provider", "stripe", "--source", "stripe", "--secret", SECRET]);
        assert!(stderr(&output).contains("signature_invalid"), "{}", stderr(&output));
    }
    let id = tenant.get("/v1/rejections")["data"][0]["id"].as_str().unwrap().to_owned();
    let shown = stdout(&run(&["rejections", "show", &id]));
    assert!(shown.contains("likely cause: the secret is another one: of another endpoint, of test mode"), "{shown}");
    assert!(!shown.contains(SECRET) && !shown.contains("whsec_of_test_mode"), "{shown}");

    let secret = write(server.dir(), "secret", SECRET);
    let output = run(&["sources", "rotate-secret", "stripe", "--secret-file", secret.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = run(&["rejections", "reverify", "--source", "stripe"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("2 became events, 0 still fail"), "{}", stderr(&output));
    assert_eq!(tenant.get("/v1/events")["data"].as_array().unwrap().len(), 2);
    let wrong = run(&["rejections", "reverify", "--source", "stripe", "--all"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn the_commands_of_every_guide_do_what_they_say() {
    let server = Server::start(Engine::Embedded);
    let tenant = server.tenant("Acme", None);
    let binary = postroom().get_program().to_owned();
    let folder = std::path::Path::new(&binary).parent().unwrap().to_str().unwrap().to_owned();
    let shell = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("PATH={folder}:$PATH; {command}")]);
        shell
            .current_dir(server.dir())
            .env("POSTROOM_URL", &server.url)
            .env("POSTROOM_API_KEY", &tenant.key)
            .output()
            .unwrap()
    };
    for provider in provider::all() {
        let commands = provider.guided().guide.commands;
        let Some((listen, rest)) = commands.split_last() else { panic!("{}", provider.name) };
        for command in rest {
            let output = shell(command);
            assert_eq!(output.status.code(), Some(0), "{command}: {}{}", stdout(&output), stderr(&output));
        }
        assert!(listen.starts_with(&format!("postroom listen {} --forward-to ", provider.name)), "{listen}");
        let shown = shell(&format!("postroom sources providers {}", provider.name));
        assert!(
            rest.len() >= 3 && rest.iter().all(|command| stdout(&shown).contains(command.as_str())),
            "{}",
            stdout(&shown)
        );
    }
    let events = tenant.get("/v1/events?limit=250");
    assert_eq!(events["data"].as_array().unwrap().len(), provider::all().len());
    let (status, _, _) = request("GET", &format!("{}/v1/providers/stripe", server.url), &[], b"");
    assert_eq!(status, 401, "the catalogue is for who has a key");
}
