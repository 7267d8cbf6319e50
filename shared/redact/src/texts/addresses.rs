//! Credentials in addresses: `scheme://user:S@host`, `user:S@tcp(host)`, `:thin:scott/S@host`, and codes in paths.

use regex::Regex;

use super::examined::{Examined, Parts, is_no_secret, pattern};
use crate::values::{looks_made_up, looks_secret};

/// Maximum number of bytes after the scheme in which user information is searched for.
const AUTHORITY_BYTES_MAX: usize = 1_024;
/// Minimum length at which a bare user name in an HTTP address is taken for a token.
const TOKEN_USER_BYTES_MIN: usize = 10;
/// Minimum length at which a path segment after a word such as `reset` is taken for a code. The segment must also contain a
/// digit; ordinary names are shorter or contain none.
const SEGMENT_BYTES_MIN: usize = 16;
/// Number of path segments that are examined after such a word: `/password/reset/MQ/c2x5-0123…`.
const SEGMENTS_BEHIND: usize = 3;
/// Words in a path that are followed by codes. Most plurals, and `secret`, are not listed, because they name collections.
const CODE_WORDS: [&str; 13] = [
    "reset",
    "password",
    "token",
    "invite",
    "invitation",
    "invitations",
    "magic",
    "verify",
    "verification",
    "confirm",
    "confirmation",
    "unsubscribe",
    "activate",
];

#[derive(Debug, Clone)]
pub(super) struct Addresses {
    scheme: Regex,
    data_source: Regex,
    thin: Regex,
    code_words: Regex,
}

impl Addresses {
    pub(super) fn new() -> Self {
        Self {
            scheme: pattern(r"(?i)[a-z][a-z0-9+.-]{1,24}:(?:\\?/\\?/|%2F%2F)"),
            // go-sql-driver/mysql: `user:password@protocol(address)`; the password may hold anything but white space.
            data_source: pattern(
                r#"(?:^|[\s"'=(])[^\s:@/"'=(]+:([^\s"']+)@(?:tcp6?|udp6?|unix|\([a-zA-Z0-9])\(?[^\s@]*\)"#,
            ),
            thin: pattern(r#"(?i):(?:thin|oci8?):[^\s/@"']+/([^\s"']+)@"#),
            code_words: pattern(&format!("(?i)/[a-z0-9_-]*(?:{})[a-z0-9_-]*/", CODE_WORDS.join("|"))),
        }
    }
}

pub(super) fn credentials(addresses: &Addresses, examined: &Examined<'_>, parts: &mut Parts) {
    let text = examined.text;
    for found in addresses.scheme.find_iter(text) {
        let from = found.end();
        let rest = &text[from..super::scan::floor(text, from + AUTHORITY_BYTES_MAX)];
        let run =
            &rest[..rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '`')).unwrap_or(rest.len())];
        user_information(examined, from, run, found.as_str(), parts);
    }
    for pattern in [&addresses.data_source, &addresses.thin] {
        for found in pattern.captures_iter(text) {
            if let Some(secret) = found.get(1).filter(|secret| !is_no_secret(examined, secret.as_str())) {
                parts.add(secret.start(), secret.end());
            }
        }
    }
}

/// Finds the password in `user:password@host`. A password may contain characters that RFC 3986 requires to be encoded, so it ends
/// at the last `@` before the path that is followed by a host or, if there is none, at the first such `@` in the path. If a port
/// and a slash come before this `@`, there is no password.
fn user_information(examined: &Examined<'_>, from: usize, run: &str, scheme: &str, parts: &mut Parts) {
    // User information encoded inside another address, which is not handled here: `https%3A%2F%2Fbob%3AS%40host`
    if scheme.contains('%') {
        return;
    }
    let host_follows = |at: usize| {
        let host = &run[at + 1..];
        let length = host
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | '$' | '{' | '}')))
            .unwrap_or(host.len());
        length > 0
            && host[length..]
                .chars()
                .next()
                .is_none_or(|c| matches!(c, ':' | '/' | '?' | '#' | ',' | ';' | ')' | '\'' | '\\' | '*' | '&' | '|'))
    };
    // Search only the part before a query or a nested address, because both are examined for credentials separately.
    let limit = run.find("?").unwrap_or(run.len());
    let limit = run.find("://").map_or(limit, |at| limit.min(at));
    let ends: Vec<usize> = run[..limit].match_indices('@').map(|(at, _)| at).filter(|at| host_follows(*at)).collect();
    let path = run.find('/').unwrap_or(run.len());
    let Some(first) = ends.first().copied() else {
        // There is no `@` before the query: either there is no user information, or the password contains a `?`, which is not
        // handled.
        return;
    };
    // An `@` after the first slash rarely precedes a host: `/x@y`. Prefer the last `@` before the slash; if there is none, use
    // the first one after it.
    let end = ends.iter().rev().copied().find(|end| *end < path).unwrap_or(first);
    let information = &run[..end];
    let Some((user, password)) = information.split_once(':') else {
        let is_token = scheme.to_ascii_lowercase().starts_with("http")
            && information.len() >= TOKEN_USER_BYTES_MIN
            && looks_made_up(information)
            && !information.contains(['/', '.'])
            && information.bytes().any(|b| b.is_ascii_digit());
        if is_token && !is_no_secret(examined, information) {
            parts.add(from, from + end);
        }
        return;
    };
    let is_port = password.split('/').next().is_some_and(|port| {
        password.contains('/') && (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit())
    });
    if is_port || user.contains('/') || is_no_secret(examined, password) {
        return;
    }
    let begin = from + user.len() + 1;
    parts.add(begin, from + end);
    // `token:x-oauth-basic@`: the user name is the secret.
    if matches!(password, "x-oauth-basic" | "x-access-token" | "") && looks_secret(user) {
        parts.add(from, from + user.len());
    }
}

/// Finds codes in paths, such as those for password resets, invitations and confirmations.
pub(super) fn codes_in_paths(addresses: &Addresses, examined: &Examined<'_>, parts: &mut Parts) {
    let text = examined.text;
    let mut from = 0;
    while let Some(found) = addresses.code_words.find_at(text, from) {
        // The slash that ends this match may begin the next one.
        from = found.end() - 1;
        let words = found.as_str().trim_matches('/').to_ascii_lowercase();
        if !words.split(['-', '_']).any(|word| CODE_WORDS.contains(&word)) {
            continue;
        }
        let mut at = found.end();
        for _ in 0..SEGMENTS_BEHIND {
            let rest = &text[at..];
            let end = rest
                .find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace())
                .unwrap_or(rest.len());
            let part = &rest[..end];
            let is_file = part
                .rsplit_once('.')
                .is_some_and(|(_, end)| (1..=5).contains(&end.len()) && end.bytes().all(|b| b.is_ascii_alphabetic()));
            if part.len() >= SEGMENT_BYTES_MIN
                && part.bytes().any(|b| b.is_ascii_digit())
                && !is_file
                && !is_no_secret(examined, part)
            {
                parts.add(at, at + end);
            }
            if !rest[end..].starts_with('/') {
                break;
            }
            at += end + 1;
        }
    }
}
