//! `postroom sign`: makes a request that is signed as a provider would sign it.

use std::process::ExitCode;

use anyhow::{Context, bail};
use base64::Engine as _;
use postroom_domain::Secret;
use postroom_domain::provider::{FieldError, Payload, Provider, sample, sample_kinds};
use postroom_domain::verify::{self, PublicSide, SignedRequest};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Map, Value, json};

use super::provider_args::{ProviderArgs, print, print_raw, read_input, refused, secrets, usage};

/// Where a request goes whose URL nobody gave and nobody signs.
const NO_URL: &str = "http://127.0.0.1:8080/";

/// Sign a body, or a sample of ours, as a provider would.
///
/// Prints the request as HTTP text, which `postroom verify` reads; see also --json and --curl.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  postroom sign --provider stripe --secret whsec_123 --curl --url http://127.0.0.1:8080/in/acme-corp/stripe | sh
  postroom sign --provider github --secret s3cret --type issues.opened | postroom verify --provider github --secret s3cret
  echo '{\"a\":1}' | postroom sign --provider shopify --secret s3cret --body - --json
  postroom sign --provider aws-sns --public cert.pem | postroom verify --provider aws-sns --option cert_pem=@cert.pem")]
pub struct Args {
    #[command(flatten)]
    with: ProviderArgs,

    /// The secret to sign with
    #[arg(long, allow_hyphen_values = true)]
    secret: Option<String>,

    /// The private key to sign with, for providers that have one: PKCS#8 in PEM (Discord: 64 hexadecimal digits,
    /// standard-webhooks-v1a: whsk_...). Without it, a fresh one is made when --public is given
    #[arg(long, value_name = "FILE|-", conflicts_with = "secret")]
    private_key: Option<String>,

    /// Where to write what goes with the private key: the public key for --secret, or the file for --option jwk=@FILE
    /// or --option cert_pem=@FILE
    #[arg(long, value_name = "FILE")]
    public: Option<String>,

    /// The URL as the provider knows it; Mandrill and others sign it
    #[arg(long)]
    url: Option<String>,

    /// The body: a file, or - for standard input (default: a sample of ours)
    #[arg(long, value_name = "FILE|-")]
    body: Option<String>,

    /// The event type: which sample, and the header that names it
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// The event id, for providers that name it in a header (default: a fresh one)
    #[arg(long)]
    id: Option<String>,

    /// Print method, url, headers and body as one line of JSON
    #[arg(long, conflicts_with = "curl")]
    json: bool,

    /// Print a curl command that sends the request
    #[arg(long)]
    curl: bool,
}

