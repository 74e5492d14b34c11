//! `postroom bench --kill N`: servers that are killed with SIGKILL at random moments under load, one at a time, and
//! restarted.
//!
//! The ledger is in this process, which survives. Senders repeat what was not acknowledged, with the same id. The
//! receiver refuses one event in a hundred the first time, so that retries are under way at every kill.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;

use super::child::Process;
use super::event::Shape;
use super::ledger::{Ledger, Sum};
use super::load::{Done, Load, Until};
use super::place::Place;
use super::receiver::{Expected, Receiver};
use super::{BenchArgs, random_hex, setup, wait_until_quiet};
use crate::cli::output::{self, BAD, GOOD, styled};

/// The server lives so long after it is ready.
const LIFE_MS: std::ops::RangeInclusive<u64> = 50..=2000;
/// Waits between attempts: short, so that a run ends soon.
const RETRY_SCHEDULE: &str = "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1";
/// Of so many events one is refused at first.
const REFUSE_ONE_IN: u64 = 100;

/// Runs the kill loop. Fails if anything was lost, invented or altered.
pub async fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let kills = args.kill.unwrap_or(1);
    let seed = args.seed.unwrap_or_else(|| u64::from_str_radix(&random_hex(6), 16).unwrap_or(1));
    output::note(format!("killing one of {} servers {kills} times under load, seed {seed}", args.nodes));
    let shape = Shape::new(args.body_bytes as usize, args.organizations.into(), args.endpoints.into());
    let ledger = Arc::new(Ledger::new());
    let expected = Expected { shape: shape.clone(), ledger: Arc::clone(&ledger), refuse_one_in: REFUSE_ONE_IN };
    let receiver = Receiver::start(Arc::new(expected)).await?;
    let mut place = Place::new(args)?;
    let more = [("POSTROOM_RETRY_SCHEDULE", RETRY_SCHEDULE)];

    let mut servers = place.servers(args.nodes, &more).await?;
    let (secret, run) = (setup::source_secret(), random_hex(4));
    let prepared = place.prepare(&servers, &run, &secret, &shape, receiver.address).await?;
    let (announce, addresses) = watch::channel(addresses(&servers));
    let load = Load {
        kind: if args.own { prepared.own } else { prepared.inbound },
        shape,
        ledger: Arc::clone(&ledger),
        run,
        concurrency: args.concurrency.into(),
        servers: addresses,
    };
    let load = load.start(Until::Stopped);
    let bar = indicatif::ProgressBar::new(kills.into());
    let mut moments = Moments(seed);
    let mut slowest_start = Duration::ZERO;
    for _ in 0..kills {
        tokio::time::sleep(moments.next()).await;
        let victim = servers.swap_remove(moments.which(servers.len()));
        announce.send_replace(self::addresses(&servers));
        victim.kill().await?;
        let began = Instant::now();
        servers.push(place.server(&more).await?);
        slowest_start = slowest_start.max(began.elapsed());
        announce.send_replace(self::addresses(&servers));
        bar.inc(1);
    }
    load.stop();
    let done = load.finish().await?;
    wait_until_quiet(&ledger, done.numbers.clone()).await;
    bar.finish_and_clear();
    place.leave(servers[0].address).await?;
    drop(servers);
    report(&ledger.sum(done.numbers.clone()), &done, kills, seed, slowest_start)
}

fn addresses(servers: &[Process]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.address).collect()
}

fn report(sum: &Sum, done: &Done, kills: u32, seed: u64, slowest_start: Duration) -> anyhow::Result<ExitCode> {
    let harm = sum.lost + sum.invented + sum.altered;
    let verdict = if harm == 0 {
        styled(GOOD, "nothing lost, invented or altered")
    } else {
        styled(
            BAD,
            format!("{} lost, {} invented, {} altered: keep the seed {seed}", sum.lost, sum.invented, sum.altered),
        )
    };
    output::note(format!(
        "{verdict}; {} accepted, {} delivered, {} doubled, over {kills} kills",
        sum.accepted, sum.delivered, sum.doubled
    ));
    output::json(&json!({
        "kills": kills,
        "accepted": sum.accepted,
        "delivered": sum.delivered,
        "lost": sum.lost,
        "invented": sum.invented,
        "altered": sum.altered,
        "doubled": sum.doubled,
        "repeated": done.repeated,
        "accepted_per_s": (done.accepted as f64 / done.took.as_secs_f64()).round(),
        "slowest_start_ms": u64::try_from(slowest_start.as_millis())?,
        "seconds": (done.took.as_secs_f64() * 10.0).round() / 10.0,
        "seed": seed,
    }))?;
    Ok(if harm == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Moments that can be repeated: splitmix64 over a printed seed.
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> Duration {
        Duration::from_millis(LIFE_MS.start() + self.mixed() % (LIFE_MS.end() - LIFE_MS.start() + 1))
    }

    /// Which of so many.
    fn which(&mut self, many: usize) -> usize {
        if many > 1 { usize::try_from(self.mixed() % many as u64).unwrap_or_default() } else { 0 }
    }

    fn mixed(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_moments_again_within_bounds() {
        let moments = |seed| -> Vec<Duration> {
            let mut moments = Moments(seed);
            (0..1000).map(|_| moments.next()).collect()
        };
        assert_eq!(moments(7), moments(7));
        assert_ne!(moments(7), moments(8));
        let all = moments(7);
        assert!(all.iter().all(|life| LIFE_MS.contains(&(life.as_millis() as u64))));
        assert!(all.iter().any(|life| life.as_millis() < 300) && all.iter().any(|life| life.as_millis() > 1700));
    }
}
