//! From rows of configuration to what receives and delivers: verifiers, signers, who wants an event, and why nothing is
//! sent.

use std::cell::OnceCell;

use postroom_domain::delivery::DeadReason;
use postroom_domain::endpoint::Subscription;
use postroom_domain::event::EventType;
use postroom_domain::invalid::Invalid;
use postroom_domain::signing::Signer;
use postroom_domain::source::SourceSettings;
use postroom_domain::verify::{FieldError, Verifier};
use postroom_domain::{OrganizationId, Secret, SourceId, Timestamp};
use serde_json::Value;

use super::rows::{EndpointRow, SecretRow, SecretsOf};
use super::vault::{self, Vault};
use crate::Result;
use crate::worker::EndpointKey;

/// The name and the provider of the source that an organization's own Mandrill secret implies.
pub(crate) const MANDRILL: &str = "mandrill";

/// The endpoints that want an event. The payload is read as JSON at most once, and only if a filter asks for it.
pub(crate) fn wanting<'a>(
    routes: impl Iterator<Item = (EndpointKey, &'a Subscription)>,
    event_type: &EventType,
    source: Option<SourceId>,
    body: &[u8],
) -> Vec<EndpointKey> {
    let payload: OnceCell<Option<Value>> = OnceCell::new();
    let json = || payload.get_or_init(|| serde_json::from_slice(body).ok()).as_ref();
    let wants = |(_, subscription): &(_, &Subscription)| subscription.wants(event_type.as_str(), source, json);
    routes.filter(wants).map(|(endpoint, _)| endpoint).collect()
}

/// Why nothing may be sent to an endpoint now.
pub(crate) fn blocked(organization_active: bool, row: &EndpointRow) -> Option<DeadReason> {
    if row.is_deleted {
        Some(DeadReason::EndpointDeleted)
    } else if !organization_active {
        Some(DeadReason::OrganizationInactive)
    } else {
        row.disabled.map(|disabled| disabled.dead_reason())
    }
}

/// Opens the secrets that are valid now, newest first.
pub(crate) fn active(
    stored: &[SecretRow],
    of: SecretsOf,
    organization: OrganizationId,
    vault: &Vault,
    now: Timestamp,
) -> Vec<Result<Secret, String>> {
    stored.iter().filter(|row| row.is_active(now)).map(|row| row.open(of, organization, vault)).collect()
}

/// An organization's own Mandrill secret, opened.
pub(crate) fn mandrill_secret(organization: OrganizationId, vault: &Vault, sealed: &[u8]) -> Result<Secret, String> {
    let place = organization.to_bytes();
    vault.open_secret(vault::mandrill_secret(&place), sealed).map_err(|error| error.to_string())
}

/// One secret that cannot be read makes the whole unusable: leaving it out would refuse, or sign, by chance.
pub(crate) fn verifier(
    settings: &SourceSettings,
    secrets: Vec<Result<Secret, String>>,
) -> Result<Verifier, Vec<FieldError>> {
    let secrets: Vec<Secret> = secrets.into_iter().collect::<Result<_, _>>().map_err(|detail| {
        vec![FieldError { field: "secret".to_owned(), invalid: Invalid::new("unreadable", detail) }]
    })?;
    Verifier::compile(&settings.provider, &settings.options, &secrets)
}

/// Signs with every active secret.
pub(crate) fn signer(secrets: Vec<Result<Secret, String>>) -> Result<Signer, String> {
    let secrets: Vec<Secret> = secrets.into_iter().collect::<Result<_, _>>()?;
    Signer::new(&secrets).map_err(|error| error.to_string())
}
