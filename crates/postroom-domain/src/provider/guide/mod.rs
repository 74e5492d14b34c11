//! How to set each provider up: where its console takes the URL, which secret to copy, how it behaves, how to try it.
//!
//! The texts are data, one guide for each provider; what follows from a provider's row (its answers, its options, the
//! commands to try it) is made of the row. `docs/providers`, `GET /v1/providers/{name}` and `postroom sources providers`
//! show this and nothing else. What was not checked at the provider itself is said in each guide.

mod commerce;
mod development;
mod example;
mod general;
mod mail;
mod markdown;
mod messaging;
mod office;

use serde::Serialize;

pub use markdown::{index, page};

use super::scheme::{EventAnswer, Field, Handshake, Reply};
use super::{Description, Provider};

/// A menu path that was written from memory: menus move.
const CONSOLE: &str = "the way through its console: menus move";

/// Where the examples say that the source is.
const EXAMPLE_URL: &str = "https://hooks.example.com/in/acme-corp";

/// What a row does not tell.
#[derive(Debug, Clone, Copy)]
struct Guide {
    /// Where the source's URL is pasted.
    url: &'static str,
    /// Which secret, and where it stands.
    secret: &'static str,
    /// Which events to choose.
    events: &'static str,
    /// What counts as success, within which time, and what happens otherwise.
    delivery: &'static str,
    /// What is easily got wrong.
    notes: &'static [&'static str],
    /// What of this was not checked at the provider.
    unverified: &'static [&'static str],
    /// Pages of the provider that this was checked against, besides its libraries.
    references: &'static [&'static str],
}

const NONE: Guide =
    Guide { url: "", secret: "", events: "", delivery: "", notes: &[], unverified: &[], references: &[] };

/// A provider with everything a person needs to set it up, as `GET /v1/providers/{name}` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Guided {
    /// How it signs, and what its source needs.
    #[serde(flatten)]
    pub description: Description,
    /// How to set it up.
    pub guide: GuideView,
}

/// How to set a provider up, step by step. Lists are in the order of reading.
#[derive(Debug, Clone, Serialize)]
pub struct GuideView {
    /// Where the source's URL is pasted.
    pub url: &'static str,
    /// Which secret, and where it stands.
    pub secret: &'static str,
    /// Which events to choose.
    pub events: &'static str,
    /// What the provider counts as success, within which time, and what it does otherwise.
    pub delivery: &'static str,
    /// What Postroom answers.
    pub answers: Vec<String>,
    /// What is easily got wrong.
    pub notes: &'static [&'static str],
    /// Commands that try it: make a source, check a signed sample, send it, listen.
    pub commands: Vec<String>,
    /// What of this was not checked at the provider itself.
    pub unverified: &'static [&'static str],
    /// Pages of the provider that it was checked against.
    pub references: &'static [&'static str],
}

fn find(name: &str) -> Option<&'static Guide> {
    let all = [commerce::GUIDES, development::GUIDES, general::GUIDES, mail::GUIDES, messaging::GUIDES, office::GUIDES];
    all.into_iter().flatten().find(|(known, _)| *known == name).map(|(_, guide)| guide)
}

impl Provider {
    /// The description with the guide.
    #[must_use]
    pub fn guided(&self) -> Guided {
        // Every provider has one: a test holds it.
        let guide = find(self.name).unwrap_or(&NONE);
        let view = GuideView {
            url: guide.url,
            secret: guide.secret,
            events: guide.events,
            delivery: guide.delivery,
            answers: self.answers(),
            notes: guide.notes,
            commands: self.commands(),
            unverified: guide.unverified,
            references: guide.references,
        };
        Guided { description: self.describe(), guide: view }
    }

    fn commands(&self) -> Vec<String> {
        let (name, example) = (self.name, example::of(self));
        let option = |(name, value): &(&str, &str)| format!(" --option {}", quoted(&format!("{name}={value}")));
        let options: String = example.options.iter().map(option).collect();
        let with = |secret: Option<&str>| secret.map(|secret| format!(" --secret {secret}")).unwrap_or_default();
        let (signing, checking) = (with(example.signing.or(example.secret)), with(example.secret));
        let url = if self.signs_url() { format!(" --url {EXAMPLE_URL}/{name}") } else { String::new() };
        let create = match example.secret {
            Some(secret) => format!("echo {secret} | postroom sources create --provider {name} --secret-file -"),
            None => format!("postroom sources create --provider {name}"),
        };
        let mut commands: Vec<String> = example.before.iter().map(|&command| command.to_owned()).collect();
        commands.extend([
            format!("{create}{options}"),
            format!(
                "postroom sign --provider {name}{signing}{options}{url} | postroom verify --provider {name}{checking}{options}"
            ),
            format!("postroom send --provider {name} --source {name}{signing}"),
            format!("postroom listen {name} --forward-to http://localhost:3000/webhook"),
        ]);
        commands
    }

    /// What an event's repetition is recognised by.
    fn known_by(&self) -> Option<String> {
        let event_id = self.batch.map_or(self.event_id, |batch| batch.event_id);
        let fields = event_id.first()?.iter().map(|field| match (field, self.batch) {
            (Field::Json(path), Some(_)) => format!("`{path}` of the item"),
            (Field::BodyDigest, Some(_)) => "the item's content".to_owned(),
            _ => field.told(),
        });
        Some(fields.collect::<Vec<_>>().join(" and "))
    }

