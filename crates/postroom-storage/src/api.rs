//! An organization's own resources. Every method takes the [`Scope`] that proves for whom; what belongs to another
//! organization is [`NotFound`](crate::Error::NotFound), like what never was.

mod answers;

use async_trait::async_trait;
use bytes::Bytes;
use postroom_domain::api_key::{KeyHash, KeyScope};
use postroom_domain::delivery::{AttemptError, DeadReason, DeliveryStatus};
use postroom_domain::endpoint::EndpointSettings;
use postroom_domain::event::Direction;
use postroom_domain::source::SourceSettings;
use postroom_domain::user::UserStatus;
use postroom_domain::{
    ApiKeyId, DeliveryId, Email, EndpointId, EventId, RejectionId, Role, Secret, SourceId, Timestamp, UserId,
};
use serde::{Deserialize, Serialize};

pub use self::answers::{Idempotency, IdempotencyClaim, StoredAnswer};
use crate::audit::{AuditEntry, AuditFilter};
use crate::{Result, Scope};

/// See the [module](self).
#[async_trait]
pub trait Api: Send + Sync {
    // Sources

    /// Makes a source with its first secret.
    async fn source_create(&self, scope: &Scope, new: NewSource, now: Timestamp) -> Result<SourceView>;
    /// Sources, newest first.
    async fn source_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<SourceView>>;
    /// One source.
    async fn source_get(&self, scope: &Scope, id: SourceId) -> Result<SourceView>;
    /// Changes what is `Some`.
    async fn source_update(
        &self,
        scope: &Scope,
        id: SourceId,
        change: SourceChange,
        now: Timestamp,
    ) -> Result<SourceView>;
    /// Deletes a source; its events stay.
    async fn source_delete(&self, scope: &Scope, id: SourceId, now: Timestamp) -> Result<()>;
    /// Adds a newest secret; the ones before stay valid for `grace_seconds`.
    async fn source_rotate(
        &self,
        scope: &Scope,
        id: SourceId,
        rotation: Rotation,
        now: Timestamp,
    ) -> Result<SourceView>;

    // Endpoints

    /// Makes an endpoint with its first secret.
    async fn endpoint_create(&self, scope: &Scope, new: NewEndpoint, now: Timestamp) -> Result<EndpointView>;
    /// Endpoints, newest first.
    async fn endpoint_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<EndpointView>>;
    /// One endpoint.
    async fn endpoint_get(&self, scope: &Scope, id: EndpointId) -> Result<EndpointView>;
    /// Replaces what its owner decides, if nothing has changed since [`version`](EndpointView::version) was read.
    ///
    /// # Errors
    /// [`Stale`](crate::Error::Stale) if something has.
    async fn endpoint_update(
        &self,
        scope: &Scope,
        id: EndpointId,
        version: i64,
        settings: EndpointSettings,
        now: Timestamp,
    ) -> Result<EndpointView>;
    /// Deletes an endpoint; its waiting deliveries become dead letters.
    async fn endpoint_delete(&self, scope: &Scope, id: EndpointId, now: Timestamp) -> Result<()>;
    /// Switches an endpoint on or off by a person's will. Waiting deliveries of a disabled one become dead letters.
    async fn endpoint_set_enabled(
        &self,
        scope: &Scope,
        id: EndpointId,
        enabled: bool,
        now: Timestamp,
    ) -> Result<EndpointView>;
    /// Adds a newest secret; the ones before sign beside it for `grace_seconds` (at most 24 hours) and are then erased.
    async fn endpoint_rotate(
        &self,
        scope: &Scope,
        id: EndpointId,
        rotation: Rotation,
        now: Timestamp,
    ) -> Result<EndpointView>;
    /// The newest secret, for an administrator's eyes. Writes an audit entry in the same transaction.
    async fn endpoint_secret_reveal(&self, scope: &Scope, id: EndpointId, now: Timestamp) -> Result<Secret>;

    // Events

    /// Events by filter, newest first.
    async fn event_list(&self, scope: &Scope, filter: EventFilter, page: PageRequest) -> Result<Page<EventView>>;
    /// One event.
    async fn event_get(&self, scope: &Scope, id: EventId) -> Result<EventView>;
    /// Its headers and payload.
    async fn event_payload(&self, scope: &Scope, id: EventId) -> Result<EventPayload>;
    /// Sends an old event again: a new run of its deliveries to `endpoints`, or to all it went to. Refuses an endpoint
    /// that is disabled.
    async fn event_replay(
        &self,
        scope: &Scope,
        id: EventId,
        endpoints: Option<Vec<EndpointId>>,
        now: Timestamp,
    ) -> Result<Vec<DeliveryView>>;
    /// Records one event for one endpoint alone, whatever it subscribes to: the endpoint's test.
    async fn endpoint_test(&self, scope: &Scope, id: EndpointId, test: TestEvent, now: Timestamp) -> Result<EventView>;

