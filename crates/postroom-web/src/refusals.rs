//! Callers that were refused, for the audit log: one entry a minute for each caller and route, one for an address that has
//! shown too many wrong credentials, and a bounded number of them, so that whoever guesses does not fill the database.

use std::collections::HashSet;

use parking_lot::Mutex;
use postroom_domain::Timestamp;
use postroom_storage::audit::{Refusal, Refused};

use crate::app::State;
use crate::client::owner;
use crate::problem::{Code, Problem};

/// The most entries a minute.
const ENTRIES: usize = 1_000;
const MINUTE_MS: i64 = 60_000;

/// What is worth an entry: somebody showed a credential, and it was not good, not good for this, or one too many.
const NOTED: [Code; 6] = [
    Code::CredentialsInvalid,
    Code::RateLimited,
    Code::Forbidden,
    Code::OrganizationNotFound,
    Code::OrganizationInactive,
    Code::SignInLinkInvalid,
];

/// Who was noted in the current minute.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Minute>);

#[derive(Default)]
struct Minute {
    number: i64,
    noted: HashSet<(String, String)>,
}

impl Refusals {
    fn is_news(&self, who: String, route: &str, now: Timestamp) -> bool {
        let mut minute = self.0.lock();
        let number = now.as_millis().div_euclid(MINUTE_MS);
        if minute.number != number {
            *minute = Minute { number, noted: HashSet::new() };
        }
        minute.noted.len() < ENTRIES && minute.noted.insert((who, route.to_owned()))
    }
}

/// Writes down that a request to `route` (method and path) was refused, if that is news. Whoever is refused learns nothing
/// of whether it could be written.
pub(crate) async fn note(state: &State, who: Refused, route: String, problem: &Problem) {
    let now = state.now();
    let name = match &who {
        Refused::Nobody(from) => from.address.map_or_else(String::new, |address| owner(address).to_string()),
        Refused::In(_) | Refused::SuperAdmin(_) => who.actor().to_string(),
    };
    // Too many from an address are too many wherever they were shown.
    let place = if problem.code() == Code::RateLimited { "" } else { &route };
    if !NOTED.contains(&problem.code()) || !state.refusals.is_news(name, place, now) {
        return;
    }
    let refusal = Refusal { route, code: problem.code().as_str() };
    if let Err(error) = state.app.storage.platform.access_refused(who, refusal, now).await {
        tracing::warn!(%error, "a refused request could not be written into the audit log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_noted_once_a_minute_for_a_route_and_all_together_within_a_bound() {
        let refusals = Refusals::default();
        let (first, next) = (Timestamp::from_millis(120_000), Timestamp::from_millis(180_000));
        let news = |who: &str, route: &str, now| refusals.is_news(who.to_owned(), route, now);
        assert!(news("a", "GET /v1/users", first));
        assert!(!news("a", "GET /v1/users", first));
        assert!(news("a", "GET /v1/events", first) && news("b", "GET /v1/users", first));
        assert!(news("a", "GET /v1/users", next));
        let more = (0..2 * ENTRIES).filter(|number| news(&number.to_string(), "GET /v1/users", next)).count();
        assert_eq!(more, ENTRIES - 1);
    }
}
