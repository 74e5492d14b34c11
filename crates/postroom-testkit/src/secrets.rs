//! Secrets that a test gave to a server or got from it, and whether anything that the server said holds one.
//!
//! What is shorter than [`LEAST`] is not looked for: such words stand in a log by chance.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use memchr::memmem;
use serde_json::Value;
use url::Url;

/// The length in bytes from which on a text is a secret and not any word.
pub const LEAST: usize = 12;

/// How much of a line is shown on both sides of what was found, in characters.
const AROUND: usize = 150;

/// A kind of secret that is known by how it begins, wherever it comes from: `prk_` and what follows.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// What it is called.
    pub kind: &'static str,
    /// How it begins.
    pub prefix: &'static str,
    /// How many letters, digits, `_`, `-`, `.`, `+`, `/` and `=` follow at least.
    pub least: usize,
}

/// What must not be said.
#[derive(Debug)]
pub struct Secrets {
    shapes: &'static [Shape],
    /// Each with its kind.
    known: Mutex<BTreeMap<String, String>>,
}

impl Secrets {
    /// None so far but what is known by its shape.
    #[must_use]
    pub const fn new(shapes: &'static [Shape]) -> Self {
        Self { shapes, known: Mutex::new(BTreeMap::new()) }
    }

    /// From now on this must not be said.
    pub fn learn(&self, kind: &str, secret: &str) {
        let secret = secret.trim();
        if secret.len() >= LEAST {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(secret.to_owned()).or_insert_with(|| kind.to_owned());
        }
    }

    /// Learns the texts at these members, wherever in `value` they stand.
    pub fn learn_members(&self, value: &Value, members: &[&str]) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    match value {
                        Value::String(text) if members.contains(&name.as_str()) => {
                            self.learn(&format!("the value of {name:?}"), text);
                        }
                        other => self.learn_members(other, members),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.learn_members(value, members)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Learns the password of a URL, if it has one, as it stands there.
    pub fn learn_password(&self, kind: &str, url: &str) {
        if let Some(password) = Url::parse(url).ok().as_ref().and_then(Url::password) {
            self.learn(kind, password);
        }
    }

    /// How many are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The first secret that stands in a text, as it is or as the list of its bytes, which is how one is printed whose type
    /// does not hide it: its kind, and the line without it.
    #[must_use]
    pub fn told_in(&self, said: &[u8]) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let told = known.iter().find_map(|(secret, kind)| {
            let bytes = secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
            let found = [secret.as_str(), &bytes]
                .into_iter()
                .find_map(|form| memmem::find(said, form.as_bytes()).map(|at| (at, form.len())));
            found.map(|(at, length)| shown(kind, said, at, length))
        });
        told.or_else(|| self.shapes.iter().find_map(|shape| shape.told_in(said)))
    }
}

impl Shape {
    fn told_in(&self, said: &[u8]) -> Option<String> {
        let of_it = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_-.+/=".contains(*byte);
        memmem::find_iter(said, self.prefix).find_map(|at| {
            let rest = said[at + self.prefix.len()..].iter().take_while(of_it).count();
            (rest >= self.least).then(|| shown(self.kind, said, at, self.prefix.len() + rest))
        })
    }
}

/// What was found, without the secret itself.
fn shown(kind: &str, said: &[u8], at: usize, length: usize) -> String {
    let before = String::from_utf8_lossy(&said[..at]);
    let after = String::from_utf8_lossy(&said[at + length..]);
    let line: Vec<char> =
        before.lines().last().filter(|_| !before.ends_with('\n')).unwrap_or_default().chars().collect();
    let before: String = line[line.len().saturating_sub(AROUND)..].iter().collect();
    let after: String = after.lines().next().unwrap_or_default().chars().take(AROUND).collect();
    format!("{kind}: {before}***{after}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHAPES: &[Shape] = &[Shape { kind: "a key", prefix: "key_", least: 20 }];

    #[test]
    fn a_secret_that_stands_in_a_line_is_found_and_not_shown() {
        let secrets = Secrets::new(SHAPES);
        let answer = json!({ "data": [{ "secret": "hunter2-hunter2" }], "token": "a token of some length", "id": "a long id, no secret" });
        secrets.learn_members(&answer, &["secret", "token"]);
        secrets.learn_password("a database's password", "postgres://app:p%2Fw-of-the-app@127.0.0.1/db");
        secrets.learn("a word", "too short");
        assert_eq!(secrets.count(), 3);
        let key = "key_0123456789abcdefghij";
        for (line, kind) in [
            ("{\"message\":\"secret=hunter2-hunter2 was refused\"}", "the value of \"secret\""),
            ("a token of some length", "the value of \"token\""),
            ("connecting to postgres://app:p%2Fw-of-the-app@127.0.0.1/db", "a database's password"),
            (
                "Secret([104, 117, 110, 116, 101, 114, 50, 45, 104, 117, 110, 116, 101, 114, 50])",
                "the value of \"secret\"",
            ),
            (&format!("begins\\n{key} and goes on"), "a key"),
        ] {
            let told = secrets.told_in(format!("first line\n{line}\nlast line\n").as_bytes()).expect(line);
            assert!(told.starts_with(&format!("{kind}: ")) && told.contains("***"), "{told}");
            assert!(!told.contains("hunter2") && !told.contains("some length") && !told.contains("p%2Fw"), "{told}");
            assert!(!told.contains("104, 117") && !told.contains(key) && !told.contains("line"), "{told}");
        }
        for harmless in ["", "too short", "a long id, no secret", "key_0123", "hunter2-hunter"] {
            assert_eq!(secrets.told_in(harmless.as_bytes()), None, "{harmless}");
        }
    }
}
