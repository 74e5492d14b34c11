//! How far a copy has come, as it stands in the target: sealed like everything in `meta`, so that keys can be rotated.

use aws_lc_rs::digest::{SHA256, digest};
use postroom_domain::keyring::{Keyring, KeyringError};
use postroom_domain::{Secret, Timestamp};
use serde::{Deserialize, Serialize};

use super::Error;
use super::side::{FINISHED, Meta, UNFINISHED};
use super::table::Position;
use crate::engine::packed::to_json;
use crate::engine::vault::{SENTINEL, meta};

/// Which installation this is: a hash of its key of fingerprints, which every installation makes once and keeps.
pub(super) fn identity(kept: &Meta, keyring: &Keyring) -> Result<Vec<u8>, Error> {
    let open = |name: &str| {
        let sealed = kept.get(name).ok_or(Error::Nothing)?;
        keyring.open(meta(name), sealed).map_err(Error::WrongKeys)
    };
    if open("sentinel")? != Secret::from(SENTINEL) {
        return Err(Error::WrongKeys(KeyringError::Damaged));
    }
    Ok(digest(&SHA256, open("fingerprint_key")?.expose()).as_ref().to_vec())
}

/// Of which state of which installation a copy is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    installation: Vec<u8>,
    /// What [`super::side::Side::stamp`] said at the beginning.
    stamp: String,
    /// When it was begun, in milliseconds.
    begun_at: i64,
}

impl Origin {
    fn check(&self, installation: &[u8], stamp: &str) -> Result<(), Error> {
        if self.installation != installation {
            return Err(Error::OfAnother);
        }
        if self.stamp == stamp { Ok(()) } else { Err(Error::Changed) }
    }
}

/// How far a copy has come.
#[derive(Serialize, Deserialize)]
pub(super) struct Progress {
    origin: Origin,
    /// Which table is being filled.
    pub(super) table: usize,
    /// How far it was read.
    pub(super) position: Option<Position>,
    /// How many rows of it were written.
    pub(super) rows: u64,
}

impl Progress {
    pub(super) fn new(installation: Vec<u8>, stamp: String, now: Timestamp) -> Self {
        let origin = Origin { installation, stamp, begun_at: now.as_millis() };
        Self { origin, table: 0, position: None, rows: 0 }
    }

    pub(super) fn open(sealed: &[u8], keyring: &Keyring) -> Result<Self, Error> {
        unseal(UNFINISHED, sealed, keyring)
    }

    pub(super) fn seal(&self, keyring: &Keyring) -> Vec<u8> {
        keyring.seal(meta(UNFINISHED), &Secret::from(to_json(self)))
    }

    /// The same, if it is of this installation as it is now.
    pub(super) fn of(self, installation: &[u8], stamp: &str) -> Result<Self, Error> {
        self.origin.check(installation, stamp).map(|()| self)
    }

    /// That the source is still as it was.
    pub(super) fn is_stamped(&self, stamp: &str) -> Result<(), Error> {
        self.origin.check(&self.origin.installation, stamp)
    }

    /// When deliveries are due that nobody knows the outcome of.
    pub(super) fn due(&self) -> Timestamp {
        Timestamp::from_millis(self.origin.begun_at)
    }

    /// Rows were read up to a position, and are about to be written.
    pub(super) fn pass(&mut self, rows: usize, position: Position) {
        self.rows += rows as u64;
        self.position = Some(position);
    }

    /// Another table begins.
    pub(super) fn next(&mut self, table: usize) {
        (self.table, self.position, self.rows) = (table, None, 0);
    }

    pub(super) fn finished(&self) -> Finished {
        Finished { origin: self.origin.clone() }
    }
}

/// What a finished copy remembers.
#[derive(Serialize, Deserialize)]
pub(super) struct Finished {
    origin: Origin,
}

impl Finished {
    pub(super) fn open(sealed: &[u8], keyring: &Keyring) -> Result<Self, Error> {
        unseal(FINISHED, sealed, keyring)
    }

    pub(super) fn seal(&self, keyring: &Keyring) -> Vec<u8> {
        keyring.seal(meta(FINISHED), &Secret::from(to_json(self)))
    }

    pub(super) fn is_of(&self, installation: &[u8], stamp: &str) -> Result<(), Error> {
        self.origin.check(installation, stamp)
    }

    /// As [`Progress::due`].
    pub(super) fn due(&self) -> Timestamp {
        Timestamp::from_millis(self.origin.begun_at)
    }
}

/// Whoever cannot be opened with the keys of the source is not a copy of it.
fn unseal<T: serde::de::DeserializeOwned>(name: &str, sealed: &[u8], keyring: &Keyring) -> Result<T, Error> {
    let plain = keyring.open(meta(name), sealed).map_err(|_| Error::OfAnother)?;
    serde_json::from_slice(plain.expose()).map_err(|error| crate::Error::Internal(error.into()).into())
}
