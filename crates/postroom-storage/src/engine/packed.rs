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
    fn an_enum_comes_back_from_its_word() {
        for reason in [DeadReason::RetriesExhausted, DeadReason::EndpointGone, DeadReason::OrganizationInactive] {
            assert_eq!(parse_word::<DeadReason>(reason.as_str()), Ok(reason));
        }
        assert_eq!(parse_word::<AttemptError>("blocked_address"), Ok(AttemptError::BlockedAddress));
        assert!(parse_word::<AttemptError>("else").is_err());
    }
}
