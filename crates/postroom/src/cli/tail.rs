//! `postroom tail`: what happens, as it happens, from `/v1/stream`.
//!
//! The stream is resumed where it broke off, so a restart of the server loses nothing that is still kept.

use std::time::Duration;

use clap::Args;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::client::{Client, Refused, ServerArgs, escape};
use super::output::{self, FAINT, ODD, STRONG, cell, status_style, styled};

/// The longest line of a stream that is read; a longer one is not ours.
const LINE_BYTES_MAX: usize = 1024 * 1024;

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
        match client.stream(&format!("/v1/stream{query}"), reader.last_id.as_deref()).await {
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

/// One message of the stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    event: String,
    data: String,
}

/// Takes server-sent events apart (WHATWG HTML, section 9.2), byte by byte as they arrive.
#[derive(Debug, Default)]
struct Reader {
    buffer: Vec<u8>,
    message: Message,
    id: Option<String>,
    last_id: Option<String>,
}

impl Reader {
    fn forget_unfinished(&mut self) {
        self.buffer.clear();
        self.message = Message::default();
        self.id = None;
    }

    fn read(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Message>> {
        self.buffer.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(message) = self.line(line.trim_end_matches(['\n', '\r'])) {
                messages.push(message);
            }
        }
        anyhow::ensure!(self.buffer.len() <= LINE_BYTES_MAX, "the server's stream is not one of Postroom");
        Ok(messages)
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            // An id counts only with the whole message: resuming behind a half one would lose it.
            self.last_id = self.id.take().or(self.last_id.take());
            let message = std::mem::take(&mut self.message);
            return (!message.data.is_empty()).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.message.event),
            "id" => self.id = Some(value.to_owned()),
            "data" if self.message.data.is_empty() => value.clone_into(&mut self.message.data),
            "data" => self.message.data.push_str(&format!("\n{value}")),
            _ => {}
        }
        None
    }
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

/// The time of day of an RFC 3339 moment, with milliseconds.
fn time_of_day(stamp: &Value) -> String {
    let stamp = cell(stamp);
    stamp.get(11..23).unwrap_or(&stamp).to_owned()
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
    fn a_stream_is_the_same_however_it_is_cut() {
        let stream = ": hello\n\nid: 1\nevent: event\ndata: {\"a\":1}\n\nevent: gap\r\ndata: x\r\ndata: y\r\n\r\nid: 2\ndata: half";
        for size in 1..stream.len() {
            let mut reader = Reader::default();
            let messages: Vec<Message> =
                stream.as_bytes().chunks(size).flat_map(|part| reader.read(part).unwrap()).collect();
            let expected = [("event", "{\"a\":1}"), ("gap", "x\ny")];
            let got: Vec<(&str, &str)> = messages.iter().map(|m| (m.event.as_str(), m.data.as_str())).collect();
            assert_eq!(got, expected, "in pieces of {size}");
            assert_eq!(reader.last_id.as_deref(), Some("1"), "in pieces of {size}");
        }
    }

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

    #[test]
    fn a_line_without_end_is_refused() {
        assert!(Reader::default().read(&vec![b'x'; LINE_BYTES_MAX + 1]).is_err());
    }
}
