//! Mail through a server of another make: TLS, passwords, refusals.

use std::path::Path;
use std::sync::Arc;

use postroom_testkit::mail::MailServer;
use serde_json::{Value, json};

use crate::people::{figure, sign_in, token};
use crate::support::{Engine, Place, Server, Tenant, wait_until};

/// A certificate for `localhost` and its key, as PEM files in a directory of the test.
struct Certificate(tempfile::TempDir);

impl Certificate {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// What a mail server with it is like.
    fn server(&self, more: Value) -> Value {
        let mut like = json!({ "certificate": self.path("cert.pem"), "key": self.path("key.pem") });
        like.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        like
    }
}

fn start(smtp_url: &str) -> Server {
    let settings = [("POSTROOM_SMTP_URL", smtp_url), ("POSTROOM_PUBLIC_URL", "https://hooks.example.com")];
    Server::start_with(Engine::Embedded, &settings)
}

fn invite(tenant: &Tenant, email: &str) {
    let (status, answer) = tenant.post("/v1/users", &json!({ "email": email, "role": "admin" }));
    assert_eq!(status, 201, "{answer}");
}

#[test]
fn an_invitation_goes_through_starttls_with_a_password_and_its_link_signs_in() {
    let certificate = Certificate::new();
    let mail_server = MailServer::start(&certificate.server(json!({ "user": "postroom", "password": "p/w 1" })));
    let ca = certificate.path("cert.pem");
    let url = format!("smtp://postroom:p%2Fw%201@localhost:{}?tls=required&ca={ca}", mail_server.port);
    let server = start(&url);
    invite(&server.tenant("Acme", None), "ada@example.com");
    let mail = mail_server.next();
    assert_eq!(mail["from"], "postroom@hooks.example.com");
    assert_eq!(mail["to"], json!(["ada@example.com"]));
    assert_eq!((&mail["tls"], &mail["user"]), (&json!(true), &json!("postroom")));
    assert_eq!(mail["hello"], "hooks.example.com");
    let (status, signed_in) = sign_in(&server.url, &token(mail["data"].as_str().unwrap()));
    assert_eq!((status, &signed_in["user"]["email"]), (200, &json!("ada@example.com")), "{signed_in}");
    let log = std::fs::read_to_string(server.place.log()).unwrap();
    assert!(!log.contains("p/w 1") && !log.contains("p%2Fw"), "{log}");
}

#[test]
fn a_link_to_sign_in_goes_through_tls_from_the_first_byte() {
    let certificate = Certificate::new();
    let mail_server = MailServer::start(&certificate.server(json!({ "implicit": true })));
    let ca = certificate.path("cert.pem");
    let from = "Acme%20Hooks%20%3Chooks@acme.example%3E";
    let server = start(&format!("smtps://localhost:{}?ca={ca}&from={from}", mail_server.port));
    invite(&server.tenant("Acme", None), "ada@example.com");
    let invitation = mail_server.next();
    assert_eq!((&invitation["tls"], &invitation["from"]), (&json!(true), &json!("hooks@acme.example")));
    assert_eq!(sign_in(&server.url, &token(invitation["data"].as_str().unwrap())).0, 200);

    let ask = |email: &str| {
        let url = format!("{}/api/auth/request-magic-link", server.url);
        crate::support::post(&url, "", &json!({ "email": email }))
    };
    assert_eq!(ask("nobody@example.com"), ask("ada@example.com"), "the answer tells nobody who is known");
    let mail = mail_server.next();
    assert_eq!(mail["to"], json!(["ada@example.com"]));
    assert!(mail["data"].as_str().unwrap().contains("Subject: Sign in to Postroom\r\n"));
    assert_eq!(sign_in(&server.url, &token(mail["data"].as_str().unwrap())).0, 200);
    assert!(mail_server.is_quiet());
}

#[test]
fn a_mail_server_without_tls_or_with_a_strange_certificate_gets_neither_mail_nor_password() {
    let (certificate, other) = (Certificate::new(), Certificate::new());
    let like_without = json!({ "user": "u", "password": "p" });
    let cases = [
        (like_without, "?tls=required".to_owned(), "smtp"),
        (certificate.server(json!({ "user": "u", "password": "p" })), "?tls=required".to_owned(), "smtp"),
        (certificate.server(json!({})), format!("?tls=required&ca={}", other.path("cert.pem")), "smtp"),
        (certificate.server(json!({ "implicit": true })), String::new(), "smtps"),
        (certificate.server(json!({ "user": "u", "password": "another" })), ca(&certificate), "smtp"),
    ];
    for (like, options, scheme) in cases {
        let mail_server = MailServer::start(&like);
        let server = start(&format!("{scheme}://u:p@localhost:{}{options}", mail_server.port));
        invite(&server.tenant("Acme", None), "ada@example.com");
        let log = || std::fs::read_to_string(server.place.log()).unwrap();
        let said = "a mail can not be sent and is tried again";
        wait_until("a failed try, and a line of it", || log().contains(said).then_some(()));
        assert!(figure(&server, "postroom_mail_failures_total") > 0);
        if like["password"] == "another" {
            assert_eq!(mail_server.next()["wrong_password"], true, "{like}");
        }
        let told: Vec<Value> = std::iter::from_fn(|| mail_server.try_next()).collect();
        assert!(told.iter().all(|told| told["wrong_password"] == true), "{like}: {told:?}");
    }
}

