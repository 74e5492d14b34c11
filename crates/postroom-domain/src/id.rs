//! Typed ids: a UUIDv7 inside (so they sort by time), a prefix at the edges, 16 bytes in storage.
//!
//! `evt_…` where a `dlv_…` is expected is a parse error here, not a puzzling 404 later.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::Timestamp;

/// The text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an id like `{prefix}_` followed by {digits} lower-case hexadecimal digits")]
pub struct ParseIdError {
    prefix: &'static str,
    digits: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What stands before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A fresh id of this moment.
            #[must_use]
            pub fn new(now: Timestamp) -> Self {
                Self(uuid_at(now))
            }

            /// The id as storage keeps it.
            #[must_use]
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }

            /// The id from what storage kept.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The millisecond in which the id was made.
            #[must_use]
            pub fn created_at(self) -> Timestamp {
                timestamp_of(self.0)
            }

            /// The lowest possible id of a millisecond: the bound for "created at or after".
            #[must_use]
            pub fn floor(at: Timestamp) -> Self {
                Self(uuid_floor(at))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!($prefix, "_"))?;
                f.write_str(self.0.as_simple().encode_lower(&mut [0; 32]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = ParseIdError { prefix: $prefix, digits: 32 };
                let digits = text.strip_prefix(concat!($prefix, "_")).ok_or_else(|| error.clone())?;
                parse_hex::<16>(digits).map(Self::from_bytes).ok_or(error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(/** The customer and the isolation unit; owns everything below. */ OrganizationId, "org");
id!(/** The registry row saying in which database an organization's data lives. */ TenantId, "ten");
id!(/** How an organization's code proves who it is. */ ApiKeyId, "key");
id!(/** An inbound address: provider, verification scheme, secret. */ SourceId, "src");
id!(/** One accepted, recorded, immutable fact. */ EventId, "evt");
id!(/** An outbound URL with secret, subscription and policy. */ EndpointId, "ep");
id!(/** One HTTP try of a delivery. */ AttemptId, "att");
id!(/** A request that failed verification and was kept for its owner to see. */ RejectionId, "rej");
id!(/** Who did what to which thing: one entry of the audit log. */ AuditEntryId, "aud");
id!(/** A person: of an organization, or a super admin. */ UserId, "usr");
id!(/** One signing in of a person, until it ends. */ SessionId, "ses");
id!(/** A mail that waits to be sent. */ MailId, "mail");

/// One event for one endpoint, once: the `run` tells a replay (1, 2, …) from the original (0).
///
/// Nothing stores this id. It is computed from the event's id, the endpoint's number inside its organization and the
/// run, and can be taken apart again, so a delivery needs no row of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The event that is delivered.
    pub event: EventId,
    /// The endpoint's number, counted from 1 inside its organization.
    pub endpoint_number: u32,
    /// 0 for the original, k for the k-th replay to this endpoint.
    pub run: u16,
}

impl DeliveryId {
    /// What stands before the underscore.
    pub const PREFIX: &'static str = "dlv";
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dlv_{}{:08x}{:04x}", self.event.0.as_simple(), self.endpoint_number, self.run)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DeliveryId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError { prefix: "dlv", digits: 44 };
        let bytes = text.strip_prefix("dlv_").and_then(parse_hex::<22>).ok_or(error)?;
        let (event, rest) = bytes.split_at(16);
        Ok(Self {
            event: EventId::from_bytes(event.try_into().expect("split at 16")),
            endpoint_number: u32::from_be_bytes(rest[..4].try_into().expect("four of six")),
            run: u16::from_be_bytes(rest[4..].try_into().expect("two of six")),
        })
    }
}

impl Serialize for DeliveryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeliveryId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Exactly `2 * N` lower-case hexadecimal digits: one id has one spelling.
fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut bytes = [0; N];
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

fn uuid_at(now: Timestamp) -> Uuid {
    let mut random = [0; 10];
    crate::secret::fill_id(&mut random);
    uuid::Builder::from_unix_timestamp_millis(now.as_millis().max(0).cast_unsigned(), &random).into_uuid()
}

fn uuid_floor(at: Timestamp) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(at.as_millis().max(0).cast_unsigned(), &[0; 10]).into_uuid()
}

fn timestamp_of(id: Uuid) -> Timestamp {
    let millis = id.as_bytes()[..6].iter().fold(0_i64, |sum, byte| sum << 8 | i64::from(*byte));
    Timestamp::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_keeps_its_kind() {
        let now = Timestamp::from_millis(1_767_225_600_123);
        let id = EventId::new(now);
        assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
        assert_eq!(id.created_at(), now);
        assert!(id.to_string().parse::<EndpointId>().is_err());
        assert!(id.to_string().to_uppercase().parse::<EventId>().is_err());
        assert!(EventId::floor(now) <= id);
        assert!(id < EventId::floor(Timestamp::from_millis(1_767_225_600_124)));
    }

    #[test]
    fn a_delivery_id_can_be_computed_and_taken_apart() {
        let id = DeliveryId { event: EventId::new(Timestamp::from_millis(1)), endpoint_number: 7, run: 2 };
        assert_eq!(id.to_string().parse::<DeliveryId>(), Ok(id));
        assert_eq!(id.to_string().len(), 48);
        assert!("dlv_00".parse::<DeliveryId>().is_err());
    }
}
