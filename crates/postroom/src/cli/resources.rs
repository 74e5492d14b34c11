//! `events`, `deliveries`, `dead-letters`, `rejections`, `endpoints`, `sources`: list, show and act over the API.
//!
//! The commands differ in their filters and actions only; [`super::view`] shows what comes back.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use postroom_domain::Secret;
use serde_json::{Value, json};

use super::client::{Client, ServerArgs, escape};
use super::view::{DEAD_LETTERS, DELIVERIES, ENDPOINTS, EVENTS, REJECTIONS, SOURCES, View};
use super::{explained, output, provider_args, source};

/// How much of a list, and in which form.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// At most so many, newest first; more than 250 are fetched page by page
    #[arg(long, default_value = "50", value_name = "N", value_parser = at_least_one)]
    pub limit: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "give a whole number, 1 or more".to_owned())
}

/// For programs instead of people.
#[derive(Debug, Clone, Args)]
pub struct JsonArgs {
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub json: bool,
}

/// `postroom events`
#[derive(Debug, Subcommand)]
pub enum Events {
    /// Events, newest first
    #[command(after_help = "Example:\n  postroom events list --type order.* --status dead_letter")]
    List {
        /// Of this type, or of all types that begin so: order.*
        #[arg(long = "type", value_name = "TYPE")]
        event_type: Option<String>,
        /// Whose worst delivery stands so: pending, processing, success, failed, dead_letter, discarded
        #[arg(long)]
        status: Option<String>,
        /// Of this source
        #[arg(long, value_name = "ID")]
        source: Option<String>,
        /// inbound (received from a third party) or outbound (your own)
        #[arg(long)]
        direction: Option<String>,
        /// Accepted at or after this moment, such as 2026-11-22T10:00:00Z
        #[arg(long, value_name = "TIME")]
        after: Option<String>,
        /// Accepted before this moment
        #[arg(long, value_name = "TIME")]
        before: Option<String>,
        /// With this id of its sender
        #[arg(long, value_name = "ID")]
        external_id: Option<String>,
        /// With this text in its payload
        #[arg(long, value_name = "TEXT")]
        text: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// One event with headers, payload and its deliveries
    Show {
        /// evt_...
        id: String,
    },
    /// Send an old event again to the endpoints it went to, or to those named
    Replay {
        /// evt_...
        id: String,
        /// Only to this endpoint; can be given several times
        #[arg(long, value_name = "ID")]
        endpoint: Vec<String>,
    },
}

/// `postroom deliveries`
#[derive(Debug, Subcommand)]
pub enum Deliveries {
    /// Deliveries, newest event first
    List {
        #[command(flatten)]
        filter: DeliveryFilter,
        /// Standing so: pending, processing, success, failed, dead_letter, discarded
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// One delivery with its attempts
    Show {
        /// dlv_...
        id: String,
    },
    /// Try a failed delivery now
    Retry {
        /// dlv_...; several are tried one after the other
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// `postroom dead-letters`
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// Dead letters, newest first, with the reason
    List {
        #[command(flatten)]
        filter: DeliveryFilter,
        #[command(flatten)]
        list: ListArgs,
    },
    /// One dead letter with its attempts
    Show {
        /// dlv_...
        id: String,
    },
    /// Send dead letters again, from the beginning of their schedule
    #[command(after_help = "Example:\n  postroom dead-letters requeue dlv_0198c1f2...")]
    Requeue {
        /// dlv_...
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Say that dead letters are not needed any more
    Discard {
        /// dlv_...
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// Which deliveries.
#[derive(Debug, Clone, Args)]
pub struct DeliveryFilter {
    /// To this endpoint
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    /// Of this event
    #[arg(long, value_name = "ID")]
    event: Option<String>,
}

/// `postroom rejections`
#[derive(Debug, Subcommand)]
pub enum Rejections {
    /// Requests that failed verification, newest first, with the check that failed
    List {
        /// At this source
        #[arg(long, value_name = "ID")]
        source: Option<String>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// One rejected request as it arrived
    Show {
        /// rej_...
        id: String,
    },
    /// Verify requests once more, after their source's secret was mended; what verifies becomes an event
    #[command(after_help = "Examples:
  postroom rejections reverify rej_0198c1f2...
  postroom rejections reverify --source stripe")]
    Reverify {
        /// rej_...
        #[arg(required_unless_present_any = ["source", "all"], conflicts_with_all = ["source", "all"])]
        ids: Vec<String>,
        /// All of this source, by name or id, in order of arrival
        #[arg(long, value_name = "NAME", conflicts_with = "all")]
        source: Option<String>,
        /// All of all sources, in order of arrival
        #[arg(long)]
        all: bool,
    },
}

/// `postroom endpoints`
#[derive(Debug, Subcommand)]
pub enum Endpoints {
    /// Endpoints, newest first
    List {
        #[command(flatten)]
        list: ListArgs,
    },
    /// One endpoint
    Show {
        /// ep_...
        id: String,
    },
    /// Make an endpoint; its signing secret is shown this once
    #[command(after_help = "Example:\n  postroom endpoints create https://api.example.com/hooks --type order.*")]
    Create {
        /// Where events go
        endpoint_url: String,
        /// Only events of this type, or order.*; can be given several times
        #[arg(long = "type", value_name = "TYPE")]
        event_types: Vec<String>,
        /// Only events of this source; can be given several times
        #[arg(long, value_name = "ID")]
        source: Vec<String>,
        /// What it is, for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Send a test event to this endpoint alone
    Test {
        /// ep_...
        id: String,
    },
    /// Switch an endpoint on
    Enable {
        /// ep_...
        id: String,
    },
    /// Switch an endpoint off; waiting deliveries become dead letters
    Disable {
        /// ep_...
        id: String,
    },
    /// Give an endpoint a new signing secret; the old one signs beside it for a while
    RotateSecret {
        /// ep_...
        id: String,
        /// How long the old one signs beside the new, in seconds (at most 86400)
        #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
        grace: u64,
    },
    /// Delete an endpoint
    Delete {
        /// ep_...
        id: String,
    },
}

/// `postroom sources`
#[derive(Debug, Subcommand)]
pub enum Sources {
    /// Sources, newest first
    List {
        #[command(flatten)]
        list: ListArgs,
    },
    /// One source
    Show {
        /// src_...
        id: String,
    },
    /// Make a source for a third party
    #[command(after_help = "Example:\n  echo -n whsec_... | postroom sources create --provider stripe --secret-file -")]
    Create {
        /// The provider, such as stripe or github; `postroom sources providers` lists them
        #[arg(long, value_name = "NAME")]
        provider: String,
        /// Its name in the inbound URL; the provider's name if not given
        #[arg(long)]
        name: Option<String>,
        /// A file that holds the provider's signing secret; - reads standard input
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
        /// An option of the provider, such as tolerance_seconds=600; @file reads the value from a file
        #[arg(long = "option", value_name = "NAME=VALUE|NAME=@FILE")]
        options: Vec<String>,
    },
    /// The providers there are, or the guide of one: where to paste the URL, which secret, how to test it
    #[command(after_help = "Example:\n  postroom sources providers stripe")]
    Providers {
        /// Show the guide of this one
        name: Option<String>,
    },
    /// Give a source the provider's new secret; the old one verifies beside it for a while
    #[command(after_help = "Example:\n  echo -n whsec_... | postroom sources rotate-secret stripe --secret-file -")]
    RotateSecret {
        /// The source, by name or id
        source: String,
        /// A file that holds the new secret; - reads standard input
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
        /// How long the old one verifies beside the new, in seconds (at most 2592000)
        #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
        grace: u64,
    },
    /// Delete a source; its events stay
    Delete {
        /// src_...
        id: String,
    },
}

/// Runs `postroom events`.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn events(command: Events, server: &ServerArgs, json: bool) -> anyhow::Result<()> {
    let view = View::new(Client::from_environment(server)?, json);
    match command {
        Events::List { event_type, status, source, direction, after, before, external_id, text, list } => {
            let query = [
                ("type", event_type),
                ("status", status),
                ("source_id", source),
                ("direction", direction),
                ("created_after", after),
                ("created_before", before),
                ("external_id", external_id),
                ("q", text),
            ];
            view.list(&EVENTS, &query, list.limit).await
        }
        Events::Show { id } => {
            view.show(&EVENTS, &id).await?;
            view.below(&DELIVERIES, &format!("/v1/events/{}/deliveries", escape(&id)), "Deliveries").await
        }
        Events::Replay { id, endpoint } => {
            let body = if endpoint.is_empty() { json!({}) } else { json!({ "endpoint_ids": endpoint }) };
            let answer = view.client().post(&format!("/v1/events/{}/replay", escape(&id)), Some(&body)).await?;
            view.print_rows(&DELIVERIES, answer["data"].as_array().cloned().unwrap_or_default())
        }
    }
}

/// Runs `postroom deliveries`.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn deliveries(command: Deliveries, server: &ServerArgs, json: bool) -> anyhow::Result<()> {
    let view = View::new(Client::from_environment(server)?, json);
    match command {
        Deliveries::List { filter, status, list } => {
            let query = [("status", status), ("endpoint_id", filter.endpoint), ("event_id", filter.event)];
            view.list(&DELIVERIES, &query, list.limit).await
        }
        Deliveries::Show { id } => view.show(&DELIVERIES, &id).await,
        Deliveries::Retry { ids } => view.act(&DELIVERIES, &ids, "retry").await,
    }
}

/// Runs `postroom dead-letters`.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn dead_letters(command: DeadLetters, server: &ServerArgs, json: bool) -> anyhow::Result<()> {
    let view = View::new(Client::from_environment(server)?, json);
    match command {
        DeadLetters::List { filter, list } => {
            let query = [("endpoint_id", filter.endpoint), ("event_id", filter.event)];
            view.list(&DEAD_LETTERS, &query, list.limit).await
        }
        DeadLetters::Show { id } => view.show(&DEAD_LETTERS, &id).await,
        DeadLetters::Requeue { ids } => view.act(&DEAD_LETTERS, &ids, "requeue").await,
        DeadLetters::Discard { ids } => view.act(&DEAD_LETTERS, &ids, "discard").await,
    }
}

/// Runs `postroom rejections`.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn rejections(command: Rejections, server: &ServerArgs, json: bool) -> anyhow::Result<()> {
    let view = View::new(Client::from_environment(server)?, json);
    match command {
        Rejections::List { source, list } => view.list(&REJECTIONS, &[("source_id", source)], list.limit).await,
        Rejections::Show { id } => {
            let path = format!("{}/{}", REJECTIONS.path, escape(&id));
            let mut rejection = view.client().get(&path).await?;
            if json {
                return view.print_object(&rejection);
            }
            let explanation = rejection["explanation"].take();
            view.print_object(&rejection)?;
            if explanation.is_object() {
                output::line("")?;
                output::line(explained::written(&explanation).trim_end())?;
            }
            Ok(())
        }
        Rejections::Reverify { ids, source: None, all: false } => view.act(&REJECTIONS, &ids, "reverify").await,
        Rejections::Reverify { source, .. } => {
            let body = match source {
                Some(name) => json!({ "source_id": source::find(view.client(), &name).await?["id"] }),
                None => json!({}),
            };
            reverify(&view, &body).await
        }
    }
}

/// Verifies all that wait, call by call, and tells what became of each.
async fn reverify(view: &View, body: &Value) -> anyhow::Result<()> {
    let (mut verified, mut still_invalid) = (0, 0);
    loop {
        let answer = view.client().post("/v1/rejections/reverify", Some(body)).await?;
        verified += answer["verified"].as_u64().unwrap_or(0);
        still_invalid += answer["still_invalid"].as_u64().unwrap_or(0);
        let rows = answer["data"].as_array().cloned().unwrap_or_default();
        let stopped = rows.last().filter(|last| matches!(last["status"].as_u64(), Some(429 | 500..)));
        if let Some(last) = stopped {
            let why = output::cell(&last["error"]["detail"]);
            anyhow::bail!("{verified} became events, then the server could not go on: {why}");
        }
        let columns = [("id", "id"), ("status", "status"), ("became", "event_id"), ("why not", "error")];
        let flat = |mut row: Value| {
            if row["error"].is_object() {
                row["error"] = row["error"]["detail"].take();
            }
            row
        };
        view.print_columns(&columns, rows.into_iter().map(flat).collect())?;
        // Where nothing moved, another call would find the same.
        if answer["has_more"] != true || answer["verified"] == 0 {
            break;
        }
    }
    output::note(format!("{verified} became events, {still_invalid} still fail"));
    Ok(())
}

/// Runs `postroom endpoints`.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn endpoints(command: Endpoints, server: &ServerArgs, json: bool) -> anyhow::Result<()> {
    let view = View::new(Client::from_environment(server)?, json);
    match command {
        Endpoints::List { list } => view.list(&ENDPOINTS, &[], list.limit).await,
        Endpoints::Show { id } => view.show(&ENDPOINTS, &id).await,
        Endpoints::Create { endpoint_url, event_types, source, description } => {
            let mut body = json!({ "url": endpoint_url, "event_types": event_types, "source_ids": source });
            if let Some(description) = description {
                body["description"] = description.into();
            }
            view.print_object(&view.client().post(ENDPOINTS.path, Some(&body)).await?)
        }
        Endpoints::Test { id } => view.act(&ENDPOINTS, &[id], "test").await,
        Endpoints::Enable { id } => view.act(&ENDPOINTS, &[id], "enable").await,
        Endpoints::Disable { id } => view.act(&ENDPOINTS, &[id], "disable").await,
        Endpoints::RotateSecret { id, grace } => {
            let path = format!("/v1/endpoints/{}/rotate-secret", escape(&id));
            view.print_object(&view.client().post(&path, Some(&json!({ "grace_seconds": grace }))).await?)
        }
        Endpoints::Delete { id } => view.delete(&ENDPOINTS, &id).await,
    }
}

/// Runs `postroom sources`.
///
/// # Errors
/// When the server refuses or cannot be reached.
pub async fn sources(command: Sources, server: &ServerArgs, json: bool) -> anyhow::Result<()> {
    let view = View::new(Client::from_environment(server)?, json);
    match command {
        Sources::List { list } => view.list(&SOURCES, &[], list.limit).await,
        Sources::Show { id } => view.show(&SOURCES, &id).await,
        Sources::Create { provider, name, secret_file, options } => {
            let known = provider_args::provider(&provider)?;
            let mut body = json!({ "provider": provider, "options": provider_args::options(&options, known)? });
            if let Some(name) = name {
                body["name"] = name.into();
            }
            if let Some(file) = secret_file {
                let secret = read_secret(&file)?;
                body["secret"] = secret.expose_str().unwrap_or_default().into();
            }
            view.print_object(&view.client().post(SOURCES.path, Some(&body)).await?)
        }
        Sources::Providers { name: Some(name) } => {
            let guide = view.client().get(&format!("/v1/providers/{}", escape(&name))).await?;
            view.print_guide(&guide)
        }
        Sources::RotateSecret { source, secret_file, grace } => {
            let id = output::cell(&source::find(view.client(), &source).await?["id"]);
            let secret = read_secret(&secret_file)?;
            let body = json!({ "secret": secret.expose_str().unwrap_or_default(), "grace_seconds": grace });
            let path = format!("/v1/sources/{}/rotate-secret", escape(&id));
            view.print_object(&view.client().post(&path, Some(&body)).await?)
        }
        Sources::Providers { name: None } => {
            let answer = view.client().get("/v1/providers").await?;
            let columns = [("name", "name"), ("title", "title"), ("scheme", "summary"), ("secret", "secret_hint")];
            view.print_columns(&columns, answer["data"].as_array().cloned().unwrap_or_default())
        }
        Sources::Delete { id } => view.delete(&SOURCES, &id).await,
    }
}

/// A secret from a file or, with `-`, from standard input; white space around it does not count.
///
/// # Errors
/// When it cannot be read, is empty or is not text.
pub fn read_secret(file: &std::path::Path) -> anyhow::Result<Secret> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(64 * 1024).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(64 * 1024).read_to_string(&mut text))
    };
    read.with_context(|| format!("the secret cannot be read from {}", file.display()))?;
    anyhow::ensure!(!text.trim().is_empty(), "the secret read from {} is empty", file.display());
    Ok(Secret::from(text.trim()))
}
