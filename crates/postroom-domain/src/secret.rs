//! Values that must not be shown: they cannot be printed, and are wiped when dropped.

use std::cell::RefCell;
use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Secret bytes. `Debug` shows three asterisks and there is no `Display` and no `Serialize`: to hand the value out a
/// caller has to write [`Secret::expose`], which stands out in review.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Wraps secret bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// `length` fresh random bytes.
    #[must_use]
    pub fn random(length: usize) -> Self {
        let mut bytes = vec![0; length];
        fill_random(&mut bytes);
        Self::new(bytes)
    }

    /// The bytes, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The secret as text, if it is UTF-8.
    #[must_use]
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl PartialEq for Secret {
    /// In constant time for values of one length.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// Fills with random bytes of the operating system's generator.
///
/// # Panics
/// If that generator fails: nothing secret can be made then, and going on would be worse.
pub fn fill_random(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the random generator works");
}

/// Fills ids with random bytes: unguessable like those of [`fill_random`], but not for secrets, because what comes next is
/// already in memory. Each thread asks the generator for many at once: asking costs more than all else about an id.
///
/// # Panics
/// As [`fill_random`].
pub fn fill_id(bytes: &mut [u8]) {
    SUPPLY.with_borrow_mut(|supply| {
        for byte in bytes {
            if supply.used == supply.bytes.len() {
                fill_random(&mut supply.bytes);
                supply.used = 0;
            }
            *byte = std::mem::take(&mut supply.bytes[supply.used]);
            supply.used += 1;
        }
    });
}

/// Random bytes, those up to `used` given away.
struct Supply {
    bytes: [u8; 512],
    used: usize,
}

thread_local! {
    static SUPPLY: RefCell<Supply> = const { RefCell::new(Supply { bytes: [0; 512], used: 512 }) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "Secret(***)");
        assert_eq!(Secret::from("a"), Secret::from("a"));
        assert_ne!(Secret::from("a"), Secret::from("b"));
    }

    #[test]
    fn bytes_of_ids_are_never_given_twice_and_never_missing() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1_000 {
            let mut bytes = [0; 10];
            fill_id(&mut bytes);
            assert!(seen.insert(bytes));
        }
        let mut many = [0; 2_000];
        fill_id(&mut many);
        assert!(many.chunks(8).all(|some| some.iter().any(|byte| *byte != 0)));
    }
}
