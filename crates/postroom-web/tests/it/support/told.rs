//! What a server may not tell: the secrets that a test gave to it or got from it, in answers to refused requests, figures, the
//! audit log, or anything that was logged, at every level, while it ran.

use postroom_testkit::secrets::{Secrets, Shape};
use serde_json::Value;

use super::{ADMIN, Call, Reply};
use crate::logs::kept;

/// What is a secret whoever made it.
const SHAPES: &[Shape] = &[
    Shape { kind: "an API key", prefix: "prk_", least: 30 },
    Shape { kind: "a signing secret", prefix: "whsec_", least: 20 },
    Shape { kind: "the token of a session", prefix: "eyJ", least: 60 },
    Shape { kind: "the token of a link", prefix: "#token=", least: 40 },
];

/// Members of requests and answers that hold secrets.
const MEMBERS: [&str; 4] = ["secret", "token", "password", "mandrill_webhook_secret"];

/// What one server may not tell.
pub struct Confided {
    secrets: Secrets,
    /// How much was logged before it started.
    logged: usize,
}

impl Confided {
    pub fn new(encryption_keys: &str) -> Self {
        let secrets = Secrets::new(SHAPES);
        secrets.learn("the admin token", ADMIN);
        encryption_keys.split(',').for_each(|key| secrets.learn("an encryption key", key));
        Self { secrets, logged: kept().length() }
    }

    /// Learns what a request brings. What is sent as an event may have members of any name.
    pub fn asked(&self, call: &Call<'_>) {
        for (name, value) in &call.headers {
            let value = String::from_utf8_lossy(value);
            match name.as_str() {
                "authorization" => self.secrets.learn("a credential", value.trim_start_matches("Bearer ")),
                "cookie" => self.learn_cookies(&value),
                _ => {}
            }
        }
        if !is_of_events(&call.path) {
            let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
            self.secrets.learn_members(&body, &MEMBERS);
            if let Some(values) = body["headers"].as_object() {
                let values = values.values().filter_map(Value::as_str);
                values.for_each(|value| self.secrets.learn("a header of an endpoint", value));
            }
        }
    }

    /// Learns what an answer gives away, and makes sure that it was meant to.
    pub fn answered(&self, path: &str, reply: &Reply) {
        if reply.status >= 400 || path.starts_with("/metrics") || path.starts_with("/v1/audit-logs") {
            let said = format!("{:?}\n{}", reply.headers, String::from_utf8_lossy(&reply.body));
            let path = path.split('?').next().unwrap_or_default();
            assert_eq!(self.secrets.told_in(said.as_bytes()), None, "the answer {} to {path} tells it", reply.status);
        } else if !is_of_events(path) {
            self.secrets.learn_members(&serde_json::from_slice(&reply.body).unwrap_or_default(), &MEMBERS);
            reply
                .headers
                .iter()
                .filter(|(name, _)| name == "set-cookie")
                .for_each(|(_, value)| self.learn_cookies(value));
        }
    }

    fn learn_cookies(&self, cookies: &str) {
        let values = cookies.split("; ").filter_map(|cookie| cookie.split_once('='));
        values.for_each(|(_, value)| self.secrets.learn("a cookie", value));
    }
}

fn is_of_events(path: &str) -> bool {
    path.starts_with("/in/") || path.starts_with("/v1/events")
}

impl Drop for Confided {
    fn drop(&mut self) {
        // A test that failed has said why.
        if !std::thread::panicking() {
            assert_eq!(self.secrets.told_in(&kept().since(self.logged)), None, "the log tells a secret");
        }
    }
}
