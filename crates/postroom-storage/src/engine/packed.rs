//! Lists and words as one column each, the same in every engine.

use serde::de::DeserializeOwned;
use serde::de::value::{Error as WordError, StrDeserializer};

use crate::Error;

/// The stored data is not what it should be.
pub(crate) fn broken(what: impl Into<String>) -> Error {
    Error::Internal(what.into().into())
}

/// An enum from its word.
pub(crate) fn parse_word<T: DeserializeOwned>(text: &str) -> Result<T, WordError> {
    T::deserialize(StrDeserializer::new(text))
}

/// As JSON text, for a column.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("lists and maps of text always have a JSON form")
}

/// Headers as one column.
pub(crate) fn pack_headers(headers: &[(String, String)]) -> Vec<u8> {
    serde_json::to_vec(headers).expect("pairs of text always have a JSON form")
}

/// Who sent an event of the organization's own stands among its headers, under a name that no header can have: it costs
/// no column, and received events nothing.
const CREATED_BY: &str = ":created_by";

/// The headers of an event as one column, with who sent it.
pub(crate) fn pack_event_headers(headers: &[(String, String)], created_by: Option<String>) -> Vec<u8> {
    let created_by = created_by.map(|by| (CREATED_BY, by));
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let all: Vec<_> = headers.chain(created_by.as_ref().map(|(name, by)| (*name, by.as_str()))).collect();
    serde_json::to_vec(&all).expect("pairs of text always have a JSON form")
}

/// Headers from their column.
pub(crate) fn unpack_headers(column: &[u8]) -> serde_json::Result<Vec<(String, String)>> {
    let mut headers: Vec<(String, String)> = serde_json::from_slice(column)?;
    headers.retain(|(name, _)| name != CREATED_BY);
    Ok(headers)
}

/// Who sent an event, from the column of its headers; none of one that was received.
pub(crate) fn unpack_created_by(column: &[u8]) -> serde_json::Result<Option<String>> {
    let headers: Vec<(String, String)> = serde_json::from_slice(column)?;
    Ok(headers.into_iter().find_map(|(name, by)| (name == CREATED_BY).then_some(by)))
}

/// The endpoints an event goes to, as one column: 4 bytes each, big end first.
pub(crate) fn pack_targets(endpoints: impl Iterator<Item = i64>) -> Vec<u8> {
    endpoints.flat_map(|endpoint| u32::try_from(endpoint).unwrap_or(u32::MAX).to_be_bytes()).collect()
}

/// The endpoints an event goes to, from their column; `None` if it is no such column.
pub(crate) fn unpack_targets(column: &[u8]) -> Option<Vec<i64>> {
    let (endpoints, rest) = column.as_chunks::<4>();
    rest.is_empty().then(|| endpoints.iter().map(|four| i64::from(u32::from_be_bytes(*four))).collect())
}

#[cfg(test)]
mod tests {
    use postroom_domain::delivery::{AttemptError, DeadReason};

    use super::*;

    #[test]
    fn who_sent_an_event_is_kept_with_its_headers_and_is_none_of_them() {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        for by in [None, Some("key_1".to_owned())] {
            let column = pack_event_headers(&headers, by.clone());
            assert_eq!(unpack_headers(&column).unwrap(), headers);
            assert_eq!(unpack_created_by(&column).unwrap(), by);
        }
        assert_eq!(pack_event_headers(&headers, None), pack_headers(&headers));
        assert!(unpack_headers(b"{}").is_err() && unpack_created_by(b"{}").is_err());
    }

    #[test]
    fn an_enum_comes_back_from_its_word() {
        for reason in [DeadReason::RetriesExhausted, DeadReason::EndpointGone, DeadReason::OrganizationInactive] {
            assert_eq!(parse_word::<DeadReason>(reason.as_str()), Ok(reason));
        }
        assert_eq!(parse_word::<AttemptError>("blocked_address"), Ok(AttemptError::BlockedAddress));
        assert!(parse_word::<AttemptError>("else").is_err());
    }
}
