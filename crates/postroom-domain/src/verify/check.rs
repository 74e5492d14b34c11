//! The stable names of the checks, as rejections keep them and the explainer shows them.

/// The source has no secret, so nothing can be proved.
pub const SECRET: &str = "secret";
/// The header (or body field) with the signature is there, once, and not empty.
pub const SIGNATURE_HEADER: &str = "signature_header";
/// The signature header stands in the request once.
pub const SIGNATURE_HEADER_TWICE: &str = "signature_header_twice";
/// The signature header has the scheme's form, and a signature in it can be read.
pub const SIGNATURE_FORMAT: &str = "signature_format";
/// The signed time is there.
pub const TIMESTAMP_MISSING: &str = "timestamp_missing";
/// The signed time is written as the scheme wants.
pub const TIMESTAMP_FORMAT: &str = "timestamp_format";
/// Every header and value that was signed is there, once.
pub const SIGNED_PART: &str = "signed_part";
/// A signature matches what a secret makes of the request.
pub const SIGNATURE: &str = "signature";
/// The signed time is near enough to the time of arrival.
pub const TIMESTAMP_TOLERANCE: &str = "timestamp_tolerance";
/// The certificate that the request names is on a host of the provider.
pub const CERTIFICATE_URL: &str = "certificate_url";
/// The certificate is one of the provider, in date, and leads to a trusted root where its chain can be checked.
pub const CERTIFICATE: &str = "certificate";
/// The key that the request names could be had.
pub const KEY: &str = "key";
/// The body is the one whose digest was signed.
pub const BODY_DIGEST: &str = "body_digest";
/// The token is meant for this source.
pub const CLAIMS: &str = "claims";
/// The message is of the topic that the source expects.
pub const TOPIC: &str = "topic";
/// The secret that a handshake brings is the one already known.
pub const HANDSHAKE_SECRET: &str = "handshake_secret";
/// The secret text in the header is the configured one.
pub const TOKEN: &str = "token";
