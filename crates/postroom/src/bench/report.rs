//! What a bench says about its rounds: a line each, and their medians.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::child::Process;
use super::ledger::Sum;
use super::load::Gap;
use super::{Bench, BenchArgs};
use crate::cli::output::{self, FAINT, STRONG, styled};

/// One round's figures of one process.
pub struct Round {
    /// Of the bare gateway.
    pub bare: bool,
    pub accepted_per_s: f64,
    pub delivered_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub cpu_us_per_event: Option<f64>,
    pub database_cpu_us_per_event: Option<f64>,
    pub wal_bytes_per_event: Option<f64>,
    pub sum: Sum,
    pub repeated: u64,
    pub refused: u64,
    pub gaps: Vec<Gap>,
}

/// One line about a round.
pub fn show(round: &Round) {
    let name = if round.bare { "bare gateway" } else { "postroom" };
    let told =
        |figure: Option<f64>, unit: &str| figure.map(|n| format!(", {n:.0} {unit} per event")).unwrap_or_default();
    let cpu = told(round.cpu_us_per_event, "us CPU");
    let database = told(round.database_cpu_us_per_event, "us of the database's CPU");
    let wal = told(round.wal_bytes_per_event, "bytes of WAL");
    output::note(format!(
        "{} {:.0} accepted/s, {:.0} delivered/s, p50 {:.1} ms, p99 {:.1} ms{cpu}{database}{wal}",
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

/// The figures of all rounds: their medians.
pub fn report(args: &BenchArgs, bench: &Bench, rounds: &[Round]) -> anyhow::Result<ExitCode> {
    let (bare, ours): (Vec<&Round>, Vec<&Round>) = rounds.iter().partition(|round| round.bare);
    let ratio = |figure: fn(&Round) -> f64| {
        let of = |rounds: &[&Round]| median(rounds, |round| Some(figure(round)));
        of(&ours).zip(of(&bare)).map(|(ours, bare)| ours / bare)
    };
    let (accepted_ratio, delivered_ratio) = (ratio(|r| r.accepted_per_s), ratio(|r| r.delivered_per_s));
    let worse = accepted_ratio.zip(delivered_ratio).map(|(accepted, delivered)| accepted.min(delivered));
    let total = |figure: fn(&Sum) -> u64| ours.iter().map(|round| figure(&round.sum)).sum::<u64>();
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
        "refused": ours.iter().map(|round| round.refused).sum::<u64>(),
        "gaps": ours.iter().flat_map(|round| &round.gaps).map(Gap::json).collect::<Vec<_>>(),
        "concurrency": args.concurrency,
        "body_bytes": args.body_bytes,
        "rounds": args.rounds,
    });
    if !bench.servers.is_empty() {
        last["cpu_us_per_event"] = rounded(median(&ours, |r| r.cpu_us_per_event), 1);
        last["memory_mib"] = rounded(bench.servers.iter().filter_map(Process::memory_mib).reduce(f64::max), 1);
    }
    if bench.database.is_some() {
        last["nodes"] = args.nodes.into();
        last["database_cpu_us_per_event"] = rounded(median(&ours, |r| r.database_cpu_us_per_event), 1);
        last["wal_bytes_per_event"] = rounded(median(&ours, |r| r.wal_bytes_per_event), 0);
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
