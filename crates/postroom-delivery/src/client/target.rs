//! What a URL says about a request: where to connect to, and what stands in its first lines.

use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;
use url::{Host as UrlHost, Url};

use super::{Destination, Host};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) destination: Destination,
    /// Path and query.
    pub(crate) uri: Uri,
    /// The header `host`.
    pub(crate) host: HeaderValue,
}

impl Target {
    /// Reads a URL; on failure, why it can not be requested.
    pub(crate) fn of(url: &Url) -> Result<Self, String> {
        let host = url.host().ok_or("the URL has no host")?;
        let port = url.port_or_known_default().ok_or("the URL has no port")?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let tls = match url.scheme() {
            "http" => None,
            _ => Some(server_name(&host)?),
        };
        let host = match host {
            UrlHost::Ipv4(ip) => Host::Ip(ip.into()),
            UrlHost::Ipv6(ip) => Host::Ip(ip.into()),
            UrlHost::Domain(name) => Host::Name(name.into()),
        };
        let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        Ok(Self {
            destination: Destination { host, port, tls },
            uri: target.parse().map_err(|error| format!("the URL can not be requested: {error}"))?,
            host: authority.parse().map_err(|_| "the host can not be sent as a header")?,
        })
    }
}

fn server_name(host: &UrlHost<&str>) -> Result<ServerName<'static>, String> {
    match host {
        UrlHost::Ipv4(ip) => Ok(ServerName::IpAddress((*ip).into())),
        UrlHost::Ipv6(ip) => Ok(ServerName::IpAddress((*ip).into())),
        // A certificate is for the name without the dot that only says that it is complete.
        UrlHost::Domain(name) => ServerName::try_from(name.strip_suffix('.').unwrap_or(name).to_owned())
            .map_err(|_| format!("no certificate can be for the name {name}")),
    }
}
