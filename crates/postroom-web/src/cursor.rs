//! Cursors: places in a list that leave the process encrypted and bound to what they are a place in.
//!
//! They are encrypted because a position may hold numbers that count the rows of every organization together.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postroom_domain::secret::fill_random;
use postroom_domain::{OrganizationId, Secret};
use postroom_storage::api::Position;
use serde_json::{Map, Value};

use crate::app::sha256;

/// The longest cursor that is looked at, in characters.
const MAX_CHARS: usize = 512;

/// What a cursor is good for: one list (its path), one organization, the same filters.
pub(crate) struct Binding([u8; 32]);

impl Binding {
    pub fn new(path: &str, organization: Option<OrganizationId>, filters: &Map<String, Value>) -> Self {
        let mut text = Vec::from(&b"postroom cursor 1\0"[..]);
        text.extend_from_slice(&organization.map(OrganizationId::to_bytes).unwrap_or_default());
        text.extend_from_slice(path.as_bytes());
        text.push(0);
        let mut sorted: Vec<_> = filters.iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        for (name, value) in sorted {
            // JSON keeps name and value apart whatever is in them.
            text.extend_from_slice(format!("{}={value},", Value::from(name.as_str())).as_bytes());
        }
        Self(sha256(&text))
    }
}

pub(crate) struct CursorKey(LessSafeKey);

impl CursorKey {
    pub fn new(secret: &Secret) -> Self {
        let mut text = Vec::from(&b"postroom cursor key\0"[..]);
        text.extend_from_slice(secret.expose());
        let key = UnboundKey::new(&AES_256_GCM, &sha256(&text)).expect("SHA-256 has as many bytes as the key needs");
        Self(LessSafeKey::new(key))
    }

    pub fn seal(&self, binding: &Binding, position: &Position) -> String {
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce);
        let mut body = position.0.clone();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(binding.0), &mut body)
            .expect("a position is far below the limit of AES-GCM");
        let mut cursor = nonce.to_vec();
        cursor.append(&mut body);
        URL_SAFE_NO_PAD.encode(cursor)
    }

    pub fn open(&self, binding: &Binding, text: &str) -> Result<Position, ()> {
        if text.len() > MAX_CHARS {
            return Err(());
        }
        let mut cursor = URL_SAFE_NO_PAD.decode(text).map_err(|_| ())?;
        if cursor.len() < NONCE_LEN {
            return Err(());
        }
        let mut body = cursor.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&cursor).map_err(|_| ())?;
        let plain = self.0.open_in_place(nonce, Aad::from(binding.0), &mut body).map_err(|_| ())?;
        Ok(Position(plain.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postroom_domain::Timestamp;

    #[test]
    fn a_cursor_opens_only_where_it_was_made_and_as_it_was_made() {
        let key = CursorKey::new(&Secret::from("0123456789abcdef"));
        let filters = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let organization = OrganizationId::new(Timestamp::from_millis(1));
        let binding = Binding::new("/v1/events", Some(organization), &filters(r#"{"type":"a","status":"b"}"#));
        let same = Binding::new("/v1/events", Some(organization), &filters(r#"{"status":"b","type":"a"}"#));
        let cursor = key.seal(&binding, &Position(vec![1, 2, 3]));
        assert_eq!(key.open(&same, &cursor), Ok(Position(vec![1, 2, 3])));

        let others = [
            Binding::new("/v1/deliveries", Some(organization), &filters(r#"{"type":"a","status":"b"}"#)),
            Binding::new("/v1/events", None, &filters(r#"{"type":"a","status":"b"}"#)),
            Binding::new("/v1/events", Some(organization), &filters(r#"{"type":"a"}"#)),
            Binding::new("/v1/events", Some(organization), &filters(r#"{"type":"a\",\"status\":\"b"}"#)),
        ];
        for other in &others {
            assert_eq!(key.open(other, &cursor), Err(()));
        }
        for index in 0..cursor.len() {
            assert_eq!(key.open(&binding, &cursor[..index]), Err(()));
            let mut bytes = cursor.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.open(&binding, std::str::from_utf8(&bytes).unwrap()), Err(()), "{index}");
        }
        for bad in ["", "=", "é", &"A".repeat(100), &"A".repeat(10_000)] {
            assert_eq!(key.open(&binding, bad), Err(()));
        }
        let elsewhere = CursorKey::new(&Secret::from("another key"));
        assert_eq!(elsewhere.open(&binding, &cursor), Err(()));
    }
}