    // Deliveries and dead letters

    /// Deliveries by filter, newest event first.
    async fn delivery_list(
        &self,
        scope: &Scope,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<DeliveryView>>;
    /// One delivery.
    async fn delivery_get(&self, scope: &Scope, id: DeliveryId) -> Result<DeliveryView>;
    /// Its attempts, first to last, at most the newest 100.
    async fn attempt_list(&self, scope: &Scope, id: DeliveryId) -> Result<Vec<AttemptView>>;
    /// Tries a failed delivery now, or a dead letter again from the beginning of its schedule.
    async fn delivery_retry(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView>;
    /// Dead letters, newest first.
    async fn dead_letter_list(
        &self,
        scope: &Scope,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<DeliveryView>>;
    /// A dead letter back to `pending`, from the beginning of its schedule.
    async fn dead_letter_requeue(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView>;
    /// A dead letter to `discarded`.
    async fn dead_letter_discard(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView>;

    // Rejections

    /// Rejected requests, newest first; of one source if given.
    async fn rejection_list(
        &self,
        scope: &Scope,
        source: Option<SourceId>,
        page: PageRequest,
    ) -> Result<Page<RejectionView>>;
    /// One rejected request, with headers and body.
    async fn rejection_get(&self, scope: &Scope, id: RejectionId) -> Result<(RejectionView, RejectedRequest)>;
    /// Marks a rejection as having become an event.
    async fn rejection_resolve(&self, scope: &Scope, id: RejectionId, event: EventId, now: Timestamp) -> Result<()>;

    // API keys

    /// Stores the hash of a new key.
    async fn api_key_create(&self, scope: &Scope, new: NewApiKey, now: Timestamp) -> Result<ApiKeyView>;
    /// Keys, newest first, revoked ones too.
    async fn api_key_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<ApiKeyView>>;
    /// One key.
    async fn api_key_get(&self, scope: &Scope, id: ApiKeyId) -> Result<ApiKeyView>;
    /// Ends a key at once. Ending it twice is no error.
    async fn api_key_revoke(&self, scope: &Scope, id: ApiKeyId, now: Timestamp) -> Result<ApiKeyView>;

    // People

    /// Adds a person, with an invitation and the mail that brings it.
    ///
    /// # Errors
    /// [`Taken`](crate::Error::Taken) when anybody in the installation has this address.
    async fn user_invite(&self, scope: &Scope, new: NewUser, now: Timestamp) -> Result<UserView>;
    /// Sends another invitation; the one before is void.
    ///
    /// # Errors
    /// [`Conflict`](crate::Error::Conflict) when the person has accepted already, is switched off, or was sent five in
    /// the last hour.
    async fn user_invite_again(&self, scope: &Scope, id: UserId, now: Timestamp) -> Result<UserView>;
    /// People, newest first.
    async fn user_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<UserView>>;
    /// One person.
    async fn user_get(&self, scope: &Scope, id: UserId) -> Result<UserView>;
    /// Changes what is `Some`. Another role, and being switched off, end the person's sessions; being switched off also
    /// voids links that were sent.
    ///
    /// # Errors
    /// [`Conflict`](crate::Error::Conflict) `last_admin` when nobody would be left who can sign in as an admin.
    async fn user_update(&self, scope: &Scope, id: UserId, change: UserChange, now: Timestamp) -> Result<UserView>;

    // What was done

    /// Entries of the audit log, newest first.
    async fn audit_list(&self, scope: &Scope, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>>;

    // Idempotent answers and the live stream

    /// Claims an `Idempotency-Key` of this organization for 24 hours, or says what is known of it.
    async fn idempotency_begin(&self, scope: &Scope, claim: IdempotencyClaim, now: Timestamp) -> Result<Idempotency>;
    /// Stores the answer of a claimed key (encrypted: it may show a secret once more). `None` gives the claim back.
    async fn idempotency_finish(
        &self,
        scope: &Scope,
        claim: IdempotencyClaim,
        answer: Option<StoredAnswer>,
        now: Timestamp,
    ) -> Result<()>;

    /// What happens, all kinds, of this organization only: from now on, or from `after` on without a gap and nothing
    /// twice. What lies too far back (further than 10,000 rows of the log) may not be shown again: [`Activity::Gap`] says
    /// so first. A reader that falls more than 1,024 items behind gets a gap too. Ends when the database is closed.
    ///
    /// When this resolves, `now` is fixed: everything that is acknowledged later is shown.
    async fn activity(&self, scope: &Scope, after: Option<ActivityId>) -> Result<ActivityStream>;
}

/// The live stream: what happened, and from where on to resume after it.
pub type ActivityStream = futures_util::stream::BoxStream<'static, (ActivityId, Activity)>;

/// Where a page begins and how long it is.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// 1 to 250.
    pub limit: usize,
    /// Where the page before ended; opaque outside, checked by the caller to come from the same list.
    pub after: Option<Position>,
}

/// A place in a list, for the next page. The caller makes it tamper-proof before it leaves the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub Vec<u8>);

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows, newest first.
    pub data: Vec<T>,
    /// Where the next page begins, if there may be one.
    pub next: Option<Position>,
}

/// A source to make.
#[derive(Debug, Clone)]
pub struct NewSource {
    /// Name, provider, options: already checked to make a verifier with the secret.
    pub settings: SourceSettings,
    /// Its secret; none for a provider without.
    pub secret: Option<Secret>,
}

/// What to change of a source.
#[derive(Debug, Clone, Default)]
pub struct SourceChange {
    /// New name: the inbound URL changes with it.
    pub name: Option<String>,
    /// New options.
    pub options: Option<serde_json::Map<String, serde_json::Value>>,
    /// Replaces every secret at once (no grace).
    pub secret: Option<Secret>,
    /// Switch on or off.
    pub is_active: Option<bool>,
}

/// A source as its owner sees it.
#[derive(Debug, Clone)]
pub struct SourceView {
    /// Its id.
    pub id: SourceId,
    /// Name, provider, options.
    pub settings: SourceSettings,
    /// Whether it is switched on.
    pub is_active: bool,
    /// How many secrets are valid now.
    pub active_secrets: usize,
    /// When the newest secret was set.
    pub secret_updated_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Who made it: the id of a key or a user, `super_admin`, `operator`; unknown for what is older than the audit log.
    pub created_by: Option<String>,
}

/// A new secret beside the old ones.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The new secret.
    pub secret: Secret,
    /// How long the ones before stay valid, in seconds.
    pub grace_seconds: u64,
}

/// An endpoint to make.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// What its owner decided.
    pub settings: EndpointSettings,
    /// Its first secret, as [`postroom_domain::signing`] makes it.
    pub secret: Secret,
}

/// An endpoint as its owner sees it.
#[derive(Debug, Clone)]
pub struct EndpointView {
    /// Its id.
    pub id: EndpointId,
    /// What its owner decided. Header values are for the server's eyes: show names only.
    pub settings: EndpointSettings,
    /// Another one after every change.
    pub version: i64,
    /// Whether events go to it.
    pub is_enabled: bool,
    /// Why not: `gone` (it answered 410) or `disabled` (by a person).
    pub disabled_reason: Option<&'static str>,
    /// When it was disabled.
    pub disabled_at: Option<Timestamp>,
    /// Valid secrets, newest first: when made, and until when the older ones sign.
    pub secrets: Vec<SecretPeriod>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Who made it: the id of a key or a user, `super_admin`, `operator`; unknown for what is older than the audit log.
    pub created_by: Option<String>,
}

/// One entry of an endpoint's rotation history (the newest 20, erased secrets too).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretPeriod {
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it signs; `None` for the newest.
    pub expires_at: Option<Timestamp>,
}

/// Which events to list. All conditions hold together. A page looks at a bounded number of events: where no index answers
/// the conditions it may be short or empty and still have a next one.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Exactly this type, or `word.*`.
    pub event_type: Option<postroom_domain::event::EventTypePattern>,
    /// Of this source.
    pub source: Option<SourceId>,
    /// Whose worst delivery stands so.
    pub status: Option<DeliveryStatus>,
    /// Which way it came.
    pub direction: Option<Direction>,
    /// At or after.
    pub created_after: Option<Timestamp>,
    /// Before.
    pub created_before: Option<Timestamp>,
    /// With this id of its sender.
    pub external_id: Option<String>,
    /// With this text in the payload, letter for letter.
    pub text: Option<String>,
}

