//! How mail leaves this process: through an SMTP server, or into files.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use lettre::message::Mailbox;
use percent_encoding::percent_decode_str;
use postroom_domain::Secret;
use url::Url;

use super::layers::Layers;
use super::{Config, printable};

/// Port of SMTP for programs, with STARTTLS (RFC 6409).
const SUBMISSION_PORT: u16 = 587;
/// Port of SMTP for programs in TLS from the first byte (RFC 8314).
const SUBMISSIONS_PORT: u16 = 465;

/// Where mail goes.
#[derive(Debug, Clone)]
pub enum Mail {
    /// To this server.
    Smtp(Smtp),
    /// Into this directory, for a person to look at.
    Files(PathBuf),
}

/// A server that takes mail.
#[derive(Debug, Clone)]
pub struct Smtp {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How what is said stays between the two.
    pub security: Security,
    /// User name and password.
    pub login: Option<(Secret, Secret)>,
    /// Who the mail is from; `None` is `postroom` at the public host.
    pub from: Option<Mailbox>,
    /// A file of certificate authorities (PEM) to trust beside the public ones.
    pub authorities: Option<PathBuf>,
}

/// How a connection to an SMTP server is protected. With TLS the server's certificate is always checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte.
    Tls,
    /// `STARTTLS` before anything is said; a server without it gets no mail.
    StartTls,
    /// None at all.
    None,
}

/// Takes the setting out of the layers.
pub(super) fn take(layers: &mut Layers, data_dir: &std::path::Path) -> Mail {
    match super::take_optional(layers, "smtp_url", parse) {
        Some(smtp) => Mail::Smtp(smtp),
        None => Mail::Files(data_dir.join("mail")),
    }
}

/// What is right alone and odd together.
pub(super) fn check(layers: &mut Layers, config: &Config) {
    if matches!(config.mail, Mail::Smtp(_)) && config.public_url.is_none() {
        let text = "smtp_url is set and public_url is not: links in mails lead to the address this server listens on";
        layers.warnings.push(text.to_owned());
    }
}

/// Judges a URL. It holds a password, so no error repeats it.
fn parse(text: &str) -> Result<Smtp, String> {
    let form = "give smtp://user:password@host:587 (STARTTLS) or smtps://user:password@host:465";
    let is_tls = match text.split_once("://").map(|(scheme, _)| scheme) {
        Some("smtp") => false,
        Some("smtps") => true,
        _ => return Err(format!("does not begin with smtp:// or smtps://; {form}")),
    };
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); {form}"))?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| format!("names no host; {form}"))?;
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        return Err(
            "has more behind its host than options; write special characters of user and password in percent form"
                .to_owned(),
        );
    }
    let mut options = options(&url)?;
    let is_near = is_loopback(host);
    let security = security(is_tls, is_near, options.remove("tls").as_deref())?;
    let login = login(&url)?;
    if login.is_some() && security == Security::None && !is_near {
        return Err("would send the password readable over the network: leave tls=none out".to_owned());
    }
    let from = options.remove("from").map(|from| sender(&from)).transpose()?;
    let authorities = options.remove("ca").map(PathBuf::from);
    if let Some(unknown) = options.keys().next() {
        return Err(format!("{:?} means nothing here; there are from, tls and ca", printable(unknown)));
    }
    let default = if is_tls { SUBMISSIONS_PORT } else { SUBMISSION_PORT };
    let port = url.port().unwrap_or(default);
    if port == 0 {
        return Err(format!("port 0 is none; {form}"));
    }
    Ok(Smtp { host: host.trim_matches(['[', ']']).to_owned(), port, security, login, from, authorities })
}

fn options(url: &Url) -> Result<HashMap<String, String>, String> {
    let mut options = HashMap::new();
    for (key, value) in url.query_pairs() {
        if options.insert(key.clone().into_owned(), value.into_owned()).is_some() {
            return Err(format!("{:?} is given twice", printable(&key)));
        }
    }
    Ok(options)
}

