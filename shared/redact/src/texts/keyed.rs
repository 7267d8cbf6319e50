//! Finds values after names: `password=S`, `"token": "S"`, `:secret=>"S"`, `X-Api-Key: S`, `pass%77ord=S`, and `password: |`
//! followed by a YAML block.

use super::examined::{Examined, Parts, is_no_secret, is_prose_header};
use super::headers::header;
use super::phrases::phrase;
use super::scan::{
    NAME_BYTES_MAX, bracketed_end, closing, decoded_name, floor, opening_quote, pair_begins, quoted_end,
};
use super::token::{Name, Separator, is_free, token_at};
use crate::mask::MASK;
use crate::names::{Class, Names};
use crate::values::{is_reference, looks_made_up, looks_secret};

/// URL parameters that carry a credential but whose names have other meanings outside URLs.
const QUERY_NAMES: [&str; 22] = [
    "code",
    "sig",
    "signature",
    "x-amz-signature",
    "x-amz-security-token",
    "x-amz-credential-token",
    "x-goog-signature",
    "x-oss-signature",
    "x-cos-security-token",
    "hmac",
    "ticket",
    "assertion",
    "samlresponse",
    "samlrequest",
    "key",
    "auth",
    "sid",
    "session",
    "sessionid",
    "session_id",
    "hash",
    "otc",
];
/// Minimum length at which a value with such a name is taken for a credential; shorter values are ordinary words and numbers.
const QUERY_VALUE_BYTES_MIN: usize = 6;
/// Last words of names that are written with a space: `API key`.
const SECOND_WORDS: [&str; 10] =
    ["key", "keys", "code", "phrase", "number", "word", "answer", "passe", "token", "secret"];
/// Maximum number of lines of a block that are read, which bounds the time.
const BLOCK_LINES_MAX: usize = 256;

/// Adds the values that follow the names of secrets.
pub(super) fn values(examined: &Examined<'_>, parts: &mut Parts) {
    let text = examined.text;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let Some((separator, from, to)) = separator(text, at) else { break };
        // Always advance, whether or not the value is masked.
        at = to.max(from + 1);
        let least = at;
        let from = if separator == Separator::Space { without_verb(text, from) } else { from };
        let Some(mut name) = name_before(examined.names, text, from) else { continue };
        let mut class = examined.names.class(&name.text);
        let matters = class.is_secret() || QUERY_NAMES.iter().any(|query| name.text.eq_ignore_ascii_case(query));
        if matters && separator == Separator::Equals && !name.in_query && !name.is_quoted {
            // If other pairs follow after `&`, this is the body of a form.
            let run = &text[to..floor(text, to + 512)];
            let run = run.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).next().unwrap_or_default();
            name.in_query = run.split_once('&').is_some_and(|(first, _)| pair_begins(text, to + first.len() + 1));
        }
        if !class.is_secret() && name.in_query && QUERY_NAMES.iter().any(|query| name.text.eq_ignore_ascii_case(query))
        {
            let (begin, end) = token_at(text, to, &name, separator);
            let value = &text[begin..end];
            let is_code = value.len() >= QUERY_VALUE_BYTES_MIN
                && looks_made_up(value)
                && !value.bytes().all(|b| b.is_ascii_digit());
            if is_code && !is_no_secret(examined, value) {
                parts.add(begin, end);
                at = end.max(least);
            }
            continue;
        }
        if !class.is_secret() {
            continue;
        }
        let sign = text[..name.start].chars().next_back();
        let is_about = match separator {
            // A comma may also separate the names in a list. Take it for the separator between a name and its value only if the
            // name is quoted and directly follows an opening bracket.
            Separator::Comma => !name.is_quoted || !matches!(sign, Some('(' | '[')),
            // `secret 'db-creds' was read`
            Separator::Space => name.is_quoted || sign != Some(':') && !quoted_looks_secret(text, to),
            // `secrets:read`, `arn:aws:secretsmanager:…:secret:prod/db`, and a program's tag in syslog
            Separator::Colon => {
                let glued = text[to..].chars().next().is_some_and(|c| !c.is_whitespace() && c != '"' && c != '\'');
                let chained = sign == Some(':') && !name.is_quoted;
                let tag = text[..from].ends_with(']')
                    && text[..from].trim_end_matches(']').ends_with(|c: char| c.is_ascii_digit());
                let token = &text[to..floor(text, to + NAME_BYTES_MAX)];
                let token = token.split(|c: char| c.is_whitespace() || c == ',').next().unwrap_or_default();
                let in_call = class == Class::Password && glued && sign == Some('(') && !looks_made_up(token);
                // `https://ci-token:S@host` is left to `addresses`; in `https://host/token: it failed`, `token` is not a name.
                let in_address = text[..name.start].ends_with("//") || sign == Some('/') && !glued;
                tag || in_call
                    || in_address
                    || class == Class::Token && glued && !name.is_quoted && (chained || !looks_made_up(token))
            }
            _ => false,
        };
        if is_about {
            continue;
        }
        // `cookie_secret=` in a query is not a header.
        if class == Class::Header && (name.in_query || separator == Separator::Encoded) {
            class = Class::Token;
        }
        at = value(examined, &name, class, separator, to, parts).max(least);
    }
}

