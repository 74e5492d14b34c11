//! The official libraries of webhook providers, asked to sign and to verify. One process for each language runs as long as
//! the test binary and answers thousands of questions; `tests/sdks` holds the programs and the pinned versions.
//!
//! Tests that need this stand in a module named `sdks`, so that `scripts/test` can leave them out, and say so, where the
//! libraries cannot be had.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Names the folder that `scripts/with-sdks` has installed the libraries into.
const VARIABLE: &str = "POSTROOM_TEST_SDKS";

/// A webhook, signed or to be signed.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Whose rules apply, for example `stripe`.
    pub provider: String,
    /// The secret in the form in which the provider shows it.
    pub secret: String,
    /// The key of its sender, where the secret (or an option) is only the public side of it.
    pub private: String,
    /// What else its signature depends on, by name.
    pub options: Value,
    /// The HTTP method.
    pub method: String,
    /// The public URL.
    pub url: String,
    /// Names and values, in order; a name may stand there twice.
    pub headers: Vec<(String, String)>,
    /// The raw body.
    pub body: Vec<u8>,
    /// The moment at which it is signed or verified, in milliseconds since 1970.
    pub now: i64,
}

/// Every provider that is known here.
pub fn providers() -> Vec<String> {
    let mut all: Vec<String> =
        HELPERS.iter().flat_map(|helper| helper.known.as_object().expect("a map").keys()).cloned().collect();
    all.sort();
    all.dedup();
    all
}

/// What signs for a provider: the name of its library, or that its documented algorithm is followed.
#[must_use]
pub fn signed_by(provider: &str) -> Option<&'static str> {
    helper(provider, "signed_by").map(|(_, by)| by)
}

/// The library that verifies for a provider.
#[must_use]
pub fn verified_by(provider: &str) -> Option<&'static str> {
    helper(provider, "verified_by").map(|(_, by)| by)
}

/// Signs as the provider would, and gives the whole webhook back.
///
/// # Errors
/// What the library says if it signs no such thing.
pub fn sign(webhook: &Webhook) -> Result<Webhook, String> {
    let answer = ask(webhook, "sign", "signed_by");
    if let Some(error) = answer["error"].as_str() {
        return Err(error.to_owned());
    }
    let pairs = answer["headers"].as_array().expect("headers").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    Ok(Webhook {
        url: text(&answer["url"]),
        headers: pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        body: STANDARD.decode(text(&answer["body"])).expect("base64"),
        ..webhook.clone()
    })
}

/// Verifies with the provider's own library.
///
/// # Errors
/// Why it refuses.
pub fn verify(webhook: &Webhook) -> Result<(), String> {
    let answer = ask(webhook, "verify", "verified_by");
    assert!(answer["error"].is_null(), "{answer}");
    if answer["valid"] == true { Ok(()) } else { Err(answer["why"].as_str().unwrap_or_default().to_owned()) }
}

fn ask(webhook: &Webhook, what: &str, by: &str) -> Value {
    let (helper, _) = helper(&webhook.provider, by).unwrap_or_else(|| panic!("nobody can {what} {}", webhook.provider));
    helper.ask(&json!({
        "do": what,
        "provider": webhook.provider,
        "secret": webhook.secret,
        "private": webhook.private,
        "options": webhook.options,
        "method": webhook.method,
        "url": webhook.url,
        "headers": webhook.headers,
        "body": STANDARD.encode(&webhook.body),
        "now": webhook.now,
    }))
}

/// The process that can do this for the provider, and by which library.
fn helper(provider: &str, by: &str) -> Option<(&'static Helper, &'static str)> {
    HELPERS.iter().find_map(|helper| Some((helper, helper.known[provider][by].as_str()?)))
}

/// The Python that has the libraries.
pub(crate) fn python() -> PathBuf {
    folder().join("python/bin/python")
}

static HELPERS: LazyLock<[Helper; 2]> = LazyLock::new(|| {
    let (folder, programs) = (folder(), Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sdks"));
    [
        Helper::start(&python(), &programs.join("helper.py"), &folder),
        Helper::start(Path::new("node"), &programs.join("helper.mjs"), &folder),
    ]
});

#[expect(clippy::disallowed_methods, reason = "where the libraries stand; no setting of ours")]
fn folder() -> PathBuf {
    let folder = std::env::var_os(VARIABLE);
    folder.unwrap_or_else(|| panic!("run scripts/test, or scripts/with-sdks with the command")).into()
}

/// A process that answers one line with one line. It ends when this process does: its input closes then.
struct Helper {
    process: Mutex<(Child, BufReader<ChildStdout>)>,
    known: Value,
}

impl Helper {
    #[expect(
        clippy::disallowed_methods,
        reason = "programs are looked for where the surrounding says; no setting of ours"
    )]
    fn start(program: &Path, script: &Path, folder: &Path) -> Self {
        let mut child = Command::new(program)
            .arg(script)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONWARNINGS", "ignore")
            .env(VARIABLE, folder)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} of scripts/with-sdks: {error}", program.display()));
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut helper = Self { process: Mutex::new((child, output)), known: Value::Null };
        helper.known = helper.ask(&json!({ "do": "list" }));
        helper
    }

    fn ask(&self, question: &Value) -> Value {
        let mut process = self.process.lock().expect("no test has failed in the middle of a question");
        let (child, output) = &mut *process;
        writeln!(child.stdin.as_mut().expect("piped"), "{question}").expect("the helper runs");
        let mut line = String::new();
        output.read_line(&mut line).expect("the helper answers");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the helper ended on {question}"))
    }
}
