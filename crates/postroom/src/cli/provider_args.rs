//! What `sign` and `verify` share: provider, secrets and options on the command line, bounded input, and output that
//! survives a closed pipe.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use postroom_domain::provider::{self, FieldError, Provider};
use postroom_domain::{Secret, Timestamp};
use serde_json::{Map, Value};

/// Exit code for a command line that makes no sense.
pub const USAGE: u8 = 2;

/// The most bytes that are read from a file or from standard input.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Which provider, with what.
#[derive(Debug, clap::Args)]
pub struct ProviderArgs {
    /// Who signs: stripe, github, shopify, slack, mandrill, workos, standard-webhooks, hmac, none, ...
    #[arg(long, value_name = "NAME")]
    pub provider: String,

    /// An option of the source, such as tolerance_seconds=600; @file reads the value from a file
    #[arg(long = "option", value_name = "NAME=VALUE|NAME=@FILE")]
    pub options: Vec<String>,

    /// The moment to work at, in seconds since 1970 (default: now)
    #[arg(long, value_name = "UNIX_SECONDS", allow_negative_numbers = true)]
    pub now: Option<i64>,
}

impl ProviderArgs {
    /// The provider of that name.
    pub fn provider(&self) -> anyhow::Result<&'static Provider> {
        provider(&self.provider)
    }

    /// The options as a source would have them.
    pub fn options(&self, provider: &Provider) -> anyhow::Result<Map<String, Value>> {
        options(&self.options, provider)
    }

    /// The moment to work at.
    pub fn now(&self) -> Timestamp {
        self.now.map_or_else(wall_clock, Timestamp::from_seconds)
    }
}

/// The provider of a name.
pub fn provider(name: &str) -> anyhow::Result<&'static Provider> {
    provider::find(name).with_context(|| {
        let names: Vec<&str> = provider::all().iter().map(|row| row.name).collect();
        format!("there is no provider {name:?}; there are {}", names.join(", "))
    })
}

/// Options as a source would have them, from `name=value` and `name=@file`.
pub fn options(given: &[String], provider: &Provider) -> anyhow::Result<Map<String, Value>> {
    let known = provider.options();
    let mut options = Map::new();
    for given in given {
        let (name, value) = given
            .split_once('=')
            .with_context(|| format!("--option {given:?} has no `=`; write --option name=value"))?;
        let text = match value.strip_prefix('@') {
            Some(file) => String::from_utf8(read_input(file)?)
                .with_context(|| format!("{file} is not UTF-8 text"))?
                .trim_end_matches(['\r', '\n'])
                .to_owned(),
            None => value.to_owned(),
        };
        let value = known
            .iter()
            .find(|spec| spec.name == name)
            .map_or_else(|| Value::from(text.as_str()), |spec| spec.value_of_text(&text));
        if options.insert(name.to_owned(), value).is_some() {
            bail!("--option {name} is given twice");
        }
    }
    Ok(options)
}

#[expect(clippy::disallowed_methods, reason = "a command at a terminal works at the time of its machine")]
fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Secrets as given; a blank one is none, so that it is refused as a source without a secret refuses.
pub fn secrets(given: &[String]) -> Vec<Secret> {
    given.iter().filter(|text| !text.trim().is_empty()).map(|text| Secret::from(text.as_str())).collect()
}

/// A file's bytes, or those of standard input for `-`.
pub fn read_input(name: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if name == "-" {
        io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).context("can not read standard input")?;
    } else {
        let path = Path::new(name);
        let file = std::fs::File::open(path).with_context(|| format!("can not open {name}"))?;
        file.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("can not read {name}"))?;
    }
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        bail!("{name} is longer than {} MiB", INPUT_BYTES_MAX >> 20);
    }
    Ok(bytes)
}

/// Says on stderr what is wrong with the command line.
pub fn usage(error: &anyhow::Error) -> ExitCode {
    say(&format!("error: {error:#}\n"));
    ExitCode::from(USAGE)
}

/// Says on stderr everything that is wrong with provider, options and secret.
pub fn refused(errors: &[FieldError]) -> ExitCode {
    for error in errors {
        let flag = match error.field.as_str() {
            field @ ("provider" | "secret" | "body" | "type" | "id") => format!("--{field}"),
            field => format!("--option {field}"),
        };
        say(&format!("error: {flag}: {}\n", error.invalid));
    }
    ExitCode::from(USAGE)
}

fn say(text: &str) {
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

/// Writes to stdout. A reader that went away (`| head -1`) is not an error.
pub fn print(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("can not write to standard output"),
    }
}

/// Writes bytes that must not be touched, such as a body.
pub fn print_raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("can not write to standard output"),
    }
}