fn security(is_tls: bool, is_near: bool, asked: Option<&str>) -> Result<Security, String> {
    match (is_tls, asked) {
        (true, None) => Ok(Security::Tls),
        (true, Some(_)) => Err("smtps is TLS from the first byte: leave tls out, or begin with smtp://".to_owned()),
        (false, Some("required")) => Ok(Security::StartTls),
        (false, Some("none")) => Ok(Security::None),
        // A relay of this machine: there is nobody in between, and seldom a certificate for it.
        (false, None) => Ok(if is_near { Security::None } else { Security::StartTls }),
        (false, Some(_)) => Err("tls is required or none".to_owned()),
    }
}

fn login(url: &Url) -> Result<Option<(Secret, Secret)>, String> {
    let decode = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "user and password are text in UTF-8")?;
        Ok::<_, String>(Secret::from(decoded.as_ref()))
    };
    match (url.username(), url.password()) {
        ("", None) => Ok(None),
        (user, Some(password)) if !user.is_empty() => Ok(Some((decode(user)?, decode(password)?))),
        _ => Err("has a user without a password, or a password without a user; give both or none".to_owned()),
    }
}

fn sender(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|_| {
        format!("from={:?} is not a mail address such as hooks@example.com; write + as %2B", printable(text))
    })
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_how_and_as_whom() {
        for (text, host, port, security) in [
            ("smtp://u:p@mail.example.com", "mail.example.com", 587, Security::StartTls),
            ("smtp://mail.example.com:25?tls=none", "mail.example.com", 25, Security::None),
            ("smtp://localhost:1025", "localhost", 1025, Security::None),
            ("smtp://[::1]:1025/", "::1", 1025, Security::None),
            ("smtp://u:p@127.0.0.1?tls=required", "127.0.0.1", 587, Security::StartTls),
            ("smtps://u:p@mail.example.com", "mail.example.com", 465, Security::Tls),
        ] {
            let smtp = parse(text).unwrap();
            assert_eq!((smtp.host.as_str(), smtp.port, smtp.security), (host, port, security), "{text}");
            assert_eq!(smtp.login.is_some(), text.contains("u:p"), "{text}");
        }
        let smtp = parse("smtps://a%40b:p%2Fq%20r@h?from=Hooks%20%3Chooks@example.com%3E&ca=/etc/ca.pem").unwrap();
        assert_eq!(smtp.login, Some((Secret::from("a@b"), Secret::from("p/q r"))));
        assert_eq!(smtp.from.unwrap().to_string(), "Hooks <hooks@example.com>");
        assert_eq!(smtp.authorities.unwrap().to_str(), Some("/etc/ca.pem"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (text, expected) in [
            ("hunter2", "does not begin with smtp://"),
            ("http://u:hunter2@h", "does not begin with smtp://"),
            ("smtp://", "host"),
            ("smtp://u:hunter2@h:587/x", "more behind its host"),
            ("smtp://u:hunter2/x@h", "URL"),
            ("smtp://u:hunter2@h#x", "more behind its host"),
            ("smtp://u:hunter2@h:0", "port 0"),
            ("smtp://u:hunter2@h:99999", "is not a URL"),
            ("smtp://u@h", "user without a password"),
            ("smtp://:hunter2@h", "password without a user"),
            ("smtp://u:hunter2@h?tls=none", "password readable"),
            ("smtp://u:hunter2@h?tls=opportunistic", "tls is required or none"),
            ("smtps://u:hunter2@h?tls=required", "leave tls out"),
            ("smtp://u:hunter2@h?from=nobody", "not a mail address"),
            ("smtp://u:hunter2@h?from=a@b%0d%0aBcc:c@d", "not a mail address"),
            ("smtp://u:hunter2@h?pool=3", "\"pool\" means nothing here"),
            ("smtp://u:hunter2@h?tls=none&tls=required", "given twice"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
