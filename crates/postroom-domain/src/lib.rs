//! The words and rules of Postroom: ids, organizations, sources, events, endpoints, deliveries, signatures.
//!
//! Everything here is a pure function of its arguments. There is no clock (callers pass a [`Timestamp`]), no
//! network, no file and no database, so every rule can be tested as a table.

pub mod api_key;
pub mod delivery;
pub mod egress;
pub mod endpoint;
pub mod event;
pub mod filter;
pub mod id;
pub mod invalid;
pub mod keyring;
pub mod organization;
pub mod provider;
pub mod secret;
pub mod sign_in;
pub mod signing;
pub mod source;
pub mod time;
pub mod user;
pub mod verify;

pub use id::{
    ApiKeyId, AttemptId, AuditEntryId, DeliveryId, EndpointId, EventId, MailId, OrganizationId, RejectionId, SessionId,
    SourceId, TenantId, UserId,
};
pub use invalid::Invalid;
pub use secret::Secret;
pub use sign_in::{SignInToken, TokenHash};
pub use time::{Clock, Timestamp};
pub use user::{Email, Role};
