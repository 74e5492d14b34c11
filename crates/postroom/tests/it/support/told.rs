//! What no server of a test may tell: the secrets that the test gave to it or got from it, in whatever it prints, answers to
//! refused requests, shows as metrics, or keeps in the audit log. Every server runs at its loudest, and all that it printed is
//! looked through when its place goes: the test that started it fails then.
//!
//! Panics are in the log, and are told by a hook that has a test of its own beside it: nothing from outside makes the
//! program panic.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use postroom_testkit::postgres::connect;
use postroom_testkit::secrets::{Secrets, Shape};
use serde_json::Value;

use super::{ADMIN_TOKEN, Place, wait_for};

/// What is a secret whoever made it.
const SHAPES: &[Shape] = &[
    Shape { kind: "an API key", prefix: "prk_", least: 30 },
    Shape { kind: "a signing secret", prefix: "whsec_", least: 20 },
    Shape { kind: "the token of a session", prefix: "eyJ", least: 60 },
    Shape { kind: "the token of a link", prefix: "#token=", least: 40 },
];

/// Members of requests and answers that hold secrets.
const MEMBERS: [&str; 5] = ["secret", "token", "password", "api_key", "mandrill_webhook_secret"];

/// By the address of a server, what its test knows.
static BY_ADDRESS: LazyLock<Mutex<HashMap<String, Arc<Secrets>>>> = LazyLock::new(Mutex::default);

/// What a place begins with.
pub fn nothing_yet() -> Arc<Secrets> {
    let secrets = Secrets::new(SHAPES);
    secrets.learn("the admin token", ADMIN_TOKEN);
    Arc::new(secrets)
}

/// What is a secret wherever it stands.
pub fn anybodys_secret_in(said: &[u8]) -> Option<String> {
    Secrets::new(SHAPES).told_in(said)
}

/// Learns the settings of a process.
pub fn learn_setting(secrets: &Secrets, name: &str, value: &str) {
    secrets.learn_password(&format!("the password in {name}"), value);
    match name {
        "POSTROOM_ENCRYPTION_KEYS" => value.split([',', '\n']).for_each(|key| secrets.learn("an encryption key", key)),
        "POSTROOM_ADMIN_TOKEN" | "POSTROOM_API_KEY" => secrets.learn(name, value),
        _ => {}
    }
}

/// Whoever listens there is of the place with these secrets.
pub fn listens_at(url: &str, secrets: &Arc<Secrets>) {
    let mut all = BY_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(url.trim_start_matches("http://").to_owned(), secrets.clone());
}

/// The secrets of whoever listens there, with those of a request to it.
pub fn learn_request(address: &str, path: &str, headers: &[(String, String)], body: &[u8]) -> Option<Arc<Secrets>> {
    let secrets = BY_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner).get(address)?.clone();
    for (name, value) in headers {
        match name.as_str() {
            "authorization" => secrets.learn("a credential", value.trim_start_matches("Bearer ")),
            "cookie" => value.split("; ").filter_map(|one| one.split_once('=')).for_each(|(_, value)| {
                secrets.learn("a cookie", value);
            }),
            _ => {}
        }
    }
    // What is sent as an event may have members of any name.
    if !path.starts_with("/in/") && !path.starts_with("/v1/events") {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        secrets.learn_members(&body, &MEMBERS);
        if let Some(values) = body["headers"].as_object() {
            let values = values.values().filter_map(Value::as_str);
            values.for_each(|value| secrets.learn("a header of an endpoint", value));
        }
    }
    Some(secrets)
}

/// Learns what an answer gave away, and makes sure that it was meant to: what is refused, figures and the audit log hold no
/// secret.
pub fn check_answer(secrets: &Secrets, asked: &str, status: u16, answer: &[u8]) {
    let path = asked.split_once(' ').map_or(asked, |(_, path)| path);
    if status >= 400 || path.starts_with("/metrics") || path.starts_with("/v1/audit-logs") {
        let told = secrets.told_in(answer);
        assert_eq!(told, None, "the answer {status} to {} tells a secret", asked.split('?').next().unwrap_or_default());
    } else if !path.starts_with("/v1/events") {
        secrets.learn_members(&serde_json::from_slice(answer).unwrap_or_default(), &MEMBERS);
    }
}

