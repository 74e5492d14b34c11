//! `postroom tail`: what happens, as it happens, from `/v1/stream`.
//!
//! The stream is resumed where it broke off, so a restart of the server loses nothing that is still kept.

use std::time::Duration;

use clap::Args;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::client::{Client, Refused, ServerArgs, escape};
use super::output::{self, FAINT, ODD, STRONG, cell, status_style, styled, time_of_day};
use super::sse::{Message, Reader};

/// What to follow.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  postroom tail\n  postroom tail --type order.* --json | jq .")]
pub struct TailArgs {
    /// Only of this type, or of all types that begin so: order.*
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Follows the stream until it is stopped.
///
/// # Errors
/// When the server refuses, or cannot be reached at first. A stream that breaks later is taken up again.
pub async fn tail(args: TailArgs) -> anyhow::Result<()> {
    let client = Client::from_environment(&args.server)?;
    let query = args.event_type.as_deref().map(|kind| format!("?type={}", escape(kind))).unwrap_or_default();
    let mut reader = Reader::default();
    let mut teller = Teller { json: args.json, ..Teller::default() };
    let mut connected_before = false;
    let mut pause = Duration::from_millis(250);
    loop {
        match client.stream(&format!("/v1/stream{query}"), reader.last_id()).await {
            Ok(response) => {
                if !connected_before && !args.json {
                    output::note(styled(FAINT, format!("following {}, stop with Ctrl-C", client.base())));
                }
                (connected_before, pause) = (true, Duration::from_millis(250));
                follow(response.into_body(), &mut reader, &mut teller).await?;
            }
            Err(error) if !connected_before || error.downcast_ref::<Refused>().is_some_and(|r| !r.is_busy()) => {
                return Err(error);
            }
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

/// Prints what comes until the connection ends.
async fn follow(mut body: hyper::body::Incoming, reader: &mut Reader, teller: &mut Teller) -> anyhow::Result<()> {
    reader.forget_unfinished();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        for message in reader.read(&data)? {
            teller.tell(&message)?;
        }
    }
    Ok(())
}

/// Turns messages into lines. A delivery is told with the attempt that moved it, which comes right behind it.
#[derive(Debug, Default)]
struct Teller {
    json: bool,
    delivery: Value,
}

impl Teller {
    fn tell(&mut self, message: &Message) -> anyhow::Result<()> {
        let data: Value = serde_json::from_str(&message.data).unwrap_or_else(|_| Value::from(message.data.as_str()));
        if self.json {
            return Ok(output::json(&serde_json::json!({ "kind": message.event, "data": data }))?);
        }
        match self.describe(&message.event, data) {
            Some(line) => Ok(output::line(line)?),
            None => Ok(()),
        }
    }

    /// One line for a person.
    fn describe(&mut self, kind: &str, data: Value) -> Option<String> {
        match kind {
            "event" => Some(event_line(&data)),
            "delivery" => {
                self.delivery = data;
                None
            }
            "attempt" => {
                let known = self.delivery["id"] == data["delivery_id"];
                Some(attempt_line(&data, if known { &self.delivery } else { &Value::Null }))
            }
            "gap" => {
                let missed = data["missed"].as_u64().map_or_else(|| "some".to_owned(), |missed| missed.to_string());
                Some(styled(ODD, format!("{missed} things that happened here are not shown: see postroom events list")))
            }
            other => Some(format!("{} {}", output::plain(other), cell(&data))),
        }
    }
}

fn event_line(event: &Value) -> String {
    format!(
        "{} {} {} {} {}",
        styled(FAINT, time_of_day(&event["created_at"])),
        styled(STRONG, format!("{:<11}", cell(&event["direction"]))),
        cell(&event["type"]),
        cell(&event["id"]),
        styled(
            FAINT,
            format!("{} bytes, {} deliveries", cell(&event["payload_bytes"]), cell(&event["delivery_count"]))
        ),
    )
}

fn attempt_line(attempt: &Value, delivery: &Value) -> String {
    let status = cell(&delivery["status"]);
    let answer = [&attempt["response_status"], &attempt["error"]].map(cell).join(" ");
    let next = match &delivery["next_attempt_at"] {
        Value::Null => String::new(),
        at => format!(", next attempt at {}", time_of_day(at)),
    };
    format!(
        "{} {} {} {} attempt {} {} {}",
        styled(FAINT, time_of_day(&attempt["started_at"])),
        styled(status_style(&status), format!("{status:<11}")),
        cell(&delivery["event_type"]),
        cell(&attempt["event_id"]),
        cell(&attempt["number"]),
        answer.trim(),
        styled(FAINT, format!("{} ms to {}{next}", cell(&attempt["duration_ms"]), cell(&attempt["url"]))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_told_with_its_delivery_and_text_from_outside_is_escaped() {
        let mut teller = Teller::default();
        let delivery = serde_json::json!({ "id": "dlv_1", "status": "failed", "event_type": "a\u{1b}b",
            "next_attempt_at": "2026-11-22T10:00:05.000Z" });
        assert_eq!(teller.describe("delivery", delivery), None);
        let attempt = serde_json::json!({ "delivery_id": "dlv_1", "event_id": "evt_1", "number": 1, "response_status": 503,
            "error": null, "duration_ms": 4, "url": "http://x/", "started_at": "2026-11-22T10:00:00.123Z" });
        let line = anstream::adapter::strip_str(&teller.describe("attempt", attempt).unwrap()).to_string();
        let expected =
            "10:00:00.123 failed      a\\u{1b}b evt_1 attempt 1 503 4 ms to http://x/, next attempt at 10:00:05.000";
        assert_eq!(line, expected);
    }
}
