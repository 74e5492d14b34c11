//! Encryption of secrets at rest: AES-256-GCM under a ring of keys, newest first.
//!
//! A ciphertext names its key and is bound to the place it is stored at ([`Place`]), so it cannot be moved to another
//! row, column or organization. Layout: version (1 byte, `1`), key id (8 bytes), nonce (12 bytes), ciphertext and tag.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::secret::{Secret, fill_random};

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;
const DERIVATION_SALT: &[u8] = b"postroom derived key";

/// Where a secret is stored. It is authenticated with the ciphertext: opening it for another place fails.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Table, for example `source_secret`.
    pub table: &'static str,
    /// Column, for example `value`.
    pub column: &'static str,
    /// The owner's id in storage bytes; empty for what belongs to the installation.
    pub organization: &'a [u8],
    /// The row's own id in storage bytes.
    pub row: &'a [u8],
}

impl Place<'_> {
    /// Every part behind its length, so that no two places can be written alike.
    fn to_aad(self) -> Vec<u8> {
        let parts: [&[u8]; 4] = [self.table.as_bytes(), self.column.as_bytes(), self.organization, self.row];
        let mut aad = Vec::with_capacity(64);
        for part in parts {
            aad.extend_from_slice(&(part.len() as u64).to_be_bytes());
            aad.extend_from_slice(part);
        }
        aad
    }
}

/// Identifies a key without telling anything about it: the first 8 bytes of its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID_BYTES]);

impl KeyId {
    /// The id as storage keeps it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; KEY_ID_BYTES] {
        self.0
    }

    /// The id of the key a ciphertext was made with, if it is one at all.
    #[must_use]
    pub fn of_ciphertext(ciphertext: &[u8]) -> Option<Self> {
        (ciphertext.first() == Some(&VERSION)).then_some(())?;
        Some(Self(ciphertext.get(1..=KEY_ID_BYTES)?.try_into().ok()?))
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Why encryption keys are refused, or a ciphertext cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The setting holds no key.
    #[error("no encryption key is given; `postroom keys generate` prints one")]
    Empty,
    /// One of the keys cannot be read. Positions count from 1.
    #[error(
        "encryption key number {position} is not base64 of exactly {KEY_BYTES} bytes; `postroom keys generate` prints a valid one"
    )]
    BadKey {
        /// Which key of the list, counted from 1.
        position: usize,
    },
    /// The same key stands twice in the list.
    #[error("encryption key number {position} stands in the list twice")]
    Twice {
        /// Which key of the list, counted from 1.
        position: usize,
    },
    /// The ciphertext was made with a key that is not in the ring.
    #[error("encrypted with key {0}, which is not among the encryption keys given")]
    UnknownKey(KeyId),
    /// Cut, altered, or stored at another place.
    #[error("the encrypted value is damaged or was moved from another row")]
    Damaged,
}

struct Key {
    id: KeyId,
    cipher: LessSafeKey,
    /// Other keys are made from it: HKDF-SHA256 over the same bytes.
    root: hkdf::Prk,
}

/// The encryption keys in force, newest first. New values are sealed with the first; all can open.
#[derive(Clone)]
pub struct Keyring(Arc<[Key]>);

impl Keyring {
    /// A fresh key, as text for the setting `POSTROOM_ENCRYPTION_KEYS`.
    #[must_use]
    pub fn generate() -> Secret {
        let key = Secret::random(KEY_BYTES);
        Secret::from(BASE64.encode(key.expose()))
    }

