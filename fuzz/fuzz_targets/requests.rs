//! Requests that nobody signed, at every provider: none panics, none is believed.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use postroom_domain::provider::{self, Provider};
use postroom_domain::verify::{Outcome, Request, Verifier};

#[expect(dead_code, reason = "the tests of verification use all of it")]
#[path = "../../crates/postroom-domain/tests/it/support.rs"]
mod support;

/// Every provider that asks for a proof, with a source of it.
static SOURCES: LazyLock<Vec<(&'static Provider, Verifier)>> = LazyLock::new(|| {
    let proving = provider::all().iter().filter(|row| row.name != "none");
    proving.map(|row| (row, support::Source::of(row.name).verifier())).collect()
});

#[derive(Debug, Arbitrary)]
struct Sent<'a> {
    provider: u8,
    method: &'a str,
    url: &'a str,
    /// For the headers that the provider's signature stands in, in order.
    proofs: Vec<&'a [u8]>,
    others: Vec<(&'a [u8], &'a [u8])>,
    body: &'a [u8],
}

fuzz_target!(|sent: Sent<'_>| {
    let (row, verifier) = &SOURCES[usize::from(sent.provider) % SOURCES.len()];
    let mut headers = HeaderMap::new();
    let proofs = row.describe().signature_headers.into_iter().map(|name| name.as_bytes().to_vec());
    let proofs = proofs.zip(sent.proofs);
    for (name, value) in proofs.chain(sent.others.into_iter().map(|(name, value)| (name.to_vec(), value))).take(64) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let request = Request { method: sent.method, url: sent.url, headers: &headers, body: sent.body };
    let outcome = verifier.verify(&request, support::at(0));
    assert!(!matches!(outcome, Outcome::Verified(_)), "{}", row.name);
    let _told = verifier.explain(&request, support::at(0));
});
