//! `kill -9` at each step of inviting somebody, sending the mail, signing in and rotating keys. A process is held at the step,
//! killed there, and started again: what it did is whole or not begun, and whoever asked can simply ask again.
//!
//! The program has nothing for this: it is held by triggers in its database and by a mail server that does not answer. What
//! comes at moments that nobody chose is tried under load (`postroom bench --kill`).

mod held;
mod peer;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::{Value, json};

use self::held::Step::{self, After, Before, Committing};
pub use self::held::change;
use self::held::{Held, count};
use self::peer::Peer;
use super::people::{figure, mails, sign_in, token};
use super::support::{ADMIN_TOKEN, Engine, Server, Tenant, bearer, post, request, stderr, stdout, wait_until};

/// The tests: an act, a step of it, and what holds the server there.
macro_rules! steps {
    ($module:ident, $engine:expr; $($act:ident: { $($step:ident: $held:expr),* $(,)? }),* $(,)?) => {
        mod $module {
            #[allow(unused_imports, reason = "not every engine has every kind of step")]
            use super::*;
            $(mod $act {
                use super::*;
                $(#[test]
                fn $step() {
                    super::super::$act($engine, $held);
                })*
            })*
        }
    };
}

/// The steps that both engines have, once.
macro_rules! on_both {
    ($module:ident, $engine:expr) => {
        steps! { $module, $engine;
            invitation: {
                the_person_is_written_and_no_link: Before("insert", "sign_in_tokens"),
                the_link_is_written_and_no_mail: Before("insert", "mails"),
                the_mail_is_written_and_the_person_not_invited: Before("update", "users"),
                all_is_written_but_the_audit_entry: Before("insert", "audit_logs"),
                all_is_written_and_nothing_committed: After("insert", "audit_logs"),
            },
            mail: {
                queued_and_not_taken: Hang::Storage(Before("update", "mails")),
                taken_and_not_committed: Hang::Storage(After("update", "mails")),
                taken_and_not_greeted: Hang::Peer("greeting"),
                greeted: Hang::Peer("EHLO"),
                its_sender_told: Hang::Peer("MAIL"),
                its_recipient_told: Hang::Peer("RCPT"),
                announced: Hang::Peer("DATA"),
                sent_and_not_acknowledged: Hang::Peer("."),
                acknowledged_and_not_forgotten: Hang::Storage(Before("delete", "mails")),
            },
            signing_in: {
                the_link_is_found_and_not_used: Before("update", "sign_in_tokens"),
                the_link_is_used_and_the_person_not_in: Before("update", "users"),
                the_person_is_in_and_has_no_session: Before("insert", "sessions"),
                all_is_written_but_the_audit_entry: Before("insert", "audit_logs"),
                all_is_written_and_nothing_committed: After("insert", "audit_logs"),
            },
        }
    };
}

on_both!(embedded, Engine::Embedded);
on_both!(postgres, Engine::Postgres);
steps! { on_postgres, Engine::Postgres;
    invitation: {
        nothing_is_written: Before("insert", "users"),
        committed_and_not_answered: Committing("insert", "audit_logs"),
    },
    signing_in: { committed_and_not_answered: Committing("insert", "audit_logs") },
}

/// The steps of a rotation, in its order: each value is sealed anew by an update, each column is a transaction.
const ROTATION: [Step; 9] = [
    Before("update", "organizations"),
    After("update", "organizations"),
    Before("update", "source_secrets"),
    Before("update", "endpoint_secrets"),
    // One of several is sealed anew.
    After("update", "endpoint_secrets"),
    Before("update", "endpoints"),
    Before("update", "idempotency_keys"),
    Before("update", "mails"),
    Before("update", "meta"),
];

/// Sends a request and does not wait for its answer.
fn send(server: &Server, path: &str, key: &str, body: &Value) -> TcpStream {
    let host = server.url.trim_start_matches("http://");
    let (body, mut stream) = (body.to_string(), TcpStream::connect(host).unwrap());
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json"
    );
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream
}

/// Kills a server that stands at a step of what was asked of it, and starts it again.
fn killed(server: &mut Server, held: Held, asked: &mut TcpStream) {
    held.wait(server.pid());
    server.kill();
    held.release();
    let mut answer = Vec::new();
    let _ = asked.read_to_end(&mut answer);
    assert!(answer.is_empty(), "nobody was told that it is done");
    server.restart(&[]);
}

/// The next link by mail, of which there are `number` then.
fn link(server: &Server, number: usize) -> String {
    let mails = wait_until("a mail", || Some(mails(server)).filter(|mails| mails.len() >= number));
    assert_eq!(mails.len(), number, "one mail for each link");
    token(&std::fs::read_to_string(&mails[number - 1]).unwrap())
}

/// The people of an organization by their address.
fn people(tenant: &Tenant) -> Vec<String> {
    let users = tenant.get("/v1/users");
    users["data"].as_array().unwrap().iter().map(|user| user["email"].as_str().unwrap().to_owned()).collect()
}

/// How many entries of an action the audit log has.
fn entries(tenant: &Tenant, action: &str) -> usize {
    tenant.get(&format!("/v1/audit-logs?action={action}"))["data"].as_array().unwrap().len()
}

