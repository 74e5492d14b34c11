//! A moment, in milliseconds since the Unix epoch. Domain code never asks what time it is: callers say.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z. Shown as RFC 3339 in UTC with exactly three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first and the last moment that can be written as RFC 3339 (the year 0 to the last days of 9999).
    const RANGE_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_207_199_999;

    /// The epoch itself.
    pub const ZERO: Self = Self(0);

    /// From milliseconds since the epoch; held inside the years that RFC 3339 can write.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(*Self::RANGE_MS.start(), *Self::RANGE_MS.end()))
    }

    /// From seconds since the epoch.
    #[must_use]
    pub fn from_seconds(seconds: i64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// How long after `earlier` this is; zero if it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// The first millisecond of the calendar month (UTC) of this moment, and of the one after it.
    #[must_use]
    pub fn month(self) -> (Self, Self) {
        let date = self.civil().date();
        let bound = |date: jiff::civil::Date| {
            date.to_zoned(jiff::tz::TimeZone::UTC).map_or(self.0, |zoned| zoned.timestamp().as_millisecond())
        };
        let next = date.last_of_month().tomorrow().unwrap_or(date);
        (Self::from_millis(bound(date.first_of_month())), Self::from_millis(bound(next)))
    }

    fn civil(self) -> jiff::civil::DateTime {
        let stamp = jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        jiff::tz::Offset::UTC.to_datetime(stamp)
    }
}

/// Says what time it is. The binary makes one from the wall clock; tests make one that they set by hand.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.civil();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            at.month(),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond()
        )
    }
}

/// The text is not an RFC 3339 date and time with an offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an RFC 3339 date and time such as 2026-11-22T10:00:00Z, at most 9999-12-30T21:59:59Z")]
pub struct ParseTimestampError;

impl FromStr for Timestamp {
    type Err = ParseTimestampError;
    fn from_str(text: &str) -> Result<Self, ParseTimestampError> {
        if !is_rfc_3339(text.as_bytes()) {
            return Err(ParseTimestampError);
        }
        let stamp: jiff::Timestamp = text.parse().map_err(|_| ParseTimestampError)?;
        let millis = stamp.as_millisecond();
        if Self::RANGE_MS.contains(&millis) { Ok(Self(millis)) } else { Err(ParseTimestampError) }
    }
}

/// Whether a text has the form of RFC 3339. The parser takes more: hours alone, offsets of a day, names of time zones.
fn is_rfc_3339(text: &[u8]) -> bool {
    let form = |bytes: &[u8], form: &[u8]| {
        bytes.len() == form.len()
            && bytes
                .iter()
                .zip(form)
                .all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form })
    };
    let Some((date_time, rest)) = text.split_at_checked(19) else { return false };
    let fraction =
        rest.strip_prefix(b".").map_or(0, |digits| 1 + digits.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let offset = &rest[fraction..];
    let numeric = (form(offset, b"+00:00") || form(offset, b"-00:00")) && offset[1..3] <= b"23"[..];
    form(date_time, b"0000-00-00T00:00:00") && fraction != 1 && (offset == b"Z" || numeric)
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_rfc_3339_with_milliseconds() {
        let at = Timestamp::from_millis(1_767_225_600_007);
        assert_eq!(at.to_string(), "2026-01-01T00:00:00.007Z");
        assert_eq!("2026-01-01T01:00:00.007+01:00".parse(), Ok(at));
        assert_eq!("2026-01-01".parse::<Timestamp>(), Err(ParseTimestampError));
        for good in ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456789-23:59", "2016-12-31T23:59:60Z"] {
            assert!(good.parse::<Timestamp>().is_ok(), "{good}");
        }
        for bad in [
            "2026-01-01T00:00:00",
            "2026-01-01T00:00Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+01",
            "2026-01-01T00:00:00Z[UTC]",
            "+002026-01-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(ParseTimestampError), "{bad}");
        }
    }

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let (start, end) = "2026-12-31T23:59:59.999Z".parse::<Timestamp>().unwrap().month();
        assert_eq!(start.to_string(), "2026-12-01T00:00:00.000Z");
        assert_eq!(end.to_string(), "2027-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_moment_out_of_range_is_held_inside() {
        assert_eq!(Timestamp::from_millis(i64::MAX).to_string(), "9999-12-30T21:59:59.999Z");
        assert_eq!((Timestamp::from_millis(0) - Duration::from_secs(1)).as_millis(), -1000);
    }
}
