//! `postroom bench`: load from this computer, on a server of its own, and a ledger of what became of every event.
//!
//! Three forms: a plain bench; with `--bare` the same load in the same run on a bare gateway too, in turns; with
//! `--kill` a server that is killed again and again under load. Generator, receiver and server share this machine, so
//! events a second are a floor; CPU time per event and the ratio to the bare gateway carry over to other machines.

mod child;
mod event;
pub mod gateway;
mod kill;
mod ledger;
mod load;
mod receiver;
mod setup;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use postroom_domain::Secret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::cli::client::Client;
use crate::cli::output::{self, FAINT, STRONG, styled};
use crate::config::{Flags, Loaded};
use child::Process;
use event::Shape;
use ledger::Ledger;
use load::{Done, Kind, Load, Until};
use receiver::{Expected, Receiver};

/// What to measure.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  postroom bench                      five seconds on a server of its own
  postroom bench --bare --rounds 3    and the same on a bare gateway: the ratio
  postroom bench --kill 50            kill it 50 times under load, and count
  postroom bench --url http://127.0.0.1:8080    on a running server, with POSTROOM_API_KEY")]
pub struct BenchArgs {
    /// Requests under way at once
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: u16,
    /// How long each round lasts
    #[arg(long, default_value_t = 5, value_name = "S", value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Events of each round, in place of --seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000), conflicts_with = "seconds")]
    events: Option<u64>,
    /// Rounds; figures are their medians
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Bytes of an event
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    body_bytes: u32,
    /// Organizations that events are spread over
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    organizations: u16,
    /// Endpoints of each; every event goes to one of them
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    endpoints: u16,
    /// Send the organizations' own events to /v1/events, in place of signed webhooks to /in/
    #[arg(long)]
    own: bool,
    /// Put the same load on a bare gateway too: receive, check the HMAC, forward, store nothing
    #[arg(long, conflicts_with_all = ["own", "url", "kill"])]
    bare: bool,
    /// Kill the server so many times under load, restart it, and compare what was acknowledged with what arrived
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "url")]
    kill: Option<u32>,
    /// With --kill: repeats the moments of another run
    #[arg(long, requires = "kill")]
    seed: Option<u64>,
    /// A server that is running already; POSTROOM_API_KEY says for which organization. It must be allowed to deliver
    /// to 127.0.0.1
    #[arg(long)]
    url: Option<String>,
    /// Print nothing on standard output but the last line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

/// How long deliveries may make no progress after the load before those missing count as lost.
const QUIET_AFTER: Duration = Duration::from_secs(45);

/// Runs the bench; the last line of standard output is JSON.
pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let mut signals = crate::process::stop_signals()?;
    tokio::select! {
        ended = bench(&args) => ended,
        // What was started is ended and its directory deleted as this returns.
        signal = signals() => anyhow::bail!("{signal}: the bench was ended before it had anything to say"),
    }
}

async fn bench(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if args.kill.is_some() {
        return kill::run(args).await;
    }
    let bench = Bench::start(args).await?;
    let rounds = bench.rounds(args).await?;
    if let Some(guest) = &bench.guest {
        guest.remove().await?;
    }
    report(args, &bench, &rounds)
}

/// A directory for a server under test, on the disk that the configured one would use.
fn data_directory(flags: &Flags) -> anyhow::Result<TempDir> {
    let config = Loaded::read(flags).config?;
    let parent = config.data_dir.parent().filter(|parent| parent.is_dir());
    let parent = parent.unwrap_or(std::path::Path::new("."));
    tempfile::Builder::new()
        .prefix("postroom-bench-")
        .tempdir_in(parent)
        .with_context(|| format!("no directory for the bench can be made in {}", parent.display()))
}

/// Everything that a bench has running.
struct Bench {
    shape: Shape,
    ledger: Arc<Ledger>,
    run: String,
    kind: Kind,
    /// Not there when somebody else's server is measured.
    server: Option<Process>,
    address: SocketAddr,
    bare: Option<Process>,
    guest: Option<setup::Guest>,
    _receiver: Receiver,
    _data: Option<TempDir>,
}

/// One round's figures of one process.
struct Round {
    bare: bool,
    accepted_per_s: f64,
    delivered_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us_per_event: Option<f64>,
    sum: ledger::Sum,
    repeated: u64,
}

fn random_hex(bytes: usize) -> String {
    hex::encode(Secret::random(bytes).expose())
}

