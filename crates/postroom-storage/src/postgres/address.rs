//! Where a database is and as whom to go there, from its URL.
//!
//! What the client library does not know is taken out before it sees the URL: `sslrootcert`, a file with certificate
//! authorities to trust besides the public ones. Certificates are checked whenever TLS is used, so `verify-ca` and
//! `verify-full` are the same as `require`. No error of this module quotes a URL: it may hold a password.
//!
//! Of several hosts all are asked at once, and the first that is no standby is taken. The client library would ask one
//! after the other, and a machine that is lost says nothing at all: nobody would wait long enough to hear the next.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, select_ok};
use postroom_domain::Secret;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, TargetSessionAttrs};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::budget::Budget;
use super::open::OpenError;
use super::pool::Part;
use super::tls;

/// How long one address of a server may take to answer, and how long sent bytes may stay without a sign of it.
const ANSWER: Duration = Duration::from_secs(5);

/// See the [module](self).
#[derive(Clone)]
pub(super) struct Address {
    /// As whom, how, and to which hosts.
    pub(super) config: Config,
    /// The same for each of the hosts, of which there is at least one.
    hosts: Vec<Config>,
    tls: MakeRustlsConnect,
    /// What its connections are counted in.
    budget: Option<Arc<Budget>>,
}

impl Address {
    /// Reads a URL, and the file of certificate authorities it names.
    pub(super) fn parse(url: &Secret) -> Result<Self, OpenError> {
        let text = url.expose_str().ok_or_else(|| unreadable("it is not text"))?;
        let (text, authorities) = without_authorities(text)?;
        // The client's own error may quote what it could not read.
        let mut config: Config = text.parse().map_err(|_| unreadable("it is not of that form"))?;
        if config.get_user().is_none() || config.get_hosts().is_empty() {
            return Err(unreadable("it names no user or no host"));
        }
        config.application_name("postroom").connect_timeout(ANSWER).tcp_user_timeout(ANSWER);
        config.keepalives_idle(ANSWER).keepalives_interval(Duration::from_secs(1)).keepalives_retries(4);
        if config.get_hosts().len() > 1 {
            // Of several, the one that is no standby now.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        let hosts = each_host(&config);
        Ok(Self { config, hosts, tls: tls::connector(authorities.as_deref())?, budget: None })
    }

    /// The same, with as many connections as can be afforded.
    pub(super) fn within(self, budget: Option<&Arc<Budget>>) -> Self {
        Self { budget: budget.cloned(), ..self }
    }

    /// The name of the login.
    pub(super) fn login(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// A connection of nobody's pool. The task ends with the connection, which ends when the client is dropped.
    pub(super) async fn connect(&self) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let afforded = match &self.budget {
            Some(budget) => budget.afford().await,
            None => None,
        };
        let asked = self.hosts.iter().map(|host| Box::pin(host.connect(self.tls.clone())));
        let ((client, connection), _others) = select_ok(asked).await?;
        // Whoever uses the client is told of errors there.
        let task = tokio::spawn(async move {
            drop(connection.await);
            drop(afforded);
        });
        Ok((client, task))
    }
}

impl deadpool_postgres::Connect for Address {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        Box::pin(Self::connect(self))
    }
}

/// The same login at each of several hosts.
fn each_host(config: &Config) -> Vec<Config> {
    if config.get_hosts().len() == 1 {
        return vec![config.clone()];
    }
    let ports = config.get_ports();
    let of = |(at, host): (usize, &Host)| {
        let mut one = bare(config);
        match host {
            Host::Tcp(name) => one.host(name),
            Host::Unix(path) => one.host_path(path),
        };
        if let Some(address) = config.get_hostaddrs().get(at) {
            one.hostaddr(*address);
        }
        // One port may stand for all of them.
        if let Some(port) = ports.get(at).or(ports.first()) {
            one.port(*port);
        }
        one
    };
    config.get_hosts().iter().enumerate().map(of).collect()
}

/// Everything but where.
fn bare(config: &Config) -> Config {
    let mut bare = Config::new();
    config.get_user().into_iter().for_each(|user| _ = bare.user(user));
    config.get_password().into_iter().for_each(|password| _ = bare.password(password));
    config.get_dbname().into_iter().for_each(|name| _ = bare.dbname(name));
    config.get_options().into_iter().for_each(|options| _ = bare.options(options));
    config.get_application_name().into_iter().for_each(|name| _ = bare.application_name(name));
    config.get_connect_timeout().into_iter().for_each(|time| _ = bare.connect_timeout(*time));
    config.get_tcp_user_timeout().into_iter().for_each(|time| _ = bare.tcp_user_timeout(*time));
    config.get_keepalives_interval().into_iter().for_each(|time| _ = bare.keepalives_interval(time));
    config.get_keepalives_retries().into_iter().for_each(|count| _ = bare.keepalives_retries(count));
    bare.keepalives(config.get_keepalives()).keepalives_idle(config.get_keepalives_idle());
    bare.ssl_mode(config.get_ssl_mode()).ssl_negotiation(config.get_ssl_negotiation());
    bare.target_session_attrs(config.get_target_session_attrs()).channel_binding(config.get_channel_binding());
    bare
}

