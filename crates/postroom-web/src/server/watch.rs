//! What a connection's watchdog knows, and when it bites. Times are milliseconds since the connection began.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::ServerLimits;

/// No such moment yet.
const NEVER: u64 = u64::MAX;

/// Shared by a connection's socket, its requests and its watchdog.
pub(super) struct Watch {
    began: Instant,
    /// When a byte last moved, in either direction.
    moved: AtomicU64,
    /// When the first byte arrived after the connection had become idle.
    woken: AtomicU64,
    /// When the last request ended, or the connection began.
    idle_since: AtomicU64,
    /// Requests whose answer has not been written yet.
    requests: AtomicUsize,
    /// Whether a request ended whose answer, or the rest of it, may still have to be written.
    answers: AtomicBool,
    /// Whether there has been a request at all.
    used: AtomicBool,
    http2: AtomicBool,
}

/// What the watchdog does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again then.
    LookAgain(Duration),
    /// Close without hurting anybody: no request is under way.
    CloseIdle,
    /// Drop it.
    Drop(&'static str),
}

impl Watch {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            moved: AtomicU64::new(0),
            woken: AtomicU64::new(NEVER),
            idle_since: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
            answers: AtomicBool::new(false),
            used: AtomicBool::new(false),
            http2: AtomicBool::new(false),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// Bytes arrived.
    pub fn read(&self) {
        let now = self.now();
        self.moved.store(now, Relaxed);
        if self.requests.load(Relaxed) == 0 && self.woken.load(Relaxed) == NEVER {
            self.woken.store(now, Relaxed);
        }
    }

    /// Bytes were taken by the socket.
    pub fn wrote(&self) {
        let now = self.now();
        self.moved.store(now, Relaxed);
        // A small answer is written when its request is over already. What HTTP/2 writes after it is nobody's answer.
        if self.answers.load(Relaxed) && self.requests.load(Relaxed) == 0 {
            self.answers.store(false, Relaxed);
            self.idle_since.store(now, Relaxed);
        }
    }

    /// A request's headers are complete. It ends when what is returned is dropped. Asks no clock: bytes have just moved.
    pub fn request(self: &Arc<Self>, http2: bool) -> UnderWay {
        self.used.store(true, Relaxed);
        self.http2.store(http2, Relaxed);
        self.woken.store(NEVER, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        UnderWay(self.clone())
    }

    /// Whether no request is under way: what is written now, no handler has made.
    pub fn is_idle(&self) -> bool {
        self.requests.load(Relaxed) == 0
    }

    pub fn verdict(&self, limits: &ServerLimits) -> Verdict {
        let now = self.now();
        let left = |since: u64, limit: Duration| {
            let end = since.saturating_add(u64::try_from(limit.as_millis()).unwrap_or(NEVER));
            end.checked_sub(now).filter(|left| *left > 0).map(Duration::from_millis)
        };
        let again_or = |left: Option<Duration>, end: Verdict| left.map_or(end, Verdict::LookAgain);
        if self.requests.load(Relaxed) > 0 {
            return again_or(left(self.moved.load(Relaxed), limits.stall), Verdict::Drop("no byte moved for too long"));
        }
        let (woken, idle_since) = (self.woken.load(Relaxed), self.idle_since.load(Relaxed));
        let used = self.used.load(Relaxed);
        // HTTP/2 has traffic without requests (settings, windows, pings): only its first request has to hurry.
        if woken != NEVER && !(used && self.http2.load(Relaxed)) {
            return again_or(left(woken, limits.headers), Verdict::Drop("the headers did not arrive in time"));
        }
        if used {
            return again_or(left(idle_since, limits.idle), Verdict::CloseIdle);
        }
        again_or(left(idle_since, limits.first_byte), Verdict::Drop("nothing was sent"))
    }
}

/// A request under way.
pub(super) struct UnderWay(Arc<Watch>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.answers.store(true, Relaxed);
        self.0.idle_since.store(self.0.moved.load(Relaxed), Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watch that began so long ago.
    fn aged(millis: u64) -> Arc<Watch> {
        let mut watch = Watch::new();
        Arc::get_mut(&mut watch).unwrap().began -= Duration::from_millis(millis);
        watch
    }

    const LIMITS: fn() -> ServerLimits = ServerLimits::default;

    #[test]
    fn silence_is_cut_after_the_first_byte_deadline() {
        assert!(matches!(aged(9_000).verdict(&LIMITS()), Verdict::LookAgain(left) if left <= Duration::from_secs(1)));
        assert_eq!(aged(10_000).verdict(&LIMITS()), Verdict::Drop("nothing was sent"));
    }

    #[test]
    fn slow_headers_are_cut_even_if_bytes_keep_coming() {
        let watch = aged(30_000);
        watch.woken.store(20_000, Relaxed);
        watch.read();
        assert_eq!(watch.verdict(&LIMITS()), Verdict::Drop("the headers did not arrive in time"));
    }

    #[test]
    fn a_request_may_take_its_time_as_long_as_bytes_move() {
        let watch = aged(100_000);
        watch.read();
        let request = watch.request(false);
        assert!(matches!(watch.verdict(&LIMITS()), Verdict::LookAgain(_)));
        watch.moved.store(70_000, Relaxed);
        assert_eq!(watch.verdict(&LIMITS()), Verdict::Drop("no byte moved for too long"));
        drop(request);
        assert!(matches!(watch.verdict(&LIMITS()), Verdict::LookAgain(_)));
    }

    #[test]
    fn a_connection_is_idle_from_the_last_byte_of_an_answer_on() {
        let watch = aged(100_000);
        let request = watch.request(false);
        drop(request);
        assert_eq!(watch.verdict(&LIMITS()), Verdict::CloseIdle);
        watch.wrote();
        assert!(matches!(watch.verdict(&LIMITS()), Verdict::LookAgain(left) if left > Duration::from_secs(59)));
        watch.idle_since.store(1_000, Relaxed);
        watch.wrote();
        assert_eq!(watch.verdict(&LIMITS()), Verdict::CloseIdle, "the answer to a ping is no answer to a request");
    }

    #[test]
    fn an_idle_connection_is_closed_gently_and_http2_may_ping_meanwhile() {
        for http2 in [false, true] {
            let watch = aged(61_000);
            drop(watch.request(http2));
            watch.idle_since.store(1_000, Relaxed);
            assert_eq!(watch.verdict(&LIMITS()), Verdict::CloseIdle);
            watch.idle_since.store(10_000, Relaxed);
            watch.woken.store(11_000, Relaxed);
            let expected_drop = Verdict::Drop("the headers did not arrive in time");
            assert_eq!(watch.verdict(&LIMITS()) == expected_drop, !http2);
        }
    }
}