impl Args {
    /// Runs the command: exit 0, or 2 when the command line makes no sense.
    ///
    /// # Errors
    /// When standard output can not be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (provider, payload, options) = match self.prepare() {
            Ok(prepared) => prepared,
            Err(error) => return Ok(usage(&error)),
        };
        let secret = match self.key(provider, &options) {
            Ok(Ok(secret)) => secret,
            Ok(Err(errors)) => return Ok(refused(&errors)),
            Err(error) => return Ok(usage(&error)),
        };
        let url = self.url.as_deref().unwrap_or(NO_URL);
        let signed = match verify::sign(provider.name, &options, secret.as_ref(), &payload, url, self.with.now()) {
            Ok(signed) => signed,
            Err(errors) => return Ok(refused(&errors)),
        };
        if self.json {
            print(format!("{}\n", to_json(&signed)).as_bytes())?;
        } else if self.curl {
            match to_curl(&signed) {
                Ok(command) => print_raw(command.as_bytes())?,
                Err(error) => return Ok(usage(&error)),
            }
        } else {
            print_raw(&to_http(&signed))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn prepare(&self) -> anyhow::Result<(&'static Provider, Payload, serde_json::Map<String, Value>)> {
        let provider = self.with.provider()?;
        let options = self.with.options(provider)?;
        if self.url.is_none() && !options.contains_key("public_url") && (self.curl || provider.signs_url()) {
            bail!("give --url, the address as {} knows it", provider.title);
        }
        let mut payload = match &self.body {
            Some(name) => Payload { event_type: self.event_type.clone(), ..Payload::of_body(read_input(name)?) },
            None => self.sample(provider)?,
        };
        if self.id.is_some() {
            payload.external_id.clone_from(&self.id);
        }
        Ok((provider, payload, options))
    }

    /// The secret or private key, with the public side of the latter written to where it is wanted.
    fn key(
        &self,
        provider: &Provider,
        options: &Map<String, Value>,
    ) -> anyhow::Result<Result<Option<Secret>, Vec<FieldError>>> {
        let mut given = secrets(self.secret.as_slice()).into_iter().next();
        if let Some(file) = &self.private_key {
            given = Some(Secret::new(read_input(file)?.trim_ascii().to_vec()));
        }
        let Some(file) = &self.public else { return Ok(Ok(given)) };
        let fresh = || verify::private_key(provider.name, options);
        let private = match given.map_or_else(fresh, |given| Ok(Some(given))) {
            Ok(private) => private,
            Err(errors) => return Ok(Err(errors)),
        };
        let side = private.as_ref().map(|private| verify::public_side(provider.name, options, private)).transpose();
        let text = match side {
            Ok(Some(Some(side))) => written(provider, side)?,
            Ok(_) => bail!("{} has one secret for both sides: --public is not for it", provider.title),
            Err(errors) => return Ok(Err(errors)),
        };
        std::fs::write(file, text).with_context(|| format!("can not write {file}"))?;
        Ok(Ok(private))
    }

    fn sample(&self, provider: &Provider) -> anyhow::Result<Payload> {
        let now = self.with.now();
        let number = u64::try_from(now.as_millis()).unwrap_or(0);
        sample(provider.name, self.event_type.as_deref(), number, now).with_context(|| {
            let kinds: Vec<&str> = sample_kinds(provider.name).collect();
            format!("there is no such sample of {}; there are {}; or give --body", provider.title, kinds.join(", "))
        })
    }
}

/// What a source needs to accept what a private key signs, as a file.
fn written(provider: &Provider, side: PublicSide) -> anyhow::Result<String> {
    Ok(match side {
        PublicSide::Secret(text) | PublicSide::Jwk(text) => format!("{text}\n"),
        PublicSide::Certificate(pkcs8) => {
            let key = PrivatePkcs8KeyDer::from(pkcs8.expose());
            let key = rcgen::KeyPair::try_from(&key).context("no certificate can be made for this key")?;
            let name =
                if provider.name == "paypal" { "messageverificationcerts.paypal.com" } else { "sns.amazonaws.com" };
            let mut certificate = rcgen::CertificateParams::new([name.to_owned()])?;
            certificate.distinguished_name.push(rcgen::DnType::CommonName, name);
            certificate.self_signed(&key)?.pem()
        }
    })
}

/// The request as it goes over the wire, but with the whole URL in its first line.
fn to_http(signed: &SignedRequest) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\n", signed.method, signed.url).into_bytes();
    for (name, value) in &signed.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&signed.body);
    text
}

/// `body` as text, or `body_base64` if it is not UTF-8.
fn to_json(signed: &SignedRequest) -> Value {
    let headers: serde_json::Map<String, Value> = signed
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), Value::from(String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    let mut request = json!({ "method": signed.method.as_str(), "url": signed.url, "headers": headers });
    match std::str::from_utf8(&signed.body) {
        Ok(text) => request["body"] = Value::from(text),
        Err(_) => {
            request["body_base64"] = Value::from(base64::engine::general_purpose::STANDARD.encode(&signed.body));
        }
    }
    request
}

fn to_curl(signed: &SignedRequest) -> anyhow::Result<String> {
    let body = std::str::from_utf8(&signed.body).ok().filter(|body| !body.contains('\0'));
    let body = body.context("the body is not text that fits a command line; use --json")?;
    let mut command = format!("curl -sS -X {} {}", signed.method, quoted(&signed.url));
    for (name, value) in &signed.headers {
        let value = value.to_str().context("a header is not text that fits a command line; use --json")?;
        command.push_str(&format!(" \\\n  -H {}", quoted(&format!("{name}: {value}"))));
    }
    command.push_str(&format!(" \\\n  --data-raw {}\n", quoted(body)));
    Ok(command)
}

/// One word for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
