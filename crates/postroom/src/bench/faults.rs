//! `postroom bench --kill N --pause N`: servers that are killed with SIGKILL, or stopped with SIGSTOP for longer than their
//! lease and let go again, one at a time, at random moments under load.
//!
//! The ledger is in this process, which survives. Senders repeat what was not acknowledged, with the same id. The
//! receiver refuses one event in a hundred the first time, so that retries are under way at every fault. A server that
//! was stopped goes on in the middle of what it did, while others have taken over what it had.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;

use super::child::Process;
use super::event::Shape;
use super::ledger::{Ledger, Sum};
use super::load::{Done, Gap, Load, Running, Until};
use super::place::Place;
use super::receiver::{Expected, Receiver};
use super::{BenchArgs, random_hex, setup, wait_until_quiet};
use crate::cli::output::{self, BAD, GOOD, styled};
use crate::database::LEASE;

/// The servers live so long between two faults.
const LIFE_MS: std::ops::RangeInclusive<u64> = 50..=2000;
/// A server is stopped for so much longer than its lease.
const OVER_LEASE: Duration = Duration::from_secs(3);
/// Waits between attempts: short, so that a run ends soon.
const RETRY_SCHEDULE: &str = "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1";
/// Of so many events one is refused at first.
const REFUSE_ONE_IN: u64 = 100;

/// What happens to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Pause,
}

/// Runs the faults. Fails if anything was lost, invented or altered.
pub async fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let (kills, pauses) = (args.kill.unwrap_or(0), args.pause.unwrap_or(0));
    let seed = args.seed.unwrap_or_else(|| u64::from_str_radix(&random_hex(6), 16).unwrap_or(1));
    let nodes = args.nodes;
    output::note(format!(
        "killing {kills} times and stopping {pauses} times one of {nodes} servers under load, seed {seed}"
    ));
    let shape = Shape::new(args.body_bytes as usize, args.organizations.into(), args.endpoints.into());
    let ledger = Arc::new(Ledger::new());
    let expected = Expected { shape: shape.clone(), ledger: Arc::clone(&ledger), refuse_one_in: REFUSE_ONE_IN };
    let receiver = Receiver::start(Arc::new(expected)).await?;
    let mut place = Place::new(args)?;

    let servers = place.servers(nodes, &MORE).await?;
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
    let mut harm = Harm { place: &place, servers, announce, moments: Moments(seed), slowest_start: Duration::ZERO };
    let load = load.start(Until::Stopped);
    let done = harm.under(load, kills, pauses).await?;
    wait_until_quiet(&ledger, done.numbers.clone()).await;
    let slowest_start = harm.slowest_start;
    let servers = harm.servers;
    place.leave(servers[0].address).await?;
    drop(servers);
    report(&ledger.sum(done.numbers.clone()), &done, (kills, pauses), seed, slowest_start)
}

/// What the servers of a faulty run have in their environment.
const MORE: [(&str, &str); 1] = [("POSTROOM_RETRY_SCHEDULE", RETRY_SCHEDULE)];

/// Does harm to servers.
struct Harm<'a> {
    place: &'a Place,
    servers: Vec<Process>,
    announce: watch::Sender<Vec<SocketAddr>>,
    moments: Moments,
    slowest_start: Duration,
}

impl Harm<'_> {
    /// All faults, under a load that ends with them.
    async fn under(&mut self, load: Running, kills: u32, pauses: u32) -> anyhow::Result<Done> {
        let bar = indicatif::ProgressBar::new(u64::from(kills) + u64::from(pauses));
        for fault in self.moments.faults(kills, pauses) {
            tokio::time::sleep(self.moments.next()).await;
            self.one(fault).await?;
            bar.inc(1);
        }
        load.stop();
        let done = load.finish().await?;
        bar.finish_and_clear();
        Ok(done)
    }

    async fn one(&mut self, fault: Fault) -> anyhow::Result<()> {
        let victim = self.servers.swap_remove(self.moments.which(self.servers.len()));
        self.announce.send_replace(addresses(&self.servers));
        let back = match fault {
            Fault::Kill => {
                victim.kill().await?;
                let began = Instant::now();
                let server = self.place.server(&MORE).await?;
                self.slowest_start = self.slowest_start.max(began.elapsed());
                server
            }
            Fault::Pause => {
                victim.pause(LEASE + OVER_LEASE).await?;
                victim
            }
        };
        self.servers.push(back);
        self.announce.send_replace(addresses(&self.servers));
        Ok(())
    }
}

fn addresses(servers: &[Process]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.address).collect()
}

fn report(
    sum: &Sum,
    done: &Done,
    (kills, pauses): (u32, u32),
    seed: u64,
    slowest_start: Duration,
) -> anyhow::Result<ExitCode> {
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
        "{verdict}; {} accepted, {} delivered, {} doubled, over {kills} kills and {pauses} pauses",
        sum.accepted, sum.delivered, sum.doubled
    ));
    output::json(&json!({
        "kills": kills,
        "pauses": pauses,
        "accepted": sum.accepted,
        "delivered": sum.delivered,
        "lost": sum.lost,
        "invented": sum.invented,
        "altered": sum.altered,
        "doubled": sum.doubled,
        "repeated": done.repeated,
        "refused": done.refused,
        "gaps": done.gaps.iter().map(Gap::json).collect::<Vec<_>>(),
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

    /// So many of each, in an order of its own.
    fn faults(&mut self, kills: u32, pauses: u32) -> Vec<Fault> {
        let (mut kills, mut pauses) = (kills as usize, pauses as usize);
        let mut faults = Vec::with_capacity(kills + pauses);
        while kills + pauses > 0 {
            let is_kill = self.which(kills + pauses) < kills;
            faults.push(if is_kill { Fault::Kill } else { Fault::Pause });
            *(if is_kill { &mut kills } else { &mut pauses }) -= 1;
        }
        faults
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
        let faults = Moments(7).faults(5, 3);
        assert_eq!((faults.len(), faults.iter().filter(|fault| **fault == Fault::Kill).count()), (8, 5));
        let all = moments(7);
        assert!(all.iter().all(|life| LIFE_MS.contains(&(life.as_millis() as u64))));
        assert!(all.iter().any(|life| life.as_millis() < 300) && all.iter().any(|life| life.as_millis() > 1700));
    }
}
