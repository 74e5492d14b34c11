//! Reads settings from where they can stand, as text, and remembers where each came from.
//!
//! It does not judge values: it knows names, layers and files only.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use postroom_domain::Secret;

use super::settings::{self, CLIENT_ENV, ENV_PREFIX, Flags};

/// The largest settings file or secret file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the settings file.
    File(PathBuf, usize),
    /// The environment, by the full name of the variable.
    Env(String),
    /// A command line flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key as its writer wrote it, or the name of the file.
    pub key: String,
    /// Where it stands.
    pub origin: Option<Origin>,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} ({origin}): {}", self.key, self.text),
            None => write!(f, "{}: {}", self.key, self.text),
        }
    }
}

/// A value as text, with its origin.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub text: Secret,
    pub origin: Origin,
}

/// The settings that somebody set, what is wrong with how, and what deserves a warning.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub values: BTreeMap<&'static str, Given>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<String>,
}

impl Layers {
    /// Reads the file, the environment and the flags, in this order: the later one wins.
    pub fn read(flags: &Flags, environment: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut layers = Self::default();
        layers.file(flags.config.as_deref());
        layers.environment(environment);
        for (key, text) in flags.given() {
            let origin = Origin::Flag(format!("--{}", key.replace('_', "-")));
            layers.values.insert(key, Given { text: Secret::from(text), origin });
        }
        layers
    }

    fn file(&mut self, named: Option<&Path>) {
        let path = named.unwrap_or(Path::new("postroom.toml"));
        if named.is_none() && !path.exists() {
            return;
        }
        let entries = match read_bounded(path).and_then(|text| parse_toml(&text)) {
            Ok(entries) => entries,
            Err(text) => return self.problem(path.display().to_string(), None, text),
        };
        let mut layer = Layer::default();
        for TomlEntry { key, line, value } in entries {
            let origin = Origin::File(path.to_owned(), line);
            match value {
                Ok(text) => layer.entries.push((key.clone(), key, Secret::from(text), origin)),
                Err(text) => self.problem(key, Some(origin), text),
            }
        }
        let holds_secret = layer.entries.iter().any(|(key, ..)| settings::find(key).is_some_and(|s| s.secret));
        if holds_secret {
            self.warn_if_readable(path);
        }
        self.add(layer);
    }

    fn environment(&mut self, environment: impl Iterator<Item = (OsString, OsString)>) {
        let mut layer = Layer::default();
        for (name, value) in environment {
            let name = name.to_string_lossy().into_owned();
            let Some(key) = name.strip_prefix(ENV_PREFIX) else { continue };
            if CLIENT_ENV.contains(&name.as_str()) {
                continue;
            }
            let (key, origin) = (key.to_lowercase(), Origin::Env(name.clone()));
            match value.into_string() {
                Ok(text) => layer.entries.push((key, name, Secret::from(text), origin)),
                Err(_) => self.problem(name, Some(origin), "the value is not UTF-8"),
            }
        }
        self.add(layer);
    }

    /// Adds a layer over those before. `admin_token_file` is a way to write `admin_token`: it takes its place, and both
    /// in one layer contradict each other.
    fn add(&mut self, layer: Layer) {
        let mut here: Vec<&'static str> = Vec::new();
        for (key, written, text, origin) in layer.entries {
            let of_file = key.strip_suffix("_file").and_then(settings::find).filter(|setting| setting.secret);
            let Some(setting) = settings::find(&key).or(of_file) else {
                self.unknown(&key, written, origin);
                continue;
            };
            if here.contains(&setting.key) {
                let text = format!("{} is given directly and as a file in the same place: keep one", setting.key);
                self.problem(written, Some(origin), text);
                continue;
            }
            here.push(setting.key);
            let text = if of_file.is_some() { self.secret_file(&written, &origin, &text) } else { Some(text) };
            if let Some(text) = text {
                self.values.insert(setting.key, Given { text, origin });
            }
        }
    }

    fn unknown(&mut self, key: &str, written: String, origin: Origin) {
        let in_environment = matches!(origin, Origin::Env(_));
        let advice = settings::nearest(key).map_or_else(
            || "`postroom config show` lists all settings".to_owned(),
            |near| {
                format!(
                    "did you mean {}?",
                    if in_environment { format!("{ENV_PREFIX}{}", near.to_uppercase()) } else { near }
                )
            },
        );
        self.problem(written, Some(origin), format!("unknown setting; {advice}"));
    }

    fn secret_file(&mut self, written: &str, origin: &Origin, path: &Secret) -> Option<Secret> {
        let path = PathBuf::from(path.expose_str().unwrap_or_default());
        if path.as_os_str().is_empty() {
            self.problem(
                written.to_owned(),
                Some(origin.clone()),
                "is set but empty: give the path of a file, or unset it",
            );
            return None;
        }
        match read_bounded(&path) {
            Ok(text) => {
                self.warn_if_readable(&path);
                Some(Secret::from(text.trim()))
            }
            Err(text) => {
                self.problem(written.to_owned(), Some(origin.clone()), format!("{}: {text}", path.display()));
                None
            }
        }
    }

    fn warn_if_readable(&mut self, path: &Path) {
        let mode = std::fs::metadata(path).map_or(0, |meta| meta.permissions().mode());
        if mode & 0o077 != 0 {
            let path = path.display();
            self.warnings.push(format!("{path} holds a secret and others may read it: run chmod 600 {path}"));
        }
    }

    fn problem(&mut self, key: String, origin: Option<Origin>, text: impl Into<String>) {
        self.problems.push(Problem { key: super::printable(&key), origin, text: text.into() });
    }
}

/// What one place says: key, the key as written there, text, origin.
#[derive(Default)]
struct Layer {
    entries: Vec<(String, String, Secret, Origin)>,
}

/// A small text file. Bounded, so that a wrong path to something huge or endless is an error and not a full memory.
fn read_bounded(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err("is a directory, not a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("is larger than 1 MiB: this cannot be the file that was meant".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not text in UTF-8".to_owned())
}

struct TomlEntry {
    key: String,
    line: usize,
    value: Result<String, String>,
}

/// The keys of a settings file with their values as the environment would write them.
fn parse_toml(text: &str) -> Result<Vec<TomlEntry>, String> {
    let line_of = |offset: usize| text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
    let table = toml::de::DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        format!("line {line} is not valid TOML: {}", error.message().replace('\n', ", "))
    })?;
    let mut entries: Vec<TomlEntry> = table
        .get_ref()
        .iter()
        .map(|(key, value)| TomlEntry {
            key: key.get_ref().to_string(),
            line: line_of(key.span().start),
            value: toml_text(value.get_ref()),
        })
        .collect();
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn toml_text(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    use toml::de::DeValue;
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Array(items) => {
            let items: Result<Vec<String>, String> = items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::Array(_) => Err("is a list inside a list".to_owned()),
                    other => toml_text(other),
                })
                .collect();
            Ok(items?.join(","))
        }
        DeValue::Boolean(_) => Err("is true or false, where text, a whole number or a list is expected".to_owned()),
        DeValue::Float(_) => Err("is a number with a fraction, where a whole number is expected".to_owned()),
        DeValue::Datetime(_) => Err("is a date, where text, a whole number or a list is expected".to_owned()),
        DeValue::Table(_) => Err("is a table: settings are not nested".to_owned()),
    }
}
