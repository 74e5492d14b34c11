//! What commands print: lines and tables on standard output, in colour only where a person looks at it.
//!
//! Everything that came from outside is escaped before it reaches a terminal. A reader that went away (`| head -1`)
//! ends the command quietly: see [`is_closed_output`].

use std::fmt::Display;
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

/// Something is done, or as it should be.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Something failed and will be tried again, or deserves a look.
pub const ODD: Style = AnsiColor::Yellow.on_default();
/// Something failed for good.
pub const BAD: Style = AnsiColor::Red.on_default();
/// What is there to be read second.
pub const FAINT: Style = Style::new().dimmed();
/// What is there to be read first.
pub const STRONG: Style = Style::new().bold();

/// A text in a style.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints one line on standard output. Colours are dropped when it is not a terminal, or `NO_COLOR` is set.
///
/// # Errors
/// When standard output cannot be written, for example because its reader went away.
pub fn line(text: impl Display) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints one line on standard error. That it cannot be written has no one left to tell.
pub fn note(text: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Prints a JSON value on one line.
///
/// # Errors
/// As [`line()`].
pub fn json(value: &Value) -> io::Result<()> {
    line(value)
}

/// Whether a command failed only because nobody reads its output any more.
#[must_use]
pub fn is_closed_output(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Text from outside for a terminal: control characters, also those that turn the direction of writing, are escaped.
#[must_use]
pub fn plain(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().flat_map(|c| if odd(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A JSON value as one would write it in a table: text without quotes, nothing for null.
#[must_use]
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => plain(&other.to_string()),
    }
}

/// The time of day of an RFC 3339 moment, with milliseconds.
#[must_use]
pub fn time_of_day(stamp: &Value) -> String {
    let stamp = cell(stamp);
    stamp.get(11..23).unwrap_or(&stamp).to_owned()
}

/// The style of a word that says how something stands.
#[must_use]
pub fn status_style(status: &str) -> Style {
    match status {
        "success" => GOOD,
        "failed" | "processing" | "pending" => ODD,
        "dead_letter" => BAD,
        _ => Style::new(),
    }
}

/// Rows under a title line, as wide as the terminal allows; not folded where nobody looks.
///
/// # Errors
/// As [`line()`].
pub fn table(titles: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    use comfy_table::{ContentArrangement, Table, presets};
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(titles.iter().map(|title| title.to_uppercase()));
    if io::IsTerminal::is_terminal(&io::stdout()) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    line(table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_a_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\nc\u{202e}d\u{9b}"), "a\\u{1b}[2Jb\\r\\nc\\u{202e}d\\u{9b}");
        assert_eq!(cell(&serde_json::json!(["a\u{7}", 1, null])), "a\\u{7}, 1, ");
        assert_eq!(plain("Zürich 日本"), "Zürich 日本");
    }
}
