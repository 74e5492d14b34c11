//! People: their e-mail address, their role in an organization, and how they stand.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Host;

use crate::Invalid;

/// The longest address, in bytes: what a mail server has to take (RFC 5321, 4.5.3.1.3, without the angle brackets).
const EMAIL_MAX: usize = 254;
/// The longest part before the `@`, in bytes (RFC 5321, 4.5.3.1.1).
const LOCAL_MAX: usize = 64;

/// An e-mail address: one mailbox as RFC 5322 writes it without quotes, comments or a name. Visible ASCII only, so it
/// can stand in a header and in a log as it is; a domain in another script is held in its Punycode form.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// Reads an address. Nothing is trimmed or repaired.
    ///
    /// # Errors
    /// When it is not exactly one address of at most 254 bytes.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("invalid_email", "give one e-mail address, like ada@example.com");
        if text.len() > EMAIL_MAX {
            return Err(Invalid::new("too_long", "at most 254 bytes"));
        }
        let (local, domain) = text.rsplit_once('@').ok_or_else(invalid)?;
        let domain = domain_name(domain).filter(|_| is_dot_atom(local)).ok_or_else(invalid)?;
        let email = format!("{local}@{domain}");
        // A domain may be longer in its Punycode form.
        if email.len() > EMAIL_MAX { Err(Invalid::new("too_long", "at most 254 bytes")) } else { Ok(Self(email)) }
    }

    /// The address as its owner wrote it; the domain in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What two spellings of one address have in common: everything in lower case.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Words of letters, digits and some signs, with single dots between them (RFC 5322, 3.2.3).
fn is_dot_atom(local: &str) -> bool {
    let is_atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(is_atext);
    local.len() <= LOCAL_MAX && local.split('.').all(is_word)
}

/// A name of hosts in its ASCII form, in lower case; none for an address literal and for what is no name.
fn domain_name(text: &str) -> Option<String> {
    // The parser of URLs would take more than names: percent signs, for one, which it decodes.
    if !text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-')) {
        return None;
    }
    let Ok(Host::Domain(domain)) = Host::parse(text) else { return None };
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    domain.split('.').all(is_label).then_some(domain)
}

/// What a person may do in the organization. Less stands before more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads, retries, replays.
    Member,
    /// Everything of the organization.
    Admin,
}

impl Role {
    /// All of them, for lists in errors and documents.
    pub const ALL: [Self; 2] = [Self::Member, Self::Admin];

    /// The role as it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }

    /// The role by its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// How a person stands in the organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UserStatus {
    /// Has an invitation that was not accepted yet, or has ended.
    Invited,
    /// May sign in.
    Active,
    /// Was switched off by an admin.
    Deactivated,
}

impl UserStatus {
    /// The status as it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invited => "invited",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_mailbox_and_nothing_around_it() {
        for good in ["ada@example.com", "a.b+c@x.y-z.org", "o'neil@localhost", "x@xn--mller-kva.de", "1@2.com"] {
            assert_eq!(Email::parse(good).unwrap().as_str(), good);
        }
        let bad = [
            "",
            "@",
            "ada",
            "ada@",
            "@example.com",
            " ada@example.com",
            "ada@example.com ",
            "a b@example.com",
            "ada@example.com\r\nBcc: eve@example.com",
            "ada@example.com\n",
            "ada\0@example.com",
            "ada@exam\0ple.com",
            "a@example.com,b@example.com",
            "a@example.com;b@example.com",
            "Ada <ada@example.com>",
            "<ada@example.com>",
            "\"a b\"@example.com",
            "ada(c)@example.com",
            ".ada@example.com",
            "ada.@example.com",
            "a..b@example.com",
            "a@b@example.com",
            "ada@-example.com",
            "ada@example-.com",
            "ada@example..com",
            "ada@example.com.",
            "ada@127.0.0.1",
            "ada@[127.0.0.1]",
            "ada@[::1]",
            "ada@ex_ample.com",
            "ada@ex%61mple.com",
            "ada@exa mple.com",
            "\u{e9}@example.com",
            "ada@exam\u{ad}\u{202e}ple .com",
            "ada@example.com/x",
            "ada@example.com?x",
            "ada@0x7f.1",
        ];
        for text in bad {
            assert_eq!(Email::parse(text).map_err(|invalid| invalid.code), Err("invalid_email"), "{text:?}");
        }
        assert!(Email::parse(&format!("{}@example.com", "x".repeat(65))).is_err());
        let long = format!("ada@{}com", "example.".repeat(32));
        assert_eq!(Email::parse(&long).unwrap_err().code, "too_long");
    }

    #[test]
    fn an_address_is_the_same_in_capitals_and_a_domain_in_its_own_script() {
        let email = Email::parse("Ada@M\u{fc}ller.DE").unwrap();
        assert_eq!(email.as_str(), "Ada@xn--mller-kva.de");
        assert_eq!(email.key(), "ada@xn--mller-kva.de");
    }

    #[test]
    fn roles_are_in_order_and_have_one_name() {
        assert!(Role::Member < Role::Admin);
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert_eq!(Role::parse("super_admin"), None);
    }
}