impl Place {
    /// Learns what only the files of the embedded engine tell: the keys that it made itself, and links in mails.
    fn learn_files(&self) {
        let data = self.dir.path().join("postroom-data");
        let keys = std::fs::read_to_string(data.join("encryption.keys")).unwrap_or_default();
        learn_setting(&self.secrets, "POSTROOM_ENCRYPTION_KEYS", &keys);
        for mail in entries(&data.join("mail")) {
            let text = std::fs::read_to_string(mail).unwrap_or_default().replace("=\r\n", "").replace("=3D", "=");
            let links = text.split("#token=").skip(1).filter_map(|rest| rest.get(..43));
            links.for_each(|token| self.secrets.learn("the token of a link", token));
        }
    }

    /// Everything in the audit logs, also of databases of single organizations, as text; nothing where there is none.
    pub fn audit_log(&self) -> String {
        let Some(database) = self.database.as_ref().filter(|_| !self.is_on_own_server) else {
            let data = self.dir.path().join("postroom-data");
            let all = entries(&data.join("tenants")).into_iter().chain([data]);
            return all.filter_map(|directory| audit_log_in(&directory.join("postroom.db")).ok()).collect();
        };
        let (url, name) = (database.admin_url(), database.name().to_owned());
        // The test may be in a runtime.
        let asking = std::thread::spawn(move || {
            wait_for(async {
                let mut written = texts(&url, WRITTEN).await;
                for own in texts(&url, OWN_DATABASES).await {
                    written.extend(texts(&url.replace(&name, &own), WRITTEN).await);
                }
                written.join("\n")
            })
        });
        asking.join().expect("the audit logs")
    }
}

const WRITTEN: &str = "select audit_logs::text from audit_logs";
/// Those that are there.
const OWN_DATABASES: &str = "select database from tenants join pg_database on datname = database";

/// What a query finds; nothing in a database that has no such table.
async fn texts(url: &str, query: &str) -> Vec<String> {
    let rows = connect(url).await.query(query, &[]).await.unwrap_or_default();
    rows.iter().map(|row| row.get(0)).collect()
}

fn audit_log_in(file: &Path) -> rusqlite::Result<String> {
    let database = rusqlite::Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = database.prepare(
        "select actor || ' ' || action || ' ' || coalesce(resource_id, '') || ' ' || coalesce(old_values, '') || ' ' \
         || coalesce(new_values, '') || ' ' || coalesce(address, '') || ' ' || coalesce(request_id, '') || char(10) from audit",
    )?;
    statement.query_map([], |row| row.get::<_, String>(0))?.collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

impl Drop for Place {
    fn drop(&mut self) {
        BY_ADDRESS.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, other| !Arc::ptr_eq(other, &self.secrets));
        // A test that failed has said why.
        if std::thread::panicking() {
            return;
        }
        self.learn_files();
        let printed = entries(self.dir.path()).into_iter().filter(|path| path.is_file() && self.is_printed(path));
        for path in printed {
            let told = self.secrets.told_in(&std::fs::read(&path).unwrap_or_default());
            assert_eq!(told, None, "a server has told a secret in {}", path.display());
        }
        assert_eq!(self.secrets.told_in(self.audit_log().as_bytes()), None, "a secret is in an audit log");
    }
}

#[test]
fn a_place_in_which_a_secret_was_printed_fails_its_test() {
    let place = Place::new(super::Engine::Embedded);
    let server = format!("127.0.0.1:1/{}", place.dir.path().display());
    listens_at(&format!("http://{server}"), &place.secrets);
    let made = learn_request(&server, "/v1/sources", &[], br#"{"provider":"github","secret":"planted-in-a-source"}"#);
    let refusal = || check_answer(&place.secrets, "POST /v1/sources", 422, br#"{"detail":"planted-in-a-source"}"#);
    assert!(Arc::ptr_eq(&made.unwrap(), &place.secrets));
    let text = |failed: Box<dyn std::any::Any + Send>| failed.downcast_ref::<String>().cloned().unwrap_or_default();
    let failed = text(std::panic::catch_unwind(std::panic::AssertUnwindSafe(refusal)).unwrap_err());
    assert!(failed.contains("the value of \\\"secret\\\"") && !failed.contains("planted-in-a-source"), "{failed}");

    super::write(
        place.dir.path(),
        "log",
        "{\"message\":\"fine\"}\n{\"message\":\"a source with planted-in-a-source\"}\n",
    );
    let failed = text(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(place))).unwrap_err());
    assert!(failed.contains("a source with ***") && !failed.contains("planted-in-a-source"), "{failed}");
}
