//! `postroom listen`: forwards a source's events to a program on this computer, live.
//!
//! It needs no endpoint and changes nothing on the server: it watches `/v1/stream` and reads each payload from
//! `/v1/events/{id}`, so the server may be anywhere and the program behind any firewall. Body and the provider's own headers
//! are those that arrived, so the provider's library verifies in the program. A stream that breaks is taken up where it broke
//! off; what the stream cannot show again is read from the list. No event is forwarded twice.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::client::{Client, Refused, ServerArgs, escape};
use super::forward::{Forwarded, Forwarder};
use super::output::{self, BAD, FAINT, GOOD, ODD, STRONG, cell, styled, time_of_day};
use super::source;
use super::sse::Reader;

/// How many ids are remembered, so that none is forwarded twice.
const SEEN_MAX: usize = 100_000;
/// The most events that are looked through for those that were missed.
const CATCH_UP_MAX: usize = 10_000;
/// The first pause before another try; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A stream that says nothing for so long is dead: the server says that it is alive more often.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What to forward, and where.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  postroom listen stripe --forward-to http://localhost:3000/webhook
  postroom listen github --forward-to localhost:3000 --last 5 --json | jq .status")]
pub struct Args {
    /// The source, by name or id
    source: String,
    /// The program's address: http://localhost:3000/webhook, localhost:3000/webhook or 3000/webhook
    #[arg(long, value_name = "URL")]
    forward_to: String,
    /// Forward the newest N events first
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1000))]
    last: u16,
    /// How long the program may take for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Forwards until it is stopped.
///
/// # Errors
/// When there is no such source, the server refuses, or it cannot be reached at first.
pub async fn listen(args: Args) -> anyhow::Result<()> {
    let client = Client::from_environment(&args.server)?;
    let forwarder = Forwarder::new(&args.forward_to, Duration::from_secs(args.timeout))?;
    let source = source::find(&client, &args.source).await?;
    let name = cell(&source["name"]);
    let source = source["id"].as_str().context("a source has an id")?.to_owned();
    let mut listener =
        Listener { client, forwarder, source, seen: Seen::default(), reader: Reader::default(), json: args.json };
    let replay = listener.begin(args.last.into()).await?;
    let body = listener.open().await?;
    if !args.json {
        let (to, from) = (listener.forwarder.url(), listener.client.base());
        output::note(styled(FAINT, format!("forwarding {name} of {from} to {to}, stop with Ctrl-C")));
    }
    for event in replay {
        listener.forward(&event, true).await?;
    }
    listener.catch_up().await?;
    listener.follow(body).await?;
    listener.go_on().await
}

/// One source under way.
struct Listener {
    client: Client,
    forwarder: Forwarder,
    source: String,
    seen: Seen,
    reader: Reader,
    json: bool,
}

impl Listener {
    /// The newest events, those that arrived first in front; what is there already is not forwarded otherwise.
    async fn begin(&mut self, last: usize) -> anyhow::Result<Vec<Value>> {
        let mut newest = Vec::new();
        let mut cursor = None;
        loop {
            let (page, next) = self.page((last - newest.len()).clamp(1, 250), cursor.as_deref()).await?;
            newest.extend(page);
            cursor = next;
            if newest.len() >= last || cursor.is_none() {
                break;
            }
        }
        self.seen.floor = newest.first().map(|event| cell(&event["id"]));
        newest.truncate(last);
        newest.reverse();
        Ok(newest)
    }

    /// One page of the source's events, newest first.
    async fn page(&self, limit: usize, cursor: Option<&str>) -> anyhow::Result<(Vec<Value>, Option<String>)> {
        let cursor = cursor.map(|cursor| format!("&cursor={}", escape(cursor))).unwrap_or_default();
        let page = self.client.get(&format!("/v1/events?source_id={}&limit={limit}{cursor}", self.source)).await?;
        let next = page["next_cursor"].as_str().map(str::to_owned);
        Ok((page["data"].as_array().cloned().unwrap_or_default(), next))
    }

    async fn open(&self) -> anyhow::Result<Incoming> {
        let path = format!("/v1/stream?kinds=event&source_id={}", self.source);
        Ok(self.client.stream(&path, self.reader.last_id()).await?.into_body())
    }

    /// Takes the stream up again whenever it breaks.
    async fn go_on(&mut self) -> anyhow::Result<()> {
        loop {
            output::note(styled(ODD, "the connection to the server broke off; trying again"));
            let body = patiently(async || self.open().await).await?;
            output::note(styled(FAINT, "connected again"));
            // Without anything to resume after, the stream begins now.
            if self.reader.last_id().is_none() {
                self.catch_up().await?;
            }
            self.follow(body).await?;
        }
    }

