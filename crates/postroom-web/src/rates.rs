//! How often an organization may ask the API, and an address may sign in or show a wrong credential.
//!
//! Counted in the memory of each process: `n` processes behind a balancer let through up to `n` times as much. Events are
//! not counted here; they are bounded by the plan, which is exact over all processes, and by the queues.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use postroom_domain::{OrganizationId, Timestamp};

use crate::app::{Limits, Shared};
use crate::client::{self, ClientAddress};
use crate::extract::auth::Caller;
use crate::problem::{Answer, Code, Problem};

/// Keys counted at one moment; about 6 MiB. What comes on top of so many is let through uncounted: who has that many
/// addresses is not held by a limit for each.
const KEYS_MAX: usize = 100_000;
/// Keys that nobody waits for any more are looked for this often at most.
const SWEEP_PAUSE_MICROS: i64 = 1_000_000;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// So many in this time: all of them at once, or evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many; 0 counts as 1.
    pub limit: u32,
    /// In which time.
    pub window: Duration,
}

/// Everything that is counted.
pub(crate) struct Rates {
    requests: Rate<Owner>,
    sign_ins: Rate<IpAddr>,
    wrong_credentials: Rate<IpAddr>,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Organization(OrganizationId),
    /// A super admin who named no organization.
    Address(IpAddr),
}

impl Rates {
    pub fn new(limits: &Limits) -> Self {
        metrics::describe_counter!(
            "postroom_rate_limited_total",
            "Requests refused because there were too many, by what"
        );
        Self {
            requests: Rate::new(limits.requests),
            sign_ins: Rate::new(limits.sign_ins),
            wrong_credentials: Rate::new(limits.wrong_credentials),
        }
    }

    /// Counts an attempt to sign in.
    ///
    /// # Errors
    /// How it stands, when there were too many.
    pub fn sign_in(&self, address: ClientAddress, now: Timestamp) -> Result<(), Standing> {
        let counted = self.sign_ins.take(client::owner(address.0), now);
        counted.map(drop).inspect_err(|_| refused("sign_in"))
    }

    /// Whether this address may still show a credential that a person chose, and that could therefore be guessed.
    pub fn may_guess(&self, address: ClientAddress, now: Timestamp) -> bool {
        self.wrong_credentials.standing(client::owner(address.0), now).remaining > 0
    }

    /// Counts a wrong credential: the problem to answer with. It stays what it is, until there were too many.
    pub fn wrong_credential(&self, address: ClientAddress, now: Timestamp, problem: Problem) -> Problem {
        match self.wrong_credentials.take(client::owner(address.0), now) {
            Ok(_) => problem,
            Err(standing) => {
                refused("credentials");
                limited("too many wrong credentials came from your address", standing)
            }
        }
    }
}

fn refused(what: &'static str) {
    metrics::counter!("postroom_rate_limited_total", "of" => what).increment(1);
}

/// Middleware behind the proof of who calls: counts the request and says how the count stands.
pub(crate) async fn limit(State(state): State<Shared>, request: Request, next: Next) -> Answer<Response> {
    let is_counted = is_counted(request.method(), request.uri().path());
    let Some(owner) = owner(&request).filter(|_| is_counted) else { return Ok(next.run(request).await) };
    match state.rates.requests.take(owner, state.now()) {
        Ok(standing) => {
            let mut response = next.run(request).await;
            standing.write(response.headers_mut());
            Ok(response)
        }
        Err(standing) => {
            refused("requests");
            Err(limited("the organization asks too often", standing))
        }
    }
}

/// Whether requests to a route count. Sending events does not: the plan bounds them.
pub(crate) fn is_counted(method: &Method, path: &str) -> bool {
    path.starts_with("/v1/") && !(method == Method::POST && matches!(path, "/v1/events" | "/v1/events/batch"))
}

fn owner(request: &Request) -> Option<Owner> {
    let caller = request.extensions().get::<Caller>()?;
    let address =
        || request.extensions().get::<ClientAddress>().map(|address| Owner::Address(client::owner(address.0)));
    caller.organization().map(Owner::Organization).or_else(address)
}

fn limited(what: &str, standing: Standing) -> Problem {
    let detail = format!("{what}: {} are allowed in {} s", standing.limit, standing.window.as_secs().max(1));
    standing
        .headers()
        .into_iter()
        .fold(Problem::new(Code::RateLimited, detail).retry_after(standing.next), |problem, (name, value)| {
            problem.header(name, value)
        })
}

/// How a count stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    limit: u32,
    window: Duration,
    /// How many may come now.
    remaining: u32,
    /// Until all of the limit may come again.
    reset: Duration,
    /// Until the next may come.
    pub next: Duration,
}

impl Standing {
    fn headers(&self) -> [(HeaderName, HeaderValue); 3] {
        let reset = self.reset.as_millis().div_ceil(1000);
        let reset = HeaderValue::from(u64::try_from(reset).unwrap_or(u64::MAX));
        [(LIMIT, self.limit.into()), (REMAINING, self.remaining.into()), (RESET, reset)]
    }

    fn write(&self, headers: &mut HeaderMap) {
        headers.extend(self.headers());
    }
}

/// One quota for each key, by the generic cell rate algorithm: all that is kept of a key is the moment at which its
/// count will be back at zero.
struct Rate<K> {
    quota: Quota,
    cells: Mutex<Cells<K>>,
}

