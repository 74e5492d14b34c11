//! Links to sign in with: a single-use token of 256 random bits, of which only the SHA-256 is stored, and how long it and
//! the session made with it last.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

const TOKEN_BYTES: usize = 32;

/// How long a session lasts.
pub const SESSION_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What a link carries. It is sent to its owner once and kept nowhere in the clear.
#[derive(Clone, PartialEq, Eq)]
pub struct SignInToken(Secret);

impl SignInToken {
    /// A fresh token.
    #[must_use]
    pub fn generate() -> Self {
        Self(Secret::from(BASE64URL.encode(Secret::random(TOKEN_BYTES).expose())))
    }

    /// A token as somebody presents it, if it has the form of one. Most wrong ones end here, without a look-up.
    #[must_use]
    pub fn parse(presented: &str) -> Option<Self> {
        let bytes = BASE64URL.decode(presented).ok().map(Secret::new)?;
        (bytes.expose().len() == TOKEN_BYTES).then(|| Self(Secret::from(presented)))
    }

    /// What storage keeps of it, and finds it by.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.0.expose());
        TokenHash(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The token as it stands in a link: 43 letters, digits, hyphens and underscores.
    #[must_use]
    pub fn expose_str(&self) -> &str {
        self.0.expose_str().unwrap_or_default()
    }
}

impl fmt::Debug for SignInToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignInToken(***)")
    }
}

/// What storage keeps of a [`SignInToken`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash as storage keeps it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(***)")
    }
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To sign in.
    SignIn,
    /// To accept an invitation, and to sign in with that.
    Invitation,
}

impl Purpose {
    /// The purpose as it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::Invitation => "invitation",
        }
    }

    /// How long the link is good for.
    #[must_use]
    pub fn life(self) -> Duration {
        match self {
            Self::SignIn => Duration::from_secs(15 * 60),
            Self::Invitation => Duration::from_secs(7 * 24 * 3600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_spelling_and_does_not_print() {
        let token = SignInToken::generate();
        assert_eq!(token.expose_str().len(), 43);
        assert_eq!(SignInToken::parse(token.expose_str()).unwrap().hash(), token.hash());
        assert_ne!(SignInToken::generate().hash(), token.hash());
        assert_eq!(format!("{token:?} {:?}", token.hash()), "SignInToken(***) TokenHash(***)");
        let text = "A".repeat(43);
        assert!(SignInToken::parse(&text).is_some());
        for bad in ["", "A", &text[1..], &format!("{text}="), &format!("{text}A"), &text.replacen('A', "+", 1)] {
            assert!(SignInToken::parse(bad).is_none(), "{bad}");
        }
        // The last character has two bits that mean nothing: they are nought.
        assert!(SignInToken::parse(&format!("{}B", &text[1..])).is_none());
    }
}
