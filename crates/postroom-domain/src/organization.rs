//! An organization: the customer, the isolation unit, the owner of everything below it.

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// The plan decides how many events an organization may have accepted in a calendar month (UTC): see [`PlanLimits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// Few events a month.
    Free,
    /// More events a month.
    Starter,
    /// As many as the organization needs.
    Premium,
}

impl Plan {
    /// The plan as it is written in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Starter => "starter",
            Self::Premium => "premium",
        }
    }

    /// The plan by its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Free, Self::Starter, Self::Premium].into_iter().find(|plan| plan.as_str() == name)
    }
}

/// The most events a calendar month that any limit can be set to.
pub const WEBHOOK_LIMIT_MAX: u64 = 1_000_000_000_000;

/// Events a calendar month (UTC) of organizations that have no limit of their own, by plan; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanLimits {
    /// Of [`Plan::Free`].
    pub free: Option<u64>,
    /// Of [`Plan::Starter`].
    pub starter: Option<u64>,
    /// Of [`Plan::Premium`].
    pub premium: Option<u64>,
}

impl Default for PlanLimits {
    fn default() -> Self {
        Self { free: Some(1_000), starter: Some(50_000), premium: None }
    }
}

impl PlanLimits {
    /// What holds for an organization: its own limit, or that of its plan.
    #[must_use]
    pub fn of(self, plan: Plan, own: Option<u64>) -> Option<u64> {
        own.or(match plan {
            Plan::Free => self.free,
            Plan::Starter => self.starter,
            Plan::Premium => self.premium,
        })
    }
}

/// The longest name of anything a person names, in characters.
pub const NAME_MAX: usize = 100;

/// Accepts a name for people to read: 1 to 100 characters, no control or invisible direction characters, trimmed.
///
/// # Errors
/// What is wrong with it.
pub fn name(text: &str) -> Result<String, Invalid> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(Invalid::new("required", "give a name of 1 to 100 characters"));
    }
    if trimmed.chars().count() > NAME_MAX {
        return Err(Invalid::new("too_long", "at most 100 characters"));
    }
    if trimmed.chars().any(is_treacherous) {
        return Err(Invalid::new("invalid_character", "no control, zero-width or direction-changing characters"));
    }
    Ok(trimmed.to_owned())
}

/// Characters that make a text look like another one.
fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Accepts a slug, as it stands in URLs: 1 to 63 of `a-z`, `0-9` and `-`, neither first nor last a hyphen.
///
/// # Errors
/// What is wrong with it.
pub fn slug(text: &str) -> Result<String, Invalid> {
    let inside = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if inside && (1..=63).contains(&text.len()) && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(text.to_owned());
    }
    Err(Invalid::new("invalid_slug", "1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end"))
}

/// A slug made from a name: `Acme Corp.` becomes `acme-corp`. Empty when nothing in the name can stand in a slug.
#[must_use]
pub fn slug_from(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    slug.truncate(63);
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_strict_and_can_be_made_from_names() {
        assert_eq!(slug("acme-corp").as_deref(), Ok("acme-corp"));
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "é", &"x".repeat(64)] {
            assert_eq!(slug(bad).unwrap_err().code, "invalid_slug", "{bad}");
        }
        assert_eq!(slug_from("  Acme, Corp. "), "acme-corp");
        assert_eq!(slug_from("日本"), "");
    }

    #[test]
    fn an_organization_s_own_limit_stands_before_that_of_its_plan() {
        let limits = PlanLimits { premium: Some(9), ..PlanLimits::default() };
        assert_eq!(
            [Plan::Free, Plan::Starter, Plan::Premium].map(|plan| limits.of(plan, None)),
            [Some(1_000), Some(50_000), Some(9)]
        );
        assert_eq!([limits.of(Plan::Free, Some(0)), limits.of(Plan::Premium, Some(10))], [Some(0), Some(10)]);
    }

    #[test]
    fn names_are_readable() {
        assert_eq!(name(" Acme ").as_deref(), Ok("Acme"));
        assert_eq!(name("   ").unwrap_err().code, "required");
        assert_eq!(name("a\u{202e}b").unwrap_err().code, "invalid_character");
        assert_eq!(name(&"x".repeat(101)).unwrap_err().code, "too_long");
    }
}
