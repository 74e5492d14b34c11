//! The command line: what there is, and what each exit code means.
//!
//! 0 is done, 1 is failed, 2 is wrong usage. Errors are one plain sentence on standard error.

mod admin;
mod audit;
mod beside;
pub(crate) mod client;
mod config;
mod copy;
mod explained;
mod forward;
mod keys;
mod listen;
mod migrate;
pub(crate) mod output;
mod people;
mod provider_args;
mod resources;
mod seed;
mod send;
mod serve;
mod sign;
mod source;
mod sse;
mod tail;
mod tenants;
mod verify;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use client::ServerArgs;
use resources::JsonArgs;

/// Receive webhooks, send webhooks, lose none.
#[derive(Debug, Parser)]
#[command(name = "postroom", version, arg_required_else_help = true, propagate_version = true)]
#[command(after_help = "Begin with:
  postroom demo        a tour that needs nothing, and leaves a server to play with
  postroom serve       the server, on 127.0.0.1:8080, with its data in ./postroom-data")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A tour on a throw-away data directory, then a server to play with
    Demo(crate::demo::DemoArgs),
    /// The server: everything in one process, no settings needed
    Serve(serve::ServeArgs),
    /// Bring the database to this program's version, or back
    Migrate(migrate::MigrateArgs),
    /// Copy everything into another, empty database: from the file to PostgreSQL, or back
    Copy(copy::CopyArgs),
    /// Organizations with a database of their own: list, move
    #[command(subcommand)]
    Tenants(tenants::TenantsCommand),
    /// Encryption keys: print a fresh one, or encrypt every secret anew
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Super admins: make one, with a link to sign in
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// API keys of an organization: create, list, revoke
    #[command(subcommand)]
    Apikey(beside::ApiKeyCommand),
    /// People of an organization: list, show, invite, role, deactivate, activate
    Users(Resource<people::Users>),
    /// Organizations: list, show, create, update, deactivate, activate
    Orgs(Resource<people::Organizations>),
    /// The audit log: list it, or check that nobody tampered with it
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Put sample data into the database
    Seed(seed::SeedArgs),
    /// Check or show the settings
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Send an event, or many
    Send(send::SendArgs),
    /// Forward a source's events to a program on this computer, live
    Listen(listen::Args),
    /// Follow events and deliveries as they happen
    Tail(tail::TailArgs),
    /// Events: list, show, replay
    Events(Resource<resources::Events>),
    /// Deliveries: list, show, retry
    Deliveries(Resource<resources::Deliveries>),
    /// Dead letters: list, show, requeue, discard
    DeadLetters(Resource<resources::DeadLetters>),
    /// Requests that failed verification: list, show why, reverify
    Rejections(Resource<resources::Rejections>),
    /// Endpoints: list, show, create, test, enable, disable, rotate-secret, delete
    Endpoints(Resource<resources::Endpoints>),
    /// Sources: list, show, create, rotate-secret, delete; providers and their guides
    Sources(Resource<resources::Sources>),
    /// Sign a request as a provider would
    Sign(sign::Args),
    /// Say step by step why a request does or does not verify
    Verify(verify::Args),
    /// Measure a server under load from this computer, or kill it under load and count what was lost
    Bench(crate::bench::BenchArgs),
    /// The bare gateway of `bench --bare`
    #[command(hide = true)]
    BareGateway(crate::bench::gateway::GatewayArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  postroom completions bash > /etc/bash_completion.d/postroom")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// A resource's commands, with the server and the form of output.
#[derive(Debug, clap::Args)]
struct Resource<T: Subcommand> {
    #[command(subcommand)]
    command: T,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Clap prints help and version on standard output and exits 0, and what is wrong on standard error with 2.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) if output::is_closed_output(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format!("{} {error:#}", output::styled(output::BAD, "error:")));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => return server_runtime()?.block_on(crate::demo::run(args)),
        Command::Serve(args) => return serve::serve(args),
        Command::Migrate(args) => client_runtime()?.block_on(migrate::migrate(args)),
        Command::Copy(args) => return server_runtime()?.block_on(copy::copy(args)),
        Command::Tenants(command) => return server_runtime()?.block_on(tenants::tenants(command)),
        Command::Keys(command) => client_runtime()?.block_on(keys::keys(command)),
        Command::Admin(command) => client_runtime()?.block_on(admin::admin(command)),
        Command::Apikey(command) => client_runtime()?.block_on(beside::api_key(command)),
        Command::Users(r) => client_runtime()?.block_on(people::users(r.command, &r.server, r.json.json)),
        Command::Orgs(r) => client_runtime()?.block_on(people::organizations(r.command, &r.server, r.json.json)),
        Command::Audit(command) => return client_runtime()?.block_on(audit::audit(command)),
        Command::Seed(args) => client_runtime()?.block_on(seed::seed(args)),
        Command::Sign(args) => return args.run(),
        Command::Verify(args) => return args.run(),
        Command::Config(command) => return config::run(command),
        Command::Send(args) => client_runtime()?.block_on(send::send(args)),
        Command::Listen(args) => client_runtime()?.block_on(listen::listen(args)),
        Command::Tail(args) => client_runtime()?.block_on(tail::tail(args)),
        Command::Events(r) => client_runtime()?.block_on(resources::events(r.command, &r.server, r.json.json)),
        Command::Deliveries(r) => client_runtime()?.block_on(resources::deliveries(r.command, &r.server, r.json.json)),
        Command::DeadLetters(r) => {
            client_runtime()?.block_on(resources::dead_letters(r.command, &r.server, r.json.json))
        }
        Command::Rejections(r) => client_runtime()?.block_on(resources::rejections(r.command, &r.server, r.json.json)),
        Command::Endpoints(r) => client_runtime()?.block_on(resources::endpoints(r.command, &r.server, r.json.json)),
        Command::Sources(r) => client_runtime()?.block_on(resources::sources(r.command, &r.server, r.json.json)),
        Command::Bench(args) => return server_runtime()?.block_on(crate::bench::run(args)),
        Command::BareGateway(args) => server_runtime()?.block_on(crate::bench::gateway::run(args)),
        Command::Completions { shell } => completions(shell),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Commands that only ask a server need one thread.
fn client_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// What has to do with all of an installation, or plays several parts at once, uses every core.
fn server_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    crate::process::set_limits();
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "postroom", &mut script);
    Ok(output::line(String::from_utf8_lossy(&script).trim_end())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