    /// Forwards what comes until the connection ends.
    async fn follow(&mut self, mut body: Incoming) -> anyhow::Result<()> {
        self.reader.forget_unfinished();
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            let Ok(data) = frame.into_data() else { continue };
            for message in self.reader.read(&data)? {
                match message.event.as_str() {
                    "event" => self.forward(&serde_json::from_str(&message.data)?, false).await?,
                    "gap" => self.catch_up().await?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Forwards what is in the list and was not shown by the stream.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        let mut missed = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..CATCH_UP_MAX / 250 {
            let (page, next) = patiently(async || self.page(250, cursor.as_deref()).await).await?;
            let floor = page.iter().position(|event| self.seen.floor.as_deref() == event["id"].as_str());
            let new = &page[..floor.unwrap_or(page.len())];
            let before = missed.len();
            missed.extend(new.iter().filter(|event| !self.seen.contains(&event["id"])).cloned());
            cursor = next;
            if floor.is_some() || missed.len() == before || cursor.is_none() {
                break;
            }
        }
        for event in missed.iter().rev() {
            self.forward(event, true).await?;
        }
        Ok(())
    }

    /// Forwards one event, unless it was before, and tells the answer.
    async fn forward(&mut self, event: &Value, again: bool) -> anyhow::Result<()> {
        let id = event["id"].as_str().context("an event has an id")?.to_owned();
        if !self.seen.insert(&id) {
            return Ok(());
        }
        let path = format!("/v1/events/{}?payload_encoding=base64", escape(&id));
        let answered = match patiently(async || self.client.get(&path).await).await {
            Ok(whole) => {
                let body =
                    BASE64.decode(whole["payload"].as_str().unwrap_or_default()).context("the payload is base64")?;
                self.forwarder.forward(original(&whole["headers"]), body.into()).await
            }
            Err(error) if is_gone(&error) => Forwarded::failed("the server does not keep it any more"),
            Err(error) => return Err(error),
        };
        self.tell(event, &answered, again)
    }

    fn tell(&self, event: &Value, answered: &Forwarded, again: bool) -> anyhow::Result<()> {
        if self.json {
            return Ok(output::json(&json!({
                "event_id": event["id"], "type": event["type"], "external_id": event["external_id"],
                "created_at": event["created_at"], "caught_up": again, "url": self.forwarder.url(),
                "status": answered.status.map(|status| status.as_u16()), "error": answered.error,
                "duration_ms": u64::try_from(answered.duration.as_millis()).unwrap_or(u64::MAX),
            }))?);
        }
        let (style, answer) = match (answered.status, &answered.error) {
            (Some(status), None) if status.is_success() => (GOOD, status.to_string()),
            (Some(status), None) if status.is_redirection() => (BAD, format!("{status} (not followed)")),
            (Some(status), None) => (BAD, status.to_string()),
            (_, error) => (BAD, error.clone().unwrap_or_default()),
        };
        Ok(output::line(format!(
            "{} {} {} -> {} {}",
            styled(FAINT, time_of_day(&event["created_at"])),
            styled(STRONG, cell(&event["type"])),
            cell(&event["id"]),
            styled(style, output::plain(&answer)),
            styled(FAINT, format!("{} bytes, {} ms", cell(&event["payload_bytes"]), answered.duration.as_millis())),
        ))?)
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
}

/// Asks until the server answers. A refusal that will not pass is an error.
async fn patiently<T>(ask: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut pause = PAUSE;
    loop {
        match ask().await {
            Err(error) if error.downcast_ref::<Refused>().is_none_or(Refused::is_busy) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            done => return done,
        }
    }
}

/// The headers that arrived with the event. What no request can carry is left out.
fn original(headers: &Value) -> HeaderMap {
    let mut map = HeaderMap::new();
    for header in headers.as_array().into_iter().flatten() {
        let name = header["name"].as_str().and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let value = header["value"].as_str().and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
        if let (Some(name), Some(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}

/// Which events were forwarded, the newest of them.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
    /// The newest event of before: it and all older ones are not forwarded unless asked for.
    floor: Option<String>,
}

impl Seen {
    fn contains(&self, id: &Value) -> bool {
        id.as_str().is_some_and(|id| self.ids.contains(id))
    }

    /// Whether it is new.
    fn insert(&mut self, id: &str) -> bool {
        let is_new = self.ids.insert(id.to_owned());
        if is_new {
            self.order.push_back(id.to_owned());
            if self.order.len() > SEEN_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.ids.remove(&oldest);
            }
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_ids_are_remembered_as_there_is_room_for() {
        let mut seen = Seen::default();
        assert!(seen.insert("a") && !seen.insert("a"));
        for number in 0..SEEN_MAX {
            assert!(seen.insert(&number.to_string()));
        }
        assert!(!seen.contains(&json!("a")) && seen.contains(&json!("0")));
        assert_eq!((seen.ids.len(), seen.order.len()), (SEEN_MAX, SEEN_MAX));
    }

    #[test]
    fn headers_arrive_as_they_were_and_only_if_they_can() {
        let headers = json!([
            { "name": "x-a", "value": "1" }, { "name": "x-a", "value": "2" }, { "name": "b c", "value": "3" },
            { "name": "x-d", "value": "4\n5" }, { "name": "x-e", "value": "caf\u{e9}" }, 7
        ]);
        let map = original(&headers);
        let all: Vec<(&str, &[u8])> = map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(all, [("x-a", &b"1"[..]), ("x-a", b"2"), ("x-e", "caf\u{e9}".as_bytes())]);
    }
}
