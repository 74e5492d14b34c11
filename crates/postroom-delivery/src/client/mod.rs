//! The one client for everything that goes out: HTTP/1.1, with or without TLS (1.2 at least), to addresses that the
//! egress policy lets through.
//!
//! It follows no redirect, asks for no compression and unpacks none, uses no proxy and reads nothing from the
//! environment. Deadlines are the caller's.

mod connect;
mod connection;
mod fetch;
mod resolve;
mod target;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use postroom_domain::egress::Policy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use self::connect::Connector;
pub(crate) use self::connect::{Destination, Host};
pub(crate) use self::connection::{Answer, Pool};
use self::connection::{Connection, ExchangeError};
pub use self::fetch::{FetchError, Fetched, Posted};
pub use self::resolve::Lookup;
use self::resolve::Resolver;
pub(crate) use self::target::Target;

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The extra certificates are not PEM, or none is in there, or one is no certificate.
    #[error("the extra CA certificates can not be used: {0}")]
    ExtraCa(String),
    /// The TLS library refused its settings.
    #[error("TLS can not be set up")]
    Tls(#[source] rustls::Error),
    /// The text can not stand in a header.
    #[error("the user agent {0:?} can not be sent as a header")]
    UserAgent(String),
}

/// See the [module](self). Cheap to clone.
#[derive(Clone)]
pub struct Client {
    connector: Connector,
    policy: Arc<Policy>,
    tls: Arc<rustls::ClientConfig>,
    user_agent: http::HeaderValue,
    idle_in_all: Arc<AtomicUsize>,
}

impl Client {
    /// A client that resolves names as the system does and trusts the usual certificate authorities, and those in
    /// `extra_ca_pem`.
    ///
    /// # Errors
    /// The certificates or the user agent can not be used.
    pub fn new(policy: Arc<Policy>, user_agent: &str, extra_ca_pem: Option<&[u8]>) -> Result<Self, ClientError> {
        let tls = Arc::new(tls_config(extra_ca_pem)?);
        let user_agent = user_agent.parse().map_err(|_| ClientError::UserAgent(user_agent.to_owned()))?;
        let connector = Connector::new(policy.clone(), Resolver::system(), tls.clone());
        Ok(Self { connector, policy, tls, user_agent, idle_in_all: Arc::default() })
    }

    /// The same client with another way to resolve names.
    #[must_use]
    pub fn with_lookup(mut self, lookup: Lookup) -> Self {
        self.connector = Connector::new(self.policy.clone(), Resolver::new(lookup), self.tls.clone());
        self
    }

    /// A pool for the connections to one endpoint.
    pub(crate) fn pool(&self) -> Pool {
        Pool::new(self.idle_in_all.clone())
    }

    pub(crate) fn user_agent(&self) -> &http::HeaderValue {
        &self.user_agent
    }

    /// Sends one request and reads the answer into `answer`, as far as it comes: when this fails or is dropped, what
    /// had arrived by then is in there. `make` is called again when a connection from the pool turns out to be dead.
    pub(crate) async fn exchange(
        &self,
        pool: &Pool,
        to: &Destination,
        make: impl Fn() -> Request<Full<Bytes>>,
        answer: &mut Option<Answer>,
    ) -> Result<(), ExchangeError> {
        // The receiver closes idle connections when it likes. A kept one that ends without a byte of an answer says
        // nothing about the receiver, and `webhook-id` makes a repetition safe, so the request goes out again.
        if let Some(mut kept) = pool.take() {
            match kept.round_trip(make(), answer).await {
                Err(error) if answer.is_none() && error.is_close() => {}
                result => return result.map(|()| pool.put(kept)),
            }
        }
        // In a box: what a TLS handshake needs would make every attempt three times as large.
        let mut fresh = Box::pin(async { Connection::open(self.connector.connect(to).await?).await }).await?;
        fresh.round_trip(make(), answer).await?;
        pool.put(fresh);
        Ok(())
    }
}

fn tls_config(extra_ca_pem: Option<&[u8]>) -> Result<rustls::ClientConfig, ClientError> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = extra_ca_pem {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ClientError::ExtraCa(error.to_string()))?;
        if certificates.is_empty() {
            return Err(ClientError::ExtraCa("no certificate (-----BEGIN CERTIFICATE-----) is in there".to_owned()));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| ClientError::ExtraCa(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(ClientError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_certificates_that_are_none_are_refused_with_what_is_wrong() {
        for pem in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let made = Client::new(Arc::default(), "Postroom/1", Some(pem.as_bytes()));
            assert!(matches!(made, Err(ClientError::ExtraCa(_))), "{pem:?}");
        }
        assert!(matches!(Client::new(Arc::default(), "a\nb", None), Err(ClientError::UserAgent(_))));
        assert!(Client::new(Arc::default(), "Postroom/1", None).is_ok());
    }
}
