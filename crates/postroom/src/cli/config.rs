//! `postroom config`: everything that is wrong with the settings at once, or every value with its origin.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::output;
use crate::config::{Flags, Loaded};

/// What to do with the settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong with the settings; exit 0 if nothing is
    Check {
        #[command(flatten)]
        flags: Flags,
    },
    /// Show every setting and where its value came from; secrets are masked
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: Flags,
    },
}

/// Runs `postroom config`.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(command: ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Check { flags } => check(&flags),
        ConfigCommand::Show { json, flags } => show(&flags, json),
    }
}

fn check(flags: &Flags) -> anyhow::Result<ExitCode> {
    let loaded = Loaded::read(flags);
    warn(&loaded.warnings);
    loaded.config?;
    output::line("the settings are valid")?;
    Ok(ExitCode::SUCCESS)
}

fn show(flags: &Flags, as_json: bool) -> anyhow::Result<ExitCode> {
    let loaded = Loaded::read(flags);
    if as_json {
        for shown in &loaded.shown {
            let (key, value, origin) = (shown.setting.key, &shown.value, shown.origin.to_string());
            output::json(&json!({ "setting": key, "value": value, "origin": origin }))?;
        }
    } else {
        let row = |shown: &crate::config::Shown| {
            vec![shown.setting.env(), output::plain(&shown.value), output::plain(&shown.origin.to_string())]
        };
        output::table(&["setting", "value", "origin"], loaded.shown.iter().map(row).collect())?;
    }
    warn(&loaded.warnings);
    loaded.config?;
    Ok(ExitCode::SUCCESS)
}

/// Warnings about settings, on standard error.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        output::note(format!("{} {}", output::styled(output::ODD, "warning:"), output::plain(warning)));
    }
}
