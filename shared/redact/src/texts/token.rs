//! Parses a name, its separator, and the extent of its value.

use super::examined::Examined;
use super::scan::pair_begins;
use crate::values::{is_reference, is_spared, looks_made_up};

/// Separator between a name and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Separator {
    /// `=`, `==`, `:=`, `=>`, `->`
    Equals,
    Colon,
    /// `%3D`, `%253D`
    Encoded,
    /// `("name", "value")`
    Comma,
    /// `:password "S"`, `password is "S"`
    Space,
}

pub(super) struct Name {
    pub(super) start: usize,
    pub(super) text: String,
    /// Whether the name is in a URL's query or in a form.
    pub(super) in_query: bool,
    pub(super) is_quoted: bool,
}

/// Returns whether a value is not a secret: a placeholder or reference, a count, or the directory in which a program was started.
pub(super) fn is_free(examined: &Examined<'_>, name: &Name, value: &str) -> bool {
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let lower = name.text.to_ascii_lowercase();
    let counts_tests = lower == "pass" && is_number && examined.says_fail;
    let is_folder = (lower == "pwd" || lower == "oldpwd") && is_reference(value);
    // `API key: billing` is a name in a sentence.
    let is_sentence = name.text.contains(' ') && !value.bytes().any(|b| b.is_ascii_digit()) && !looks_made_up(value);
    is_folder
        || is_sentence
        || counts_tests
        || is_number && examined.names.is_count(&name.text)
        || is_spared(examined.names, examined.names.class(&name.text), value)
}

/// Returns the range of an unquoted value that begins at `at`. A character that may be part of the value ends the value only if
/// another pair, a delimiter or the end of the text follows.
pub(super) fn token_at(text: &str, at: usize, name: &Name, separator: Separator) -> (usize, usize) {
    let rest = &text[at..];
    let in_query = name.in_query || separator == Separator::Encoded;
    let mut end = rest.len();
    for (offset, c) in rest.char_indices() {
        let behind = offset + c.len_utf8();
        let next = rest[behind..].chars().next();
        let is_last =
            next.is_none_or(|c| c.is_whitespace() || matches!(c, ')' | ']' | '}' | ',' | ';' | '"' | '\'' | '>' | '|'));
        let stops = match c {
            // In a shell, a blank after a backslash is part of the word.
            ' ' if rest[..offset].bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1 => {
                !next.is_some_and(char::is_alphanumeric) || pair_begins(text, at + behind)
            }
            c if c.is_whitespace() => true,
            '%' if separator == Separator::Encoded => {
                // Delimiters are encoded as many times as the separator. Characters that are encoded once more are part of the
                // value.
                let wrapped = if text[..at].ends_with("%25253D") {
                    "2525"
                } else if text[..at].ends_with("%253D") || text[..at].ends_with("%253d") {
                    "25"
                } else {
                    ""
                };
                let code = rest[behind..].strip_prefix(wrapped).and_then(|code| code.get(..2)).unwrap_or_default();
                matches!(code, "26" | "23" | "20" | "0A" | "0D")
            }
            '&' => in_query || is_last || pair_begins(text, at + behind),
            '#' | '<' | '>' if in_query => true,
            '?' | '/' if in_query && text[..name.start].ends_with(';') => true,
            '<' => rest[behind..].starts_with('/'),
            ',' | ';' | '|' => is_last || pair_begins(text, at + behind),
            '"' | '\'' | '`' => in_query || is_last || next.is_some_and(|c| matches!(c, ':' | '=')),
            '\\' => {
                let escapes_quote = next.is_some_and(|c| matches!(c, '"' | '\''));
                let begins_pair =
                    next.is_some_and(|c| matches!(c, 'n' | 'r' | 't')) && pair_begins(text, at + behind + 1);
                (escapes_quote && rest[behind + 1..].chars().next().is_none_or(|c| !c.is_alphanumeric())) || begins_pair
            }
            ')' | ']' | '}' => is_last && !has_open(&rest[..offset], c),
            _ => false,
        };
        if stops {
            end = offset;
            break;
        }
    }
    let value = &rest[..end];
    // Drop the full stop of a sentence; dots inside the value stay.
    let end = if value.ends_with('.') && value.len() > 1 && !in_query { end - 1 } else { end };
    (at, at + end)
}

/// Returns whether the value contains the opening bracket that matches `close`.
fn has_open(value: &str, close: char) -> bool {
    let open = match close {
        ')' => '(',
        ']' => '[',
        _ => '{',
    };
    // Brackets are only searched for, not counted, to keep this test cheap. A value with many brackets is therefore taken for one
    // token.
    value.contains(open)
}
