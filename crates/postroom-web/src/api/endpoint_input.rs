//! What may be written about an endpoint, and how it becomes settings. Every way to write a URL goes through here, so
//! that none of them forgets to ask whether the address may be reached.

use std::collections::BTreeMap;

use postroom_domain::delivery::RetrySchedule;
use postroom_domain::egress::Policy;
use postroom_domain::endpoint::{CustomHeader, EndpointSettings, EndpointUrl, SignatureScheme};
use postroom_domain::event::EventTypePattern;
use postroom_domain::filter::Filter;
use postroom_domain::{Invalid, Secret, SourceId};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::extract::{double_option, given};
use crate::problem::Answer;
use crate::problem::fields::Errors;

const DESCRIPTION_CHARS_MAX: usize = 500;
const EVENT_TYPES_MAX: usize = 100;
const SOURCES_MAX: usize = 100;
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1_000..=30_000;
const RATE_LIMIT: std::ops::RangeInclusive<u64> = 1..=10_000;

/// An endpoint to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEndpoint {
    /// Where attempts go: an absolute http or https URL that the outside can reach.
    #[schema(example = "https://example.com/webhooks", max_length = 2048)]
    url: String,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 500)]
    description: Option<String>,
    /// Which event types it wants: types such as `order.paid`, or a word and all below it, `order.*`. Left out: all.
    #[serde(default)]
    #[schema(example = json!(["order.*"]), max_items = 100)]
    event_types: Option<Vec<String>>,
    /// Which sources it wants events of. Left out: all, and the organization's own events.
    #[serde(default)]
    #[schema(max_items = 100)]
    source_ids: Option<Vec<String>>,
    /// A condition on the payload, such as `{"data.total": {"$gte": 100}}`.
    #[serde(default)]
    filter: Option<Value>,
    /// Seconds between attempts; an empty list is no retry. Left out: the installation's schedule.
    #[serde(default)]
    #[schema(example = json!([60, 300, 900]), max_items = 20)]
    retry_schedule: Option<Vec<u64>>,
    /// Deadline of one attempt in milliseconds. Left out: the installation's.
    #[serde(default)]
    #[schema(minimum = 1000, maximum = 30000)]
    timeout_ms: Option<u64>,
    /// Attempts a second at most. Left out: no limit.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 10000)]
    rate_limit: Option<u64>,
    /// Further headers of every attempt. Their values are kept as secrets and never shown again.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    headers: Option<BTreeMap<String, Secret>>,
    /// How attempts are signed: `hmac_sha256` (the default) or `ed25519`.
    #[serde(default)]
    #[schema(value_type = Option<Signature>)]
    signature: Option<SignatureScheme>,
}

/// How attempts are signed.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only for the document: the domain's enum is what is read")]
pub(super) enum Signature {
    /// Standard Webhooks `v1` with a shared secret (`whsec_...`).
    HmacSha256,
    /// Standard Webhooks `v1a`; the public key (`whpk_...`) is what the receiver needs.
    Ed25519,
}

/// What to change of an endpoint: what is left out stays, `null` goes back to the default.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeEndpoint {
    /// Where attempts go.
    #[serde(default, deserialize_with = "given")]
    #[schema(max_length = 2048)]
    url: Option<String>,
    /// For people.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<String>)]
    description: Option<Option<String>>,
    /// Which event types it wants.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<Vec<String>>)]
    event_types: Option<Option<Vec<String>>>,
    /// Which sources it wants events of.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<Vec<String>>)]
    source_ids: Option<Option<Vec<String>>>,
    /// A condition on the payload.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<Value>)]
    filter: Option<Option<Value>>,
    /// Seconds between attempts.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<Vec<u64>>)]
    retry_schedule: Option<Option<Vec<u64>>>,
    /// Deadline of one attempt in milliseconds.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<u64>)]
    timeout_ms: Option<Option<u64>>,
    /// Attempts a second at most.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<u64>)]
    rate_limit: Option<Option<u64>>,
    /// Headers to set, or with `null` to take away; the others stay. `null` for all of them takes all away.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    headers: Option<Option<BTreeMap<String, Option<Secret>>>>,
}

impl NewEndpoint {
    /// What a new tenant says of its first endpoint.
    pub fn of_tenant(url: String, event_types: Option<Vec<String>>) -> Self {
        Self {
            url,
            description: None,
            event_types,
            source_ids: None,
            filter: None,
            retry_schedule: None,
            timeout_ms: None,
            rate_limit: None,
            headers: None,
            signature: None,
        }
    }

    /// The settings, or everything that is wrong.
    pub fn check(self, egress: &Policy) -> Answer<EndpointSettings> {
        self.check_as(egress, "url")
    }

    /// The same, where the URL has another name.
    pub fn check_as(self, egress: &Policy, url_field: &str) -> Answer<EndpointSettings> {
        let mut errors = Errors::default();
        let url = url(&mut errors, url_field, egress, &self.url);
        let headers = self.headers.unwrap_or_default().into_iter().map(|(name, value)| (name, Some(value)));
        let rest = Rest {
            description: description(&mut errors, self.description),
            event_types: event_types(&mut errors, self.event_types),
            source_ids: source_ids(&mut errors, self.source_ids),
            filter: self.filter.and_then(|filter| errors.take("filter", Filter::parse(filter))),
            retry_schedule: retry_schedule(&mut errors, self.retry_schedule),
            timeout_ms: number(&mut errors, "timeout_ms", self.timeout_ms, TIMEOUT_MS),
            rate_limit: number(&mut errors, "rate_limit", self.rate_limit, RATE_LIMIT),
            headers: merge_headers(&mut errors, Vec::new(), headers),
        };
        let url = errors.finish(url)?;
        Ok(rest.with(url, self.signature.unwrap_or_default()))
    }
}

