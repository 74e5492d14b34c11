//! The guides as pages of `docs/providers`.

use std::fmt::Write as _;

use super::{Guided, Provider};
use crate::provider::OptionKind;

const MADE: &str = "<!-- made from crates/postroom-domain/src/provider/guide -->\n";

/// The list of all guides.
#[must_use]
pub fn index(providers: &[Provider]) -> String {
    let mut text = format!(
        "{MADE}\n# Providers\n\nA source of one of these is made with `POST /v1/sources` or `postroom sources create`; the \
         guide of each says where its URL and its secret go, what the provider expects and how to try it. \
         `GET /v1/providers/{{name}}` and `postroom sources providers NAME` show the same.\n\n\
         Facts come from the providers' own libraries and documentation (November 2026). What could not be checked there \
         stands at the end of a guide under *Not verified*, and the pages that were read under *Checked against*. Retries and deadlines are the providers' and may change.\n\n\
         Every source answers 403 while it is switched off, 413 to a body over the limit, 429 when the month's events are \
         used up and 503 when the event cannot be made durable; providers try again after these.\n\n\
         | Provider | Name | Proof | Events known by |\n|---|---|---|---|\n"
    );
    for provider in providers {
        let known = provider.known_by();
        let known = known.unwrap_or_else(|| if provider.general { "options" } else { "nothing" }.to_owned());
        let (name, title, kind) = (provider.name, provider.title, provider.scheme_kind());
        let _ = writeln!(text, "| [{title}]({name}.md) | `{name}` | {kind} | {known} |");
    }
    text
}

/// The guide of one provider.
#[must_use]
pub fn page(provider: &Provider) -> String {
    let Guided { description, guide } = provider.guided();
    let mut text =
        format!("{MADE}\n# {}\n\nProvider `{}`: {}.\n", description.title, description.name, description.summary);
    if !description.signature_headers.is_empty() {
        let headers: Vec<String> = description.signature_headers.iter().map(|header| format!("`{header}`")).collect();
        let _ = writeln!(text, "The proof stands in the header {}.", headers.join(" or "));
    }
    if let Some(seconds) = description.tolerance_seconds {
        let _ = writeln!(text, "The signed time may be {seconds} s away from the time of arrival.");
    }
    let _ = write!(
        text,
        "\n## Set it up\n\n1. **URL.** {}\n2. **Secret.** {}\n3. **Events.** {}\n",
        guide.url, guide.secret, guide.events
    );
    let _ = write!(text, "\n## What it expects, and gets\n\n{}\n\n", guide.delivery);
    list(&mut text, guide.answers.iter().map(String::as_str));
    if !guide.notes.is_empty() {
        text.push_str("\n## Good to know\n\n");
        list(&mut text, guide.notes.iter().copied());
    }
    if !description.options.is_empty() {
        text.push_str("\n## Options of the source\n\n| Option | Value | Meaning |\n|---|---|---|\n");
        for option in &description.options {
            let kind = match option.kind {
                OptionKind::Text => "text".to_owned(),
                OptionKind::Document => "text of several lines".to_owned(),
                OptionKind::Integer { minimum, maximum } => format!("{minimum} to {maximum}"),
                OptionKind::OneOf { values } => values.join(", "),
            };
            let required = if option.required { ", required" } else { "" };
            let meaning = option.description.replace('|', "\\|");
            let _ = writeln!(text, "| `{}` | {kind}{required} | {meaning} |", option.name);
        }
    }
    let _ = write!(
        text,
        "\n## Try it\n\nWithout an account there: make the source, check a signed sample step by step, send it, and hand what \
         arrives to a program on your computer. Secrets, keys and ids here are examples; yours work in their place.\n\n```sh\n{}\n```\n",
        guide.commands.join("\n")
    );
    if !guide.unverified.is_empty() {
        text.push_str("\n## Not verified\n\n");
        list(&mut text, guide.unverified.iter().copied());
    }
    if !guide.references.is_empty() {
        text.push_str("\n## Checked against\n\nThe provider's own pages, as of November 2026:\n\n");
        list(&mut text, guide.references.iter().copied());
    }
    text
}

fn list<'a>(text: &mut String, items: impl Iterator<Item = &'a str>) {
    for item in items {
        let _ = writeln!(text, "- {item}");
    }
}