fn invitation(engine: Engine, step: Step) {
    let mut server = Server::start(engine);
    let tenant = server.tenant("Acme", None);
    let (place, ada) = (server.place.clone(), json!({ "email": "ada@example.com", "role": "member" }));
    let held = Held::at(&place, step);
    let mut asked = send(&server, "/v1/users", &tenant.key, &ada);
    killed(&mut server, held, &mut asked);

    let tenant = tenant.at(&server);
    let done = usize::from(matches!(step, Committing(..)));
    assert_eq!((people(&tenant).len(), entries(&tenant, "user.invited")), (done, done));
    assert_eq!(count(&place, "sign_in_tokens", "used_at is null"), i64::try_from(done).unwrap());
    if done == 0 {
        assert_eq!(count(&place, "mails", "true"), 0);
    }
    let (status, answer) = tenant.post("/v1/users", &ada);
    assert_eq!(status, if done == 0 { 201 } else { 409 }, "{answer}");
    assert_eq!(sign_in(&server.url, &link(&server, 1)).0, 200);
    assert_eq!(people(&tenant), ["ada@example.com"]);
}

fn signing_in(engine: Engine, step: Step) {
    let mut server = Server::start(engine);
    let tenant = server.tenant("Acme", None);
    let place = server.place.clone();
    let (status, answer) = tenant.post("/v1/users", &json!({ "email": "ada@example.com", "role": "admin" }));
    assert_eq!(status, 201, "{answer}");
    let first = link(&server, 1);
    wait_until("the end of the mail", || (count(&place, "mails", "true") == 0).then_some(()));
    let held = Held::at(&place, step);
    let mut asked = send(&server, "/api/auth/verify-magic-link", "", &json!({ "token": first }));
    killed(&mut server, held, &mut asked);

    let tenant = tenant.at(&server);
    let done = usize::from(matches!(step, Committing(..)));
    let used = count(&place, "sign_in_tokens", "used_at is not null");
    let sessions = count(&place, "sessions", "ended_at is null");
    assert_eq!((used, sessions, entries(&tenant, "user.signed_in")), (sessions, i64::try_from(done).unwrap(), done));
    let user = &tenant.get("/v1/users")["data"][0];
    assert_eq!(user["status"], if done == 0 { "invited" } else { "active" });
    assert_eq!(user["last_login_at"].is_null(), done == 0);
    let (status, again) = sign_in(&server.url, &first);
    if done == 0 {
        assert_eq!(status, 200, "the link still works: {again}");
        server.kill();
        server.restart(&[]);
        let session = bearer(again["token"].as_str().unwrap());
        assert_eq!(
            request("GET", &format!("{}/v1/events", server.url), &session, b"").0,
            200,
            "what was answered holds"
        );
        assert_eq!(sign_in(&server.url, &first).0, 401);
        return;
    }
    assert_eq!(status, 401, "{again}");
    let ask = json!({ "email": "ada@example.com" });
    post(&format!("{}/api/auth/request-magic-link", server.url), "", &ask);
    assert_eq!(sign_in(&server.url, &link(&server, 2)).0, 200, "another link is sent");
}

