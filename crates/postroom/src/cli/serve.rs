//! `postroom serve`: the server, until it is told to stop.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::output::{self, FAINT, GOOD, STRONG, styled};
use crate::config::{Config, Database, Flags, Loaded};
use crate::run::{Server, local_url};
use crate::threads::Threads;
use crate::{logging, process, telemetry};

/// How to serve.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  postroom serve
  postroom serve --listen 127.0.0.1:0 --data-dir /tmp/try --allow-private-networks 127.0.0.0/8

Stop it with Ctrl-C or SIGTERM: it lets what is under way end, for 20 seconds at most. A second signal ends it at once.")]
pub struct ServeArgs {
    #[command(flatten)]
    flags: Flags,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the settings are wrong or the server cannot start.
pub fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    process::set_limits();
    logging::start(false);
    telemetry::install();
    let loaded = Loaded::read(&args.flags);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let config = loaded.config?;
    Threads::of(config.roles).rest()?.block_on(until_stopped(config))
}

async fn until_stopped(config: Config) -> anyhow::Result<ExitCode> {
    let listener = bind(&config).await?;
    let url = local_url(&listener)?;
    let stop = CancellationToken::new();
    let mut signals = process::stop_signals()?;
    let server = tokio::select! {
        server = Server::open(&config, listener, stop.clone()) => server?,
        signal = signals() => anyhow::bail!("{signal}: ended before it was ready"),
    };
    say_ready(&config, &url)?;
    let serving = server.serve(stop.clone());
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => return Ok(ExitCode::SUCCESS),
        signal = signals() => tracing::info!(signal, "{signal}: letting what is under way end"),
    }
    stop.cancel();
    tokio::select! {
        () = serving => Ok(ExitCode::SUCCESS),
        signal = signals() => {
            tracing::warn!(signal, "{signal} again: ending at once; nothing accepted is lost");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Binds before anything else: whoever connects while storage is opened waits instead of being refused.
async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let address = config.listen;
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is in use by another program: stop it, or choose another address with --listen (port 0 picks one)"
        ),
        io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "this user may not listen on {address}: choose a port above 1023 with --listen"
        ),
        io::ErrorKind::AddrNotAvailable => anyhow::anyhow!("{address} is no address of this machine: see --listen"),
        _ => anyhow::Error::new(error).context(format!("{address} cannot be listened on")),
    })
}

/// For people what to try next; for programs one line of JSON with the address.
fn say_ready(config: &Config, url: &str) -> anyhow::Result<()> {
    tracing::info!(url, "ready at {url}");
    if !io::stdout().is_terminal() {
        let said = output::json(&json!({ "message": "ready", "url": url, "pid": std::process::id() }));
        // Nobody reads it: that is no reason not to serve.
        return said
            .or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
            .context("standard output");
    }
    let row = |label: &str, text: &str| output::line(format!("  {}  {text}", styled(FAINT, format!("{label:<9}"))));
    output::line(format!("\n{} at {}\n", styled(GOOD, "Postroom is ready"), styled(STRONG, url)))?;
    row(
        "data",
        &match &config.database {
            Database::Embedded(data_dir) => data_dir.display().to_string(),
            Database::Postgres(database) => format!("PostgreSQL {}", output::plain(&database.place()?)),
        },
    )?;
    row("API", &format!("{url}/docs"))?;
    row("begin", "postroom seed                     an organization with sources, an endpoint and an API key")?;
    row("", "export POSTROOM_API_KEY=prk_...")?;
    row("", "postroom send --type order.paid --data '{\"order\": 42}'")?;
    row("", "postroom tail")?;
    row("stop", "Ctrl-C\n")?;
    Ok(())
}
