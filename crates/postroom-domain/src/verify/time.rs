//! The time a sender signed: strict reading, and how far it may be from ours.

use crate::Timestamp;
use crate::provider::scheme::Unit;

/// The most digits of a time as a number: enough for milliseconds for 30,000 years.
const MAX_DIGITS: usize = 15;

/// The longest RFC 3339 text, with nanoseconds.
const MAX_TEXT: usize = 40;

/// How far from now a signed time is allowed to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub unit: Unit,
    pub past_seconds: Option<u32>,
    pub future_seconds: Option<u32>,
}

/// Reads a time as sent: ASCII digits only (no sign, no blanks, no fraction), or RFC 3339.
pub(super) fn read(unit: Unit, text: &[u8]) -> Option<Timestamp> {
    if unit == Unit::Rfc3339 {
        let fits = text.len() <= MAX_TEXT && text.is_ascii();
        return std::str::from_utf8(text).ok().filter(|_| fits)?.parse().ok();
    }
    if text.is_empty() || text.len() > MAX_DIGITS || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = text.iter().fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Some(match unit {
        Unit::Milliseconds => Timestamp::from_millis(number),
        _ => Timestamp::from_seconds(number),
    })
}

/// Writes a time as this sender would.
pub(super) fn write(unit: Unit, at: Timestamp) -> String {
    match unit {
        Unit::Seconds => at.as_seconds().to_string(),
        Unit::Milliseconds => at.as_millis().to_string(),
        Unit::Rfc3339 => at.to_string(),
    }
}

impl Window {
    /// Puts a source's own tolerance in place of the provider's. A side that the provider leaves open stays open,
    /// unless it leaves both open: then the tolerance limits the age.
    pub fn override_with(&mut self, seconds: u32) {
        self.past_seconds = Some(seconds);
        self.future_seconds = self.future_seconds.map(|_| seconds);
    }

    /// How many seconds the time lies outside the window: below zero = too old, above = too far ahead; `None` = inside.
    ///
    /// Times in seconds are compared as whole seconds, so a time exactly as old as allowed passes, as in the official
    /// libraries.
    pub fn outside_by(&self, at: Timestamp, now: Timestamp) -> Option<i64> {
        let (age, unit) = match self.unit {
            Unit::Seconds => (now.as_seconds() - at.as_seconds(), 1),
            Unit::Milliseconds | Unit::Rfc3339 => (now.as_millis() - at.as_millis(), 1000),
        };
        let beyond = |limit: Option<u32>, age: i64| {
            limit
                .map(|limit| age - i64::from(limit) * unit)
                .filter(|over| *over > 0)
                .map(|over| (over + unit - 1) / unit)
        };
        beyond(self.past_seconds, age).map(|over| -over).or_else(|| beyond(self.future_seconds, -age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_ascii_digits_and_nothing_else() {
        assert_eq!(read(Unit::Seconds, b"1767225600"), Some(Timestamp::from_seconds(1_767_225_600)));
        assert_eq!(read(Unit::Milliseconds, b"1767225600123"), Some(Timestamp::from_millis(1_767_225_600_123)));
        let nanoseconds = read(Unit::Rfc3339, b"2026-01-01T00:00:00.123456789Z");
        assert_eq!(nanoseconds, Some(Timestamp::from_millis(1_767_225_600_123)));
        for bad in ["", "-1", "+1", " 1", "1 ", "1.0", "1e9", "0x1", "1_0", "9999999999999999", "\u{661}\u{662}"] {
            assert_eq!(read(Unit::Seconds, bad.as_bytes()), None, "{bad}");
        }
        for bad in ["1767225600", "2026-01-01", "2026-01-01T00:00:00", "tomorrow"] {
            assert_eq!(read(Unit::Rfc3339, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn exactly_as_old_as_allowed_passes() {
        let window = |unit, future_seconds| Window { unit, past_seconds: Some(300), future_seconds };
        let at = Timestamp::from_seconds(1000);
        let now = |millis: i64| Timestamp::from_millis(1_000_000 + millis);
        let both = window(Unit::Seconds, Some(300));
        assert_eq!(both.outside_by(at, now(300_999)), None, "seconds are compared whole");
        assert_eq!(both.outside_by(at, now(301_000)), Some(-1));
        assert_eq!(both.outside_by(at, now(-300_000)), None);
        assert_eq!(both.outside_by(at, now(-301_000)), Some(1));
        assert_eq!(window(Unit::Seconds, None).outside_by(at, now(-900_000)), None);
        assert_eq!(window(Unit::Milliseconds, Some(300)).outside_by(at, now(300_000)), None);
        assert_eq!(window(Unit::Milliseconds, Some(300)).outside_by(at, now(300_001)), Some(-1));
        assert_eq!(window(Unit::Milliseconds, Some(300)).outside_by(at, now(-302_500)), Some(3));
    }
}