struct Cells<K> {
    /// Microseconds since 1970.
    idle_at: HashMap<K, i64>,
    swept_at: i64,
}

impl<K: Eq + Hash + Copy> Rate<K> {
    fn new(quota: Quota) -> Self {
        Self { quota, cells: Mutex::new(Cells { idle_at: HashMap::new(), swept_at: i64::MIN }) }
    }

    /// Counts one more, if it may come.
    fn take(&self, key: K, now: Timestamp) -> Result<Standing, Standing> {
        let now = micros(now);
        let mut cells = self.cells.lock();
        let before = self.at(cells.idle_at.get(&key), now);
        if before.remaining == 0 {
            return Err(before);
        }
        let idle_at = now + micros_of(before.reset) + self.step();
        if cells.idle_at.len() >= KEYS_MAX && !cells.idle_at.contains_key(&key) {
            cells.sweep(now);
        }
        if cells.idle_at.len() < KEYS_MAX || cells.idle_at.contains_key(&key) {
            cells.idle_at.insert(key, idle_at);
        }
        Ok(self.at(Some(&idle_at), now))
    }

    /// How a key stands, without counting.
    fn standing(&self, key: K, now: Timestamp) -> Standing {
        self.at(self.cells.lock().idle_at.get(&key), micros(now))
    }

    fn at(&self, idle_at: Option<&i64>, now: i64) -> Standing {
        let window = micros_of(self.quota.window);
        // A clock that was set back must not keep anybody out for longer than the window.
        let taken = idle_at.map_or(0, |idle_at| (idle_at - now).clamp(0, window));
        let limit = self.quota.limit.max(1);
        let remaining = (window - taken) / self.step();
        let next = if remaining > 0 { 0 } else { self.step() - (window - taken) };
        Standing {
            limit,
            window: self.quota.window,
            remaining: u32::try_from(remaining).unwrap_or(limit).min(limit),
            reset: duration(taken),
            next: duration(next),
        }
    }

    /// What one more adds.
    fn step(&self) -> i64 {
        (micros_of(self.quota.window) / i64::from(self.quota.limit.max(1))).max(1)
    }
}

impl<K: Eq + Hash> Cells<K> {
    fn sweep(&mut self, now: i64) {
        if now.saturating_sub(self.swept_at) >= SWEEP_PAUSE_MICROS || now < self.swept_at {
            self.swept_at = now;
            self.idle_at.retain(|_, idle_at| *idle_at > now);
        }
    }
}

fn micros(at: Timestamp) -> i64 {
    at.as_millis().saturating_mul(1000)
}

fn micros_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota { limit: 3, window: Duration::from_secs(60) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn all_of_a_quota_may_come_at_once_and_then_one_as_often_as_it_is_refilled() {
        let rate = Rate::new(QUOTA);
        for remaining in [2, 1, 0] {
            assert_eq!(rate.take('a', at(0)).map(|standing| standing.remaining), Ok(remaining));
        }
        let refused = rate.take('a', at(0)).unwrap_err();
        assert_eq!((refused.limit, refused.remaining), (3, 0));
        assert_eq!((refused.reset, refused.next), (Duration::from_secs(60), Duration::from_secs(20)));
        assert!(rate.take('b', at(0)).is_ok(), "everybody has a quota of their own");
        assert_eq!(rate.take('a', at(19)).unwrap_err().next, Duration::from_secs(1));
        assert!(rate.take('a', at(20)).is_ok());
        assert!(rate.take('a', at(20)).is_err());
        assert_eq!(rate.take('a', at(200)).map(|standing| standing.remaining), Ok(2), "idle is as if never seen");
    }

    #[test]
    fn looking_counts_nothing_and_a_refusal_does_not_either() {
        let rate = Rate::new(QUOTA);
        for _ in 0..10 {
            assert_eq!(rate.standing('a', at(0)).remaining, 3);
        }
        while rate.take('a', at(0)).is_ok() {}
        for _ in 0..10 {
            assert!(rate.take('a', at(0)).is_err());
        }
        assert!(rate.take('a', at(20)).is_ok());
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nobody_out_for_longer_than_the_window() {
        let rate = Rate::new(QUOTA);
        while rate.take('a', at(100_000)).is_ok() {}
        assert_eq!(rate.take('a', at(0)).unwrap_err().next, Duration::from_secs(20));
    }

    #[test]
    fn keys_are_bounded_and_make_room_when_their_quota_is_whole_again() {
        let rate = Rate::new(Quota { limit: 1, window: Duration::from_secs(60) });
        for key in 0..KEYS_MAX {
            assert!(rate.take(key, at(0)).is_ok());
        }
        for _ in 0..2 {
            assert!(rate.take(KEYS_MAX, at(0)).is_ok(), "there is no room, so it is not counted");
        }
        assert_eq!(rate.cells.lock().idle_at.len(), KEYS_MAX);
        assert!(rate.take(KEYS_MAX, at(60)).is_ok());
        assert!(rate.take(KEYS_MAX, at(60)).is_err());
        assert_eq!(rate.cells.lock().idle_at.len(), 1);
    }

    #[test]
    fn the_fastest_quota_counts_too() {
        let rate = Rate::new(Quota { limit: 6_000, window: Duration::from_secs(60) });
        let taken = (0..10_000).filter(|_| rate.take('a', at(0)).is_ok()).count();
        assert_eq!(taken, 6_000);
    }
}
