//! X.509 certificates that requests are signed with: whose they are, whether they are in date, and who vouches for them.
//!
//! Where a chain can be checked it is: always when the source names its roots, and when the file brings the
//! certificates of its issuers along. A file with nothing but the leaf is believed for where it came from: over TLS
//! from a host of the provider, or out of the source's own options.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, Pem, X509Certificate};

use crate::Timestamp;

/// The most certificates of one file.
const MAX_CERTIFICATES: usize = 8;

/// What a certificate has to be.
#[derive(Debug)]
pub(super) struct Trust {
    /// Whether a name is one of the provider's.
    pub names: fn(&str) -> bool,
    /// The source's own roots.
    pub roots: Vec<CertificateDer<'static>>,
    /// The source's owner gave the certificate, in place of the provider's server.
    pub is_given: bool,
    /// Name and dates of a given certificate count too.
    pub checks_given: bool,
}

/// The certificates of a PEM file, in its order.
pub(super) fn read(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let mut all = Vec::new();
    for block in Pem::iter_from_buffer(pem).take(MAX_CERTIFICATES) {
        let block = block.map_err(|_| "it is not PEM")?;
        if block.label == "CERTIFICATE" {
            X509Certificate::from_der(&block.contents).map_err(|_| "a certificate in it can not be read")?;
            all.push(CertificateDer::from(block.contents));
        }
    }
    if all.is_empty() { Err("no certificate (-----BEGIN CERTIFICATE-----) is in it") } else { Ok(all) }
}

/// The public key (SPKI) of the first certificate, if all of it can be trusted now; else what is wrong.
pub(super) fn public_key(
    certificates: &[CertificateDer<'_>],
    trust: &Trust,
    now: Timestamp,
) -> Result<Vec<u8>, &'static str> {
    let (leaf, others) = certificates.split_first().ok_or("there is no certificate")?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| "the certificate can not be read")?;
    if !trust.is_given || trust.checks_given {
        if !names(&parsed).iter().any(|name| (trust.names)(&name.to_ascii_lowercase())) {
            return Err("the certificate is not one of the provider: its names are others");
        }
        let at = ASN1Time::from_timestamp(now.as_seconds()).map_err(|_| "the time is none")?;
        if !parsed.validity().is_valid_at(at) {
            return Err("the certificate is not valid at this time");
        }
    }
    if !trust.roots.is_empty() {
        // An owner may name the certificate itself.
        if !trust.roots.contains(leaf) {
            let anchors: Vec<TrustAnchor<'_>> =
                trust.roots.iter().filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
            chain(leaf, others, &anchors, now)?;
        }
    } else if !trust.is_given && !others.is_empty() {
        chain(leaf, others, webpki_roots::TLS_SERVER_ROOTS, now)?;
    }
    Ok(parsed.public_key().raw.to_vec())
}

fn chain(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    now: Timestamp,
) -> Result<(), &'static str> {
    let seconds = u64::try_from(now.as_seconds()).map_err(|_| "the time is none")?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let leaf = EndEntityCert::try_from(leaf).map_err(|_| "the certificate is not one of a server")?;
    leaf.verify_for_usage(ALL_VERIFICATION_ALGS, anchors, others, at, KeyUsage::server_auth(), None, None)
        .map(drop)
        .map_err(|_| "the certificate does not lead to a trusted root")
}

/// The common name and the DNS names.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let dns = alternative.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    common.chain(dns).map(str::to_owned).collect()
}