fn ca(certificate: &Certificate) -> String {
    format!("?tls=required&ca={}", certificate.path("cert.pem"))
}

#[test]
fn a_mail_that_is_put_off_is_sent_again_by_whoever_runs_then() {
    let mail_server = MailServer::start(&json!({ "refuse": 1 }));
    let mut server = start(&format!("smtp://127.0.0.1:{}", mail_server.port));
    let tenant = server.tenant("Acme", None);
    invite(&tenant, "ada@example.com");
    assert_eq!(mail_server.next(), json!({ "refused": true, "tls": false }));
    wait_until("the failed try", || (figure(&server, "postroom_mail_failures_total") > 0).then_some(()));
    // What was put off is stored, so it outlives an orderly end.
    assert_eq!(server.terminate(), 0);
    server.restart(&[
        ("POSTROOM_SMTP_URL", &format!("smtp://127.0.0.1:{}", mail_server.port)),
        ("POSTROOM_PUBLIC_URL", "https://hooks.example.com"),
    ]);
    let mail = mail_server.next();
    assert_eq!(mail["to"], json!(["ada@example.com"]));
    assert_eq!(sign_in(&server.url, &token(mail["data"].as_str().unwrap())).0, 200);
}

#[test]
fn an_address_that_its_server_does_not_know_is_given_up_at_once_with_the_reason_and_the_next_mail_goes() {
    let mail_server = MailServer::start(&json!({ "unknown": "ada@example.com" }));
    let server = start(&format!("smtp://127.0.0.1:{}", mail_server.port));
    let tenant = server.tenant("Acme", None);
    invite(&tenant, "ada@example.com");
    assert_eq!(mail_server.next(), json!({ "unknown": "ada@example.com" }));
    wait_until("it is given up", || (figure(&server, "postroom_mails_given_up_total") == 1).then_some(()));
    let log = std::fs::read_to_string(server.place.log()).unwrap();
    let said = "a mail is given up: the server refuses it for good: permanent error (550): 5.1.1 no such user";
    assert!(log.contains(said) && !log.contains('\u{1b}'), "{log}");
    assert!(!log.contains("is tried again") && !log.contains("ada@"), "{log}");
    invite(&tenant, "bob@example.com");
    assert_eq!(mail_server.next()["to"], json!(["bob@example.com"]));
}

#[test]
fn several_servers_send_each_mail_once() {
    let mail_server = MailServer::start(&json!({}));
    let smtp = format!("smtp://127.0.0.1:{}", mail_server.port);
    let settings = [("POSTROOM_SMTP_URL", smtp.as_str())];
    let place = Arc::new(Place::new(Engine::Postgres));
    let servers: [Server; 3] = std::array::from_fn(|_| Server::at(&place, &settings));
    let tenant = servers[0].tenant("Acme", None);
    let mut invited: Vec<String> = (0..30).map(|number| format!("p{number}@example.com")).collect();
    for server in &servers {
        wait_until("the key on every server", || (tenant.at(server).get_status("/v1/users") == 200).then_some(()));
    }
    for (email, server) in invited.iter().zip(servers.iter().cycle()) {
        invite(&tenant.at(server), email);
    }
    let mut mailed: Vec<String> = (0..30).map(|_| mail_server.next()["to"][0].as_str().unwrap().to_owned()).collect();
    // Whatever was sent twice would come before this one.
    invite(&tenant, "last@example.com");
    mailed.push(mail_server.next()["to"][0].as_str().unwrap().to_owned());
    invited.push("last@example.com".to_owned());
    invited.sort();
    mailed.sort();
    assert_eq!(mailed, invited);
}

#[test]
fn authorities_that_can_not_be_read_stop_the_start_with_a_sentence() {
    let place = Place::new(Engine::Embedded);
    let missing = Path::new("/nonexistent/ca.pem").display();
    let output = place
        .command(&["serve", "--listen", "127.0.0.1:0"])
        .env("POSTROOM_SMTP_URL", format!("smtps://localhost:1?ca={missing}"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = crate::support::stderr(&output);
    assert!(
        said.contains("POSTROOM_SMTP_URL: the certificate authorities /nonexistent/ca.pem cannot be read"),
        "{said}"
    );
}
