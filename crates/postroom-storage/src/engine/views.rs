//! Configuration as its owners see it, and what they may not decide: the same whatever engine keeps it.

use std::time::Duration;

use postroom_domain::{OrganizationId, Timestamp};

use super::packed::broken;
use super::rows::{Disabled, EndpointRow, KeyRow, SecretRow, SourceRow};
use super::vault::Vault;
use crate::api::{ApiKeyView, EndpointView, Rotation, SourceView};
use crate::{Error, Result};

/// The most live rows of one kind that an organization may have.
pub(crate) const MOST: i64 = 1_000;

/// How long the secrets before sign beside a new one of an endpoint, at most.
const GRACE_MAX: u64 = 24 * 3600;

/// Refuses one more row of a kind where there are `count`.
pub(crate) fn room_for_one_more(count: i64, what: &str) -> Result<()> {
    if count < MOST {
        return Ok(());
    }
    Err(Error::Conflict {
        code: "limit_reached",
        detail: format!("an organization has at most {MOST} {what}: delete one that is not needed"),
    })
}

/// The source that the organization's Mandrill secret implies is changed there.
pub(crate) fn changeable(row: SourceRow) -> Result<SourceRow> {
    if row.is_implied {
        return Err(Error::Conflict {
            code: "source_of_organization",
            detail: "this source stands for the organization's own Mandrill secret: change that, or make a source \
                     named mandrill"
                .to_owned(),
        });
    }
    Ok(row)
}

/// Until when the secrets before sign beside the new one of an endpoint.
pub(crate) fn grace_of_endpoint(rotation: &Rotation, now: Timestamp) -> Timestamp {
    now + Duration::from_secs(rotation.grace_seconds.min(GRACE_MAX))
}

impl KeyRow {
    /// As its owner sees it.
    pub(crate) fn view(self) -> ApiKeyView {
        ApiKeyView {
            id: self.id,
            name: self.name,
            scopes: self.scopes,
            last_four: self.last_four,
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            last_used_at: self.last_used_at,
            created_at: self.created_at,
            created_by: self.created_by,
        }
    }
}

impl SourceRow {
    /// As its owner sees it, with its secrets, newest first.
    pub(crate) fn view(self, stored: &[SecretRow], now: Timestamp) -> SourceView {
        SourceView {
            id: self.id,
            settings: self.settings,
            is_active: self.is_active,
            // A source that is implied is there as long as its organization has the secret.
            active_secrets: stored.iter().filter(|secret| secret.is_active(now)).count() + usize::from(self.is_implied),
            secret_updated_at: stored.first().map(|secret| secret.period.created_at),
            created_at: self.created_at,
            updated_at: self.updated_at,
            created_by: self.created_by,
        }
    }
}

impl EndpointRow {
    /// As its owner sees it, with its secrets, newest first.
    pub(crate) fn view(
        self,
        organization: OrganizationId,
        vault: &Vault,
        stored: Vec<SecretRow>,
    ) -> Result<EndpointView> {
        let (settings, read) = self.settings(organization, vault);
        read.map_err(broken)?;
        Ok(EndpointView {
            id: self.id,
            settings,
            version: self.version,
            is_enabled: self.disabled.is_none(),
            disabled_reason: self.disabled.map(Disabled::as_str),
            disabled_at: self.disabled_at,
            secrets: stored.into_iter().map(|secret| secret.period).collect(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            created_by: self.created_by,
        })
    }
}
