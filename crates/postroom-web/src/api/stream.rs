//! `/v1/stream`: events, deliveries and attempts as they happen, as server-sent events.
//!
//! A stream resumes after `Last-Event-ID`; what it could not show is said as a `gap`, never left out in silence. It ends
//! when the process stops, and within a second when its API key is revoked.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use postroom_domain::event::EventTypePattern;
use postroom_domain::{DeliveryId, EndpointId, EventId, Invalid, OrganizationId, SourceId};
use postroom_storage::api::{Activity, ActivityId, ActivityStream, DeliveryView, EventView, Position};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use tokio::time::{Interval, MissedTickBehavior};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deliveries::{AttemptJson, DeliveryJson, id_filter};
use super::events::EventJson;
use crate::app::{Shared, State as Web};
use crate::cursor::Binding;
use crate::extract::{Caller, InOrganization, Query};
use crate::places::Place;
use crate::problem::fields::Errors;
use crate::problem::{Answer, Code, Problem};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How often a stream looks whether its key is still valid.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(stream))
}

/// What to show.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WatchStream {
    /// `event`, `delivery` and `attempt`, with commas between. Left out: all that the other filters allow.
    #[param(example = "event,attempt")]
    kinds: Option<String>,
    /// Of this event type, or of a word and all below it: `order.*`.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// Events of this source only.
    source_id: Option<String>,
    /// Deliveries and attempts to this endpoint only.
    endpoint_id: Option<String>,
}

/// What a stream shows.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    events: bool,
    deliveries: bool,
    attempts: bool,
    event_type: Option<EventTypePattern>,
    source: Option<SourceId>,
    endpoint: Option<EndpointId>,
}

impl WatchStream {
    fn check(self) -> Answer<Wanted> {
        let mut errors = Errors::default();
        let e = &mut errors;
        let source = id_filter(e, "source_id", self.source_id);
        let endpoint = id_filter(e, "endpoint_id", self.endpoint_id);
        let event_type = self.event_type.and_then(|text| e.take("type", EventTypePattern::parse(&text)));
        let mut wanted = Wanted {
            events: endpoint.is_none(),
            deliveries: source.is_none(),
            attempts: source.is_none(),
            event_type,
            source,
            endpoint,
        };
        if let Some(kinds) = self.kinds {
            e.take("kinds", wanted.only(&kinds));
        }
        if !(wanted.events || wanted.deliveries || wanted.attempts) {
            e.push(
                "kinds",
                "conflict",
                "source_id goes with events only, endpoint_id with deliveries and attempts only",
            );
        }
        errors.finish(Some(wanted))
    }
}

impl Wanted {
    /// Keeps only the kinds that are named.
    fn only(&mut self, kinds: &str) -> Result<(), Invalid> {
        let named: Vec<&str> = kinds.split(',').collect();
        if let Some(unknown) = named.iter().find(|kind| !["event", "delivery", "attempt"].contains(kind)) {
            let shown: String = unknown.chars().take(32).collect();
            return Err(Invalid::new("unknown_value", format!("{shown:?} is none of event, delivery, attempt")));
        }
        self.events &= named.contains(&"event");
        self.deliveries &= named.contains(&"delivery");
        self.attempts &= named.contains(&"attempt");
        Ok(())
    }

    fn is_of_type(&self, event_type: &str) -> bool {
        self.event_type.as_ref().is_none_or(|pattern| pattern.matches(event_type))
    }

    fn wants_event(&self, event: &EventView) -> bool {
        let of_source = self.source.is_none_or(|source| event.source == Some(source));
        self.events && of_source && self.is_of_type(&event.event_type)
    }

    fn wants_delivery(&self, delivery: &DeliveryView) -> bool {
        let to_endpoint = self.endpoint.is_none_or(|endpoint| delivery.endpoint == endpoint);
        to_endpoint && self.is_of_type(&delivery.event_type)
    }
}

/// Watch events, deliveries and attempts as they happen.
///
/// Server-sent events of the kinds `event`, `delivery` (as it stands after an attempt), `attempt`, and `gap` with how many
/// things were missed (`null`: not known). Send `Last-Event-ID` to resume.
#[utoipa::path(get, path = "/v1/stream", tag = "stream",
    params(WatchStream, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last thing that was shown")),
    responses((status = 200, description = "A stream that does not end by itself", content_type = "text/event-stream", body = String)))]
async fn stream(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<WatchStream>,
) -> Answer<Response> {
    let wanted = query.check()?;
    let seal = Binding::new("/v1/stream", Some(scope.organization()), &Map::new());
    let after = last_event_id(&state, &seal, &headers)?;
    let place = state.streams.take(scope.organization()).ok_or_else(|| Problem::of(Code::TooManyStreams))?;
    let mut look = tokio::time::interval(LOOK.min(state.app.limits.stream_heartbeat));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watcher = Watcher {
        happening: state.app.storage.api.activity(&scope, after).await?,
        // Says at once that it works: some clients show nothing before the first bytes.
        ready: VecDeque::from([Bytes::from_static(b"retry: 2000\n: open\n\n")]),
        spoke: Instant::now(),
        _place: place,
        state,
        caller,
        wanted,
        seal,
        look,
    };
    let bytes = futures_util::stream::unfold(watcher, |mut watcher| async move {
        let next = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(next), watcher))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        // Some proxies keep answers back until they are complete.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(bytes)).into_response())
}

