//! The same checks run twice: silently for every request, and telling each step when somebody asks why.
//!
//! A check reports through [`Trace`]; for the silent run that is nothing at all, and the texts are never built.
//! No text shows a secret, a signature or a token.

use std::fmt;

use serde::Serialize;

use super::candidate::Location;
use crate::provider::scheme::{Encoding, Unit};

/// One check of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The check's stable name, `snake_case`.
    pub check: &'static str,
    /// Whether it passed.
    pub passed: bool,
    /// What was found, for a person. Text of the request in it is escaped and cut.
    pub detail: String,
}

/// Who listens to the checks.
pub(super) trait Trace {
    /// A check has a result.
    fn step(&mut self, check: &'static str, passed: bool, detail: impl FnOnce() -> String);

    fn passed(&mut self, check: &'static str, detail: impl FnOnce() -> String) {
        self.step(check, true, detail);
    }

    fn failed(&mut self, check: &'static str, detail: impl FnOnce() -> String) {
        self.step(check, false, detail);
    }
}

/// Nobody listens.
impl Trace for () {
    #[inline]
    fn step(&mut self, _: &'static str, _: bool, _: impl FnOnce() -> String) {}
}

impl Trace for Vec<Step> {
    fn step(&mut self, check: &'static str, passed: bool, detail: impl FnOnce() -> String) {
        self.push(Step { check, passed, detail: detail() });
    }
}

/// Bytes of a request for a person: quoted, escaped, at most 60 of them.
pub(super) fn show(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(60)];
    format!("\"{}{}\"", cut.escape_ascii(), if cut.len() < bytes.len() { "..." } else { "" })
}

/// `1 signature`, `2 signatures`.
pub(super) fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain { header, prefix } if prefix.is_empty() => write!(f, "header {header}"),
            Self::Plain { header, prefix } => write!(f, "header {header} ({prefix}...)"),
            Self::Pairs { header, label, .. } => write!(f, "header {header} ({label}=...)"),
            Self::List { header, label, .. } => write!(f, "header {header} ({label}...)"),
            Self::Numbered { headers } => {
                write!(f, "header {}", headers.first().map_or("", http::HeaderName::as_str))
            }
            Self::Json { .. } => f.write_str("the body"),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hex => "lower-case hexadecimal",
            Self::HexUpper => "upper-case hexadecimal",
            Self::Base64 => "base64",
            Self::Base64Url => "URL-safe base64 without padding",
        })
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seconds => "whole seconds since 1970",
            Self::Milliseconds => "whole milliseconds since 1970",
            Self::Rfc3339 => "RFC 3339 text",
        })
    }
}
