//! Rows of configuration, whatever engine keeps them: what their columns mean, and how their secrets are opened.

use postroom_domain::api_key::KeyScope;
use postroom_domain::delivery::DeadReason;
use postroom_domain::endpoint::{CustomHeader, EndpointSettings};
use postroom_domain::organization::Plan;
use postroom_domain::source::SourceSettings;
use postroom_domain::{ApiKeyId, EndpointId, OrganizationId, Secret, SourceId, Timestamp};

use super::vault::{self, Vault};
use crate::api::SecretPeriod;

/// An organization as it is stored.
pub(crate) struct OrganizationRow {
    pub(crate) org: i64,
    pub(crate) id: OrganizationId,
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) plan: Plan,
    pub(crate) webhook_limit: Option<u64>,
    pub(crate) is_active: bool,
    pub(crate) has_mandrill_secret: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) created_by: Option<String>,
}

/// An API key as it is stored, without its hash.
pub(crate) struct KeyRow {
    pub(crate) id: ApiKeyId,
    pub(crate) name: String,
    pub(crate) scopes: Vec<KeyScope>,
    pub(crate) last_four: String,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
    pub(crate) last_used_at: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
    pub(crate) created_by: Option<String>,
}

/// A source as it is stored.
pub(crate) struct SourceRow {
    pub(crate) source: i64,
    pub(crate) id: SourceId,
    pub(crate) settings: SourceSettings,
    pub(crate) is_active: bool,
    pub(crate) is_implied: bool,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) created_by: Option<String>,
}

/// An endpoint as it is stored. Its custom headers are still sealed.
pub(crate) struct EndpointRow {
    pub(crate) endpoint: i64,
    pub(crate) id: EndpointId,
    pub(crate) number: u32,
    pub(crate) settings: EndpointSettings,
    pub(crate) sealed_headers: Option<Vec<u8>>,
    /// Moved by every change.
    pub(crate) version: i64,
    pub(crate) disabled: Option<Disabled>,
    pub(crate) disabled_at: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) is_deleted: bool,
    pub(crate) created_by: Option<String>,
}

impl EndpointRow {
    /// Refuses to go on when something has changed since `version` was read.
    pub(crate) fn at_version(self, version: i64) -> crate::Result<Self> {
        if self.version == version { Ok(self) } else { Err(crate::Error::Stale) }
    }

    /// The settings with their headers, or why the headers cannot be read; without them then.
    pub(crate) fn settings(
        &self,
        organization: OrganizationId,
        vault: &Vault,
    ) -> (EndpointSettings, Result<(), String>) {
        let mut settings = self.settings.clone();
        let Some(sealed) = &self.sealed_headers else { return (settings, Ok(())) };
        match open_headers(organization, self.id, vault, sealed) {
            Ok(headers) => {
                settings.headers = headers;
                (settings, Ok(()))
            }
            Err(error) => (settings, Err(format!("its custom headers cannot be read: {error}"))),
        }
    }
}

fn open_headers(
    organization: OrganizationId,
    endpoint: EndpointId,
    vault: &Vault,
    sealed: &[u8],
) -> Result<Vec<CustomHeader>, String> {
    let (owner, row) = (organization.to_bytes(), endpoint.to_bytes());
    let plain = vault.open_secret(vault::endpoint_headers(&owner, &row), sealed).map_err(|error| error.to_string())?;
    let pairs: Vec<(String, Secret)> = serde_json::from_slice(plain.expose()).map_err(|_| "not a list".to_owned())?;
    pairs.into_iter().map(|(name, value)| CustomHeader::new(&name, value).map_err(|invalid| invalid.detail)).collect()
}

/// Why no events go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disabled {
    /// It answered 410.
    Gone,
    /// A person said so.
    ByPerson,
}

impl Disabled {
    /// As it is stored and shown.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::ByPerson => "disabled",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        if text == Self::Gone.as_str() { Self::Gone } else { Self::ByPerson }
    }

    /// What becomes of deliveries that wait for the endpoint.
    pub(crate) fn dead_reason(self) -> DeadReason {
        match self {
            Self::Gone => DeadReason::EndpointGone,
            Self::ByPerson => DeadReason::EndpointDisabled,
        }
    }
}

/// Which table keeps the secrets of what.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SecretsOf {
    /// `source_secret`.
    Source,
    /// `endpoint_secret`.
    Endpoint,
}

impl SecretsOf {
    /// The table, part of what a ciphertext is bound to.
    pub(crate) fn table(self) -> &'static str {
        match self {
            Self::Source => "source_secret",
            Self::Endpoint => "endpoint_secret",
        }
    }
}

/// A secret as it is stored.
pub(crate) struct SecretRow {
    pub(crate) id: [u8; 16],
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) period: SecretPeriod,
}

impl SecretRow {
    /// Whether it is valid at a moment.
    pub(crate) fn is_active(&self, now: Timestamp) -> bool {
        self.value.is_some() && self.period.expires_at.is_none_or(|end| end > now)
    }

    /// The secret itself.
    pub(crate) fn open(&self, of: SecretsOf, organization: OrganizationId, vault: &Vault) -> Result<Secret, String> {
        let sealed = self.value.as_deref().ok_or("it was erased")?;
        let owner = organization.to_bytes();
        vault
            .open_secret(vault::secret_row(of.table(), &owner, &self.id), sealed)
            .map_err(|error| format!("its secret cannot be read: {error}"))
    }

    /// When the set of active secrets will next be a smaller one.
    pub(crate) fn next_change(rows: &[Self], now: Timestamp) -> Option<Timestamp> {
        rows.iter().filter(|row| row.is_active(now)).filter_map(|row| row.period.expires_at).min()
    }
}