/// Where a stream resumes. The id is sealed: it counts things of every organization together.
fn last_event_id(state: &Web, seal: &Binding, headers: &HeaderMap) -> Answer<Option<ActivityId>> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let position = value.to_str().ok().and_then(|text| state.cursors.open(seal, text).ok());
    let id = position.and_then(|position| position.0.try_into().ok());
    id.map(|id| Some(ActivityId(id))).ok_or_else(Problem::invalid_cursor)
}

/// One stream under way.
struct Watcher {
    state: Shared,
    caller: Caller,
    wanted: Wanted,
    seal: Binding,
    happening: ActivityStream,
    ready: VecDeque<Bytes>,
    look: Interval,
    spoke: Instant,
    _place: Place<OrganizationId>,
}

impl Watcher {
    /// The next bytes; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.spoke = Instant::now();
                return Some(bytes);
            }
            tokio::select! {
                biased;
                () = self.state.app.stop.cancelled() => return None,
                _ = self.look.tick() => self.look().await?,
                happened = self.happening.next() => {
                    let (id, what) = happened?;
                    self.show(id, what);
                }
            }
        }
    }

    /// Ends the stream when the key was revoked, and keeps it alive when there is nothing to say.
    async fn look(&mut self) -> Option<()> {
        if !self.caller.is_still_valid(&self.state).await {
            return None;
        }
        if self.spoke.elapsed() >= self.state.app.limits.stream_heartbeat {
            self.ready.push_back(Bytes::from_static(b": alive\n\n"));
        }
        Some(())
    }

    fn show(&mut self, id: ActivityId, what: Activity) {
        match what {
            Activity::Gap(missed) => self.say("gap", Some(id), &Gap { missed }),
            Activity::Event(event) if self.wanted.wants_event(&event) => {
                self.say("event", Some(id), &EventJson::from(event));
            }
            Activity::Attempt(delivery, attempt) if self.wanted.wants_delivery(&delivery) => {
                let (delivery_id, event_id, endpoint_id) = (delivery.id, delivery.event, delivery.endpoint);
                if self.wanted.deliveries {
                    // Two messages come of one thing: only the last carries the id to resume after.
                    let id = (!self.wanted.attempts).then_some(id);
                    self.say("delivery", id, &DeliveryJson::from(*delivery));
                }
                if self.wanted.attempts {
                    let attempt = AttemptJson::from(*attempt);
                    self.say("attempt", Some(id), &StreamedAttempt { delivery_id, event_id, endpoint_id, attempt });
                }
            }
            Activity::Event(_) | Activity::Attempt(..) => {}
        }
    }

    fn say(&mut self, kind: &str, id: Option<ActivityId>, data: &impl Serialize) {
        let mut text = format!("event: {kind}\n");
        if let Some(ActivityId(id)) = id {
            let _ = writeln!(text, "id: {}", self.state.cursors.seal(&self.seal, &Position(id.to_vec())));
        }
        // JSON written by serde_json has no line ends inside.
        let _ = write!(text, "data: {}\n\n", serde_json::to_string(data).unwrap_or_default());
        self.ready.push_back(text.into());
    }
}

/// An attempt with what it belongs to.
#[derive(Serialize, ToSchema)]
struct StreamedAttempt {
    #[schema(value_type = String)]
    delivery_id: DeliveryId,
    #[schema(value_type = String)]
    event_id: EventId,
    #[schema(value_type = String)]
    endpoint_id: EndpointId,
    #[serde(flatten)]
    attempt: AttemptJson,
}

/// Things that happened and were not shown.
#[derive(Serialize, ToSchema)]
struct Gap {
    /// How many; null when that is not known.
    #[schema(required = true)]
    missed: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(kinds: Option<&str>, source: bool, endpoint: bool) -> Result<(bool, bool, bool), Code> {
        let id = |prefix: &str| Some(format!("{prefix}_{}", "0".repeat(32)));
        let watch = WatchStream {
            kinds: kinds.map(str::to_owned),
            event_type: None,
            source_id: if source { id("src") } else { None },
            endpoint_id: if endpoint { id("ep") } else { None },
        };
        watch.check().map(|w| (w.events, w.deliveries, w.attempts)).map_err(|problem| problem.code())
    }

    #[test]
    fn filters_choose_the_kinds_that_they_can_be_asked_of() {
        assert_eq!(wanted(None, false, false), Ok((true, true, true)));
        assert_eq!(wanted(Some("attempt"), false, false), Ok((false, false, true)));
        assert_eq!(wanted(None, true, false), Ok((true, false, false)));
        assert_eq!(wanted(None, false, true), Ok((false, true, true)));
        for (kinds, source, endpoint) in
            [(Some("attempt"), true, false), (Some("event"), false, true), (None, true, true), (Some(""), false, false)]
        {
            assert_eq!(wanted(kinds, source, endpoint), Err(Code::ValidationFailed), "{kinds:?}");
        }
    }
}