    /// Reads a list of base64 keys, newest first, separated by commas, white space or line ends.
    ///
    /// # Errors
    /// When there is none, or one is not 32 bytes of base64, or stands there twice.
    pub fn parse(list: &Secret) -> Result<Self, KeyringError> {
        let text = list.expose_str().ok_or(KeyringError::BadKey { position: 1 })?;
        let mut keys: Vec<Key> = Vec::new();
        let items = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty());
        for (index, item) in items.enumerate() {
            let position = index + 1;
            let bytes = Secret::new(BASE64.decode(item).map_err(|_| KeyringError::BadKey { position })?);
            let unbound =
                UnboundKey::new(&AES_256_GCM, bytes.expose()).map_err(|_| KeyringError::BadKey { position })?;
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes.expose());
            let id = KeyId(digest.as_ref()[..KEY_ID_BYTES].try_into().expect("a digest has 32 bytes"));
            if keys.iter().any(|key| key.id == id) {
                return Err(KeyringError::Twice { position });
            }
            let root = hkdf::Salt::new(hkdf::HKDF_SHA256, DERIVATION_SALT).extract(bytes.expose());
            keys.push(Key { id, cipher: LessSafeKey::new(unbound), root });
        }
        if keys.is_empty() { Err(KeyringError::Empty) } else { Ok(Self(keys.into())) }
    }

    /// The key that new values are sealed with.
    #[must_use]
    pub fn newest(&self) -> KeyId {
        self.0[0].id
    }

    /// The ids of all keys, newest first.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.0.iter().map(|key| key.id)
    }

    /// A key of 32 bytes for another purpose from each key of the ring, newest first. The label names the purpose: keys of
    /// different labels tell nothing about each other, nor about the ring.
    ///
    /// # Panics
    /// Never: 32 bytes are far below what HKDF can give.
    #[must_use]
    pub fn derived(&self, label: &str) -> Vec<(KeyId, Secret)> {
        let derive = |key: &Key| {
            let mut bytes = [0; KEY_BYTES];
            let info = [label.as_bytes()];
            let output = key.root.expand(&info, hkdf::HKDF_SHA256).expect("HKDF gives up to 255 times 32 bytes");
            output.fill(&mut bytes).expect("the output is as long as was asked for");
            (key.id, Secret::new(bytes))
        };
        self.0.iter().map(derive).collect()
    }

    /// Encrypts for one place.
    #[must_use]
    pub fn seal(&self, place: Place<'_>, secret: &Secret) -> Vec<u8> {
        let key = &self.0[0];
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce);
        let mut sealed = Vec::with_capacity(HEADER_BYTES + secret.expose().len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&key.id.0);
        sealed.extend_from_slice(&nonce);
        let mut buffer = secret.expose().to_vec();
        key.cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place.to_aad()), &mut buffer)
            .expect("a secret is far below the limit of AES-GCM");
        sealed.append(&mut buffer);
        sealed
    }

    /// Decrypts what was sealed for this very place.
    ///
    /// # Errors
    /// When the key is not in the ring, or the value was cut, altered or moved.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Secret, KeyringError> {
        let id = KeyId::of_ciphertext(sealed).ok_or(KeyringError::Damaged)?;
        let key = self.0.iter().find(|key| key.id == id).ok_or(KeyringError::UnknownKey(id))?;
        let (header, body) = sealed.split_at_checked(HEADER_BYTES).ok_or(KeyringError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(&header[1 + KEY_ID_BYTES..]).map_err(|_| KeyringError::Damaged)?;
        let mut buffer = body.to_vec();
        let plain = key
            .cipher
            .open_in_place(nonce, Aad::from(place.to_aad()), &mut buffer)
            .map_err(|_| KeyringError::Damaged)?
            .len();
        buffer.truncate(plain);
        Ok(Secret::new(buffer))
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { table: "t", column: "c", organization: b"o", row: b"r" };

    #[test]
    fn only_the_place_it_was_sealed_for_opens_a_secret() {
        let ring = Keyring::parse(&Keyring::generate()).unwrap();
        let sealed = ring.seal(PLACE, &Secret::from("s"));
        assert_eq!(ring.open(PLACE, &sealed).unwrap(), Secret::from("s"));
        for place in [Place { row: b"q", ..PLACE }, Place { organization: b"or", row: b"", ..PLACE }] {
            assert_eq!(ring.open(place, &sealed).unwrap_err(), KeyringError::Damaged);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        let ring = Keyring::parse(&Keyring::generate()).unwrap();
        let sealed = ring.seal(PLACE, &Secret::from("secret"));
        for index in 0..sealed.len() {
            assert!(ring.open(PLACE, &sealed[..index]).is_err());
            for bit in 0..8 {
                let mut bad = sealed.clone();
                bad[index] ^= 1 << bit;
                assert!(ring.open(PLACE, &bad).is_err());
            }
        }
    }

    #[test]
    fn derived_keys_differ_by_label_and_by_key_and_are_the_same_everywhere() {
        let (old, new) = (Keyring::generate(), Keyring::generate());
        let text = |s: &Secret| s.expose_str().unwrap().to_owned();
        let both = Keyring::parse(&Secret::from(format!("{},{}", text(&new), text(&old)))).unwrap();
        let derived = both.derived("a");
        assert_eq!(derived.iter().map(|(id, _)| *id).collect::<Vec<_>>(), both.ids().collect::<Vec<_>>());
        assert_eq!(Keyring::parse(&old).unwrap().derived("a"), derived[1..]);
        assert_ne!(derived[0].1, derived[1].1);
        assert_ne!(derived[0].1, both.derived("b")[0].1);
        assert_eq!(derived[0].1.expose().len(), 32);
    }

    #[test]
    fn an_older_key_still_opens_and_a_lost_one_is_named() {
        let (old, new) = (Keyring::generate(), Keyring::generate());
        let text = |s: &Secret| s.expose_str().unwrap().to_owned();
        let before = Keyring::parse(&old).unwrap();
        let sealed = before.seal(PLACE, &Secret::from("s"));
        let both = Keyring::parse(&Secret::from(format!("{},{}\n", text(&new), text(&old)))).unwrap();
        assert_eq!(both.open(PLACE, &sealed).unwrap(), Secret::from("s"));
        let without = Keyring::parse(&new).unwrap();
        assert_eq!(without.open(PLACE, &sealed).unwrap_err(), KeyringError::UnknownKey(before.newest()));
        let twice = Secret::from(format!("{0},{0}", text(&new)));
        assert_eq!(Keyring::parse(&twice).unwrap_err(), KeyringError::Twice { position: 2 });
        assert_eq!(Keyring::parse(&Secret::from("c2hvcnQ=")).unwrap_err(), KeyringError::BadKey { position: 1 });
        assert_eq!(Keyring::parse(&Secret::from(" ")).unwrap_err(), KeyringError::Empty);
    }
}
