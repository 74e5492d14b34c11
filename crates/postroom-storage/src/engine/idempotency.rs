//! Answers kept for an `Idempotency-Key`: whose they are, how long they hold, how they are sealed.

use std::time::Duration;

use bytes::Bytes;
use postroom_domain::{OrganizationId, Secret, Timestamp};

use super::packed::broken;
use super::vault::{Vault, stored_answer};
use crate::api::{Idempotency, IdempotencyClaim, StoredAnswer};
use crate::{Result, Scope};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a claim holds whose request was never finished: its process may have died.
const HELD: Duration = Duration::from_secs(60);

/// Whose keys: an organization's, or [`NOBODY`]'s.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) org: i64,
    organization: Option<OrganizationId>,
}

/// The installation itself: a super admin outside of every organization.
pub(crate) const NOBODY: Owner = Owner { org: 0, organization: None };

impl From<&Scope> for Owner {
    fn from(scope: &Scope) -> Self {
        Self { org: scope.org, organization: Some(scope.organization) }
    }
}

impl Owner {
    /// What stored answers are sealed for.
    fn bytes(self) -> [u8; 16] {
        self.organization.map_or([0; 16], OrganizationId::to_bytes)
    }

    /// An answer as it is stored: it may show a secret that is shown once.
    pub(crate) fn seal(self, vault: &Vault, key: &str, answer: &StoredAnswer) -> Vec<u8> {
        vault.keyring.seal(stored_answer(&self.bytes(), key), &Secret::new(&*answer.body))
    }
}

/// A key that was used before.
pub(crate) struct Claimed {
    pub(crate) request_hash: [u8; 32],
    pub(crate) claimed_at: Timestamp,
    /// HTTP status and the sealed body.
    pub(crate) answer: Option<(u16, Vec<u8>)>,
}

impl Claimed {
    /// Whether the key may be used anew.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.claimed_at) >= if self.answer.is_some() { KEPT } else { HELD }
    }

    /// What the same or another request with this key is told.
    pub(crate) fn known(self, vault: &Vault, owner: Owner, claim: &IdempotencyClaim) -> Result<Idempotency> {
        if self.request_hash != claim.request_hash {
            return Ok(Idempotency::Reused);
        }
        let Some((status, sealed)) = self.answer else { return Ok(Idempotency::InProgress) };
        let body = vault
            .open_secret(stored_answer(&owner.bytes(), &claim.key), &sealed)
            .map_err(|error| broken(format!("a stored answer cannot be read: {error}")))?;
        Ok(Idempotency::Answered(StoredAnswer { status, body: Bytes::copy_from_slice(body.expose()) }))
    }
}
