//! The terminal: width, colors, wrapping, and number formats.

use std::io::IsTerminal as _;

use super::text;
use crate::args::OutputArgs;

/// Width that is used if the terminal's width is not known.
const WIDTH_DEFAULT: u16 = 120;

impl OutputArgs {
    /// Whether to print NDJSON: if requested, or, without `--table`, if standard output is not a terminal.
    pub(crate) fn as_json(self) -> bool {
        self.json || (!self.table && !std::io::stdout().is_terminal())
    }
}

/// Returns the width of the terminal, the value of `COLUMNS`, or a default.
pub(crate) fn width() -> u16 {
    terminal_size::terminal_size()
        .map(|(width, _)| width.0)
        .or_else(|| std::env::var("COLUMNS").ok()?.parse().ok())
        .unwrap_or(WIDTH_DEFAULT)
}

/// Prints a sentence to standard error, wrapped if that is a terminal.
pub(crate) fn say(sentence: &str) {
    match terminal_size::terminal_size_of(std::io::stderr()) {
        Some((width, _)) => errln!("{}", text::wrap_sentence(sentence, width.0.into())),
        None => errln!("{sentence}"),
    }
}

/// ANSI colors; `anstream` removes them if the output is not a terminal or `NO_COLOR` is set.
pub(crate) mod paint {
    pub(crate) const RED: &str = "\u{1b}[1;31m";
    pub(crate) const YELLOW: &str = "\u{1b}[33m";
    pub(crate) const GREEN: &str = "\u{1b}[32m";
    pub(crate) const BOLD: &str = "\u{1b}[1m";
    pub(crate) const DIM: &str = "\u{1b}[2m";
    pub(crate) const PLAIN: &str = "\u{1b}[0m";
}

/// Returns the width of the terminal, if standard output is one.
pub(super) fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0.into())
}

/// Formats a number with its noun: `1 row`, `1,234 rows`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", group_digits(number), if number == 1 { one } else { many })
}

/// Formats a number with a comma between groups of three digits.
pub(crate) fn group_digits(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}