/// The addresses of all parts: which parts go the same way.
pub(super) fn of_parts(
    url: &Secret,
    part_urls: &HashMap<Part, Secret>,
    budget: Option<&Arc<Budget>>,
) -> Result<Vec<(Address, Vec<Part>)>, OpenError> {
    let (own, common): (Vec<Part>, Vec<Part>) = Part::ALL.iter().partition(|part| part_urls.contains_key(*part));
    let mut ways = Vec::new();
    if !common.is_empty() {
        ways.push((Address::parse(url)?.within(budget), common));
    }
    for part in own {
        ways.push((Address::parse(part_urls.get(&part).unwrap_or(url))?.within(budget), vec![part]));
    }
    Ok(ways)
}

fn unreadable(why: &str) -> OpenError {
    OpenError::Url(why.to_owned())
}

/// The URL as the client takes it, and the file of certificate authorities.
fn without_authorities(url: &str) -> Result<(String, Option<PathBuf>), OpenError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(unreadable("it is not of that form"));
    }
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let mut kept = Vec::new();
    let mut authorities = None;
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslrootcert", "system")) => {}
            Some(("sslrootcert", path)) => {
                let path = percent_encoding::percent_decode_str(path).decode_utf8();
                let path = path.map_err(|_| unreadable("the path after sslrootcert= is not UTF-8"))?;
                authorities = Some(Path::new(path.as_ref()).to_owned());
            }
            Some(("sslmode", "verify-ca" | "verify-full")) => kept.push("sslmode=require"),
            Some(("sslmode", "disable" | "prefer" | "require")) => kept.push(pair),
            Some(("sslmode", _)) => return Err(unreadable("sslmode is disable, prefer, require or verify-full")),
            _ => kept.push(pair),
        }
    }
    Ok((format!("{base}?{}", kept.join("&")), authorities))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_does_not_know_is_taken_out_of_the_url() {
        let base = "postgres://postroom:hunter2@localhost/postroom";
        for (query, left, file) in [
            ("", "", None),
            ("?sslmode=disable", "?sslmode=disable", None),
            ("?sslmode=verify-full&sslrootcert=/etc/ca%20x.pem", "?sslmode=require", Some("/etc/ca x.pem")),
            ("?sslrootcert=system&sslmode=require", "?sslmode=require", None),
            ("?connect_timeout=3&sslrootcert=ca.pem", "?connect_timeout=3", Some("ca.pem")),
        ] {
            let (url, authorities) = without_authorities(&format!("{base}{query}")).unwrap();
            assert_eq!((url, authorities.as_deref()), (format!("{base}{left}"), file.map(Path::new)), "{query}");
        }
    }

    #[test]
    fn of_several_hosts_each_is_asked_with_all_that_the_url_says() {
        let rest = "/postroom?sslmode=require&options=-cgeqo%3Doff&connect_timeout=7&keepalives_idle=9";
        let parse = |hosts: &str| {
            let url = format!("postgres://postroom:hunter2@{hosts}{rest}");
            Address::parse(&Secret::from(url.as_str())).unwrap().hosts
        };
        for (hosts, each) in [
            ("db1", &["db1"][..]),
            ("db1,db2", &["db1", "db2"]),
            ("db1:5433,db2:5434,[::1]:5435", &["db1:5433", "db2:5434", "[::1]:5435"]),
        ] {
            let mut expected: Vec<Config> = each.iter().flat_map(|host| parse(host)).collect();
            if each.len() > 1 {
                expected.iter_mut().for_each(|one| _ = one.target_session_attrs(TargetSessionAttrs::ReadWrite));
            }
            assert_eq!(parse(hosts), expected, "{hosts}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_read_is_never_quoted() {
        for url in [
            "",
            "hunter2",
            "mysql://postroom:hunter2@localhost/postroom",
            "postgres://postroom:hunter2@localhost:hunter2/postroom",
            "postgres://postroom:hunter2@/postroom",
            "postgres://localhost/hunter2",
            "postgres://postroom:hunter2@localhost/postroom?sslmode=hunter2",
            "postgres://postroom:hunter2@localhost/postroom?hunter2=hunter2",
            "postgres://postroom:hunter2@localhost/postroom?sslrootcert=%ff",
        ] {
            let Err(error) = Address::parse(&Secret::from(url)) else { panic!("{url} is read") };
            let text = format!("{error} {error:?}");
            assert!(text.contains("postgres://user:password@host:port/database"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        assert!(Address::parse(&Secret::from("postgres://postroom:hunter2@localhost/postroom")).is_ok());
    }
}
