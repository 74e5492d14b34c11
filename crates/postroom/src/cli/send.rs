//! `postroom send`: one event of the organization's own, or many at a rate.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::Method;
use postroom_domain::secret::fill_random;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::client::{Client, Refused, ServerArgs};
use super::output;

/// The most that is read of `--data`.
const DATA_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Requests under way at once with `--count`.
const CONCURRENCY: usize = 16;

/// What to send.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  postroom send --type order.paid --data '{\"order\": 42}'
  postroom send --type order.paid --data order.json --id order-42-paid
  postroom send --type load.test --data - --count 10000 --rate 500 < body.json")]
pub struct SendArgs {
    /// The event's type, such as order.paid
    #[arg(long = "type", value_name = "TYPE")]
    event_type: String,
    /// JSON: a file, - for standard input, or the JSON itself
    #[arg(long, value_name = "FILE", default_value = "{}")]
    data: String,
    /// Your own id of the event: the same id again is recognised as a duplicate
    #[arg(long, conflicts_with = "count")]
    id: Option<String>,
    /// Send the event so many times, each with an id of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// With --count: events a second; as fast as the server takes them if not given
    #[arg(long, value_name = "R", requires = "count", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// The wire form; `data` keeps the bytes that were given.
#[derive(serde::Serialize)]
struct Wire<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    data: &'a RawValue,
}

/// Runs `postroom send`.
///
/// # Errors
/// When the data is not JSON, or the server refuses or cannot be reached.
pub async fn send(args: SendArgs) -> anyhow::Result<()> {
    let client = Client::from_environment(&args.server)?;
    let data = read_data(&args.data)?;
    match args.count {
        Some(count) => send_many(&client, &args, &data, count).await,
        None => {
            let body = wire(&args.event_type, args.id.as_deref(), &data)?;
            let answer = client.json(Method::POST, "/v1/events", Some(body)).await?;
            print_one(&answer, args.json)
        }
    }
}

fn print_one(answer: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(output::json(answer)?);
    }
    let id = output::cell(&answer["id"]);
    if answer["duplicate"] == true {
        return Ok(output::line(format!("{id} was accepted before: nothing new is delivered"))?);
    }
    let deliveries = answer["deliveries"].as_u64().unwrap_or(0);
    let hint = if deliveries == 0 { "; no endpoint subscribes to this type" } else { "" };
    Ok(output::line(format!("{id} accepted, {deliveries} deliveries{hint}"))?)
}

fn wire(event_type: &str, id: Option<&str>, data: &RawValue) -> anyhow::Result<Bytes> {
    Ok(Bytes::from(serde_json::to_vec(&Wire { event_type, id, data })?))
}

/// `--data`: standard input, a file, or JSON itself when no file has that name.
fn read_data(given: &str) -> anyhow::Result<Box<RawValue>> {
    let path = Path::new(given);
    let (text, from) = if given == "-" {
        (read_bounded(std::io::stdin()).context("standard input cannot be read")?, "standard input".to_owned())
    } else if path.exists() || !given.trim_start().starts_with(['{', '[', '"']) {
        anyhow::ensure!(!path.is_dir(), "{given} is a directory: --data takes a file");
        let file = std::fs::File::open(path).with_context(|| format!("{given} cannot be read"))?;
        (read_bounded(file).with_context(|| format!("{given} cannot be read"))?, given.to_owned())
    } else {
        (given.to_owned(), "--data".to_owned())
    };
    serde_json::from_str(&text).with_context(|| format!("{from} is not JSON"))
}

fn read_bounded(from: impl std::io::Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    from.take(DATA_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() as u64 <= DATA_BYTES_MAX, "it is larger than 64 MiB, and no server accepts that");
    String::from_utf8(bytes).context("it is not UTF-8")
}

/// What became of many events.
#[derive(Debug, Default)]
struct Tally {
    accepted: AtomicU64,
    deliveries: AtomicU64,
}

async fn send_many(client: &Client, args: &SendArgs, data: &RawValue, count: u64) -> anyhow::Result<()> {
    let bar = indicatif::ProgressBar::new(count);
    bar.set_style(indicatif::ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}")?);
    let tally = Arc::new(Tally::default());
    let started = Instant::now();
    let mut random = [0; 6];
    fill_random(&mut random);
    let run = hex::encode(random);
    let mut under_way: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for number in 0..count {
        if let Some(rate) = args.rate {
            let due = started + Duration::from_secs_f64(number as f64 / rate as f64);
            tokio::time::sleep_until(due.into()).await;
        }
        if under_way.len() >= CONCURRENCY {
            under_way.join_next().await.context("a request is under way")???;
        }
        let body = wire(&args.event_type, Some(&format!("send-{run}-{number}")), data)?;
        let (client, tally, bar) = (client.clone(), Arc::clone(&tally), bar.clone());
        under_way.spawn(async move {
            let answer = send_patiently(&client, body).await?;
            tally.accepted.fetch_add(1, Ordering::Relaxed);
            tally.deliveries.fetch_add(answer["deliveries"].as_u64().unwrap_or(0), Ordering::Relaxed);
            bar.inc(1);
            Ok(())
        });
    }
    while let Some(ended) = under_way.join_next().await {
        ended??;
    }
    bar.finish_and_clear();
    summary(&tally, started.elapsed(), args.json)
}

fn summary(tally: &Tally, took: Duration, json: bool) -> anyhow::Result<()> {
    let accepted = tally.accepted.load(Ordering::Relaxed);
    let deliveries = tally.deliveries.load(Ordering::Relaxed);
    let rate = accepted as f64 / took.as_secs_f64().max(0.001);
    if json {
        return Ok(output::json(&json!({
            "accepted": accepted, "deliveries": deliveries, "accepted_per_s": rate.round()
        }))?);
    }
    Ok(output::line(format!(
        "{accepted} accepted in {:.1} s ({rate:.0} a second), {deliveries} deliveries",
        took.as_secs_f64()
    ))?)
}

/// Each event has an id, so asking again after 429 or 503 cannot make a second one.
async fn send_patiently(client: &Client, body: Bytes) -> anyhow::Result<Value> {
    for pause in [1, 2, 4, 8] {
        match client.json(Method::POST, "/v1/events", Some(body.clone())).await {
            Err(error) if error.downcast_ref::<Refused>().is_some_and(Refused::is_busy) => {
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
            answer => return answer,
        }
    }
    bail!("the server is busy: try a lower --rate")
}
