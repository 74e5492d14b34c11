//! Secrets that are planted everywhere, and looked for in everything that the server says. Of what all other tests give and get,
//! the same is true: `support::told` looks through what their servers printed.

use std::process::Output;
use std::sync::Arc;

use postroom_domain::keyring::Keyring;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Engine, Place, Receiver, Server, bearer, request, stderr, stdout};

/// What must not be said, with a name for whoever reads that it was.
#[derive(Default)]
struct Planted(Vec<(&'static str, String)>);

impl Planted {
    fn add(&mut self, name: &'static str, secret: impl Into<String>) -> String {
        let secret = secret.into();
        assert!(secret.len() >= 12, "{name} is long enough not to be found by chance");
        self.0.push((name, secret.clone()));
        secret
    }

    /// A secret of a person's choice.
    fn own(&mut self, name: &'static str) -> String {
        self.add(name, format!("canary-{}-{}", self.0.len(), name.replace(' ', "-")))
    }

    fn is_not_in(&self, place: &str, said: &str) {
        for (name, secret) in &self.0 {
            if let Some(line) = said.lines().find(|line| line.contains(secret.as_str())) {
                panic!("{name} is in {place}: {line}");
            }
        }
    }
}

/// A server and what was planted in it.
struct Room {
    server: Server,
    /// As the server has it.
    environment: Vec<(&'static str, String)>,
    planted: Planted,
    /// What was answered to requests that failed, and to lists.
    answers: Vec<String>,
}

impl Room {
    fn start(engine: Engine) -> Self {
        let (mut planted, place) = (Planted::default(), Arc::new(Place::new(engine)));
        planted.add("the admin token", ADMIN_TOKEN);
        let smtp = format!("smtp://postroom:{}@127.0.0.1:9?tls=none", planted.own("smtp password"));
        let mut environment = vec![("POSTROOM_SMTP_URL", smtp)];
        let keys = match engine {
            Engine::Embedded => Keyring::generate().expose_str().unwrap().to_owned(),
            Engine::Postgres => place.setting("POSTROOM_ENCRYPTION_KEYS"),
        };
        environment.push(("POSTROOM_ENCRYPTION_KEYS", planted.add("the encryption keys", keys)));
        if matches!(engine, Engine::Postgres) {
            environment.push(("POSTROOM_DATABASE_URL", with_password(&place, &mut planted)));
            environment.push(("POSTROOM_MIGRATE_DATABASE_URL", place.database().owner_url()));
        }
        let given: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let server = Server::at(&place, &given);
        Self { server, environment, planted, answers: Vec::new() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.server.command(arguments).envs(self.environment.iter().cloned()).output().unwrap()
    }

    fn call(&mut self, method: &str, path: &str, key: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.server.url);
        let (status, head, answer) = request(method, &url, &bearer(key), body.to_string().as_bytes());
        let answer = String::from_utf8(answer).unwrap();
        if status >= 400 || method == "GET" && !path.ends_with("/secret") {
            let path = path.split('?').next().unwrap_or_default();
            self.answers.push(format!("{method} {path}: {head} {answer}"));
        }
        serde_json::from_str(&answer).unwrap_or_default()
    }

    fn text(answer: &Value, pointer: &str) -> String {
        answer.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} in {answer}")).to_owned()
    }
}

/// The database's URL; where the server asks for no password it takes any.
fn with_password(place: &Place, planted: &mut Planted) -> String {
    let (url, database) = (place.setting("POSTROOM_DATABASE_URL"), place.database());
    match database.password() {
        Some(password) => {
            planted.0.push(("the database's password", password.to_owned()));
            url
        }
        None => {
            let (login, host) = url.split_once('@').unwrap();
            format!("{login}:{}@{host}", planted.own("database password"))
        }
    }
}

/// Sources, endpoints, organizations and keys, with secrets that are set, changed, rotated, shown and refused. Returns a
/// key, and the id of a source.
fn configure(room: &mut Room, receiver: &Receiver, isolation: &str) -> (String, String) {
    let mandrill = room.planted.own("mandrill secret");
    let tenant = json!({"name": "Acme", "plan": "premium", "target_url": receiver.url(), "isolation": isolation});
    let made = room.call("POST", "/v1/tenants", ADMIN_TOKEN, &tenant);
    let key = room.planted.add("an API key", Room::text(&made, "/api_key/secret"));
    let endpoint = format!("/v1/endpoints/{}", Room::text(&made, "/endpoint/id"));
    room.planted.add("an endpoint's secret", Room::text(&made, "/endpoint/secret"));
    let organization = format!("/v1/organizations/{}", Room::text(&made, "/organization/id"));
    room.call("PATCH", &organization, ADMIN_TOKEN, &json!({"mandrill_webhook_secret": mandrill}));
    let other = json!({"name": "Other", "mandrill_webhook_secret": mandrill});
    room.call("POST", "/v1/organizations", ADMIN_TOKEN, &other);

    let source = json!({"provider": "telegram", "secret": room.planted.own("source secret")});
    let id = Room::text(&room.call("POST", "/v1/sources", &key, &source), "/id");
    let source = format!("/v1/sources/{id}");
    let changed = json!({"secret": room.planted.own("changed source secret")});
    room.call("PATCH", &source, &key, &changed);
    let rotated = json!({"secret": room.planted.own("rotated source secret"), "grace_seconds": 60});
    room.call("POST", &format!("{source}/rotate-secret"), &key, &rotated);

    for name in ["header value", "changed header value"] {
        let headers = json!({"headers": {"x-token": room.planted.own(name)}});
        room.call("PATCH", &endpoint, &key, &headers);
    }
    let rotated = room.call("POST", &format!("{endpoint}/rotate-secret"), &key, &json!({"grace_seconds": 60}));
    room.planted.add("a rotated endpoint's secret", Room::text(&rotated, "/secret"));
    room.call("GET", &format!("{endpoint}/secret"), &key, &Value::Null);
    let new = room.call("POST", "/v1/api-keys", &key, &json!({"name": "another", "scopes": ["read"]}));
    room.planted.add("another API key", Room::text(&new, "/secret"));
    (key, id)
}

/// What is refused: secrets in the wrong place, wrong ones, and what is no request at all.
fn be_refused(room: &mut Room, key: &str) {
    let unknown = json!({"provider": "github", "password": room.planted.own("unknown field")});
    room.call("POST", "/v1/sources", key, &unknown);
    let list = json!({"provider": "github", "secret": [room.planted.own("secret in a list")]});
    room.call("POST", "/v1/sources", key, &list);
    let guessed = room.planted.add("a guessed key", "prk_0123456789abcdefghijklmnopqrstuvwxyz0123456789");
    room.call("GET", "/v1/events", &guessed, &Value::Null);
    let query = room.planted.own("token in a query");
    let bearer = room.planted.own("bearer of a sender");
    room.call("POST", &format!("/in/acme/telegram?token={query}"), &bearer, &json!({}));
    let signature = room.planted.own("wrong signature");
    let headers = vec![("x-telegram-bot-api-secret-token".to_owned(), signature)];
    let url = format!("{}/in/acme/telegram", room.server.url);
    let (status, _, answer) = request("POST", &url, &headers, br#"{"update_id": 1}"#);
    assert_eq!(status, 401);
    room.answers.push(String::from_utf8(answer).unwrap());
    let wrong = room.planted.own("wrong link");
    room.call("POST", "/api/auth/verify-magic-link", "", &json!({"token": wrong}));
}

/// A super admin signs in with a link, somebody is invited whose mail cannot be sent.
fn sign_in(room: &mut Room, key: &str) {
    let made = room.run(&["admin", "create", "--email", "root@example.com"]);
    let said = stdout(&made);
    let link = said.split_once("#token=").unwrap_or_else(|| panic!("{said}{}", stderr(&made))).1;
    let link: String = link.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
    let token = room.planted.add("a link's token", link);
    let session = room.call("POST", "/api/auth/verify-magic-link", "", &json!({"token": token}));
    let session = room.planted.add("a session's token", Room::text(&session, "/token"));
    room.call("GET", "/v1/organizations", &session, &Value::Null);
    room.call("POST", "/api/auth/logout", &session, &Value::Null);
    room.call("GET", "/v1/organizations", &session, &Value::Null);
    room.call("POST", "/v1/users", key, &json!({"email": "ada@example.com", "role": "admin"}));
}

fn nothing_is_said(engine: Engine, isolation: &str) {
    let receiver = Receiver::answering(&[500, 200]);
    let mut room = Room::start(engine);
    let (key, source) = configure(&mut room, &receiver, isolation);
    be_refused(&mut room, &key);
    sign_in(&mut room, &key);
    let payload = room.planted.own("payload");
    room.call("POST", "/v1/events", &key, &json!({"type": "order.paid", "data": {"card": payload}}));
    let arrived = receiver.next();
    assert!(arrived.header("x-token").starts_with("canary-"), "headers go out");
    assert!(room.planted.0.len() >= 20, "{}", room.planted.0.len());
    for path in ["/v1/sources", "/v1/endpoints", "/v1/api-keys", "/v1/users", "/v1/audit-logs", "/v1/deliveries"] {
        room.call("GET", path, &key, &Value::Null);
    }
    for path in ["/v1/audit-logs", "/v1/organizations", "/metrics", "/health/ready", "/openapi.json"] {
        room.call("GET", path, ADMIN_TOKEN, &Value::Null);
    }
    for answer in &room.answers {
        room.planted.is_not_in("an answer", answer);
    }
    for arguments in [&["audit", "verify"][..], &["config", "show"], &["config", "check"]] {
        let said = room.run(arguments);
        room.planted.is_not_in(arguments[0], &format!("{}{}", stdout(&said), stderr(&said)));
    }
    // What was under way is said when the server ends.
    assert_eq!(room.server.terminate(), 0);
    let log = std::fs::read_to_string(room.server.place.log()).unwrap();
    assert!(log.contains("\"level\":\"DEBUG\""), "it is at its loudest");
    room.planted.is_not_in("the log", &log);
    let audited = room.server.place.audit_log();
    assert!(audited.contains(source.split_once('_').unwrap().1), "it is in the audit log: {audited}");
    room.planted.is_not_in("the audit log", &audited);
}

#[test]
fn no_planted_secret_is_said_at_the_loudest_on_the_embedded_engine() {
    nothing_is_said(Engine::Embedded, "shared");
}

#[test]
fn no_planted_secret_is_said_in_a_database_of_its_own_at_the_loudest_on_the_embedded_engine() {
    nothing_is_said(Engine::Embedded, "dedicated");
}

#[test]
fn no_planted_secret_is_said_at_the_loudest_on_postgres() {
    nothing_is_said(Engine::Postgres, "shared");
}

#[test]
fn no_planted_secret_is_said_in_a_database_of_its_own_at_the_loudest_on_postgres() {
    nothing_is_said(Engine::Postgres, "dedicated");
}