/// Returns the next separator at or after `at`: its kind, its offset, and the offset at which the value may begin.
fn separator(text: &str, at: usize) -> Option<(Separator, usize, usize)> {
    let bytes = text.as_bytes();
    let mut at = at;
    while at < bytes.len() {
        let next = |offset: usize| bytes.get(at + offset).copied();
        match bytes[at] {
            b'=' => {
                let mut to = at + 1;
                while matches!(bytes.get(to), Some(b'=' | b'>' | b'~')) {
                    to += 1;
                }
                return Some((Separator::Equals, at, to));
            }
            b':' if next(1) == Some(b'=') => return Some((Separator::Equals, at, at + 2)),
            b':' if next(1) == Some(b':') || next(1) == Some(b'/') && next(2) == Some(b'/') => at += 2,
            b':' => return Some((Separator::Colon, at, at + 1)),
            b',' if at > 0 && matches!(bytes[at - 1], b'"' | b'\'') => return Some((Separator::Comma, at, at + 1)),
            b'"' | b'\'' if at > 0 && matches!(bytes[at - 1], b' ' | b'\t') => return Some((Separator::Space, at, at)),
            b'-' if next(1) == Some(b'>') => return Some((Separator::Equals, at, at + 2)),
            b'%' => {
                let rest = &bytes[at + 1..];
                let length = [&b"3D"[..], b"3d", b"253D", b"253d", b"25253D"]
                    .iter()
                    .find(|code| rest.starts_with(code))
                    .map(|code| code.len());
                let colon = [&b"3A"[..], b"3a"].iter().find(|code| rest.starts_with(code)).map(|code| code.len());
                match (length, colon) {
                    (Some(length), _) => return Some((Separator::Encoded, at, at + 1 + length)),
                    (None, Some(length)) => return Some((Separator::Encoded, at, at + 1 + length)),
                    (None, None) => at += 1,
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// Returns the end of a name without the verb that follows it, as in `password is "S"`.
fn without_verb(text: &str, end: usize) -> usize {
    let before = text[..end].trim_end_matches([' ', '\t']);
    for verb in [" is", " was", " to", " now", " set to", " as"] {
        if let Some(rest) = before.strip_suffix(verb) {
            return rest.len();
        }
    }
    end
}

fn quoted_looks_secret(text: &str, at: usize) -> bool {
    let Some(quote) = opening_quote(text, at) else { return false };
    let (end, _) = quoted_end(text, at + quote.len(), closing(quote));
    let value = &text[at + quote.len()..end];
    !is_reference(value) && looks_secret(&value.replace('/', ""))
}

fn name_before(names: &Names, text: &str, end: usize) -> Option<Name> {
    let low = floor(text, end.saturating_sub(NAME_BYTES_MAX));
    let before = text[low..end].trim_end_matches([' ', '\t']);
    let stop = low + before.len();
    // `["password"]`, `'password'`
    let inner = before.strip_suffix(']').unwrap_or(before);
    if let Some(quote) = inner.chars().last().filter(|c| matches!(c, '"' | '\'' | '`' | '”')) {
        let body = inner[..inner.len() - quote.len_utf8()].trim_end_matches('\\');
        let open = body.rfind(if quote == '”' { '“' } else { quote })?;
        let name = body[open..].trim_start_matches(['"', '\'', '`', '“']);
        let start = low + body[..open].trim_end_matches('\\').len();
        let fits = !name.is_empty() && !name.contains(['\n', '=', '{', '}']);
        return fits.then(|| Name { start, text: decoded_name(name), in_query: false, is_quoted: true });
    }
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '%' | '[' | ']' | '$' | '\\');
    let token = before
        .rfind(|c: char| !is_part(c))
        .map_or(before, |at| &before[at..][before[at..].chars().next().map_or(0, char::len_utf8)..]);
    let token = token.trim_start_matches(['[', '-', '.', '$']);
    if token.is_empty() {
        return None;
    }
    let start = stop - token.len();
    let sign = text[..start].chars().next_back();
    let mut in_query = matches!(sign, Some('?' | '&' | '#'));
    if sign == Some(';') {
        // This is a matrix parameter of a path, unless other pairs come before it, as in a connection string.
        let run = &text[floor(text, start.saturating_sub(NAME_BYTES_MAX))..start];
        let run = run.rsplit(char::is_whitespace).next().unwrap_or_default();
        in_query = run.contains('/') && !run.contains('=');
    }
    if token.contains("%3F") || token.contains("%26") || token.contains("%3f") || token.contains("%25") {
        in_query = true;
    }
    let mut name = Name { start, text: decoded_name(token), in_query, is_quoted: false };
    // `API key:`, `one time code:`
    let is_second = SECOND_WORDS.iter().any(|word| name.text.eq_ignore_ascii_case(word));
    if is_second && !names.class(&name.text).is_secret() {
        let front = text[low..start].trim_end_matches([' ', '-']);
        let word = front.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let second = front[..front.len() - word.len()].trim_end_matches([' ', '-']);
        let second = second.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        for joined in [format!("{word} {}", name.text), format!("{second} {word} {}", name.text)] {
            if !word.is_empty() && front.len() < start - low && names.class(&joined).is_secret() {
                name.text = joined;
                break;
            }
        }
    }
    Some(name)
}

/// Adds the value after a separator; returns the offset at which to continue.
fn value(
    examined: &Examined<'_>,
    name: &Name,
    class: Class,
    separator: Separator,
    to: usize,
    parts: &mut Parts,
) -> usize {
    let text = examined.text;
    let mut spaces = text[to..].bytes().take_while(|b| matches!(b, b' ' | b'\t')).count();
    if text[..to].ends_with("=>") {
        // In PHP dumps, the value is on the next line.
        spaces = text[to..].len() - text[to..].trim_start().len();
    }
    let mut begin = to + spaces;
    if separator == Separator::Comma && opening_quote(text, begin).is_none() {
        return to;
    }
    if separator == Separator::Equals && spaces > 0 && opening_quote(text, begin).is_none() && pair_begins(text, begin)
    {
        return begin;
    }
    if separator == Separator::Encoded || name.in_query {
        let (begin, end) = token_at(text, to, name, separator);
        // `testcookie=1`
        let is_flag =
            name.text.to_ascii_lowercase().ends_with("cookie") && text[begin..end].bytes().all(|b| b.is_ascii_digit());
        if !is_flag && !is_free(examined, name, &text[begin..end]) {
            parts.add(begin, end);
        }
        return end;
    }
    // `=> string(6) "S"`, `Some("S")`, `u'S'`, `!!str S`, `SecretString("S")`
    begin = skip_type(text, begin);
    // `${{ secrets.TOKEN }}`, `$(cat /run/secrets/db)`: references that may contain spaces, not secrets.
    for (open, close) in [("${{", "}}"), ("{{", "}}"), ("$(", ")"), ("<%", "%>")] {
        if let Some(rest) = text[begin..].strip_prefix(open)
            && let Some(length) = rest[..floor(rest, NAME_BYTES_MAX)].find(close)
        {
            return begin + open.len() + length + close.len();
        }
    }
    // `(sensitive value)`, `<not set>`
    if let Some(close) = text[begin..].chars().next().and_then(|open| match open {
        '(' => Some(')'),
        '<' => Some('>'),
        '[' => Some(']'),
        _ => None,
    }) && let Some(length) = text[begin..floor(text, begin + NAME_BYTES_MAX)].find(close)
        && is_no_secret(examined, &text[begin..=begin + length])
    {
        return begin + length + 1;
    }
    if let Some(quote) = opening_quote(text, begin) {
        let inside = begin + quote.len();
        let (end, behind) = quoted_end(text, inside, closing(quote));
        let mut end_all = end;
        // The shell joins `'ab'S` into one word, so include text directly after the closing quote. If the quoted part is already
        // masked, the text after it may be the value.
        let glued = text[behind..].chars().next().is_some_and(|c| c.is_alphanumeric());
        let mut next = behind;
        if glued && behind < text.len() {
            let (_, rest_end) = token_at(text, behind, name, Separator::Equals);
            (end_all, next) = (rest_end, rest_end);
        }
        let value = &text[inside..end];
        let is_header_prose = class == Class::Header && is_prose_header(value);
        if !is_free(examined, name, value) && !is_header_prose || end_all > end {
            parts.add(inside, end_all);
        }
        return next;
    }
    if text[begin..].starts_with(['[', '{']) {
        // A bracketed value is not the value of a header, and JSON that was already examined as JSON is not examined again.
        if class == Class::Header || examined.is_in_json(name.start) {
            return begin + 1;
        }
        let end = bracketed_end(text, begin);
        if !is_free(examined, name, &text[begin..end]) {
            parts.add(begin, end);
        }
        return end;
    }
    if class == Class::Header {
        return header(examined, name, begin, parts);
    }
    if begin >= text.len() {
        return begin;
    }
    let is_line = examined.has_lines && is_line_start(text, name.start);
    if separator == Separator::Colon && text[begin..].starts_with(['|', '>']) {
        return block(text, name.start, begin, parts);
    }
    if separator == Separator::Colon && (spaces > 0 || begin > to) || is_line && spaces > 0 {
        return phrase(examined, name, class, begin, is_line, parts);
    }
    if text[begin..].starts_with(['\n', '\r']) {
        return begin;
    }
    let (begin, end) = token_at(text, begin, name, separator);
    if !is_free(examined, name, &text[begin..end]) {
        parts.add(begin, end);
    }
    end
}

/// Returns the offset after a type that programs print before a value.
fn skip_type(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let word =
        rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'!' | b'&' | b'*')).count();
    let behind = &rest[word..];
    if word == 0 || word > 24 {
        return at;
    }
    // `string(6) "S"`
    if let Some(inner) = behind.strip_prefix('(')
        && let Some(close) = inner.bytes().take(8).position(|b| b == b')')
        && close > 0
        && inner[..close].bytes().all(|b| b.is_ascii_digit())
    {
        let next = at + word + 1 + close + 1;
        let spaces = text[next..].bytes().take_while(|b| *b == b' ').count();
        return if opening_quote(text, next + spaces).is_some() { next + spaces } else { at };
    }
    // `Some("S")`, `N'S'`, `u"S"`
    if behind.starts_with('(') && opening_quote(text, at + word + 1).is_some() {
        return at + word + 1;
    }
    let is_prefix = matches!(&rest[..word], "u" | "b" | "r" | "N" | "E" | "n" | "f" | "B" | "U");
    if is_prefix && opening_quote(text, at + word).is_some() {
        return at + word;
    }
    if rest.starts_with("!!") && behind.starts_with(' ') { at + word + 1 } else { at }
}

fn is_line_start(text: &str, at: usize) -> bool {
    let low = floor(text, at.saturating_sub(NAME_BYTES_MAX));
    let before = &text[low..at];
    let Some(begin) = before.rfind('\n').map(|end| end + 1).or((low == 0).then_some(0)) else { return false };
    let line = &before[begin..];
    line.bytes().all(|b| matches!(b, b' ' | b'\t' | b'-' | b'#' | b'+' | b'>'))
        || matches!(line.trim(), "export" | "set" | "- export")
}

/// Masks a YAML block scalar: the following lines that are indented more than its name.
fn block(text: &str, name_start: usize, begin: usize, parts: &mut Parts) -> usize {
    let low = floor(text, name_start.saturating_sub(NAME_BYTES_MAX));
    let line_start = text[low..name_start].rfind('\n').map_or(low, |end| low + end + 1);
    let indent_of = |line: &str| line.len() - line.trim_start_matches([' ', '\t', '-']).len();
    let indent = indent_of(&text[line_start..name_start]);
    let Some(first) = text[begin..].find('\n') else {
        // There is no next line, so this is not a block: the `|` or `>` is part of the value.
        let end = begin + text[begin..].find(char::is_whitespace).unwrap_or(text.len() - begin);
        parts.add(begin, end);
        return end;
    };
    let from = begin + first + 1;
    let mut end = from;
    for line in text[from..].split_inclusive('\n').take(BLOCK_LINES_MAX) {
        if !line.trim().is_empty() && line.len() - line.trim_start().len() <= indent {
            break;
        }
        end += line.len();
    }
    let body = &text[from..end];
    let lead = body.len() - body.trim_start().len();
    let value_end = from + body.trim_end().len();
    if text[from + lead..value_end.max(from + lead)].trim() != MASK {
        parts.add(from + lead, value_end);
    }
    end
}
