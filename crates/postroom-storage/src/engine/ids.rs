//! Ids and places in the log: made by the writer, so that both ascend together.

use postroom_domain::{EventId, Timestamp};

/// How far the clock may fall behind the newest id before ids follow it down. Small steps back (time
/// synchronisation) keep ids ascending; a clock that was wrong by hours must not date events wrongly for hours.
const STEP_BACK_MS: i64 = 10_000;

/// Random bits of a UUIDv7: 12 beside the version and 62 beside the variant.
const PAYLOAD_BITS: u32 = 74;

/// Makes ids that ascend, also within a millisecond.
#[derive(Debug)]
pub(crate) struct Ids {
    millis: i64,
    payload: u128,
}

impl Ids {
    /// After the newest id in the log.
    pub(crate) fn after(newest: Option<EventId>) -> Self {
        let millis = newest.map_or(0, |id| id.created_at().as_millis());
        // Whatever the newest id's random bits are: the next id is of a later millisecond or has more of them.
        let payload = newest.map_or(0, |id| payload_of(u128::from_be_bytes(id.to_bytes())));
        Self { millis, payload }
    }

    /// The next id.
    pub(crate) fn next(&mut self, now: Timestamp) -> EventId {
        let now = now.as_millis().max(0);
        if now > self.millis || now < self.millis - STEP_BACK_MS {
            self.millis = now;
            // The highest bit is left free, so that a millisecond has room for more ids.
            self.payload = random_bits(PAYLOAD_BITS - 1);
        } else {
            self.payload += 1 + random_bits(32);
            if self.payload >> PAYLOAD_BITS != 0 {
                self.millis += 1;
                self.payload = random_bits(PAYLOAD_BITS - 1);
            }
        }
        let high = u128::from(self.millis.unsigned_abs()) << 80 | 7 << 76 | (self.payload >> 62) << 64;
        let low = 0b10 << 62 | self.payload & ((1 << 62) - 1);
        EventId::from_bytes((high | low).to_be_bytes())
    }
}

fn payload_of(id: u128) -> u128 {
    (id >> 64 & 0xfff) << 62 | id & ((1 << 62) - 1)
}

fn random_bits(bits: u32) -> u128 {
    let mut bytes = [0; 16];
    postroom_domain::secret::fill_id(&mut bytes[..usize::try_from(bits.div_ceil(8)).unwrap_or(16)]);
    u128::from_le_bytes(bytes) & ((1 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_ascend_within_a_millisecond_after_a_restart_and_over_a_small_step_back() {
        let at = Timestamp::from_millis;
        let mut ids = Ids::after(None);
        let mut last = ids.next(at(50_000));
        assert_eq!(last.created_at(), at(50_000));
        for now in [50_000, 50_000, 49_000, 50_001, 50_000] {
            let next = ids.next(at(now));
            assert!(next > last);
            last = next;
        }
        let mut restarted = Ids::after(Some(last));
        assert!(restarted.next(at(50_000)) > last);
    }

    #[test]
    fn a_clock_set_back_by_hours_is_followed() {
        let mut ids = Ids::after(None);
        ids.next(Timestamp::from_millis(9_000_000));
        assert_eq!(ids.next(Timestamp::from_millis(1_000)).created_at(), Timestamp::from_millis(1_000));
    }

    #[test]
    fn an_id_is_a_uuid_of_version_7() {
        let text = Ids::after(None).next(Timestamp::from_millis(1)).to_string();
        assert_eq!(&text[16..17], "7", "{text}");
        assert!("89ab".contains(&text[20..21]), "{text}");
    }
}
