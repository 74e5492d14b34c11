//! `postroom send`: one event of the organization's own or one signed sample webhook, or many at a rate.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::Method;
use postroom_domain::Secret;
use postroom_domain::provider::Provider;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use url::Url;

use super::beside::now;
use super::client::{Client, Refused, ServerArgs};
use super::resources::read_secret;
use super::{output, provider_args, source};
use crate::samples;

/// The most that is read of `--data`.
const DATA_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Requests under way at once with `--count`.
const CONCURRENCY: usize = 16;

/// What to send.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  postroom send --type order.paid --data '{\"order\": 42}'
  postroom send --type order.paid --data order.json --id order-42-paid
  postroom send --type load.test --data - --count 10000 --rate 500 < body.json
  postroom send --provider stripe --source stripe --secret whsec_...
  postroom send --provider github --type issues.opened --secret-file secret --to http://127.0.0.1:8080/in/acme-corp/github")]
pub struct SendArgs {
    /// The event's type, such as order.paid; with --provider, which of its samples
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "provider")]
    event_type: Option<String>,
    /// JSON: a file, - for standard input, or the JSON itself
    #[arg(long, value_name = "FILE", default_value = "{}")]
    data: String,
    /// Your own id of the event: the same id again is recognised as a duplicate
    #[arg(long, conflicts_with_all = ["count", "provider"])]
    id: Option<String>,
    /// Send a sample webhook of this provider to a source, signed as the provider signs, in place of an own event
    #[arg(long, value_name = "NAME", requires = "address", conflicts_with = "data")]
    provider: Option<String>,
    /// With --provider: the source of the server, by name or id; asks the server for its URL and options
    #[arg(long, value_name = "NAME", requires = "provider", group = "address")]
    source: Option<String>,
    /// With --provider: the source's URL; asks the server nothing
    #[arg(long, value_name = "URL", requires = "provider", group = "address")]
    to: Option<String>,
    /// With --provider: the source's secret, or the private key where the source has the public one only
    #[arg(long, value_name = "SECRET", requires = "provider", group = "key", allow_hyphen_values = true)]
    secret: Option<String>,
    /// With --provider: a file that holds the source's secret; - reads standard input
    #[arg(long, value_name = "FILE", requires = "provider", group = "key")]
    secret_file: Option<PathBuf>,
    /// With --provider and --to: an option of the source, such as header=X-Token
    #[arg(long = "option", value_name = "NAME=VALUE", requires = "to")]
    options: Vec<String>,
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

/// What is sent: one event after the other, told apart by their numbers.
enum Job {
    /// Events of the organization's own.
    Own { client: Client, event_type: String, id: Option<String>, data: Box<RawValue> },
    /// Sample webhooks of a provider.
    Sample(Sample),
}

/// A provider as it is played.
struct Sample {
    client: Client,
    provider: &'static Provider,
    kind: Option<String>,
    /// As the provider knows it.
    url: Url,
    options: Map<String, Value>,
    secret: Option<Secret>,
    first: u64,
}

/// Runs `postroom send`.
///
/// # Errors
/// When the data is not JSON, or the server refuses or cannot be reached.
pub async fn send(args: SendArgs) -> anyhow::Result<()> {
    let job = Arc::new(Job::new(&args).await?);
    match args.count {
        Some(count) => send_many(&job, &args, count).await,
        None => {
            let id = if let Job::Own { id, .. } = &*job { id.clone() } else { None };
            print_one(&job.send_once(0, id.as_deref()).await?, args.json)
        }
    }
}

impl Job {
    async fn new(args: &SendArgs) -> anyhow::Result<Self> {
        if let Some(provider) = &args.provider {
            return Ok(Self::Sample(Sample::new(args, provider).await?));
        }
        Ok(Self::Own {
            client: Client::from_environment(&args.server)?,
            event_type: args.event_type.clone().unwrap_or_default(),
            id: args.id.clone(),
            data: read_data(&args.data)?,
        })
    }

    /// The server's answer to one event.
    async fn send_once(&self, number: u64, id: Option<&str>) -> anyhow::Result<Value> {
        match self {
            Self::Own { client, event_type, data, .. } => {
                client.json(Method::POST, "/v1/events", Some(wire(event_type, id, data)?)).await
            }
            Self::Sample(sample) => sample.send(number).await,
        }
    }

    /// Each event has an id, so asking again after 429 or 503 cannot make a second one.
    async fn send_patiently(&self, number: u64, id: &str) -> anyhow::Result<Value> {
        for pause in [1, 2, 4, 8] {
            match self.send_once(number, Some(id)).await {
                Err(error) if error.downcast_ref::<Refused>().is_some_and(Refused::is_busy) => {
                    tokio::time::sleep(Duration::from_secs(pause)).await;
                }
                answer => return answer,
            }
        }
        bail!("the server is busy: try a lower --rate")
    }
}

