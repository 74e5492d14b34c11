//! Bodies: read whole, bounded in bytes, in time, and in sum over all requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt as _;

use crate::app::Shared;
use crate::problem::{Answer, Code, Problem};

/// How much of a body that is too large is still read and thrown away, and for how long: a client that is not listening
/// while it sends would otherwise see a reset connection instead of the 413.
const DISCARD_BYTES: usize = 4 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// The bytes of all bodies being read or handled, bounded.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Counter>);

struct Counter {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Counter { used: AtomicUsize::new(0), max }))
    }

    pub fn permit(&self) -> Permit {
        Permit { counter: self.0.clone(), held: 0 }
    }
}

/// A part of the budget, given back when dropped.
pub(crate) struct Permit {
    counter: Arc<Counter>,
    held: usize,
}

impl Permit {
    /// Holds `bytes` in all from now on.
    fn hold(&mut self, bytes: usize) -> Answer<()> {
        let Some(more) = bytes.checked_sub(self.held).filter(|more| *more > 0) else { return Ok(()) };
        let before = self.counter.used.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.counter.max {
            self.counter.used.fetch_sub(more, Ordering::Relaxed);
            return Err(Problem::overloaded());
        }
        self.held = bytes;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counter.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// A whole body, as it arrived. Its bytes count against the budget until this is dropped.
pub(crate) struct Whole {
    pub bytes: Bytes,
    _permit: Permit,
}

impl FromRequest<Shared> for Whole {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Shared) -> Answer<Self> {
        let (parts, body) = request.into_parts();
        read(state, &parts.headers, body).await
    }
}

/// Reads a body whole.
///
/// # Errors
/// 413, 408, 503 when too much is being read at once, and 400 when it broke off or is damaged.
pub(crate) async fn read<B>(state: &Shared, headers: &HeaderMap, mut body: B) -> Answer<Whole>
where
    B: Body<Data = Bytes> + Unpin,
{
    let limits = &state.app.limits;
    let declared = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let mut permit = state.bodies.permit();
    let collected = match declared {
        Some(0) => return Ok(Whole { bytes: Bytes::new(), _permit: permit }),
        Some(bytes) if bytes > limits.body_bytes_max => Err(too_large(limits.body_bytes_max)),
        _ => {
            permit.hold(declared.unwrap_or(0))?;
            let reading = collect(&mut body, declared, limits.body_bytes_max, &mut permit);
            match tokio::time::timeout(limits.body_timeout, reading).await {
                Ok(collected) => collected,
                Err(_) => {
                    let detail = format!("the body did not arrive within {} s", limits.body_timeout.as_secs());
                    Err(Problem::new(Code::RequestTimeout, detail).header(header::CONNECTION, CLOSE))
                }
            }
        }
    };
    match collected {
        Ok(bytes) => Ok(Whole { bytes, _permit: permit }),
        Err(problem) => {
            if problem.code() == Code::BodyTooLarge && !headers.contains_key(header::EXPECT) {
                let _ = tokio::time::timeout(DISCARD_TIME, discard(&mut body)).await;
            }
            Err(problem)
        }
    }
}

const CLOSE: http::HeaderValue = http::HeaderValue::from_static("close");

async fn collect<B>(body: &mut B, declared: Option<usize>, max: usize, permit: &mut Permit) -> Answer<Bytes>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::new(Code::InvalidRequest, "the body broke off or is damaged"))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.is_empty() && Some(data.len()) == declared {
            // The usual small body, all in one piece. Copied, because the piece keeps the connection's whole read
            // buffer alive, and the event may wait in memory for long.
            return Ok(Bytes::copy_from_slice(&data));
        }
        if whole.len() + data.len() > max {
            return Err(too_large(max));
        }
        permit.hold(whole.len() + data.len())?;
        if whole.is_empty() {
            whole.reserve(declared.unwrap_or(data.len()));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

async fn discard<B: Body<Data = Bytes> + Unpin>(body: &mut B) {
    let mut left = DISCARD_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn too_large(max: usize) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("the body may have {max} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_in_sum_are_bounded_and_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.permit();
        assert!(first.hold(60).is_ok() && first.hold(60).is_ok());
        let mut second = budget.permit();
        assert_eq!(second.hold(41).unwrap_err().code(), Code::Overloaded);
        assert!(second.hold(40).is_ok());
        drop(first);
        assert!(second.hold(100).is_ok());
    }
}
