//! `postroom bench`: load from this computer, on a server of its own, and a ledger of what became of every event.
//!
//! Three forms: a plain bench; with `--bare` the same load in the same run on a bare gateway too, in turns; with
//! `--kill` and `--pause` servers that are killed and stopped again and again under load. In each of them a server may
//! refuse for a while (its database is gone, say): what is refused is sent again, and it is told for how long. Generator, receiver and server share this machine, so
//! events a second are a floor; CPU time per event and the ratio to the bare gateway carry over to other machines.
//! The database is that of the settings in force; on PostgreSQL it can be several servers, and its own cost is told.

mod child;
mod database;
mod event;
mod faults;
pub mod gateway;
mod ledger;
mod load;
mod place;
mod receiver;
mod report;
mod setup;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use postroom_domain::Secret;
use tokio::sync::watch;

use crate::cli::client::Client;
use crate::cli::output;
use crate::config::Flags;
use child::Process;
use database::Gauge;
use event::Shape;
use ledger::Ledger;
use load::{Done, Kind, Load, Until};
use place::Place;
use receiver::{Expected, Receiver};
use report::Round;

/// What to measure.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("faults").args(["kill", "pause"]).multiple(true))]
#[command(after_help = "Examples:
  postroom bench                      five seconds on a server of its own
  postroom bench --bare --rounds 3    and the same on a bare gateway: the ratio
  postroom bench --kill 50            kill it 50 times under load, and count
  postroom bench --nodes 3 --pause 3  stop random ones of three for longer than their lease, and count
  postroom bench --nodes 3            three servers on the database of POSTROOM_DATABASE_URL
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
    /// Put the same load on a bare gateway too: receive, check HMAC and JSON, forward, store nothing
    #[arg(long, conflicts_with_all = ["own", "url", "kill", "pause"])]
    bare: bool,
    /// Kill the server so many times under load, restart it, and compare what was acknowledged with what arrived
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "url")]
    kill: Option<u32>,
    /// Stop a server (SIGSTOP) so many times under load until the others think it dead, let it go on, and compare
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with = "url")]
    pause: Option<u32>,
    /// With --kill or --pause: repeats the moments of another run
    #[arg(long, requires = "faults")]
    seed: Option<u64>,
    /// Servers on one PostgreSQL database; the load is spread over them, and with --kill or --pause it is a random one each time
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32), conflicts_with = "url")]
    nodes: u16,
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
    if args.kill.is_some() || args.pause.is_some() {
        return faults::run(args).await;
    }
    let bench = Bench::start(args).await?;
    let rounds = bench.rounds(args).await?;
    match (&bench.guest, &bench.place) {
        (Some(guest), _) => guest.remove().await?,
        (None, Some(place)) => place.leave(bench.addresses[0]).await?,
        (None, None) => {}
    }
    report::report(args, &bench, &rounds)
}

/// Everything that a bench has running.
struct Bench {
    shape: Shape,
    ledger: Arc<Ledger>,
    run: String,
    kind: Kind,
    /// None when somebody else's server is measured.
    servers: Vec<Process>,
    addresses: Vec<SocketAddr>,
    database: Option<Gauge>,
    bare: Option<Process>,
    guest: Option<setup::Guest>,
    _receiver: Receiver,
    /// Goes after the servers.
    place: Option<Place>,
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
        let mut place = Place::new(args)?;
        let servers = place.servers(args.nodes, &[]).await?;
        let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
        let secret = setup::source_secret();
        let prepared = place.prepare(&servers, &run, &secret, &shape, receiver.address).await?;
        let database = match &place.database_url {
            Some(url) => Some(Gauge::connect(url).await?),
            None => None,
        };
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
            servers,
            addresses,
            database,
            bare,
            guest: None,
            _receiver: receiver,
            place: Some(place),
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
            servers: Vec::new(),
            addresses: vec![address],
            database: None,
            bare: None,
            guest: Some(guest),
            _receiver: receiver,
            place: None,
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
        output::note(format!("warm; rounds to come: {}", args.rounds));
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            for bare in sides {
                let round = self.round(args, *bare, until).await?;
                report::show(&round);
                rounds.push(round);
            }
        }
        Ok(rounds)
    }

    async fn round(&self, args: &BenchArgs, bare: bool, until: Until) -> anyhow::Result<Round> {
        let processes: Vec<&Process> = if bare { self.bare.iter().collect() } else { self.servers.iter().collect() };
        let addresses = match &self.bare {
            Some(process) if bare => vec![process.address],
            _ => self.addresses.clone(),
        };
        let database = self.database.as_ref().filter(|_| !bare);
        let before = Spent::so_far(&processes, database).await?;
        let began = self.ledger.elapsed();
        let load = Load {
            kind: self.kind.clone(),
            shape: self.shape.clone(),
            ledger: Arc::clone(&self.ledger),
            run: self.run.clone(),
            concurrency: args.concurrency.into(),
            servers: watch::channel(addresses).1,
        };
        let done = load.start(until).finish().await?;
        wait_until_quiet(&self.ledger, done.numbers.clone()).await;
        let after = Spent::so_far(&processes, database).await?;
        Ok(self.figures(bare, &done, began, &before, &after))
    }

    fn figures(&self, bare: bool, done: &Done, began: Duration, before: &Spent, after: &Spent) -> Round {
        let sum = self.ledger.sum(done.numbers.clone());
        let delivering = self.ledger.last_arrival().saturating_sub(began).as_secs_f64().max(0.001);
        let events = done.accepted.max(1) as f64;
        let micros = |seconds: f64| seconds * 1e6 / events;
        let database = after.database.zip(before.database).map(|(after, before)| after.since(before));
        Round {
            bare,
            accepted_per_s: done.accepted as f64 / done.took.as_secs_f64().max(0.001),
            delivered_per_s: sum.delivered as f64 / delivering,
            p50_ms: done.percentile_ms(0.50),
            p99_ms: done.percentile_ms(0.99),
            cpu_us_per_event: after.cpu_seconds.zip(before.cpu_seconds).map(|(after, before)| micros(after - before)),
            database_cpu_us_per_event: database.and_then(|cost| cost.cpu_seconds).map(micros),
            wal_bytes_per_event: database.and_then(|cost| cost.wal_bytes).map(|bytes| bytes as f64 / events),
            sum,
            repeated: done.repeated,
            refused: done.refused,
            gaps: done.gaps.clone(),
        }
    }
}

/// What the processes under test and their database have used up to a moment.
struct Spent {
    /// `None` when the processes are somebody else's.
    cpu_seconds: Option<f64>,
    database: Option<database::Cost>,
}

impl Spent {
    async fn so_far(processes: &[&Process], database: Option<&Gauge>) -> anyhow::Result<Self> {
        let mut cpu_seconds = None;
        for process in processes {
            cpu_seconds = Some(cpu_seconds.unwrap_or_default() + process.cpu_seconds()?);
        }
        let database = match database {
            Some(gauge) => Some(gauge.cost().await),
            None => None,
        };
        Ok(Self { cpu_seconds, database })
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
