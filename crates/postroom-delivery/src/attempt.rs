//! One attempt: one request, one answer, one deadline over all of it, and what the answer means.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{StatusCode, header};
use postroom_domain::Timestamp;
use postroom_domain::delivery::{AttemptError, Outcome};
use postroom_storage::worker::{Response, StoredEvent};

use crate::client::{Answer, Client};
use crate::prepared::Prepared;
use crate::retry_after;

/// An attempt is in flight no longer than this, whatever the settings say: what is shown as `processing` ends.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(30);

/// How an attempt ended.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) response: Option<Response>,
    pub(crate) error: Option<AttemptError>,
    /// What exactly went wrong, for the operator's log.
    pub(crate) detail: Option<String>,
    pub(crate) outcome: Outcome,
    pub(crate) duration: Duration,
}

/// This machine could not even try. Nothing was sent and the endpoint is not to blame.
#[derive(Debug)]
pub(crate) struct NotTried(pub(crate) String);

/// Makes one attempt. It ends within `timeout`: resolving, connecting, TLS, writing and reading included.
///
/// An answer counts once its status and headers are complete. What happens to its body afterwards is recorded, but does
/// not change what the receiver said: a 2xx whose body breaks off is a success.
pub(crate) async fn attempt(
    client: &Client,
    prepared: &Prepared,
    event: &StoredEvent,
    timeout: Duration,
    now: Timestamp,
) -> Result<Report, NotTried> {
    let start = Instant::now();
    let (recipe, proof) = match (&prepared.recipe, prepared.prove(event, now.as_seconds())) {
        (Ok(recipe), Ok(proof)) => (recipe, proof),
        (Err(why), _) => return Ok(Report::unusable(why.clone())),
        (_, Err(why)) => return Ok(Report::unusable(why)),
    };
    let mut answer = None;
    let make = || recipe.request(event, &proof);
    let exchange = client.exchange(&prepared.pool, &recipe.destination, make, &mut answer);
    let result = tokio::time::timeout(timeout.min(LEASE_MAX), exchange).await;
    let (error, detail) = match result {
        Ok(Ok(())) => (None, None),
        Ok(Err(error)) => match error.class() {
            None => return Err(NotTried(error.to_string())),
            // The classes say how far it got; an answer that has begun and broke off is always the protocol's.
            Some(_) if answer.is_some() => (Some(AttemptError::Protocol), Some(error.to_string())),
            Some(class) => (Some(class), Some(error.to_string())),
        },
        Err(_) => (Some(AttemptError::Timeout), Some(format!("no complete answer within {timeout:?}"))),
    };
    let outcome = answer.as_ref().map_or(Outcome::Refused { retry_after: None }, |answer| meaning(answer, now));
    Ok(Report { response: answer.map(kept), error, detail, outcome, duration: start.elapsed() })
}

impl Report {
    /// The endpoint's configuration makes no request: nothing was sent.
    fn unusable(why: String) -> Self {
        Self {
            response: None,
            error: Some(AttemptError::Configuration),
            detail: Some(why),
            outcome: Outcome::Refused { retry_after: None },
            duration: Duration::ZERO,
        }
    }

    /// The attempt panicked, which is a fault of ours: it counts, so that it cannot go on for ever.
    pub(crate) fn panicked() -> Self {
        Self::unusable("the attempt panicked".to_owned())
    }

    pub(crate) fn status(&self) -> Option<u16> {
        self.response.as_ref().map(|response| response.status)
    }
}

fn meaning(answer: &Answer, now: Timestamp) -> Outcome {
    match answer.head.status {
        status if status.is_success() => Outcome::Accepted,
        StatusCode::GONE => Outcome::Gone,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let asked = answer.head.headers.get(header::RETRY_AFTER);
            Outcome::Refused { retry_after: asked.and_then(|value| retry_after::parse(value.as_bytes(), now)) }
        }
        _ => Outcome::Refused { retry_after: None },
    }
}

fn kept(answer: Answer) -> Response {
    // Nearly all are UTF-8, and that is soon seen; where one is not takes longer to find.
    let text = |value: &http::HeaderValue| {
        let text = String::from_utf8(value.as_bytes().to_vec());
        text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    };
    Response {
        status: answer.head.status.as_u16(),
        headers: answer.head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        body: Bytes::from(answer.body),
    }
}

/// Whether a failed attempt says that the endpoint has too much to do, or is away.
pub(crate) fn is_overload(report: &Report) -> bool {
    match (report.status(), report.error) {
        (Some(status), _) => status == 429 || status >= 500,
        (None, Some(AttemptError::Timeout | AttemptError::Connect | AttemptError::Dns | AttemptError::Tls)) => true,
        (None, _) => false,
    }
}
