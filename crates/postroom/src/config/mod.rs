//! Settings: read once, checked once, into a [`Config`] that cannot be wrong.
//!
//! Defaults, then `postroom.toml`, then `POSTROOM_*`, then flags. Every problem is reported at once, with the key and
//! where its value came from. Nothing else of the program reads the environment for settings, and a value that was not
//! understood never falls back to a default.

mod database;
mod layers;
mod mail;
mod parse;
pub mod settings;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use postroom_domain::Secret;
use postroom_domain::delivery::RetrySchedule;
use postroom_domain::organization::PlanLimits;
use url::Url;

pub use database::{Database, Postgres, Roles};
use layers::{Given, Layers};
pub use layers::{Origin, Problem};
pub use mail::{Mail, Security, Smtp};
pub use settings::{Flags, SETTINGS, Setting};

/// The settings of a server, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; port 0 picks one.
    pub listen: SocketAddr,
    /// Where everything is stored.
    pub database: Database,
    /// Which parts run.
    pub roles: Roles,
    /// How the outside reaches this server; `None` is derived from the address that was bound.
    pub public_url: Option<Url>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bearer token with super admin rights.
    pub admin_token: Option<Secret>,
    /// Encryption keys; `None` keeps them in the data directory of the embedded engine.
    pub encryption_keys: Option<Secret>,
    /// Where mail goes.
    pub mail: Mail,
    /// Waits between attempts.
    pub retry_schedule: RetrySchedule,
    /// The largest body accepted.
    pub max_body_bytes: usize,
    /// The deadline of one attempt.
    pub delivery_timeout: Duration,
    /// Private networks that deliveries may reach.
    pub allow_private_networks: Vec<IpNet>,
    /// How long duplicates are recognised.
    pub dedupe_window: Duration,
    /// How long events are kept.
    pub retention: Duration,
    /// How many events a month each plan has.
    pub plans: PlanLimits,
}

/// A setting as it is in force, for people: secrets are masked.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Which setting.
    pub setting: &'static Setting,
    /// Its value, or `***` for a secret that is set.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// What was read: the settings, or everything that is wrong with them.
#[derive(Debug)]
pub struct Loaded {
    /// The settings, if nothing is wrong.
    pub config: Result<Config, Problems>,
    /// Every setting as it stands, wrong ones too.
    pub shown: Vec<Shown>,
    /// What is allowed but should be looked at.
    pub warnings: Vec<String>,
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone)]
pub struct Problems(pub Vec<Problem>);

impl std::error::Error for Problems {}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "setting {one}"),
            many => {
                write!(f, "{} settings are wrong:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl Loaded {
    /// Reads the settings of this process.
    #[must_use]
    pub fn read(flags: &Flags) -> Self {
        Self::read_from(flags, std::env::vars_os())
    }

    /// Reads the settings of this process for work on the schema alone, which needs no encryption keys.
    #[must_use]
    pub fn read_without_keys(flags: &Flags) -> Self {
        Self::judge(Layers::read(flags, std::env::vars_os()), false)
    }

    /// Reads the settings from a given environment.
    pub fn read_from(flags: &Flags, environment: impl Iterator<Item = (OsString, OsString)>) -> Self {
        Self::judge(Layers::read(flags, environment), true)
    }

    fn judge(mut layers: Layers, needs_keys: bool) -> Self {
        let shown = SETTINGS.iter().map(|setting| show(setting, layers.values.get(setting.key))).collect();
        let config = check(&mut layers);
        database::check(&mut layers, &config, needs_keys);
        let config = if layers.problems.is_empty() { Ok(config) } else { Err(Problems(layers.problems)) };
        Self { config, shown, warnings: layers.warnings }
    }
}

fn show(setting: &'static Setting, given: Option<&Given>) -> Shown {
    let Some(given) = given else {
        return Shown { setting, value: setting.default.to_owned(), origin: Origin::Default };
    };
    let value = if setting.secret { "***".to_owned() } else { printable(given.text.expose_str().unwrap_or_default()) };
    Shown { setting, value, origin: given.origin.clone() }
}

/// Judges every value. What is wrong becomes a problem; the default stands in for it so that the rest is judged too.
fn check(layers: &mut Layers) -> Config {
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let data_dir = take(layers, "data_dir", "./postroom-data", parse::path);
    let config = Config {
        mail: mail::take(layers, &data_dir),
        listen: take(layers, "listen", "127.0.0.1:8080", parse::address),
        database: database::take(layers, data_dir),
        roles: take(layers, "roles", "all", parse::roles),
        public_url: take_optional(layers, "public_url", parse::public_url),
        trusted_proxies: take(layers, "trusted_proxies", "", parse::proxies),
        admin_token: take_optional(layers, "admin_token", parse::admin_token),
        encryption_keys: take_optional(layers, "encryption_keys", parse::encryption_keys),
        retry_schedule: take(layers, "retry_schedule", "60,300,900", parse::retry_schedule),
        max_body_bytes: take(layers, "max_body_bytes", "1048576", parse::body_bytes),
        delivery_timeout: Duration::from_millis(take(layers, "delivery_timeout_ms", "15000", |text| {
            parse::whole_number(text, 1_000..=30_000, "milliseconds")
        })),
        allow_private_networks: take(layers, "allow_private_networks", "", parse::networks),
        dedupe_window: days(take(layers, "dedupe_days", "7", |text| parse::whole_number(text, 1..=365, "days"))),
        retention: days(take(layers, "retention_days", "30", |text| parse::whole_number(text, 1..=3650, "days"))),
        plans: PlanLimits {
            free: take(layers, "free_webhook_limit", "1000", parse::webhook_limit),
            starter: take(layers, "starter_webhook_limit", "50000", parse::webhook_limit),
            premium: take(layers, "premium_webhook_limit", "none", parse::webhook_limit),
        },
    };
    mail::check(layers, &config);
    for network in config.allow_private_networks.iter().filter(|network| network.prefix_len() == 0) {
        layers.warnings.push(format!(
            "allow_private_networks contains {network}: deliveries may reach every address, also this machine, your \
             private network and cloud metadata services"
        ));
    }
    config
}

fn take<T>(layers: &mut Layers, key: &'static str, default: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
    let parsed = take_optional(layers, key, &parse);
    parsed.unwrap_or_else(|| parse(default).unwrap_or_else(|error| panic!("the default of {key} is valid: {error}")))
}

/// Settings whose empty value means something.
const MAY_BE_EMPTY: [&str; 3] = ["retry_schedule", "allow_private_networks", "trusted_proxies"];

fn take_optional<T>(layers: &mut Layers, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    let given = layers.values.get(key)?;
    let text = given.text.expose_str().unwrap_or_default().trim();
    let parsed = if text.is_empty() && !MAY_BE_EMPTY.contains(&key) {
        Err("is set but empty: give a value, or unset it to have the default".to_owned())
    } else {
        parse(text)
    };
    match parsed {
        Ok(value) => Some(value),
        Err(text) => {
            layers.problems.push(Problem { key: key.to_owned(), origin: Some(given.origin.clone()), text });
            None
        }
    }
}

/// Text of unknown origin for a terminal or a log: control characters are escaped, and it is cut at 200 characters.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(200)
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect();
    if text.chars().nth(200).is_some() {
        shown.push_str("...");
    }
    shown
}
