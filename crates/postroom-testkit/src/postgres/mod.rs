//! PostgreSQL for tests: a [`Database`] of its own for each test on the server that `scripts/test` started, and a [`Server`]
//! of its own for a test that wants to stop or kill it. [`Proxy`] and
//! [`PgBouncer`] stand between client and server.
//!
//! Tests that need this stand in a module whose name ends in `postgres`, so that `scripts/test` can leave them out, and say so,
//! where there is no PostgreSQL.

mod database;
mod machine;
mod pgbouncer;
mod proxy;
mod server;

pub use database::{APP_ROLE, Database, OWNER_ROLE};
pub use pgbouncer::PgBouncer;
pub use proxy::{Direction, Mode, Proxy};
pub use server::Server;

use std::net::SocketAddr;

use tokio_postgres::{Client, NoTls};

/// Connects, without TLS, with the connection's own work in a task of the current runtime.
///
/// # Panics
///
/// When the server does not let us in. The text has no password in it.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = match tokio_postgres::connect(url, NoTls).await {
        Ok(connected) => connected,
        Err(error) => panic!("no connection to {}: {}", shown(url), told(&error)),
    };
    // Its error also reaches whoever waits for an answer of the client.
    tokio::spawn(connection);
    client
}

/// An error with what the server said; its own text is only "db error".
fn told(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}

/// A URL without its password.
fn shown(url: &str) -> String {
    let Ok(mut url) = url::Url::parse(url) else { return "something that is no URL".to_owned() };
    if url.password().is_some() {
        url.set_password(Some("***")).ok();
    }
    url.to_string()
}

/// The same URL with another address in it.
fn at(url: &str, address: SocketAddr) -> String {
    let mut url = url::Url::parse(url).expect("a URL");
    url.set_ip_host(address.ip()).and_then(|()| url.set_port(Some(address.port()))).expect("the URL of a server");
    url.into()
}
