//! How the text of each setting is judged. Every error says what would be right.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;
use postroom_domain::Secret;
use postroom_domain::delivery::RetrySchedule;
use postroom_domain::keyring::Keyring;
use postroom_domain::organization::WEBHOOK_LIMIT_MAX;
use postroom_storage::postgres::DatabaseUrl;
use url::Url;

use super::{Roles, printable};

type Parsed<T> = Result<T, String>;

/// The shortest admin token, in characters.
const ADMIN_TOKEN_MIN: usize = 32;
/// Tokens of documents and examples: everybody knows them.
const EXAMPLE_MARKS: [&str; 4] = ["change-me", "changeme", "replace-me", "example"];

pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    text.parse()
        .map_err(|_| format!("{:?} is not an address and a port, such as 127.0.0.1:8080 or [::]:8080", printable(text)))
}

pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    if text.contains('\0') { Err("a path cannot contain a NUL character".to_owned()) } else { Ok(PathBuf::from(text)) }
}

pub(super) fn whole_number(text: &str, range: RangeInclusive<u64>, unit: &str) -> Parsed<u64> {
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        format!("{:?} is not a whole number of {unit} from {} to {}", printable(text), range.start(), range.end())
    })
}

/// Events a month of a plan.
pub(super) fn webhook_limit(text: &str) -> Parsed<Option<u64>> {
    match text {
        "none" => Ok(None),
        "0" => {
            Err("is 0, with which nothing is accepted: give 1 or more, or none for no limit; an organization that may \
                    send nothing is switched off, or has a limit of its own"
                .to_owned())
        }
        _ => match whole_number(text, 1..=WEBHOOK_LIMIT_MAX, "events a month") {
            Ok(limit) => Ok(Some(limit)),
            Err(wrong) => Err(format!("{wrong}, nor none (no limit)")),
        },
    }
}

pub(super) fn body_bytes(text: &str) -> Parsed<usize> {
    let bytes = whole_number(text, 1024..=64 * 1024 * 1024, "bytes")?;
    usize::try_from(bytes).map_err(|_| "is more than this machine can address".to_owned())
}

pub(super) fn retry_schedule(text: &str) -> Parsed<RetrySchedule> {
    let wrong = |reason: &str| {
        format!("{:?} is not a list of seconds such as 60,300,900 (empty: no retry): {reason}", printable(text))
    };
    let seconds: Option<Vec<u64>> = match text {
        "" => Some(Vec::new()),
        _ => text.split(',').map(|item| item.trim().parse().ok()).collect(),
    };
    let seconds = seconds.ok_or_else(|| wrong("each item is a whole number"))?;
    RetrySchedule::new(&seconds).map_err(|invalid| wrong(&invalid.detail))
}

pub(super) fn networks(text: &str) -> Parsed<Vec<IpNet>> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(network).collect()
}

pub(super) fn proxies(text: &str) -> Parsed<Vec<IpNet>> {
    let proxies = networks(text)?;
    match proxies.iter().find(|network| network.prefix_len() == 0) {
        Some(all) => {
            Err(format!("{all} is every address: then everybody could claim to be anybody; name your proxies"))
        }
        None => Ok(proxies),
    }
}

fn network(text: &str) -> Parsed<IpNet> {
    let network: IpNet = text
        .parse()
        .map_err(|_| format!("{:?} is not a network in CIDR form, such as 127.0.0.0/8", printable(text)))?;
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(format!("{network} has bits set behind its prefix; did you mean {}?", network.trunc()))
    }
}

pub(super) fn admin_token(text: &str) -> Parsed<Secret> {
    let advice = "make one with: openssl rand -hex 32";
    if text.chars().count() < ADMIN_TOKEN_MIN {
        return Err(format!("is shorter than {ADMIN_TOKEN_MIN} characters; {advice}"));
    }
    if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(format!("may only hold visible ASCII characters; {advice}"));
    }
    let lower = text.to_lowercase();
    let distinct: std::collections::HashSet<char> = text.chars().collect();
    if EXAMPLE_MARKS.iter().any(|mark| lower.contains(mark)) || distinct.len() < 8 {
        return Err(format!("can be guessed: it is an example, or nearly one character only; {advice}"));
    }
    Ok(Secret::from(text))
}

pub(super) fn encryption_keys(text: &str) -> Parsed<Secret> {
    let keys = Secret::from(text);
    Keyring::parse(&keys).map_err(|error| error.to_string())?;
    Ok(keys)
}

pub(super) fn database_url(text: &str) -> Parsed<Secret> {
    let url = Secret::from(text);
    DatabaseUrl::parse(&url).map_err(|error| error.to_string())?;
    Ok(url)
}

pub(super) fn roles(text: &str) -> Parsed<Roles> {
    if text == "all" {
        return Ok(Roles::ALL);
    }
    let mut roles = Roles { receiver: false, api: false, worker: false };
    for name in text.split(',').map(str::trim) {
        match name {
            "receiver" => roles.receiver = true,
            "api" => roles.api = true,
            "worker" => roles.worker = true,
            "dashboard" => {
                return Err(
                    "this version has no dashboard: leave it out; there are receiver, api and worker".to_owned()
                );
            }
            _ => return Err(format!("{:?} is no role: there are receiver, api and worker", printable(name))),
        }
    }
    Ok(roles)
}

pub(super) fn public_url(text: &str) -> Parsed<Url> {
    let shown = printable(text);
    let wrong = |reason: &str| format!("{shown:?} {reason}, such as https://hooks.your-company.com");
    if !text.starts_with("https://") && !text.starts_with("http://") {
        return Err(wrong("does not begin with https:// or http://; give scheme and host"));
    }
    let url = Url::parse(text).map_err(|error| wrong(&format!("is not a URL ({error}); give scheme and host")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user name or password; give scheme and host only".to_owned());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has more than scheme, host and port; give these only"));
    }
    if url.scheme() == "http" && is_public(&url) {
        return Err(wrong("is plain http on a public name: webhooks and API keys would travel readable; use https"));
    }
    Ok(url)
}

/// Whether a URL's host looks like one that strangers reach: a global address, or a name with a dot that is not one of
/// the endings reserved for private use.
fn is_public(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => !is_local(IpAddr::V4(ip)),
        Some(url::Host::Ipv6(ip)) => !is_local(ip.to_canonical()),
        Some(url::Host::Domain(name)) => {
            let private = [".localhost", ".local", ".internal", ".test", ".lan", ".home.arpa"];
            name.contains('.') && !private.iter().any(|ending| name.ends_with(ending))
        }
        None => false,
    }
}

fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}
