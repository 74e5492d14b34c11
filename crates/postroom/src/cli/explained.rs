//! Shows why a request does or does not verify, as `verify` and `rejections show` do.

use std::fmt::Write as _;

use serde_json::Value;

use super::output::{BAD, GOOD, cell};

/// An explanation for a person; colours fall away where standard output is no terminal.
#[must_use]
pub fn written(told: &Value) -> String {
    let mut text = String::new();
    let verdict = match told["verdict"].as_str() {
        Some("invalid") => format!("{BAD}invalid{BAD:#}: {}", cell(&told["code"])),
        Some("handshake") => format!("{GOOD}handshake{GOOD:#}: answered, not recorded"),
        _ => format!("{GOOD}valid{GOOD:#}"),
    };
    let _ = writeln!(text, "{} {verdict}", cell(&told["provider"]));
    for step in told["checks"].as_array().into_iter().flatten() {
        let (style, mark) = if step["passed"] == true { (GOOD, "ok  ") } else { (BAD, "FAIL") };
        let _ = writeln!(text, "  {style}{mark}{style:#} {:<20} {}", cell(&step["check"]), cell(&step["detail"]));
    }
    if told["event_type"].is_string() {
        let id = told["external_id"].as_str().map_or_else(|| "none".to_owned(), |_| cell(&told["external_id"]));
        let _ = writeln!(text, "event type {}, id {id}", cell(&told["event_type"]));
    }
    for (index, cause) in told["likely_causes"].as_array().into_iter().flatten().enumerate() {
        let _ = writeln!(text, "{} {}", if index == 0 { "likely cause:" } else { "             " }, cell(cause));
    }
    text
}