impl Bench {
    async fn start(args: &BenchArgs) -> anyhow::Result<Self> {
        let organizations = if args.url.is_some() { 1 } else { args.organizations };
        let shape = Shape::new(args.body_bytes as usize, organizations.into(), args.endpoints.into());
        let ledger = Arc::new(Ledger::new());
        let expected = Expected { shape: shape.clone(), ledger: Arc::clone(&ledger), refuse_one_in: 0 };
        let receiver = Receiver::start(Arc::new(expected)).await?;
        let run = random_hex(4);
        if let Some(url) = &args.url {
            return Self::visit(args, url, shape, ledger, run, receiver).await;
        }
        let data = data_directory(&args.flags)?;
        let admin_token = random_hex(24);
        let server = Process::server(&args.flags, data.path(), &admin_token, &[]).await?;
        let secret = setup::source_secret();
        let prepared = setup::prepare(server.address, &admin_token, &secret, &shape, receiver.address).await?;
        let bare = if args.bare {
            let forward_to = receiver.address.to_string();
            let arguments = ["bare-gateway", "--forward-to", &forward_to, "--secret", &secret].map(str::to_owned);
            Some(Process::start(&arguments, &[]).await?)
        } else {
            None
        };
        Ok(Self {
            shape,
            ledger,
            run,
            kind: if args.own { prepared.own } else { prepared.inbound },
            address: server.address,
            server: Some(server),
            bare,
            guest: None,
            _receiver: receiver,
            _data: Some(data),
        })
    }

    /// On a server that is running already.
    async fn visit(
        args: &BenchArgs,
        url: &str,
        shape: Shape,
        ledger: Arc<Ledger>,
        run: String,
        receiver: Receiver,
    ) -> anyhow::Result<Self> {
        let key =
            std::env::var("POSTROOM_API_KEY").context("set POSTROOM_API_KEY to a key of the server to measure")?;
        let client = Client::new(url, &Secret::from(key.as_str()), None)?;
        let parsed = url::Url::parse(url)?;
        anyhow::ensure!(parsed.scheme() == "http", "the load speaks plain http: give the server's own address");
        let address = parsed.socket_addrs(|| None)?.first().copied().context("the address of --url")?;
        let guest = setup::Guest::add(client, &key, args.own, &run, &shape, receiver.address).await?;
        let kind = guest.kind.clone();
        Ok(Self {
            shape,
            ledger,
            run,
            kind,
            server: None,
            address,
            bare: None,
            guest: Some(guest),
            _receiver: receiver,
            _data: None,
        })
    }

    /// All rounds, in turns: machines have moods, and both sides must see the same ones.
    async fn rounds(&self, args: &BenchArgs) -> anyhow::Result<Vec<Round>> {
        let until = args.events.map_or(Until::Elapsed(Duration::from_secs(args.seconds.into())), Until::Events);
        let sides: &[bool] = if self.bare.is_some() { &[true, false] } else { &[false] };
        for bare in sides {
            // Warm-up, not counted: connections, caches, the first growth of files.
            self.round(args, *bare, Until::Elapsed(Duration::from_millis(500))).await?;
        }
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            for bare in sides {
                let round = self.round(args, *bare, until).await?;
                show_round(&round);
                rounds.push(round);
            }
        }
        Ok(rounds)
    }

    async fn round(&self, args: &BenchArgs, bare: bool, until: Until) -> anyhow::Result<Round> {
        let process = if bare { self.bare.as_ref() } else { self.server.as_ref() };
        let address = process.map_or(self.address, |process| process.address);
        let cpu_before = process.map(Process::cpu_seconds).transpose()?;
        let began = self.ledger.elapsed();
        let load = Load {
            kind: self.kind.clone(),
            shape: self.shape.clone(),
            ledger: Arc::clone(&self.ledger),
            run: self.run.clone(),
            concurrency: args.concurrency.into(),
            server: watch::channel(Some(address)).1,
        };
        let done = load.start(until).finish().await?;
        wait_until_quiet(&self.ledger, done.numbers.clone()).await;
        let cpu_after = process.map(Process::cpu_seconds).transpose()?;
        let cpu = cpu_after.zip(cpu_before).map(|(after, before)| after - before);
        Ok(self.figures(bare, &done, began, cpu))
    }

    fn figures(&self, bare: bool, done: &Done, began: Duration, cpu_seconds: Option<f64>) -> Round {
        let sum = self.ledger.sum(done.numbers.clone());
        let delivering = self.ledger.last_arrival().saturating_sub(began).as_secs_f64().max(0.001);
        Round {
            bare,
            accepted_per_s: done.accepted as f64 / done.took.as_secs_f64().max(0.001),
            delivered_per_s: sum.delivered as f64 / delivering,
            p50_ms: done.percentile_ms(0.50),
            p99_ms: done.percentile_ms(0.99),
            cpu_us_per_event: cpu_seconds.map(|seconds| seconds * 1e6 / done.accepted.max(1) as f64),
            sum,
            repeated: done.repeated,
        }
    }
}

