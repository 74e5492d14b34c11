//! A signed request whose proof was replaced, at every provider: none panics, and none verifies but the one that was
//! signed. This is where the parsers of signature headers get furthest.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use http::{HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use postroom_domain::provider;
use postroom_domain::verify::{SignedRequest, Verifier};

#[expect(dead_code, reason = "the tests of verification use all of it")]
#[path = "../../crates/postroom-domain/tests/it/support.rs"]
mod support;

/// A source of every provider that asks for a proof, a signed request, and the headers without which it does not verify.
static SIGNED: LazyLock<Vec<(Verifier, SignedRequest, Vec<HeaderName>)>> = LazyLock::new(|| {
    let proving = provider::all().iter().filter(|row| row.name != "none");
    proving
        .map(|row| {
            let source = support::Source::of(row.name);
            let (verifier, signed) = (source.verifier(), source.signed_sample(1, support::at(0)));
            let proves = |name: &&HeaderName| {
                let mut without = signed.clone();
                without.headers.remove(*name);
                // Where PayPal's certificate stands is not signed: what stands there is.
                *name != "paypal-cert-url"
                    && support::verdict(&verifier, &without, support::at(0)).starts_with("signature_")
            };
            let proofs = signed.headers.keys().filter(proves).cloned().collect();
            (verifier, signed, proofs)
        })
        .collect()
});

#[derive(Debug, Arbitrary)]
struct Replaced<'a> {
    provider: u8,
    header: u8,
    value: &'a [u8],
}

fuzz_target!(|replaced: Replaced<'_>| {
    let (verifier, signed, proofs) = &SIGNED[usize::from(replaced.provider) % SIGNED.len()];
    let Some(name) = proofs.get(usize::from(replaced.header) % proofs.len().max(1)) else { return };
    let Ok(value) = HeaderValue::from_bytes(replaced.value) else { return };
    let mut changed = signed.clone();
    changed.headers.insert(name.clone(), value);
    if support::verdict(verifier, &changed, support::at(0)) == "ok" {
        assert!(is_same(changed.headers[name].as_bytes(), signed.headers[name].as_bytes()), "{name}");
    }
});

/// The words Basic and Bearer have no case.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (words, rest) = (one.len().min(6), other.len().min(6));
    one[..words].eq_ignore_ascii_case(&other[..rest]) && one[words..] == other[rest..]
}
