//! Finds a source of the server by its name or id, for commands that people give a name.

use anyhow::bail;
use serde_json::Value;

use super::client::{Client, escape};
use super::output::plain;

/// How many names are shown of those that there are.
const NAMES_SHOWN: usize = 20;

/// The source of this name or id.
///
/// # Errors
/// When there is none; the error says which there are.
pub async fn find(client: &Client, wanted: &str) -> anyhow::Result<Value> {
    let mut names: Vec<String> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("/v1/sources?limit=250{cursor}")).await?;
        for source in page["data"].as_array().into_iter().flatten() {
            if source["name"] == wanted || source["id"] == wanted {
                return Ok(source.clone());
            }
            names.push(plain(source["name"].as_str().unwrap_or_default()));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", escape(next)),
            None => bail!(missing(wanted, &names)),
        }
    }
}

fn missing(wanted: &str, names: &[String]) -> String {
    let there = match names.len() {
        0 => "there are none yet, make one with `postroom sources create`".to_owned(),
        1..=NAMES_SHOWN => format!("there are {}", names.join(", ")),
        more => format!("there are {more}, `postroom sources list` shows them"),
    };
    format!("there is no source {:?}; {there}", plain(wanted))
}
