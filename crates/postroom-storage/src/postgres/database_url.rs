//! What a database URL says, judged before anybody connects. No text made here repeats a value: it may be a password.

use postroom_domain::Secret;
use tokio_postgres::config::Host;

use super::address::Address;
use super::open::OpenError;

/// Where a server listens that says nothing else.
const PORT: u16 = 5432;

/// Parameters that a URL may have behind its database.
const PARAMETERS: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "load_balance_hosts",
    "channel_binding",
    "options",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
];

/// How a character that means something in a URL is written where it means itself.
const PERCENT: &str = "write special characters in percent form (@ is %40, : is %3A, / is %2F, ? is %3F, % is %25)";

/// A database URL that can be used. Shown, it is hosts and database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    hosts: Vec<(String, u16)>,
    user: String,
    database: String,
}

impl DatabaseUrl {
    /// Judges a URL; connects nowhere.
    ///
    /// # Errors
    /// [`OpenError::Url`], which says what would be right and repeats no value; or that the file of certificate
    /// authorities it names cannot be used.
    pub fn parse(url: &Secret) -> Result<Self, OpenError> {
        let wrong = |text: String| OpenError::Url(text);
        let text = url.expose_str().ok_or_else(|| wrong("it is not text".to_owned()))?;
        judge(text).map_err(wrong)?;
        let Address { config, .. } = Address::parse(url)?;
        let user = config.get_user().filter(|name| !name.is_empty());
        let user = user.ok_or_else(|| wrong("it names no user".to_owned()))?.to_owned();
        let database = config.get_dbname().filter(|name| !name.is_empty());
        let database = database.ok_or_else(|| wrong("it names no database".to_owned()))?;
        let ports = config.get_ports().iter().copied().chain(std::iter::repeat(PORT));
        let hosts: Vec<(String, u16)> = config.get_hosts().iter().map(host).zip(ports).collect();
        if hosts.is_empty() || hosts.iter().any(|(host, _)| host.is_empty()) {
            return Err(wrong("it names no host".to_owned()));
        }
        Ok(Self { hosts, user, database: database.to_owned() })
    }

    /// Who logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Names or addresses of the servers, with their ports.
    #[must_use]
    pub fn hosts(&self) -> &[(String, u16)] {
        &self.hosts
    }
}

impl std::fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (host, _)) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if at > 0 { "," } else { "" })?;
        }
        write!(f, "/{}", self.database)
    }
}

fn host(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// What the client would take for something else than was meant, or refuse without saying why.
fn judge(text: &str) -> Result<(), String> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("it has white space or control characters in it".to_owned());
    }
    let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
    let rest = rest.ok_or("it does not begin with postgres://")?;
    let (_, behind) = rest.split_once('@').ok_or("it names no user")?;
    let (place, parameters) = behind.split_once('?').unwrap_or((behind, ""));
    if place.contains('@') {
        return Err(format!("there is more than one @ in it: {PERCENT}"));
    }
    let hosts = place.split('/').next().unwrap_or_default();
    if !hosts.split(',').all(port_is_right) {
        return Err("a port is not a number from 1 to 65535".to_owned());
    }
    parameters.split('&').filter(|parameter| !parameter.is_empty()).try_for_each(judge_parameter)
}

fn port_is_right(host: &str) -> bool {
    // The colons of an IPv6 address stand in brackets.
    let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
    behind.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn judge_parameter(parameter: &str) -> Result<(), String> {
    let (name, value) = parameter.split_once('=').ok_or("a parameter has no value")?;
    match name {
        "sslmode" if !["disable", "prefer", "require", "verify-ca", "verify-full"].contains(&value) => {
            Err("sslmode is disable, prefer, require or verify-full".to_owned())
        }
        known if PARAMETERS.contains(&known) => Ok(()),
        _ => Err(format!("it has a parameter that means nothing here; known are {}", PARAMETERS.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_would_be_right_and_never_repeated() {
        let cases = [
            ("", "does not begin with postgres://"),
            ("mysql://u:hunter2@h/d", "does not begin with postgres://"),
            ("host=h user=u password=hunter2", "white space"),
            ("host=h", "does not begin with postgres://"),
            ("postgres://u:hun@ter2@h/d", "more than one @"),
            ("postgres://u:hun@ter2/x@h/d", "more than one @"),
            ("postgres://u:x@h/d?host=hunter2", "means nothing here"),
            ("postgres://u:hunter2@h/d?sslmode=hunter2", "sslmode is disable, prefer, require or verify-full"),
            ("postgres://u:hunter2@h/d?sslmode=", "sslmode is disable, prefer, require or verify-full"),
            ("postgres://u:hunter2@h/d?hunter2=1", "means nothing here"),
            ("postgres://u:hunter2@h/d?sslmode", "has no value"),
            ("postgres://u:hunter2@h:99999/d", "port"),
            ("postgres://u:hunter2@h:0/d", "port"),
            ("postgres://u:hunter2@h:x/d", "port"),
            ("postgres://u:hunter2@h", "names no database"),
            ("postgres://u:hunter2@h/", "names no database"),
            ("postgres://u:hunter2@/d", "no host"),
            ("postgres://h/d", "names no user"),
            ("postgres://:hunter2@h/d", "names no user"),
            ("postgres://u:hunter2@h/d\n", "white space"),
            ("postgres://u:hunter2@h/d?target_session_attrs=hunter2", "is not of that form"),
        ];
        for (url, expected) in cases {
            let error = DatabaseUrl::parse(&Secret::from(url)).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn special_characters_several_hosts_and_parameters_are_understood() {
        let cases = [
            ("postgres://u:p%40s%2Fs%3F%25@h:5433/d", "h/d"),
            ("postgresql://us%40er@[::1]:5432/my%20db?sslmode=require", "::1/my db"),
            ("postgres://u:p#:&/?ss@one:1,two/d?target_session_attrs=read-write&sslmode=verify-full", "one,two/d"),
            ("postgres://u@%2Frun%2Fpostgresql/d", "/run/postgresql/d"),
        ];
        for (url, shown) in cases {
            let read = DatabaseUrl::parse(&Secret::from(url)).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(read.to_string(), shown, "{url}");
        }
        let two = DatabaseUrl::parse(&Secret::from("postgres://u@one:1,[::1]/d")).unwrap();
        assert_eq!(two.hosts(), [("one".to_owned(), 1), ("::1".to_owned(), 5432)]);
    }
}
