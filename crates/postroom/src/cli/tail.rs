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
    let mut connected_before = false;
    let mut pause = Duration::from_millis(250);
    loop {
        match client.stream(&format!("/v1/stream{query}"), reader.last_id.as_deref()).await {
            Ok(response) => {
                if !connected_before && !args.json {
                    output::note(styled(FAINT, format!("following {}, stop with Ctrl-C", client.base())));
                }
                (connected_before, pause) = (true, Duration::from_millis(250));
                follow(response.into_body(), &mut reader, args.json).await?;
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
async fn follow(mut body: hyper::body::Incoming, reader: &mut Reader, json: bool) -> anyhow::Result<()> {
    reader.forget_unfinished();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        for message in reader.read(&data)? {
            show(&message, json)?;
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

fn show(message: &Message, json: bool) -> anyhow::Result<()> {
    let data: Value = serde_json::from_str(&message.data).unwrap_or_else(|_| Value::from(message.data.as_str()));
    if json {
        return Ok(output::json(&serde_json::json!({ "event": message.event, "data": data }))?);
    }
    Ok(output::line(describe(&message.event, &data))?)
}

/// One line for a person.
fn describe(event: &str, data: &Value) -> String {
    let time = |field: &str| {
        let stamp = cell(&data[field]);
        styled(FAINT, stamp.get(11..23).unwrap_or(&stamp))
    };
    match event {
        "event" => format!(
            "{} {} {} {} {}",
            time("created_at"),
            styled(STRONG, format!("{:<9}", cell(&data["direction"]))),
            cell(&data["type"]),
            cell(&data["id"]),
            styled(FAINT, format!("{} bytes, {} deliveries", cell(&data["payload_bytes"]), cell(&data["deliveries"]))),
        ),
        "attempt" => attempt_line(&time("started_at"), data),
        "gap" => styled(ODD, format!("          {} were missed here: this reader was too slow", cell(&data["missed"]))),
        other => format!("{other} {}", cell(data)),
    }
}

fn attempt_line(time: &str, data: &Value) -> String {
    let delivery = &data["delivery"];
    let status = cell(&delivery["status"]);
    let answer = [&data["response_status"], &data["error"]].map(cell).join(" ");
    let next = cell(&delivery["next_attempt_at"]);
    let next =
        if next.is_empty() { String::new() } else { format!(", next attempt {}", next.get(11..19).unwrap_or(&next)) };
    format!(
        "{time} {} {} attempt {} {} {}",
        styled(status_style(&status), format!("{status:<9}")),
        cell(&delivery["event_type"]),
        cell(&data["number"]),
        answer.trim(),
        styled(FAINT, format!("{} ms to {}{next}", cell(&data["duration_ms"]), cell(&data["url"]))),
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
    fn a_line_without_end_is_refused() {
        assert!(Reader::default().read(&vec![b'x'; LINE_BYTES_MAX + 1]).is_err());
    }
}
