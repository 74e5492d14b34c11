//! How the tour speaks: steps, what happens in them, and the command that does the same.

use http::StatusCode;

use super::receiver::Arrival;
use crate::cli::output::{self, BAD, FAINT, GOOD, ODD, STRONG, plain, styled};

/// Begins a step.
pub fn step(number: u8, title: &str) -> std::io::Result<()> {
    output::line(format!("\n{} {}", styled(STRONG, format!("{number}.")), styled(STRONG, title)))
}

/// One thing that happened in it.
pub fn said(text: &str) -> std::io::Result<()> {
    output::line(format!("   {text}"))
}

/// The command that does the same.
pub fn command(text: &str) -> std::io::Result<()> {
    text.lines().try_for_each(|line| output::line(styled(FAINT, format!("   {line}"))))
}

/// What a sender was answered.
pub fn answered(what: &str, status: StatusCode, detail: &str) -> std::io::Result<()> {
    let style = if status.is_success() { GOOD } else { BAD };
    said(&format!("{what:<46} {} {}", styled(style, status.as_u16()), styled(FAINT, plain(detail))))
}

/// What arrived at the receiver.
pub fn arrived(arrival: &Arrival) -> std::io::Result<()> {
    let style = if arrival.status.is_success() { GOOD } else { ODD };
    let signature = if arrival.signature_good { "signature good" } else { "signature BAD" };
    said(&format!(
        "receiver {:<8} attempt {} {} {}",
        plain(&arrival.path),
        arrival.attempt,
        styled(style, arrival.status.as_u16()),
        styled(FAINT, format!("{signature}, webhook-id {}", plain(&arrival.webhook_id))),
    ))
}
