//! `postroom demo`: a whole tour on a throw-away data directory.
//!
//! It uses the same HTTP API as everybody, so what it shows can be done by hand, and it keeps its own ledger of what was
//! accepted and what arrived.

mod receiver;
mod tell;
mod tour;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use postroom_domain::Secret;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::output::{self, BAD, FAINT, GOOD, STRONG, styled};
use crate::config::{Config, Flags, Loaded};
use crate::run::{Server, local_url};
use crate::{logging, process, telemetry};
use tour::{Ledger, Tour};

/// Waits between attempts in the tour, in seconds: short, so that retries can be watched.
const RETRY_SCHEDULE: &str = "1,2,4";

/// How to tour.
#[derive(Debug, Args)]
#[command(
    after_help = "It needs nothing and leaves nothing: its data is in a temporary directory that is deleted at the end."
)]
pub struct DemoArgs {
    /// End by itself: exit 0 only if everything sent arrived, and a JSON summary on the last line
    #[arg(long)]
    exit: bool,
}

/// Runs the tour; without `--exit` the server stays until Ctrl-C.
///
/// # Errors
/// When something does not work that should.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    logging::start(true);
    telemetry::install();
    let mut signals = process::stop_signals()?;
    let data = tempfile::Builder::new().prefix("postroom-demo-").tempdir()?;
    let admin_token = hex::encode(Secret::random(24).expose());
    let config = config(data.path(), &admin_token)?;
    let listener = listen(args.exit).await?;
    let url = local_url(&listener)?;
    let stop = CancellationToken::new();
    let server = Server::open(&config, listener, stop.clone()).await?;
    let serving = tokio::spawn(server.serve(stop.clone()));
    let result = tokio::select! {
        toured = show(&url, &admin_token, args.exit) => toured,
        signal = signals() => {
            output::note(format!("{signal}: the tour ends here"));
            Ok(ExitCode::FAILURE)
        }
    };
    if !args.exit && matches!(result, Ok(code) if code == ExitCode::SUCCESS) {
        signals().await;
    }
    stop.cancel();
    serving.await?;
    result
}

/// The default settings with the tour's own; no settings of the surroundings, so that a tour is the same everywhere.
fn config(data_dir: &Path, admin_token: &str) -> anyhow::Result<Config> {
    let flags = Flags {
        config: Some("/dev/null".into()),
        data_dir: Some(data_dir.to_str().context("the temporary directory's name is UTF-8")?.to_owned()),
        retry_schedule: Some(RETRY_SCHEDULE.to_owned()),
        allow_private_networks: Some("127.0.0.0/8".to_owned()),
        ..Flags::default()
    };
    let token = (OsString::from("POSTROOM_ADMIN_TOKEN"), OsString::from(admin_token));
    Ok(Loaded::read_from(&flags, std::iter::once(token)).config?)
}

/// The usual port for a server that stays, so that the commands shown need no address; any port if it is taken.
async fn listen(ends_by_itself: bool) -> anyhow::Result<TcpListener> {
    if !ends_by_itself && let Ok(listener) = TcpListener::bind("127.0.0.1:8080").await {
        return Ok(listener);
    }
    TcpListener::bind("127.0.0.1:0").await.context("no port can be listened on")
}

async fn show(url: &str, admin_token: &str, ends_by_itself: bool) -> anyhow::Result<ExitCode> {
    output::line(format!("{} is running at {url} on a throw-away data directory", styled(STRONG, "Postroom")))?;
    let mut tour = Tour::begin(url, admin_token).await?;
    tour.walk().await?;
    let lost = tour.ledger.lost();
    let (style, verdict) =
        if lost == 0 { (GOOD, "everything sent arrived") } else { (BAD, "something did not arrive") };
    output::line(format!("\n{}", styled(style, verdict)))?;
    if ends_by_itself {
        summary(&tour.ledger)?;
    } else {
        playground(&tour, url)?;
        // The receiver is a part of the playground: it is dropped with the tour, so both stay until the end.
        tour.keep_receiving().await?;
    }
    Ok(if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(ledger: &Ledger) -> std::io::Result<()> {
    output::json(&json!({
        "accepted": ledger.accepted(),
        "delivered": ledger.delivered(),
        "retried": ledger.retried,
        "duplicates": ledger.duplicates,
        "rejected": ledger.rejected,
        "handshakes": ledger.handshakes,
        "dead_letters": ledger.dead_letters,
        "requeued": ledger.requeued,
        "lost": ledger.lost(),
    }))
}

/// What to do with the server that stays.
fn playground(tour: &Tour, url: &str) -> std::io::Result<()> {
    let stripe = tour.source_secret("stripe");
    let lines = [
        format!("\nThe server stays for you to play with. In another terminal:\n\nexport POSTROOM_URL={url}"),
        format!("export POSTROOM_API_KEY={}\n", tour.api_key()),
        "postroom tail                      # what happens, as it happens".to_owned(),
        "postroom send --type order.paid --data '{\"order\": 42}'".to_owned(),
        "postroom send --type load.test --count 1000".to_owned(),
        format!("postroom send --provider stripe --source stripe --secret {stripe}"),
        "postroom listen stripe --forward-to http://localhost:3000/webhook --last 2".to_owned(),
        "postroom events list".to_owned(),
        "postroom deliveries list --status success".to_owned(),
        "postroom rejections list".to_owned(),
        "postroom sources providers stripe  # its guide: URL, secret, events, retries\n".to_owned(),
    ];
    lines.iter().try_for_each(output::line)?;
    output::line(styled(FAINT, format!("API: {url}/docs   Stop with Ctrl-C; nothing is left behind.\n")))
}
