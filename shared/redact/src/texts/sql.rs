//! Finds secrets in SQL: passwords of users and roles, and values of columns whose names suggest a secret.

use regex::Regex;

use super::examined::{Examined, Parts, is_no_secret, pattern};
use super::scan::quoted_end;

/// Maximum number of columns of one statement that are checked.
const COLUMNS_MAX: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct Sql {
    /// Matches up to the quote that opens the password.
    quoted: Regex,
    bare: Regex,
    insert: Regex,
    replace: Regex,
    verb: Regex,
}

impl Sql {
    pub(super) fn new() -> Self {
        Self {
            quoted: pattern(concat!(
                r"(?i)(?-u:\b)(?:identified\s+(?:with\s+\S+\s+)?(?:by|as)(?:\s+password|\s+values)?\s*",
                r"|identified\s+via\s+\S+\s+(?:using|as)(?:\s+password\s*\(|\s)\s*",
                r"|password\s+for\s+\S+\s*=\s*(?:(?:old_)?password\s*\(\s*)?",
                r"|(?:password|secret|passphrase|credential)(?:\s*=\s*|\s+)(?:(?:old_)?password\s*\(\s*)?",
                r"|(?:(?:old_)?password|crypt|pgp_sym_encrypt|pgp_sym_decrypt|encryptbypassphrase|aes_encrypt|aes_decrypt|hashbytes)\s*\(\s*",
                r"|(?:secret|private|master)\s+key(?:\s+encryption)?\s+by\s+password\s*=?\s*)[a-zA-Z]?(')",
            )),
            // Oracle and MariaDB accept names and hashes without quotes.
            bare: pattern(r#"(?i)(?-u:\b)identified\s+by\s+(?:values\s+)?([^\s;'"]+|"[^"]*")"#),
            replace: pattern(
                r#"(?i)(?-u:\b)identified\s+by\s+(?:'[^']*'|"[^"]*"|\S+)\s+replace\s+([^\s;'"]+|"[^"]*"|'[^']*')"#,
            ),
            verb: pattern(
                r"(?i)(?-u:\b)(?:create|alter|set|grant|update|insert|replace|change|select|open|close|backup|restore|exec|execute|connect|drop)(?-u:\b)",
            ),
            insert: pattern(
                r#"(?is)(?-u:\b)(?:insert|replace)\s+(?:ignore\s+)?into\s+[^\s(]+\s*\(([^()]+)\)\s*values\s*"#,
            ),
        }
    }
}

pub(super) fn literals(sql: &Sql, examined: &Examined<'_>, parts: &mut Parts) {
    let text = examined.text;
    if !sql.verb.is_match(text) {
        return;
    }
    for found in sql.quoted.captures_iter(text) {
        let Some(quote) = found.get(1) else { continue };
        let (end, _) = quoted_end(text, quote.end(), "'");
        if !is_no_secret(examined, &text[quote.end()..end]) {
            parts.add(quote.end(), end);
        }
    }
    for found in sql.bare.captures_iter(text).chain(sql.replace.captures_iter(text)) {
        let Some(word) = found.get(1) else { continue };
        let is_keyword = ["password", "values", "external", "externally", "globally", "random"]
            .iter()
            .any(|other| word.as_str().eq_ignore_ascii_case(other));
        let (lead, tail) = if word.as_str().starts_with(['"', '\'']) { (1, 1) } else { (0, 0) };
        if !is_keyword && !is_no_secret(examined, word.as_str()) && word.len() > lead + tail {
            parts.add(word.start() + lead, word.end() - tail);
        }
    }
    let mut read_to = 0;
    for found in sql.insert.captures_iter(text) {
        let (Some(columns), Some(all)) = (found.get(1), found.get(0)) else { continue };
        // Text that was already read as the rows of one statement is not read again as the rows of another.
        if all.end() < read_to {
            continue;
        }
        let is_secret =
            |column: &str| examined.names.class(column.trim().trim_matches(['`', '"', '[', ']'])).is_secret();
        let secret: Vec<bool> = columns.as_str().split(',').take(COLUMNS_MAX).map(is_secret).collect();
        if secret.contains(&true) {
            read_to = rows(examined, all.end(), &secret, parts);
        }
    }
}

/// Examines the lists after VALUES; returns where they end.
fn rows(examined: &Examined<'_>, from: usize, secret: &[bool], parts: &mut Parts) -> usize {
    let text = examined.text;
    let bytes = text.as_bytes();
    let (mut at, mut column, mut depth) = (from, 0, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            b'(' => {
                depth += 1;
                if depth == 1 {
                    column = 0;
                }
                at += 1;
            }
            b')' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b',' => {
                column += usize::from(depth == 1);
                at += 1;
            }
            b'\'' => {
                let (end, behind) = quoted_end(text, at + 1, "'");
                if depth >= 1 && secret.get(column) == Some(&true) && !is_no_secret(examined, &text[at + 1..end]) {
                    parts.add(at + 1, end);
                }
                at = behind;
            }
            b if b.is_ascii_whitespace() => at += 1,
            _ if depth == 0 => return at,
            _ => {
                let end = at
                    + bytes[at..]
                        .iter()
                        .position(|b| matches!(b, b',' | b')' | b'(' | b'\''))
                        .unwrap_or(bytes.len() - at);
                let word = text[at..end].trim();
                let is_number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
                if depth == 1 && is_number && secret.get(column) == Some(&true) {
                    parts.add(at, at + word.len());
                }
                at = end;
            }
        }
    }
    at
}
