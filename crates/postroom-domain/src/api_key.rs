//! API keys: `prk_`, 32 random characters (190 bits), and a 6-character checksum so that secret scanners can tell a
//! real key from text that looks like one. Only the SHA-256 of a key is stored.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::secret::{Secret, fill_random};

const PREFIX: &str = "prk_";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM_CHARS: usize = 32;
const CHECK_CHARS: usize = 6;

/// What storage keeps of an API key, and looks it up by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a presented key, if it has the form and the checksum of one. Most wrong credentials end here,
    /// without a look-up.
    #[must_use]
    pub fn of(presented: &str) -> Option<Self> {
        let body = presented.strip_prefix(PREFIX)?;
        let (random, check) = body.split_at_checked(RANDOM_CHARS)?;
        (checksum(random) == check).then(|| {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, presented.as_bytes());
            Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
        })
    }

    /// The hash as storage keeps it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The hash from what storage kept.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(***)")
    }
}

/// A fresh key and its hash. The key is shown to its owner once and kept nowhere.
#[must_use]
pub fn generate() -> (Secret, KeyHash) {
    let mut random = String::with_capacity(RANDOM_CHARS);
    while random.len() < RANDOM_CHARS {
        let mut byte = [0];
        fill_random(&mut byte);
        // 248 is the largest multiple of 62 in a byte: above it the alphabet would be uneven.
        if byte[0] < 248 {
            random.push(char::from(ALPHABET[usize::from(byte[0] % 62)]));
        }
    }
    let key = format!("{PREFIX}{random}{}", checksum(&random));
    let hash = KeyHash::of(&key).expect("it was made with its checksum");
    (Secret::from(key), hash)
}

/// CRC-32 of the random part in base 62.
fn checksum(random: &str) -> String {
    let mut rest = crc32fast::hash(random.as_bytes()) as usize;
    let mut text = [b'0'; CHECK_CHARS];
    for slot in text.iter_mut().rev() {
        *slot = ALPHABET[rest % 62];
        rest /= 62;
    }
    text.iter().map(|byte| char::from(*byte)).collect()
}

/// What an API key may do. An `admin` key may do everything of its organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyScope {
    /// Send events.
    #[serde(rename = "events:write")]
    EventsWrite,
    /// Read everything but secrets.
    #[serde(rename = "read")]
    Read,
    /// Everything, configuration included.
    #[serde(rename = "admin")]
    Admin,
}

impl KeyScope {
    /// All scopes, for lists in errors and documents.
    pub const ALL: [Self; 3] = [Self::EventsWrite, Self::Read, Self::Admin];

    /// The scope as it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EventsWrite => "events:write",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_checksum_and_a_stable_hash() {
        let (key, hash) = generate();
        let text = key.expose_str().unwrap();
        assert_eq!(text.len(), 42);
        assert_eq!(KeyHash::of(text), Some(hash));
        let mut typo = text.to_owned();
        let last = typo.pop().unwrap();
        typo.push(if last == 'x' { 'y' } else { 'x' });
        assert_eq!(KeyHash::of(&typo), None);
        assert_eq!(KeyHash::of("prk_é"), None);
        assert_eq!(KeyHash::of(""), None);
    }
}
