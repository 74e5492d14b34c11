//! The log: for people on a terminal, JSON everywhere else, on standard error.
//!
//! Control characters cannot leave a log line: JSON escapes them, and the terminal form escapes them here.

use std::io::{self, IsTerminal as _, Write};

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::printable;

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
        registry.with(plain(Terminal, ansi)).try_init()
    } else {
        registry.with(json(io::stderr)).try_init()
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
    if let Some(complaint) = complaint.filter(|_| started.is_ok()) {
        tracing::warn!("RUST_LOG is not understood ({complaint}); the filter is {default}");
    }
}

/// The log for people.
fn plain<S, W>(writer: W, ansi: bool) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(ansi).with_target(false)
}

/// The log for everybody else.
fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(true);
    layer.with_span_list(false).with_writer(writer)
}

/// A panic is a fault of this program: it is told where everything else is told, with its place, in one line.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let text = printable(panic.payload_as_str().unwrap_or("no text"));
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
    use std::sync::{Arc, Mutex};

    use postroom_domain::Secret;

    use super::*;

    /// Keeps what was written, through what stands before a terminal.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the hook says of a panic of this thread; another test's panic meanwhile goes where it went before.
    fn told_of_a_panic(subscriber: impl Subscriber + Send + Sync, panic: impl FnOnce() + std::panic::UnwindSafe) {
        let (own, before) = (std::thread::current().id(), Arc::new(std::panic::take_hook()));
        let others = before.clone();
        std::panic::set_hook(Box::new(
            move |info| {
                if std::thread::current().id() == own { log_panic(info) } else { others(info) }
            },
        ));
        let caught = tracing::subscriber::with_default(subscriber, || std::panic::catch_unwind(panic));
        drop(std::panic::take_hook());
        std::panic::set_hook(Box::new(move |info| before(info)));
        assert!(caught.is_err());
    }

    #[test]
    fn a_panic_is_one_line_in_which_nothing_is_forged_and_no_secret_can_be_read() {
        let secret = Secret::from("hunter2-hunter2");
        for terminal in [true, false] {
            let kept = Kept::default();
            let writer = kept.clone();
            let panic = || panic!("{secret:?}\n\x1b[2J\rERROR forged\x07");
            let registry = tracing_subscriber::registry();
            if terminal {
                told_of_a_panic(registry.with(plain(move || Escaped(writer.clone()), false)), panic);
            } else {
                told_of_a_panic(registry.with(json(move || writer.clone())), panic);
            }
            let told = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
            assert!(
                told.contains("panicked at ") && told.contains("logging.rs") && told.contains("ERROR forged"),
                "{told}"
            );
            assert!(!told.contains("hunter2"), "{told}");
            assert!(!told.trim_end().contains(['\x1b', '\r', '\x07']), "{told:?}");
            assert_eq!(told.lines().count(), 1, "{told:?}");
        }
    }

    #[test]
    fn control_characters_do_not_leave_a_log_line_as_such() {
        let mut written = Vec::new();
        Escaped(&mut written).write_all(b"a\rb\x07c\x08d\n").unwrap();
        assert_eq!(written, b"a\\rb\\x07c\\x08d\n");
    }
}