/// Waits until every acknowledged event arrived, or nothing has arrived for a long time.
async fn wait_until_quiet(ledger: &Ledger, numbers: std::ops::Range<u64>) {
    let mut progress = (ledger.arrived(), Instant::now());
    while !ledger.all_arrived(numbers.clone()) && progress.1.elapsed() < QUIET_AFTER {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if ledger.arrived() != progress.0 {
            progress = (ledger.arrived(), Instant::now());
        }
    }
}

fn show_round(round: &Round) {
    let name = if round.bare { "bare gateway" } else { "postroom" };
    let cpu = round.cpu_us_per_event.map(|us| format!(", {us:.0} us CPU per event")).unwrap_or_default();
    output::note(format!(
        "{} {:.0} accepted/s, {:.0} delivered/s, p50 {:.1} ms, p99 {:.1} ms{cpu}",
        styled(STRONG, format!("{name:<12}")),
        round.accepted_per_s,
        round.delivered_per_s,
        round.p50_ms,
        round.p99_ms,
    ));
}

fn median(rounds: &[&Round], figure: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
    let mut figures: Vec<f64> = rounds.iter().filter_map(|round| figure(round)).collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

fn rounded(value: Option<f64>, decimals: i32) -> Value {
    let factor = 10_f64.powi(decimals);
    value.map_or(Value::Null, |value| json!((value * factor).round() / factor))
}

fn report(args: &BenchArgs, bench: &Bench, rounds: &[Round]) -> anyhow::Result<ExitCode> {
    let (bare, ours): (Vec<&Round>, Vec<&Round>) = rounds.iter().partition(|round| round.bare);
    let ratio = |figure: fn(&Round) -> f64| {
        let of = |rounds: &[&Round]| median(rounds, |round| Some(figure(round)));
        of(&ours).zip(of(&bare)).map(|(ours, bare)| ours / bare)
    };
    let (accepted_ratio, delivered_ratio) = (ratio(|r| r.accepted_per_s), ratio(|r| r.delivered_per_s));
    let worse = accepted_ratio.zip(delivered_ratio).map(|(accepted, delivered)| accepted.min(delivered));
    let total = |figure: fn(&ledger::Sum) -> u64| ours.iter().map(|round| figure(&round.sum)).sum::<u64>();
    let (lost, altered) = (total(|s| s.lost), total(|s| s.altered));
    let invented = bench.ledger.sum(0..bench.ledger.sent()).invented;
    let mut last = json!({
        "accepted_per_s": rounded(median(&ours, |r| Some(r.accepted_per_s)), 0),
        "delivered_per_s": rounded(median(&ours, |r| Some(r.delivered_per_s)), 0),
        "p50_ms": rounded(median(&ours, |r| Some(r.p50_ms)), 2),
        "p99_ms": rounded(median(&ours, |r| Some(r.p99_ms)), 2),
        "accepted": total(|s| s.accepted),
        "delivered": total(|s| s.delivered),
        "lost": lost,
        "invented": invented,
        "altered": altered,
        "doubled": total(|s| s.doubled),
        "repeated": ours.iter().map(|round| round.repeated).sum::<u64>(),
        "concurrency": args.concurrency,
        "body_bytes": args.body_bytes,
        "rounds": args.rounds,
    });
    if let Some(server) = &bench.server {
        last["cpu_us_per_event"] = rounded(median(&ours, |r| r.cpu_us_per_event), 1);
        last["memory_mib"] = rounded(server.memory_mib(), 1);
    }
    if args.bare {
        last["ratio_to_bare"] = rounded(worse, 3);
        last["accepted_ratio_to_bare"] = rounded(accepted_ratio, 3);
        last["delivered_ratio_to_bare"] = rounded(delivered_ratio, 3);
        last["bare_accepted_per_s"] = rounded(median(&bare, |r| Some(r.accepted_per_s)), 0);
        last["bare_delivered_per_s"] = rounded(median(&bare, |r| Some(r.delivered_per_s)), 0);
        last["bare_cpu_us_per_event"] = rounded(median(&bare, |r| r.cpu_us_per_event), 1);
    }
    if !args.json {
        output::line(styled(
            FAINT,
            "medians of the rounds; the generator, the receiver and the server share this machine",
        ))?;
    }
    output::json(&last)?;
    Ok(if lost + altered + invented > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
