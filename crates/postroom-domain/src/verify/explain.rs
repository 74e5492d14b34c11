//! Why a request does or does not verify, for its owner.
//!
//! What is told holds no secret, no signature that would have been right, and the text of the request only escaped
//! and cut. Explaining costs several times a verification, so it is made when somebody asks, not for every refusal.

use serde::Serialize;

use super::trace::Trace as _;
use super::{Outcome, Refusal, Request, Step, Verifier, check, diagnose};
use crate::Timestamp;

/// Every check of one request.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The provider's name.
    pub provider: &'static str,
    /// What it came to.
    pub verdict: Verdict,
    /// With verdict `invalid`: what the sender was told, such as `signature_invalid`.
    pub code: Option<&'static str>,
    /// With verdict `invalid`: the stable name of the check that failed.
    pub failed_check: Option<&'static str>,
    /// The checks in the order they were made; the first that fails is the last.
    pub checks: Vec<Step>,
    /// With verdict `invalid`: what is most probably wrong and what to do, the likeliest first.
    pub likely_causes: Vec<String>,
    /// With verdict `valid`: the event's type.
    pub event_type: Option<String>,
    /// With verdict `valid`: the sender's id of the event.
    pub external_id: Option<String>,
}

/// What checking came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Proved; it would be recorded.
    Valid,
    /// A handshake of the provider; it would be answered and not recorded.
    Handshake,
    /// Refused with 401.
    Invalid,
}

impl Verifier {
    /// Checks a request as [`verify`](Self::verify) does and tells every step, and the likely cause of a refusal.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>, now: Timestamp) -> Explanation {
        self.explain_with_key(request, None, now)
    }

    /// The same with the answer to the [`KeyRequest`](super::KeyRequest) of an earlier run. Without it, a request that
    /// names a key is told as refused by the check `key`.
    #[must_use]
    pub fn explain_with_key(&self, request: &Request<'_>, key: Option<&[u8]>, now: Timestamp) -> Explanation {
        let mut checks = Vec::new();
        let outcome = match self.run(request, key, now, &mut checks) {
            Outcome::NeedsKey(needed) => {
                checks.failed(check::KEY, || match needed.token {
                    Some(_) => format!("the provider itself has to be asked at {}", needed.url),
                    None => format!("the key has to be fetched from {}", needed.url),
                });
                Outcome::Refused(Refusal::SignatureInvalid { check: check::KEY })
            }
            outcome => outcome,
        };
        let mut told = Explanation {
            provider: self.provider.name,
            verdict: Verdict::Valid,
            code: None,
            failed_check: None,
            checks,
            likely_causes: Vec::new(),
            event_type: None,
            external_id: None,
        };
        match outcome {
            Outcome::Verified(verified) => {
                let (event_type, external_id, _) = verified.into_parts();
                told.event_type = Some(event_type.as_str().to_owned());
                told.external_id = external_id;
            }
            Outcome::Learned { .. } => {
                told.verdict = Verdict::Handshake;
                told.checks.passed("handshake", || "it brings the source's secret, which is kept".to_owned());
            }
            Outcome::Confirm(confirm) => {
                told.verdict = Verdict::Handshake;
                told.checks.passed("handshake", || format!("confirmed by a visit to {}, not recorded", confirm.url));
            }
            Outcome::Handshake(answer) => {
                told.verdict = Verdict::Handshake;
                // A failed check before it belongs to the scheme that the handshake is not signed with.
                told.checks.retain(|step| step.passed);
                told.checks.passed("handshake", || {
                    format!("a request of the provider itself: answered with {}, not recorded", answer.status)
                });
            }
            // It became a refusal above.
            Outcome::NeedsKey(_) => {}
            Outcome::Refused(refusal) => {
                told.verdict = Verdict::Invalid;
                told.code = Some(refusal.code());
                told.failed_check = Some(refusal.check());
                told.likely_causes = diagnose::causes(self, request, now, refusal);
            }
        }
        told
    }
}
