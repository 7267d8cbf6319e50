//! Handles values written by people: a word, a passphrase, or a sentence about something else.

use super::examined::{Examined, Parts, is_no_secret};
use super::scan::pair_begins;
use super::token::{Name, Separator, is_free, token_at};
use crate::names::Class;
use crate::values::{CONNECTORS, is_state, looks_made_up, looks_secret};

/// Handles a value that a person may have written, after a colon or on a configuration line: one word, a passphrase, or a
/// sentence about something else. Returns the offset at which to continue.
pub(super) fn phrase(
    examined: &Examined<'_>,
    name: &Name,
    class: Class,
    begin: usize,
    is_line: bool,
    parts: &mut Parts,
) -> usize {
    let text = examined.text;
    let line_end = examined.line_end(begin);
    let mut words: Vec<(usize, usize)> = Vec::new();
    let mut at = begin;
    while at < line_end && words.len() < 64 {
        let gap = text[at..line_end].bytes().take_while(|b| matches!(b, b' ' | b'\t')).count();
        at += gap;
        if at >= line_end {
            break;
        }
        let end = at + text[at..line_end].find([' ', '\t']).unwrap_or(line_end - at);
        words.push((at, end));
        at = end;
    }
    let Some((first_at, first_end)) = words.first().copied() else { return begin };
    let word = |at: usize| words.get(at).map_or("", |(from, to)| &text[*from..*to]);
    let is_connector = |word: &str| CONNECTORS.iter().any(|other| word.eq_ignore_ascii_case(other));
    let is_about = |word: &str| {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        is_state(bare) || is_connector(bare) || is_article(bare)
    };
    // `<Token: id=44 name='ci'>`: other pairs with their own names follow.
    let about = ["id=", "name=", "type=", "kind=", "status="].iter().any(|pair| text[begin..].starts_with(pair));
    if class == Class::Token && about {
        return begin;
    }
    // `failed_passwords: 3 within 10m`
    if is_free(examined, name, word(0).trim_end_matches([',', ';', '.'])) {
        return first_end;
    }
    let first = word(0).trim_matches(['"', '\'', ',', ';', '.', ')', '(']);
    // `jwt: token has expired`
    let names_secret = words.len() > 1 && examined.names.class(first).is_secret() && !looks_made_up(first);
    let is_prose = names_secret || is_about(first) && (words.len() > 1 || is_state(first));
    if is_prose {
        // A sentence may still contain a secret.
        for (from, to) in &words {
            let (from, to) = trimmed(text, *from, *to);
            if looks_secret(&text[from..to]) && !is_no_secret(examined, &text[from..to]) {
                parts.add(from, to);
            }
        }
        return line_end;
    }
    if is_line {
        // On a configuration line, everything up to a comment is the value.
        let end = begin + text[begin..line_end].find(" #").unwrap_or(line_end - begin);
        let end = begin + text[begin..end].trim_end().len();
        if !is_free(examined, name, &text[begin..end]) {
            parts.add(begin, end);
        }
        return end;
    }
    // Find the end of the phrase.
    let (_, mut end) = token_at(text, first_at, name, Separator::Equals);
    let ends_there = |end: usize| end < line_end && !matches!(text.as_bytes()[end], b' ' | b'\t');
    let mut count = 1;
    if end >= first_end {
        for (from, to) in words.iter().skip(1).copied() {
            let next = &text[from..to];
            let opens = next.starts_with(['(', '[', '<', '{', '|', '-', '"', '\'', '/', '#', '→', '—', '–']);
            if ends_there(end)
                || is_connector(next.trim_matches(|c: char| !c.is_alphanumeric()))
                || opens
                || pair_begins(text, from)
            {
                break;
            }
            let (_, token_end) = token_at(text, from, name, Separator::Equals);
            count += 1;
            end = token_end;
            if token_end < to {
                break;
            }
        }
    }
    let (value_from, value_to) = (first_at, end);
    let value = &text[value_from..value_to];
    let is_plain =
        !value.split_whitespace().any(|word| looks_made_up(word.trim_matches(|c: char| c.is_ascii_punctuation())));
    // `secret: db-credentials not found`
    let names_thing = class == Class::Token && is_plain && (count > 1 || words.len() > 1);
    if names_thing || is_free(examined, name, value) {
        return value_to;
    }
    parts.add(value_from, value_to);
    value_to
}

fn trimmed(text: &str, from: usize, to: usize) -> (usize, usize) {
    let word = &text[from..to];
    let begin = word.len() - word.trim_start_matches(['"', '\'', '(', '[', '<', '`']).len();
    let end = word.trim_end_matches(['"', '\'', ')', ']', '>', ',', ';', '.', ':', '`']).len();
    (from + begin, from + end.max(begin))
}

fn is_article(word: &str) -> bool {
    const WORDS: [&str; 28] = [
        "the", "a", "an", "this", "that", "your", "his", "her", "their", "my", "our", "all", "any", "some", "every",
        "each", "it", "min", "minimum", "max", "maximum", "length", "least", "contains", "contain", "policy", "older",
        "if",
    ];
    WORDS.iter().any(|other| word.eq_ignore_ascii_case(other))
}
