//! `postroom verify`: explains step by step why a request does or does not verify.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context, bail};
use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use postroom_domain::provider::Provider;
use postroom_domain::verify::{Request, Verdict, Verifier};
use serde::Deserialize;

use super::explained;
use super::provider_args::{ProviderArgs, print, read_input, refused, secrets, usage};

/// Check a webhook as a source would, and explain every check.
///
/// Give the request with --header and --body, or whole with --request (what `postroom sign` prints). Exit 0: it
/// verifies. Exit 1: it does not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  postroom verify --provider slack --secret 8f7422... --header 'X-Slack-Signature: v0=a21...' \\
      --header 'X-Slack-Request-Timestamp: 1531420618' --now 1531420618 --body body.txt
  postroom sign --provider stripe --secret whsec_123 | postroom verify --provider stripe --secret whsec_123")]
pub struct Args {
    #[command(flatten)]
    with: ProviderArgs,

    /// A secret of the source; give several while one rotates
    #[arg(long = "secret", value_name = "SECRET", allow_hyphen_values = true)]
    secrets: Vec<String>,

    /// The HTTP method (default: POST)
    #[arg(long)]
    method: Option<String>,

    /// The URL as the provider knows it; Mandrill and others sign it
    #[arg(long)]
    url: Option<String>,

    /// A header of the request
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,

    /// The body: a file, or - for standard input (default: an empty one)
    #[arg(long, value_name = "FILE|-")]
    body: Option<String>,

    /// The whole request as `postroom sign` prints it, as HTTP text or JSON: a file, or - for standard input. This is
    /// the default when neither --header nor --body is given
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["headers", "body"])]
    request: Option<String>,

    /// Print the explanation as one line of JSON
    #[arg(long)]
    json: bool,
}

/// A request put together from the command line.
struct Given {
    method: String,
    url: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// The form in which `postroom sign --json` writes a request.
#[derive(Deserialize)]
struct JsonRequest {
    method: String,
    url: String,
    headers: std::collections::BTreeMap<String, String>,
    body: Option<String>,
    body_base64: Option<String>,
}

impl Args {
    /// Runs the command: exit 0 valid (or a handshake), 1 invalid, 2 when the command line makes no sense.
    ///
    /// # Errors
    /// When standard output can not be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (provider, options, given) = match self.prepare() {
            Ok(prepared) => prepared,
            Err(error) => return Ok(usage(&error)),
        };
        let verifier = match Verifier::compile(provider.name, &options, &secrets(&self.secrets)) {
            Ok(verifier) => verifier,
            Err(errors) => return Ok(refused(&errors)),
        };
        let request = Request { method: &given.method, url: &given.url, headers: &given.headers, body: &given.body };
        let told = verifier.explain(&request, self.with.now());
        if self.json {
            print(format!("{}\n", serde_json::to_string(&told)?).as_bytes())?;
        } else {
            print(explained::written(&serde_json::to_value(&told)?).as_bytes())?;
        }
        Ok(if told.verdict == Verdict::Invalid { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn prepare(&self) -> anyhow::Result<(&'static Provider, serde_json::Map<String, serde_json::Value>, Given)> {
        let provider = self.with.provider()?;
        let options = self.with.options(provider)?;
        if provider.needs_secret() && self.secrets.is_empty() {
            bail!("give --secret, the one that {} signs with", provider.title);
        }
        let mut given = self.request()?;
        if let Some(method) = &self.method {
            given.method = method.to_ascii_uppercase();
        }
        if let Some(url) = &self.url {
            given.url.clone_from(url);
        }
        if given.url.is_empty() && provider.signs_url() && !options.contains_key("public_url") {
            bail!("{} signs the URL: give --url as it is registered there", provider.title);
        }
        Ok((provider, options, given))
    }

    fn request(&self) -> anyhow::Result<Given> {
        let whole = match &self.request {
            Some(name) => Some(name.as_str()),
            None if self.headers.is_empty() && self.body.is_none() => Some("-"),
            None => None,
        };
        if let Some(name) = whole {
            if name == "-" && std::io::stdin().is_terminal() {
                bail!("give the request: --header 'Name: value' and --body FILE, or --request FILE");
            }
            return parsed(&read_input(name)?);
        }
        let mut headers = HeaderMap::new();
        for header in &self.headers {
            put(&mut headers, header.as_bytes())?;
        }
        let body = self.body.as_deref().map(read_input).transpose()?.unwrap_or_default();
        Ok(Given { method: "POST".to_owned(), url: String::new(), headers, body })
    }
}

/// Reads what `sign` prints, in either form. Nothing at all is a request without headers and body.
fn parsed(text: &[u8]) -> anyhow::Result<Given> {
    if text.first() == Some(&b'{') {
        let request: JsonRequest = serde_json::from_slice(text)
            .context("the request is not JSON with method, url, headers and body (or body_base64)")?;
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            put(&mut headers, format!("{name}: {value}").as_bytes())?;
        }
        let body = match (request.body, request.body_base64) {
            (Some(_), Some(_)) => bail!("the request has both body and body_base64"),
            (None, Some(text)) => {
                base64::engine::general_purpose::STANDARD.decode(text).context("body_base64 is not base64")?
            }
            (text, None) => text.unwrap_or_default().into_bytes(),
        };
        return Ok(Given { method: request.method, url: request.url, headers, body });
    }
    let mut given =
        Given { method: "POST".to_owned(), url: String::new(), headers: HeaderMap::new(), body: Vec::new() };
    let mut rest = text;
    let mut first = true;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.is_empty() {
            given.body = rest.to_vec();
            return Ok(given);
        }
        if first {
            let line = std::str::from_utf8(line).context("the first line of the request is not text")?;
            let mut words = line.split(' ');
            let (Some(method), Some(url), Some(_)) = (words.next(), words.next(), words.next()) else {
                bail!("the request does not begin with a line such as POST https://host/path HTTP/1.1");
            };
            (given.method, given.url) = (method.to_owned(), url.to_owned());
            first = false;
        } else {
            put(&mut given.headers, line)?;
        }
    }
    if text.is_empty() { Ok(given) } else { bail!("the request has no empty line between its headers and its body") }
}

fn put(headers: &mut HeaderMap, line: &[u8]) -> anyhow::Result<()> {
    let shown = line.escape_ascii();
    let at = line.iter().position(|byte| *byte == b':');
    let at = at.with_context(|| format!("the header \"{shown}\" has no colon; write 'Name: value'"))?;
    let name = HeaderName::from_bytes(line[..at].trim_ascii())
        .with_context(|| format!("\"{}\" is not the name of a header", line[..at].escape_ascii()))?;
    let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii())
        .with_context(|| format!("the value of the header {name} can not stand in a request"))?;
    headers.try_append(name, value).context("too many headers")?;
    Ok(())
}
