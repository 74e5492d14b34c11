//! Answers kept for an `Idempotency-Key`.

use bytes::Bytes;

/// One use of an `Idempotency-Key`.
#[derive(Debug, Clone)]
pub struct IdempotencyClaim {
    /// The caller's key, 1 to 255 visible ASCII characters.
    pub key: String,
    /// SHA-256 of method, path and body.
    pub request_hash: [u8; 32],
}

/// What is known of an `Idempotency-Key`.
#[derive(Debug, Clone)]
pub enum Idempotency {
    /// Nobody used it: go on, and finish it.
    New,
    /// The same request was answered with this.
    Answered(StoredAnswer),
    /// The same request is under way (for at most 60 seconds; then the claim is given up).
    InProgress,
    /// Another request used it.
    Reused,
}

/// A stored HTTP answer.
#[derive(Debug, Clone)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// Its JSON.
    pub body: Bytes,
}
