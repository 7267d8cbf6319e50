//! Finds the credentials in values of HTTP headers: determines whether there are any, and where they end.

use super::examined::{Examined, Parts, SCHEMES, is_no_secret, is_prose_header};
use super::scan::{NAME_BYTES_MAX, floor, quoted_end};
use super::token::Name;
use crate::mask::MASK;
use crate::values::looks_made_up;

/// Number of bytes of a header's value in which its end is searched for.
const HEADER_BYTES_MAX: usize = 2_048;

/// Maximum number of words after the credentials that are treated as part of them.
const WORDS_MAX: usize = 4;

/// Masks a header's value: either a scheme and its credentials, or everything to the end of the line. Returns the offset at which
/// to continue.
pub(super) fn header(examined: &Examined<'_>, name: &Name, begin: usize, parts: &mut Parts) -> usize {
    let text = examined.text;
    let line = examined.line_end(begin);
    // Search for the end of the value only up to this offset. If the value reaches it, the whole rest of the line is masked.
    let near = floor(text, line.min(begin + HEADER_BYTES_MAX));
    // The whole header is in quotes: `-H "Cookie: a=b"`.
    let sign = text[..name.start].chars().next_back().filter(|c| matches!(c, '"' | '\'')).filter(|_| !name.is_quoted);
    let mut end = match sign {
        Some(quote) => {
            let (end, _) = quoted_end(&text[..near], begin, quote.encode_utf8(&mut [0; 4]));
            end
        }
        None => near,
    };
    let value = &text[begin..end];
    let first_word = &value[..floor(value, NAME_BYTES_MAX)];
    let is_masked =
        first_word.split_whitespace().next().is_some_and(|first| first.trim_end_matches([',', ';']) == MASK);
    if is_masked || is_no_secret(examined, value) || is_prose_header(value) {
        return begin;
    }
    let lower = name.text.to_ascii_lowercase();
    if sign.is_none() && lower.contains("cookie") {
        // RFC 6265 section 4.2.1: cookie pairs are separated by `; `. `Set-Cookie` has attributes that contain spaces.
        if !lower.contains("set") {
            end = begin + pairs_end(value);
        }
    } else if sign.is_none() {
        let mut words = value.split_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next());
        let has_list = matches!(
            first.to_ascii_lowercase().as_str(),
            "digest" | "oauth" | "hawk" | "signature" | "aws4-hmac-sha256" | "hmac"
        );
        if !has_list {
            // An unregistered scheme is an ordinary word followed by a machine-made word: `SSWS 00Quto…`
            let is_scheme = SCHEMES.iter().any(|scheme| first.eq_ignore_ascii_case(scheme))
                || !looks_made_up(first) && second.is_some_and(looks_made_up);
            let mut words = if is_scheme { 2 } else { 1 };
            // The credentials may be split by spaces, or be a list in an unknown scheme.
            words +=
                value.split_whitespace().skip(words).take(WORDS_MAX).take_while(|word| looks_made_up(word)).count();
            let length = words_end(value, words);
            end = begin + text[begin..begin + length].trim_end_matches([',', ';', '}', ')', ']']).len();
            if is_scheme
                && second.is_some_and(|token| is_no_secret(examined, token.trim_end_matches([',', ';', '}', ')', ']'])))
            {
                return begin;
            }
        }
    }
    let token = text[begin..end].split_once(' ').map_or("", |(_, token)| token.trim());
    if !token.is_empty() && is_no_secret(examined, token) {
        return begin;
    }
    if end == near {
        end = line;
    }
    parts.add(begin, end);
    end.max(begin)
}

/// Returns the number of bytes up to the end of the `count`th word, or to a quote.
fn words_end(value: &str, count: usize) -> usize {
    let mut words = 0;
    for (at, c) in value.char_indices() {
        if c.is_whitespace() && !value[..at].ends_with(char::is_whitespace) {
            words += 1;
        }
        if words == count || ends_quoted(value, at, c) {
            return value[..at].trim_end().len();
        }
    }
    value.trim_end().len()
}

/// Returns whether the quote at `at`, or a backslash before a quote, ends the quoted value.
fn ends_quoted(value: &str, at: usize, c: char) -> bool {
    let behind = value[at..].trim_start_matches('\\');
    let is_quote = matches!(c, '"' | '\'') || c == '\\' && behind.starts_with(['"', '\'']);
    is_quote && behind.chars().nth(1).is_none_or(|next| !next.is_alphanumeric())
}

/// Returns the number of bytes up to the end of `a=b; c=d`.
fn pairs_end(value: &str) -> usize {
    let mut end = 0;
    for word in value.split_inclusive([' ', '\t']) {
        end += word.len();
        if !word.trim_end().ends_with([';', ',']) {
            break;
        }
    }
    let quote = value[..end].char_indices().find(|(at, c)| ends_quoted(value, *at, *c)).map_or(end, |(at, _)| at);
    value[..quote].trim_end().trim_end_matches([',', '}', ')', ']']).len()
}