/// An event as its owner sees it.
#[derive(Debug, Clone)]
pub struct EventView {
    /// Its id.
    pub id: EventId,
    /// Its type.
    pub event_type: String,
    /// Which way it came.
    pub direction: Direction,
    /// At which source, if it was received.
    pub source: Option<SourceId>,
    /// The sender's own id.
    pub external_id: Option<String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The worst state of its deliveries; `None` when it went to no endpoint.
    pub status: Option<DeliveryStatus>,
    /// How many endpoints it went to at first.
    pub deliveries: u32,
    /// Bytes of the payload.
    pub payload_bytes: u64,
    /// Who sent it, as [`Actor`](crate::Actor) is written; none if it was received, or is older than this was kept.
    pub created_by: Option<String>,
}

/// What an event carries.
#[derive(Debug, Clone)]
pub struct EventPayload {
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What endpoints get, byte for byte.
    pub body: Bytes,
}

/// An event for one endpoint alone.
#[derive(Debug, Clone)]
pub struct TestEvent {
    /// Its type.
    pub event_type: postroom_domain::event::EventType,
    /// What the endpoint gets.
    pub body: Bytes,
}

/// Which deliveries to list. All conditions hold together. A page may be short, as one of events may.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Standing so.
    pub status: Option<DeliveryStatus>,
    /// To this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Of this event.
    pub event: Option<EventId>,
    /// Of events accepted at or after.
    pub created_after: Option<Timestamp>,
    /// Of events accepted before.
    pub created_before: Option<Timestamp>,
}

