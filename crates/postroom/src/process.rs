//! What the process asks of the operating system: open files, no core dumps, signals, the time.

use postroom_domain::{Clock, Timestamp};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files a busy server wants: connections of callers and to endpoints, and some for itself.
const OPEN_FILES_WANTED: u64 = 65_536;

/// The wall clock.
#[must_use]
pub fn clock() -> Clock {
    Clock::new(|| {
        let now = std::time::SystemTime::now();
        let millis = match now.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
        };
        Timestamp::from_millis(millis)
    })
}

/// Raises the limit of open files as far as this user may, and switches core dumps off: they would hold secrets.
/// Neither can fail in a way that matters more than serving.
pub fn set_limits() {
    let files = getrlimit(Resource::Nofile);
    let wanted = files.maximum.map_or(OPEN_FILES_WANTED, |most| most.min(OPEN_FILES_WANTED));
    if files.current.is_some_and(|now| now < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: files.maximum });
    }
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Resolves at the next SIGTERM or SIGINT, with its name.
///
/// # Errors
/// When handlers cannot be installed.
pub fn stop_signals() -> std::io::Result<impl AsyncFnMut() -> &'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