    /// What its requests are answered with.
    fn answers(&self) -> Vec<String> {
        let mut answers = vec![format!("{} once the event is durable", self.answer.told())];
        if self.batch.is_some() {
            answers.push("several events in one request: each becomes one here, all of them or none".to_owned());
        }
        answers.push(match self.known_by() {
            Some(fields) => format!("the same event again ({fields}): the same answer, and nothing is delivered twice"),
            None if self.general => "the same event again, where an option says what its id is: the same answer, and \
                                     nothing is delivered twice"
                .to_owned(),
            None => "the same event again: it has no id to know it by, so it is another event".to_owned(),
        });
        answers.extend(self.handshakes.iter().map(Handshake::told));
        if self.scheme_kind() != "none" {
            answers.push(
                "what does not verify: 401, kept under `/v1/rejections` with the check that failed and the likely cause"
                    .to_owned(),
            );
        }
        answers
    }
}

/// One word for a shell.
fn quoted(text: &str) -> String {
    if text.contains(['{', '"', ' ']) { format!("'{text}'") } else { text.to_owned() }
}

impl Field<'_> {
    fn told(&self) -> String {
        match self {
            Self::Header(name) => format!("header `{name}`"),
            Self::Json(path) | Self::JsonMark(path, _) => format!("`{path}` of the body"),
            Self::Form(name, "") | Self::FormMark(name, _) => format!("form field `{name}`"),
            Self::Form(name, path) => format!("`{path}` in form field `{name}`"),
            Self::Query(name) => format!("`{name}` of the query"),
            Self::FormDigest => "the form's content".to_owned(),
            Self::BodyDigest => "the body's content".to_owned(),
        }
    }
}

impl EventAnswer {
    fn told(self) -> String {
        match self {
            Self::Ordinary => "200 with `{\"id\": \"evt_...\", \"duplicate\": false}`".to_owned(),
            Self::Empty => "200 with an empty body".to_owned(),
            Self::NoContent => "204".to_owned(),
            Self::Text(text) => format!("200 with the text `{text}`"),
        }
    }
}

impl Handshake {
    fn told(&self) -> String {
        let (request, answer) = match self {
            Self::Probe { method } => (format!("{method} without a signature"), "200".to_owned()),
            Self::Echo { method, query } => (format!("{method} with `?{query}=`"), "200 with that value".to_owned()),
            Self::HubChallenge => (
                "GET with `hub.mode=subscribe` and the option `verify_token`".to_owned(),
                "200 with `hub.challenge`".to_owned(),
            ),
            Self::PublicKey { key, .. } => {
                (format!("its test, signed with the key `{key}` that everybody knows"), "200".to_owned())
            }
            Self::Verified { when, equals, reply } => {
                (format!("{} = `{equals}`, proved like any request", when.told()), reply.told())
            }
            Self::VerifiedHas { has, reply } => (format!("{}, proved like any request", has.told()), reply.told()),
            Self::VerifiedUnless { when, equals, unless, reply } => (
                format!("{} = `{equals}` without {}, proved like any request", when.told(), unless.told()),
                reply.told(),
            ),
            Self::JsonEcho { member, .. } => {
                (format!("a JSON object of nothing but `{member}`, without a token"), "200 with the same".to_owned())
            }
            Self::CloudEvents => {
                ("OPTIONS with `WebHook-Request-Origin`".to_owned(), "200 with `WebHook-Allowed-Origin`".to_owned())
            }
            Self::LearnSecret { header } => (
                format!(
                    "header `{header}`, while the source has no secret (one that has a secret refuses it): it is kept as the secret"
                ),
                "200 with the same header".to_owned(),
            ),
            Self::VisitSns { when, equals, url } => (
                format!(
                    "{} = `{equals}`, proved like any request: {} is visited, at Amazon only",
                    when.told(),
                    url.told()
                ),
                "200".to_owned(),
            ),
        };
        format!("{request}: {answer}, nothing is recorded")
    }
}

impl Reply {
    fn told(&self) -> String {
        match self {
            Self::Empty => "200 with an empty body".to_owned(),
            Self::Text(field) => format!("200 with {} as text", field.told()),
            Self::NoContent => "204".to_owned(),
            Self::Fixed(json) => format!("200 with `{json}`"),
            Self::Json(name, field) => format!("200 with {} as `{name}` in JSON", field.told()),
            Self::PlainAndEncryptedToken(_) => "200 with `plainToken` and `encryptedToken` in JSON".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::all;

    #[test]
    fn every_provider_has_a_guide_that_says_everything() {
        for provider in all() {
            let guide = find(provider.name).unwrap_or_else(|| panic!("{} has no guide", provider.name));
            for text in [guide.url, guide.secret, guide.events, guide.delivery] {
                assert!(text.len() >= 12 && text.ends_with('.'), "{}: {text:?}", provider.name);
            }
            for text in guide.notes {
                assert!(text.ends_with('.'), "{}: {text}", provider.name);
            }
            assert!(guide.unverified.iter().all(|text| !text.ends_with('.')), "{}", provider.name);
            assert!(guide.references.iter().all(|url| url.starts_with("https://")), "{}", provider.name);
        }
    }

    #[test]
    fn an_option_stands_there_once() {
        for provider in all() {
            let mut names: Vec<&str> = provider.options().iter().map(|option| option.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", provider.name);
        }
    }

    #[test]
    fn who_signs_the_url_says_so() {
        for provider in all().iter().filter(|provider| provider.signs_url() && !provider.general) {
            assert!(find(provider.name).unwrap().url.contains("signs this URL"), "{}", provider.name);
        }
    }
}