/// A delivery as its owner sees it.
#[derive(Debug, Clone)]
pub struct DeliveryView {
    /// Computed from event, endpoint and run.
    pub id: DeliveryId,
    /// Its event.
    pub event: EventId,
    /// The event's type.
    pub event_type: String,
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Attempts so far.
    pub attempts: u32,
    /// HTTP status of the newest attempt.
    pub last_status: Option<u16>,
    /// How the connection of the newest attempt failed.
    pub last_error: Option<AttemptError>,
    /// When the newest attempt began.
    pub last_attempt_at: Option<Timestamp>,
    /// When the next attempt is due.
    pub next_attempt_at: Option<Timestamp>,
    /// Why it is a dead letter.
    pub dead_reason: Option<DeadReason>,
    /// Since when it is a dead letter.
    pub dead_at: Option<Timestamp>,
    /// When its event was accepted, or the replay was asked for.
    pub created_at: Timestamp,
    /// Who asked for the replay, as [`Actor`](crate::Actor) is written; none of a delivery that came with its event.
    pub created_by: Option<String>,
}

/// An attempt as its owner sees it.
#[derive(Debug, Clone)]
pub struct AttemptView {
    /// What was recorded.
    pub attempt: crate::worker::Attempt,
    /// When it began.
    pub started_at: Timestamp,
}

/// A rejected request as its owner sees it.
#[derive(Debug, Clone)]
pub struct RejectionView {
    /// Its id.
    pub id: RejectionId,
    /// At which source.
    pub source: SourceId,
    /// The code that its sender was answered.
    pub code: String,
    /// Which check failed.
    pub check: String,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The event it became when it was verified again.
    pub event: Option<EventId>,
}

/// What was rejected.
#[derive(Debug, Clone)]
pub struct RejectedRequest {
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Byte for byte.
    pub body: Bytes,
}

/// A person to invite.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Where the invitation goes; nobody else of the installation has it.
    pub email: Email,
    /// What they may do.
    pub role: Role,
}

/// What to change of a person.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserChange {
    /// Another role.
    pub role: Option<Role>,
    /// Switch on or off.
    pub is_active: Option<bool>,
}

/// A person of an organization, as its administrators see them.
#[derive(Debug, Clone)]
pub struct UserView {
    /// Their id.
    pub id: UserId,
    /// Their address.
    pub email: Email,
    /// What they may do.
    pub role: Role,
    /// How they stand.
    pub status: UserStatus,
    /// Until when the invitation can be accepted; none once it was.
    pub invited_until: Option<Timestamp>,
    /// When they last signed in.
    pub last_login_at: Option<Timestamp>,
    /// When they were invited first.
    pub created_at: Timestamp,
    /// When an administrator last changed them.
    pub updated_at: Timestamp,
    /// Who invited them, as [`Actor`](crate::Actor) is written.
    pub created_by: String,
}

/// An API key to store.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// For people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<KeyScope>,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// All that is stored of the key.
    pub hash: KeyHash,
    /// The last four characters, so that a person can tell keys apart.
    pub last_four: String,
}

/// An API key as its owner sees it.
#[derive(Debug, Clone)]
pub struct ApiKeyView {
    /// Its id.
    pub id: ApiKeyId,
    /// For people.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<KeyScope>,
    /// The last four characters.
    pub last_four: String,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was ended.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it: the id of a key or a user, `super_admin`, `operator`; unknown for what is older than the audit log.
    pub created_by: Option<String>,
}

/// Where a stream stands. Opaque outside, and it counts rows of every organization together: the caller seals it before
/// it leaves the process, as it does with a [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivityId(pub [u8; 16]);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Activity {
    /// An event was accepted.
    Event(EventView),
    /// An attempt ended; with its delivery after it.
    Attempt(Box<DeliveryView>, Box<AttemptView>),
    /// Something is missing here: so many items that the reader was too slow for, or an unknown number that lie too far
    /// back. Its id is that of the item before, so that a reader that resumes there gets what can still be had.
    Gap(Option<u64>),
}
