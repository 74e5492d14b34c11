//! The part that accepts events: reads sources with their secrets, appends events and rejections.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_domain::event::{EventType, ExternalId};
use postroom_domain::source::SourceSettings;
use postroom_domain::verify::{FieldError, Part, Verified, Verifier};
use postroom_domain::{EventId, RejectionId, Secret, SourceId, Timestamp};

use crate::{Result, Scope};

/// See the [module](self).
#[async_trait]
pub trait Receiver: Send + Sync {
    /// What is needed to receive at `/in/{slug}/{name}`. Called once a request: answered from memory.
    async fn source_find(&self, organization_slug: &str, source_name: &str) -> Result<Option<Arc<Source>>>;

    /// Records an event and the deliveries that follow from it, in one transaction; resolves when they are durable.
    ///
    /// # Errors
    /// [`LimitReached`](crate::Error::LimitReached), [`Overloaded`](crate::Error::Overloaded) and
    /// [`Unavailable`](crate::Error::Unavailable): nothing is acknowledged. After `Unavailable` the event may be stored
    /// all the same, so the sender has to repeat with the same id.
    async fn event_record(&self, event: NewEvent) -> Result<Recorded>;

    /// Records the events that one request carried, all of them or none, in one transaction; resolves when they are
    /// durable, with an answer for each. They are of one origin.
    ///
    /// # Errors
    /// As [`event_record`](Self::event_record): then none of them is acknowledged, and a monthly limit that has room for
    /// some only refuses all.
    async fn event_record_all(&self, events: Vec<NewEvent>) -> Result<Vec<Recorded>>;

    /// Keeps the secret that a provider's handshake brought, if the source has none that is valid now; false if it has
    /// one, which stays.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound) when the source is gone meanwhile.
    async fn source_learn(&self, source: &Source, secret: Secret, now: Timestamp) -> Result<bool>;

    /// Keeps a request that failed verification for its owner to see: the newest 1,000 of an organization, at most 30
    /// days. `None` when the source is over its rate (60 a minute are kept).
    async fn rejection_record(&self, rejection: NewRejection) -> Result<Option<RejectionId>>;
}

/// A source as the receiver needs it: settings, and a verifier compiled from its active secrets.
#[derive(Debug)]
pub struct Source {
    /// The source's id.
    pub id: SourceId,
    /// Name, provider and options.
    pub settings: SourceSettings,
    /// Whether the source and its organization are both switched on.
    pub is_active: bool,
    /// The verifier, or why the stored configuration does not make one (its secret cannot be decrypted, for example).
    pub verifier: std::result::Result<Verifier, Vec<FieldError>>,
    pub(crate) scope: Scope,
    /// Inside this engine.
    pub(crate) key: i64,
}

impl Source {
    /// The organization the source belongs to. Its actor is the sender: nobody signed in.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }
}

/// An event to record.
#[derive(Debug)]
pub struct NewEvent {
    pub(crate) origin: Origin,
    pub(crate) event_type: EventType,
    pub(crate) external_id: Option<ExternalId>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    pub(crate) received_at: Timestamp,
}

/// Where an event came from, with the proof that it may be recorded there.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A verified request at a source.
    Source(Arc<Source>),
    /// The organization's own code.
    Organization(Scope),
}

impl NewEvent {
    /// An event that a third party sent: only a request that its verifier has passed can become one.
    ///
    /// `headers` are those to pass on to endpoints, names in lower case; `body` is what arrived, byte for byte.
    #[must_use]
    pub fn received(
        source: Arc<Source>,
        verified: Verified,
        headers: Vec<(String, String)>,
        body: Bytes,
        received_at: Timestamp,
    ) -> Self {
        let external_id = external_id(verified.external_id());
        let event_type = verified.event_type().clone();
        Self { origin: Origin::Source(source), event_type, external_id, headers, body, received_at }
    }

    /// The events that one verified request of a third party carries, in their order; one if it is not a batch. They
    /// are for [`event_record_all`](Receiver::event_record_all).
    #[must_use]
    pub fn all_received(
        source: &Arc<Source>,
        mut verified: Verified,
        headers: Vec<(String, String)>,
        body: Bytes,
        received_at: Timestamp,
    ) -> Vec<Self> {
        let parts = verified.take_parts();
        if parts.is_empty() {
            return vec![Self::received(source.clone(), verified, headers, body, received_at)];
        }
        let event = |part: Part| Self {
            origin: Origin::Source(source.clone()),
            event_type: part.event_type,
            external_id: external_id(part.external_id.as_deref()),
            headers: headers.clone(),
            body: part.body.into(),
            received_at,
        };
        parts.into_iter().map(event).collect()
    }

    /// Gives an event whose sender gave it no id this one, so that recording it twice makes one event.
    #[must_use]
    pub fn or_known_as(mut self, id: ExternalId) -> Self {
        self.external_id.get_or_insert(id);
        self
    }

    /// An event of the organization's own. `body` is what endpoints will get.
    #[must_use]
    pub fn sent(
        scope: Scope,
        event_type: EventType,
        external_id: Option<ExternalId>,
        body: Bytes,
        received_at: Timestamp,
    ) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self { origin: Origin::Organization(scope), event_type, external_id, headers, body, received_at }
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// An id as the verifier made it, which is always a valid one.
fn external_id(id: Option<&str>) -> Option<ExternalId> {
    id.and_then(|id| ExternalId::parse(id).ok())
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Its id; of the first one if it is a duplicate.
    pub id: EventId,
    /// Whether the same external id was recorded before, within the window of recognition.
    pub duplicate: bool,
    /// How many endpoints it goes to; for a duplicate, how many the first one went to.
    pub deliveries: u32,
}

/// A request that failed verification.
#[derive(Debug)]
pub struct NewRejection {
    /// At which source.
    pub source: Arc<Source>,
    /// The stable code of the answer, for example `signature_invalid`.
    pub code: &'static str,
    /// The stable name of the check that failed.
    pub check: String,
    /// HTTP method.
    pub method: String,
    /// Path and query as received.
    pub path: String,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Bytes,
    /// When it arrived.
    pub received_at: Timestamp,
}