/// What a mail is held by.
#[derive(Clone, Copy)]
enum Hang {
    Storage(Step),
    /// The mail server does not answer this.
    Peer(&'static str),
}

fn mail(engine: Engine, hang: Hang) {
    let peer = Peer::start();
    let url = peer.url();
    let mut server = Server::start_with(engine, &[("POSTROOM_SMTP_URL", &url)]);
    let tenant = server.tenant("Acme", None);
    let place = server.place.clone();
    let held = match hang {
        Hang::Storage(step) => Some(Held::at(&place, step)),
        Hang::Peer(command) => {
            peer.hang_at(Some(command));
            None
        }
    };
    let invite = |tenant: &Tenant, email: &str| {
        let (status, answer) = tenant.post("/v1/users", &json!({ "email": email, "role": "member" }));
        assert_eq!(status, 201, "{answer}");
    };
    invite(&tenant, "ada@example.com");
    match &held {
        Some(held) => held.wait(server.pid()),
        None => peer.wait(),
    }
    server.kill();
    held.into_iter().for_each(Held::release);
    peer.hang_at(None);
    // Whoever had taken it had a minute for it, which is over.
    change(&place, "mails", "due_at = created_at");
    server.restart(&[("POSTROOM_SMTP_URL", &url)]);

    // The mail server may have it already: then it comes once more, and can be told to be the same.
    let is_there = matches!(hang, Hang::Peer(".") | Hang::Storage(Before("delete", _)));
    let came: Vec<String> = (0..=usize::from(is_there)).map(|_| peer.next()).collect();
    let tenant = tenant.at(&server);
    invite(&tenant, "last@example.com");
    assert!(peer.next().contains("To: last@example.com"), "nothing else comes");
    let ids: BTreeSet<Option<&str>> =
        came.iter().map(|mail| mail.lines().find(|line| line.starts_with("Message-ID: "))).collect();
    assert!(ids.len() == 1 && !ids.contains(&None), "{came:?}");
    let links: BTreeSet<String> = came.iter().map(|mail| token(mail)).collect();
    assert_eq!(links.len(), 1);
    let first = links.first().unwrap();
    assert_eq!((sign_in(&server.url, first).0, sign_in(&server.url, first).0), (200, 401));
    wait_until("the end of the mails", || (count(&place, "mails", "true") == 0).then_some(()));
}

/// The signing secrets of all endpoints.
fn secrets(tenant: &Tenant) -> Vec<String> {
    let endpoints = tenant.get("/v1/endpoints")["data"].as_array().unwrap().clone();
    let path = |endpoint: &Value| format!("/v1/endpoints/{}/secret", endpoint["id"].as_str().unwrap());
    endpoints.iter().map(|endpoint| tenant.get(&path(endpoint))["secret"].as_str().unwrap().to_owned()).collect()
}

/// One endpoint more, asked for with a key, so that its answer is kept.
fn keyed_endpoint(tenant: &Tenant) -> Value {
    let mut headers = bearer(&tenant.key);
    headers.push(("idempotency-key".to_owned(), "an-endpoint".to_owned()));
    let body = json!({ "url": "http://127.0.0.1:9/keyed", "headers": { "x-token": "a header's secret" } });
    let (status, _, answer) =
        request("POST", &format!("{}/v1/endpoints", tenant.url), &headers, body.to_string().as_bytes());
    assert_eq!(status, 201);
    serde_json::from_slice(&answer).unwrap()
}

/// One of everything that is sealed, and two endpoints.
fn sealed(server: &Server) -> (Tenant, Value) {
    let tenant = server.tenant("Acme", Some("http://127.0.0.1:9/"));
    tenant.source("github", "a source's secret");
    let (organizations, admin) = (format!("{}/v1/organizations", server.url), bearer(ADMIN_TOKEN));
    let list: Value = serde_json::from_slice(&request("GET", &organizations, &admin, b"").2).unwrap();
    let url = format!("{organizations}/{}", list["data"][0]["id"].as_str().unwrap());
    assert_eq!(request("PATCH", &url, &admin, br#"{"mandrill_webhook_secret": "a-secret-of-Mandrill"}"#).0, 200);
    let made = keyed_endpoint(&tenant);
    let person = json!({ "email": "ada@example.com", "role": "member" });
    assert_eq!(tenant.post("/v1/users", &person).0, 201);
    wait_until("a try for the mail", || (figure(server, "postroom_mail_failures_total") >= 1).then_some(()));
    (tenant, made)
}

pub fn killed_at_any_step_of_a_rotation_everything_opens_and_the_next_one_ends(engine: Engine) {
    // Nobody listens there: mails stay in storage, with their links encrypted.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere = format!("smtp://127.0.0.1:{nobody}");
    let mut server = Server::start_with(engine, &[("POSTROOM_SMTP_URL", &nowhere)]);
    let place = server.place.clone();
    let (mut tenant, made) = sealed(&server);
    let before = secrets(&tenant);
    assert_eq!(server.terminate(), 0);

    let fresh = stdout(&server.run(&["keys", "generate"])).trim().to_owned();
    let old = match engine {
        Engine::Embedded => std::fs::read_to_string(server.dir().join("postroom-data/encryption.keys")).unwrap(),
        Engine::Postgres => place.setting("POSTROOM_ENCRYPTION_KEYS"),
    };
    let both = format!("{fresh},{}", old.trim());
    let rotate = || {
        let mut command = place.command(&["keys", "rotate"]);
        if let Some(database) = &place.database {
            command.env("POSTROOM_MIGRATE_DATABASE_URL", database.owner_url());
        }
        command.env("POSTROOM_ENCRYPTION_KEYS", &both).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    for step in ROTATION {
        let held = Held::at(&place, step);
        let mut child = rotate().spawn().unwrap();
        held.wait(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        held.release();
        let alone =
            place.command(&["serve", "--listen", "127.0.0.1:0"]).env("POSTROOM_ENCRYPTION_KEYS", &fresh).output();
        let alone = alone.unwrap();
        assert_eq!(alone.status.code(), Some(1), "not everything is under the fresh key: {step:?}");
        assert!(stderr(&alone).contains("do not open this database"), "{step:?}: {}", stderr(&alone));
        server.restart(&[("POSTROOM_ENCRYPTION_KEYS", &both), ("POSTROOM_SMTP_URL", &nowhere)]);
        assert_eq!(secrets(&tenant.at(&server)), before, "{step:?}");
        assert_eq!(server.terminate(), 0);
    }
    let rotated = rotate().output().unwrap();
    assert_eq!(rotated.status.code(), Some(0), "{}", stderr(&rotated));

    // The fresh key alone opens all of it.
    change(&place, "mails", "due_at = created_at");
    server.restart(&[("POSTROOM_ENCRYPTION_KEYS", &fresh)]);
    tenant.url.clone_from(&server.url);
    assert_eq!(secrets(&tenant), before);
    assert_eq!(keyed_endpoint(&tenant), made, "the kept answer");
    assert_eq!(sign_in(&server.url, &link(&server, 1)).0, 200);
}