impl Sample {
    async fn new(args: &SendArgs, provider: &str) -> anyhow::Result<Self> {
        let provider = provider_args::provider(provider)?;
        let secret = match (&args.secret, &args.secret_file) {
            (Some(text), _) => Some(Secret::from(text.trim())),
            (None, Some(file)) => Some(read_secret(file)?),
            (None, None) if provider.needs_secret() => {
                bail!("give --secret or --secret-file: {}", provider.describe().secret_hint)
            }
            (None, None) => None,
        };
        let (client, url, options) = match (&args.source, &args.to) {
            (Some(name), _) => Self::of_source(args, provider, name).await?,
            (None, to) => {
                let to = to.as_deref().unwrap_or_default();
                let url =
                    Url::parse(to).with_context(|| format!("{:?} is not the URL of a source", output::plain(to)))?;
                let client = Client::anonymous(&url[..url::Position::BeforePath])?;
                (client, url, provider_args::options(&args.options, provider)?)
            }
        };
        // Another run makes other events, not repetitions of the last one's.
        let first = u64::try_from(now().as_millis()).unwrap_or(0) << 20;
        Ok(Self { client, provider, kind: args.event_type.clone(), url, options, secret, first })
    }

    /// A source as the server knows it. The request goes to the server that was asked, which need not be reached by its
    /// public URL from here.
    async fn of_source(
        args: &SendArgs,
        provider: &Provider,
        name: &str,
    ) -> anyhow::Result<(Client, Url, Map<String, Value>)> {
        let source = source::find(&Client::from_environment(&args.server)?, name).await?;
        let url = Url::parse(source["url"].as_str().unwrap_or_default()).context("a source has a URL")?;
        // Any provider can be played at any source; the options are those of the source's own.
        let is_its_own = source["provider"] == provider.name;
        let options = source["options"].as_object().filter(|_| is_its_own).cloned().unwrap_or_default();
        Ok((Client::anonymous(&args.server.url)?, url, options))
    }

    async fn send(&self, number: u64) -> anyhow::Result<Value> {
        let (kind, url, secret) = (self.kind.as_deref(), self.url.as_str(), self.secret.as_ref());
        let number = self.first + number;
        let signed = samples::webhook(self.provider.name, kind, number, url, &self.options, secret, now())?;
        // Where the secret stands in the query, signing has put it there.
        let signed_url = Url::parse(&signed.url)?;
        let path = &signed_url[url::Position::BeforePath..];
        self.client.send_signed(path, signed.headers, signed.body.into()).await
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
    let Some(deliveries) = answer["deliveries"].as_u64() else {
        return Ok(output::line(if id.is_empty() { "accepted".to_owned() } else { format!("{id} accepted") })?);
    };
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

async fn send_many(job: &Arc<Job>, args: &SendArgs, count: u64) -> anyhow::Result<()> {
    let bar = indicatif::ProgressBar::new(count);
    bar.set_style(indicatif::ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}")?);
    let tally = Arc::new(Tally::default());
    let started = Instant::now();
    let run = hex::encode(Secret::random(6).expose());
    let mut under_way: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for number in 0..count {
        if let Some(rate) = args.rate {
            let due = started + Duration::from_secs_f64(number as f64 / rate as f64);
            tokio::time::sleep_until(due.into()).await;
        }
        if under_way.len() >= CONCURRENCY {
            under_way.join_next().await.context("a request is under way")???;
        }
        let (job, tally, bar) = (Arc::clone(job), Arc::clone(&tally), bar.clone());
        let id = format!("send-{run}-{number}");
        under_way.spawn(async move {
            let answer = job.send_patiently(number, &id).await?;
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
    summary(&tally, started.elapsed(), args)
}

fn summary(tally: &Tally, took: Duration, args: &SendArgs) -> anyhow::Result<()> {
    let accepted = tally.accepted.load(Ordering::Relaxed);
    let deliveries = tally.deliveries.load(Ordering::Relaxed);
    let rate = accepted as f64 / took.as_secs_f64().max(0.001);
    if args.json {
        return Ok(output::json(&json!({
            "accepted": accepted, "deliveries": deliveries, "accepted_per_s": rate.round()
        }))?);
    }
    // The answer to a webhook does not say where it goes.
    let deliveries = if args.provider.is_some() { String::new() } else { format!(", {deliveries} deliveries") };
    let took = took.as_secs_f64();
    Ok(output::line(format!("{accepted} accepted in {took:.1} s ({rate:.0} a second){deliveries}"))?)
}
