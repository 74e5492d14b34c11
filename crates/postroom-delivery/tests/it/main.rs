//! Delivery from the outside: real sockets on both ends.

mod attempts;
mod egress;
mod receiver;
mod room;
mod stopping;
mod traffic;
mod watched;

use std::time::Duration;

/// Waits for something that comes soon; if it does not, the test fails instead of hanging.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it comes within half a minute")
}
