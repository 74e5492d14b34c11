//! The log: for people on a terminal, JSON everywhere else, on standard error.
//!
//! Control characters cannot leave a log line: JSON escapes them, and the terminal form escapes them here.

use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The client of PostgreSQL tells the values of every statement, payloads too, when it is asked for details.
const NO_STATEMENTS: &str = "tokio_postgres=warn";

/// Whether people read what this process logs.
#[must_use]
pub fn for_people() -> bool {
    io::stderr().is_terminal()
}

/// Starts the log of this process. `RUST_LOG` filters it; what it says wrongly is reported and `info` holds.
///
/// `quiet` shows warnings only: for commands whose own output is what counts.
pub fn start(quiet: bool) {
    let default = if quiet { "warn" } else { "info" };
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = asked.as_deref().map_or_else(|| Ok(EnvFilter::new(default)), EnvFilter::try_new);
    let complaint = filter.as_ref().err().map(ToString::to_string);
    let filter = filter
        .unwrap_or_else(|_| EnvFilter::new(default))
        .add_directive(NO_STATEMENTS.parse().expect("it is a directive"));
    let registry = tracing_subscriber::registry().with(filter);
    let started = if for_people() {
        let ansi = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let layer = tracing_subscriber::fmt::layer().with_writer(Terminal).with_ansi(ansi).with_target(false);
        registry.with(layer).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(true);
        registry.with(layer.with_span_list(false).with_writer(io::stderr)).try_init()
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    if let Some(complaint) = complaint.filter(|_| started.is_ok()) {
        tracing::warn!("RUST_LOG is not understood ({complaint}); the filter is {default}");
    }
}

/// A panic is a fault of this program: it is told where everything else is told, with its place.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let text = panic.payload_as_str().unwrap_or("no text");
    tracing::error!(place, "panicked at {place}: {text}");
}

/// Standard error, with every control character but line ends and the colours of this crate's own log escaped.
#[derive(Debug, Clone, Copy)]
struct Terminal;

impl<'a> MakeWriter<'a> for Terminal {
    type Writer = Escaped<io::Stderr>;
    fn make_writer(&'a self) -> Self::Writer {
        Escaped(io::stderr())
    }
}

/// The formatter writes each event with one call; `tracing-subscriber` escapes ANSI sequences in messages and values
/// itself, and this closes what is left: carriage returns, bells, backspaces.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let harmless = |byte: &u8| !byte.is_ascii_control() || matches!(byte, b'\n' | b'\x1b');
        if bytes.iter().all(harmless) {
            self.0.write_all(bytes)?;
        } else {
            let escaped: Vec<u8> = bytes
                .iter()
                .flat_map(|byte| if harmless(byte) { vec![*byte] } else { byte.escape_ascii().collect() })
                .collect();
            self.0.write_all(&escaped)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_leave_a_log_line_as_such() {
        let mut written = Vec::new();
        Escaped(&mut written).write_all(b"a\rb\x07c\x08d\n").unwrap();
        assert_eq!(written, b"a\\rb\\x07c\\x08d\n");
    }
}
