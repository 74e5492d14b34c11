//! Secrets on their way to and from columns: where each is sealed for, and what the installation keeps for itself.

use aws_lc_rs::hmac;
use postroom_domain::keyring::{Keyring, KeyringError, Place};
use postroom_domain::{ApiKeyId, EndpointId, OrganizationId, Secret, Timestamp};

use uuid::Uuid;

use super::rows::SecretsOf;
use crate::{Error, Result};

/// What the sentinel says once opened.
pub(crate) const SENTINEL: &str = "postroom";

/// The keyring, and what is derived under it.
#[derive(Debug)]
pub(crate) struct Vault {
    pub(crate) keyring: Keyring,
    fingerprint_key: Secret,
    audit: AuditKeys,
}

/// The chain of the audit log that is written here, and the keys of it and of those that were moved here.
#[derive(Debug)]
pub(crate) struct AuditKeys {
    pub(crate) chain: [u8; 16],
    pub(crate) all: Vec<([u8; 16], Secret)>,
}

impl AuditKeys {
    /// What `meta` calls the chain of this database.
    pub(crate) const CHAIN: &str = "audit_chain";
    /// What `meta` calls keys, before the chain.
    pub(crate) const KEY: &str = "audit_key_";

    /// What `meta` calls the key of a chain.
    pub(crate) fn name(chain: [u8; 16]) -> String {
        format!("{}{}", Self::KEY, Uuid::from_bytes(chain).as_simple())
    }

    /// The chain of a key that `meta` calls so.
    pub(crate) fn chain(name: &str) -> Option<[u8; 16]> {
        Some(Uuid::try_parse(name.strip_prefix(Self::KEY)?).ok()?.into_bytes())
    }
}

/// The place of the value of a secret row (`source_secret`, `endpoint_secret`): its own random id is the row.
pub(crate) fn secret_row<'a>(table: &'static str, organization: &'a [u8], row: &'a [u8]) -> Place<'a> {
    Place { table, column: "value", organization, row }
}

/// The place of an endpoint's custom headers.
pub(crate) fn endpoint_headers<'a>(organization: &'a [u8; 16], endpoint: &'a [u8; 16]) -> Place<'a> {
    Place { table: "endpoint", column: "headers", organization, row: endpoint }
}

/// The place of an organization's Mandrill secret.
pub(crate) fn mandrill_secret(organization: &[u8; 16]) -> Place<'_> {
    Place { table: "organization", column: "mandrill_secret", organization, row: organization }
}

/// The place of a stored idempotent answer.
pub(crate) fn stored_answer<'a>(organization: &'a [u8; 16], key: &'a str) -> Place<'a> {
    Place { table: "idempotency", column: "body", organization, row: key.as_bytes() }
}

/// The place of what the link of a mail carries.
pub(crate) fn mail_token<'a>(organization: &'a [u8; 16], mail: &'a [u8; 16]) -> Place<'a> {
    Place { table: "mail", column: "token", organization, row: mail }
}

/// The place of what belongs to the installation.
pub(crate) fn meta(name: &str) -> Place<'_> {
    Place { table: "meta", column: "value", organization: b"", row: name.as_bytes() }
}

impl Vault {
    /// What a database was written with: the keyring opens it, and with these it makes fingerprints and seals its audit log.
    pub(crate) fn new(keyring: Keyring, fingerprint_key: Secret, audit: AuditKeys) -> Self {
        Self { keyring, fingerprint_key, audit }
    }

    /// Opens a column.
    pub(crate) fn open_secret(&self, place: Place<'_>, sealed: &[u8]) -> Result<Secret, KeyringError> {
        self.keyring.open(place, sealed)
    }

    /// Equal for equal secrets and telling nothing else: what makes a secret unique without being readable.
    pub(crate) fn fingerprint(&self, secret: &Secret) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.fingerprint_key.expose());
        hmac::sign(&key, secret.expose()).as_ref().to_vec()
    }

    /// What proves that an entry of the audit log was written by this installation.
    pub(crate) fn audit_seal(&self, entry: &[u8]) -> [u8; 32] {
        self.audit_seal_of(self.audit.chain, entry).expect("the key of its own chain is made with it")
    }

    /// The same, of any chain whose key is here.
    pub(crate) fn audit_seal_of(&self, chain: [u8; 16], entry: &[u8]) -> Option<[u8; 32]> {
        let (_, key) = self.audit.all.iter().find(|(of, _)| *of == chain)?;
        let mut seal = [0; 32];
        seal.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), entry).as_ref());
        Some(seal)
    }

    /// The chain that is written here.
    pub(crate) fn audit_chain(&self) -> [u8; 16] {
        self.audit.chain
    }

    /// A new secret of a source or an endpoint: the id of its row, which binds the ciphertext to it, and the ciphertext.
    pub(crate) fn seal_new(
        &self,
        of: SecretsOf,
        organization: OrganizationId,
        secret: &Secret,
        now: Timestamp,
    ) -> ([u8; 16], Vec<u8>) {
        // Any unique id will do.
        let id = ApiKeyId::new(now).to_bytes();
        (id, self.keyring.seal(secret_row(of.table(), &organization.to_bytes(), &id), secret))
    }

    /// An organization's Mandrill secret: the ciphertext and the fingerprint.
    pub(crate) fn seal_mandrill(&self, id: OrganizationId, secret: &Secret) -> (Vec<u8>, Vec<u8>) {
        (self.keyring.seal(mandrill_secret(&id.to_bytes()), secret), self.fingerprint(secret))
    }

    /// Custom headers, sealed as one; none for none.
    pub(crate) fn seal_headers(
        &self,
        organization: OrganizationId,
        endpoint: EndpointId,
        headers: &[postroom_domain::endpoint::CustomHeader],
    ) -> Result<Option<Vec<u8>>> {
        if headers.is_empty() {
            return Ok(None);
        }
        let pairs: Vec<(&str, &str)> =
            headers.iter().map(|header| (header.name(), header.value().expose_str().unwrap_or_default())).collect();
        let plain = serde_json::to_vec(&pairs).map_err(|error| Error::Internal(error.into()))?;
        let (owner, row) = (organization.to_bytes(), endpoint.to_bytes());
        Ok(Some(self.keyring.seal(endpoint_headers(&owner, &row), &Secret::new(plain))))
    }
}