impl ChangeEndpoint {
    /// The settings after the change, or everything that is wrong.
    pub fn check(self, egress: &Policy, before: EndpointSettings) -> Answer<EndpointSettings> {
        let mut errors = Errors::default();
        let e = &mut errors;
        let url = self.url.map_or(Some(before.url), |text| url(e, "url", egress, &text));
        let headers = match self.headers {
            None => before.headers,
            Some(None) => Vec::new(),
            Some(Some(changes)) => merge_headers(e, before.headers, changes),
        };
        let rest = Rest {
            headers,
            description: self.description.map_or(before.description, |text| description(e, text)),
            event_types: self.event_types.map_or(before.event_types, |types| event_types(e, types)),
            source_ids: self.source_ids.map_or(before.source_ids, |ids| source_ids(e, ids)),
            filter: self
                .filter
                .map_or(before.filter, |filter| filter.and_then(|filter| e.take("filter", Filter::parse(filter)))),
            retry_schedule: self.retry_schedule.map_or(before.retry_schedule, |steps| retry_schedule(e, steps)),
            timeout_ms: self.timeout_ms.map_or(before.timeout_ms, |ms| number(e, "timeout_ms", ms, TIMEOUT_MS)),
            rate_limit: self.rate_limit.map_or(before.rate_limit, |rate| number(e, "rate_limit", rate, RATE_LIMIT)),
        };
        let url = errors.finish(url)?;
        Ok(rest.with(url, before.signature))
    }
}

/// Settings but for URL and signature.
struct Rest {
    description: String,
    event_types: Vec<EventTypePattern>,
    source_ids: Vec<SourceId>,
    filter: Option<Filter>,
    retry_schedule: Option<RetrySchedule>,
    timeout_ms: Option<u32>,
    rate_limit: Option<u32>,
    headers: Vec<CustomHeader>,
}

impl Rest {
    fn with(self, url: EndpointUrl, signature: SignatureScheme) -> EndpointSettings {
        let Self { description, event_types, source_ids, filter, retry_schedule, timeout_ms, rate_limit, headers } =
            self;
        EndpointSettings {
            url,
            description,
            event_types,
            source_ids,
            filter,
            retry_schedule,
            timeout_ms,
            rate_limit,
            headers,
            signature,
        }
    }
}

fn url(errors: &mut Errors, field: &str, egress: &Policy, text: &str) -> Option<EndpointUrl> {
    let url = errors.take(field, EndpointUrl::parse(text))?;
    errors.take(field, egress.check_url(&url)).map(|()| url)
}

fn description(errors: &mut Errors, text: Option<String>) -> String {
    let text = text.unwrap_or_default();
    if text.chars().count() > DESCRIPTION_CHARS_MAX {
        errors.push("description", "too_long", "at most 500 characters");
    } else if text.chars().any(|c| c.is_control() && c != '\n') {
        errors.push("description", "invalid_character", "no control characters but line ends");
    }
    text
}

fn event_types(errors: &mut Errors, types: Option<Vec<String>>) -> Vec<EventTypePattern> {
    let types = types.unwrap_or_default();
    if types.len() > EVENT_TYPES_MAX {
        errors.push("event_types", "too_many", "at most 100 event types");
        return Vec::new();
    }
    each(errors, "event_types", types, EventTypePattern::parse)
}

fn source_ids(errors: &mut Errors, ids: Option<Vec<String>>) -> Vec<SourceId> {
    let ids = ids.unwrap_or_default();
    if ids.len() > SOURCES_MAX {
        errors.push("source_ids", "too_many", "at most 100 sources");
        return Vec::new();
    }
    each(errors, "source_ids", ids, |text| {
        text.parse().map_err(|_| Invalid::new("source_not_found", "no source of the organization has this id"))
    })
}

/// Every item of a list, or what is wrong with it at its place.
fn each<T>(errors: &mut Errors, field: &str, items: Vec<String>, parse: impl Fn(&str) -> Result<T, Invalid>) -> Vec<T> {
    let mut all = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        all.extend(errors.take(&format!("{field}[{index}]"), parse(item)));
    }
    all
}

fn retry_schedule(errors: &mut Errors, steps: Option<Vec<u64>>) -> Option<RetrySchedule> {
    errors.take("retry_schedule", RetrySchedule::new(&steps?))
}

fn number(errors: &mut Errors, field: &str, given: Option<u64>, range: std::ops::RangeInclusive<u64>) -> Option<u32> {
    let given = given?;
    let fits = range.contains(&given).then(|| u32::try_from(given).ok()).flatten();
    if fits.is_none() {
        errors.push(field, "out_of_range", format!("a whole number from {} to {}", range.start(), range.end()));
    }
    fits
}

fn merge_headers(
    errors: &mut Errors,
    mut headers: Vec<CustomHeader>,
    changes: impl IntoIterator<Item = (String, Option<Secret>)>,
) -> Vec<CustomHeader> {
    for (name, value) in changes {
        let lower = name.to_ascii_lowercase();
        headers.retain(|header| header.name() != lower);
        if let Some(value) = value {
            // A name may be anything at all: what cannot be a name is not worth repeating at length.
            let shown: String = name.chars().take(64).collect();
            headers.extend(errors.take(&format!("headers.{shown}"), CustomHeader::new(&name, value)));
        }
    }
    if headers.len() > CustomHeader::MAX_COUNT {
        errors.push("headers", "too_many", "at most 20 headers");
    }
    headers
}
