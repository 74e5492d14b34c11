//! The kinds of case that every provider is put through, and which of them a provider can not have.

use std::cell::RefCell;
use std::collections::BTreeSet;

use postroom_domain::provider;
use postroom_testkit::sdks::Webhook;

use super::special::accepted;

/// A kind of case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Valid,
    Tampered,
    WrongSecret,
    TooOld,
    TooNew,
    Malformed,
    Missing,
    /// Several signatures, one of them good.
    Several,
    Unicode,
    EmptyBody,
    /// Bytes that come out differently when they are read and written again.
    Respelled,
    /// What would be right under another label, prefix, version or name.
    Label,
    Handshake,
}

const ALL: [Kind; 13] = [
    Kind::Valid,
    Kind::Tampered,
    Kind::WrongSecret,
    Kind::TooOld,
    Kind::TooNew,
    Kind::Malformed,
    Kind::Missing,
    Kind::Several,
    Kind::Unicode,
    Kind::EmptyBody,
    Kind::Respelled,
    Kind::Label,
    Kind::Handshake,
];

/// Whose requests may carry more than one signature.
const SEVERAL: [&str; 14] = [
    "stripe",
    "standard-webhooks",
    "standard-webhooks-v1a",
    "svix",
    "clerk",
    "resend",
    "openai",
    "gitlab-signing",
    "paddle",
    "workos",
    "pagerduty",
    "calendly",
    "roblox",
    "docusign",
];

/// Whose signed time may be ahead of our clock by any distance, as their own libraries and samples have it.
const PAST_ONLY: [&str; 6] = ["stripe", "hubspot", "twitch", "calendly", "monday", "jwt"];

/// Whether a provider can have such a case.
fn applies(name: &str, kind: Kind) -> bool {
    let row = provider::find(name).expect("a provider");
    let is_timed = row.default_tolerance().is_some() || ["monday", "jwt"].contains(&name);
    match kind {
        Kind::Valid => true,
        // It checks nothing.
        _ if name == "none" => false,
        Kind::TooOld => is_timed,
        Kind::TooNew => is_timed && !PAST_ONLY.contains(&name),
        Kind::Several => SEVERAL.contains(&name),
        Kind::Handshake => row.guided().guide.answers.iter().any(|answer| answer.ends_with("nothing is recorded")),
        _ => true,
    }
}

/// The kinds that a provider has been put through.
pub struct Seen {
    provider: &'static str,
    kinds: RefCell<BTreeSet<Kind>>,
}

impl Seen {
    pub fn of(provider: &'static str) -> Self {
        Self { provider, kinds: RefCell::default() }
    }

    pub fn add(&self, kind: Kind) {
        self.kinds.borrow_mut().insert(kind);
    }

    /// Every one of these is accepted.
    pub fn accepted<const N: usize>(&self, kind: Kind, webhooks: [&Webhook; N]) {
        self.add(kind);
        for (place, webhook) in webhooks.iter().enumerate() {
            assert!(accepted(webhook), "{} {kind:?} {place}", self.provider);
        }
    }

    /// Every one of these is refused.
    pub fn refused<const N: usize>(&self, kind: Kind, webhooks: [&Webhook; N]) {
        self.add(kind);
        for (place, webhook) in webhooks.iter().enumerate() {
            assert!(!accepted(webhook), "{} {kind:?} {place}", self.provider);
        }
    }

    /// Fails if a kind that the provider can have is not among them.
    pub fn complete(&self) {
        let seen = self.kinds.borrow();
        let lacking: Vec<Kind> =
            ALL.into_iter().filter(|kind| applies(self.provider, *kind) && !seen.contains(kind)).collect();
        assert!(lacking.is_empty(), "{} has no case of {lacking:?}", self.provider);
    }
}
