//! How secrets look in running text: headers, addresses with passwords in them, `name=value`, keys, tokens.

use std::borrow::Cow;

use regex::{Captures, Regex};

use super::MASK;
use super::names::{in_text, loosely};

/// A part of a path behind a word such as `reset` is taken for a secret when it is at least so many bytes long and has a
/// digit: names of things are shorter or have none.
const SEGMENT_BYTES_MIN: usize = 16;
/// Parts of a path that are looked at behind such a word: `/password/reset/MQ/c2x5-0123…`.
const SEGMENTS_BEHIND: usize = 3;
/// Words in a path behind which codes stand.
const CODE_WORDS: [&str; 17] = [
    "reset",
    "password",
    "passwords",
    "token",
    "tokens",
    "secret",
    "secrets",
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
/// Letters of one case that a bare credential may have before it is no word of a language any more.
const WORD_BYTES_MAX: usize = 20;

#[derive(Debug, Clone)]
pub(super) struct Texts {
    /// What is masked as a whole, or but for its first group.
    whole: Vec<(Regex, &'static str)>,
    /// `Bearer …` and `Basic …`.
    schemes: Regex,
    /// Up to where the value of a named secret begins.
    named: Regex,
    code_words: Regex,
}

/// Each is a constant, so a wrong one is found by the first test.
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

impl Texts {
    pub(super) fn new() -> Self {
        Self {
            whole: vec![
                (
                    pattern(
                        r"(?s)-{5}BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-{5}.*?(?:-{5}END [A-Z ]*PRIVATE KEY(?: BLOCK)?-{5}|\z)",
                    ),
                    MASK,
                ),
                // A header's value goes to the end of its line: `Token abc`, `theme=dark; sid=…`.
                (
                    pattern(
                        r#"(?i)((?-u:\b)(?:proxy-)?authorization|(?-u:\b)(?:set-)?cookie)(\\?["']?[\t ]*[:=][\t ]*\\?["']?)[^\r\n"'\\]+"#,
                    ),
                    "$1$2***",
                ),
                (pattern(r"(?-u:\b)eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), MASK),
                (
                    pattern(
                        r"(?-u:\b)(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|[sr]k_(?:live|test)_|AIza|prl_)[A-Za-z0-9_-]{10,}",
                    ),
                    MASK,
                ),
                (pattern(r#"(?i)((?-u:\b)[a-z][a-z0-9+.-]*:\\?/\\?/[^\s/?#:@"'\\]*):[^\s/"'\\]+@"#), "$1:***@"),
            ],
            schemes: pattern(r"(?i)((?-u:\b)(?:bearer|basic)\s+)([a-z0-9._~+/=-]{6,})"),
            named: pattern(&format!(r#"(?i)(?:^|[^a-z0-9_])({})(\\?["']?\s*[=:]\s*)"#, in_text())),
            code_words: pattern(&format!("(?i)/[a-z0-9_-]*(?:{})[a-z0-9_-]*/", CODE_WORDS.join("|"))),
        }
    }

    /// The text without secrets.
    pub(super) fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut masked = Cow::Borrowed(text);
        for (pattern, kept) in &self.whole {
            if let Cow::Owned(new) = pattern.replace_all(&masked, *kept) {
                masked = Cow::Owned(new);
            }
        }
        if let Cow::Owned(new) = self.schemes.replace_all(&masked, |found: &Captures<'_>| {
            if looks_made_up(&found[2]) { format!("{}{MASK}", &found[1]) } else { found[0].to_owned() }
        }) {
            masked = Cow::Owned(new);
        }
        for find in [Self::named_values, Self::codes_in_paths] {
            let parts = find(self, &masked);
            if !parts.is_empty() {
                masked = Cow::Owned(without(&masked, &parts));
            }
        }
        // A pattern that finds what was masked before changes nothing.
        if masked == text { Cow::Borrowed(text) } else { masked }
    }

    /// Where the values of named secrets stand.
    fn named_values(&self, text: &str) -> Vec<(usize, usize)> {
        let mut parts = Vec::new();
        let mut from = 0;
        while let Some(found) = self.named.captures_at(text, from) {
            let (Some(all), Some(name)) = (found.get(0), found.get(1)) else { break };
            let (begin, end) = value_at(text, all.end());
            let value = &text[begin..end];
            if !is_spared(name.as_str(), value) {
                parts.push((begin, end));
            }
            from = end.max(all.end());
        }
        parts
    }

    /// Where codes stand in paths.
    fn codes_in_paths(&self, text: &str) -> Vec<(usize, usize)> {
        let mut parts: Vec<(usize, usize)> = Vec::new();
        let mut from = 0;
        while let Some(found) = self.code_words.find_at(text, from) {
            // The slash that ends one word can begin the next.
            from = found.end() - 1;
            let words = found.as_str().trim_matches('/').to_ascii_lowercase();
            let is_word = |word: &str| CODE_WORDS.contains(&word);
            if !words.split(['-', '_']).any(is_word) {
                continue;
            }
            let names_things = words.ends_with('s');
            let mut at = found.end();
            for _ in 0..SEGMENTS_BEHIND {
                let rest = &text[at..];
                let end = rest
                    .find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace())
                    .unwrap_or(rest.len());
                let part = &rest[..end];
                let is_code = part.len() >= SEGMENT_BYTES_MIN && part.bytes().any(|b| b.is_ascii_digit());
                // Which of the tokens it was is what the entry is about.
                if is_code && !(names_things && uuid::Uuid::try_parse(part).is_ok()) && !parts.contains(&(at, at + end))
                {
                    parts.push((at, at + end));
                }
                if !rest[end..].starts_with('/') {
                    break;
                }
                at += end + 1;
            }
        }
        parts.sort_unstable();
        parts
    }

    /// What any of the patterns begins with, in JSON text without escapes: cheap to look for.
    pub(super) fn loose(more: &[String]) -> String {
        format!(
            r#"{}|(?:bearer|basic)\s|eyJ|PRIVATE KEY|://[^\s/"]*:[^\s/"]*@|gh[pousr]_|github_pat|glpat|xox[abprs]-|k_live_|k_test_|AIza|prl_|/[a-z0-9_-]*(?:{})[a-z0-9_-]*/"#,
            loosely(more),
            CODE_WORDS.join("|")
        )
    }
}

/// From the first byte of a value to behind its last one: what stands in quotes, in brackets, or up to where it ends.
fn value_at(text: &str, at: usize) -> (usize, usize) {
    let rest = &text[at..];
    for quote in ["\\\"", "\"", "'"] {
        let Some(inside) = rest.strip_prefix(quote) else { continue };
        let begin = at + quote.len();
        let mut from = 0;
        while let Some(found) = inside[from..].find(quote) {
            let end = from + found;
            // In front of a plain quote a backslash makes it a part of the value.
            if quote.len() > 1 || !inside[..end].ends_with('\\') {
                return (begin, begin + end);
            }
            from = end + quote.len();
        }
        return (begin, text.len());
    }
    if rest.starts_with(['[', '{']) {
        let mut depth = 0_usize;
        for (offset, c) in rest.char_indices() {
            match c {
                '[' | '{' => depth += 1,
                ']' | '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return (at, at + offset + 1);
            }
        }
        return (at, text.len());
    }
    let end = rest
        .find(|c: char| c.is_whitespace() || matches!(c, '&' | ';' | ',' | '"' | '\'' | '}' | ')' | '\\'))
        .unwrap_or(rest.len());
    (at, at + end)
}

/// That there is none, how many there are, and where a program stood, is no secret.
fn is_spared(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let is_folder = name.ends_with("pwd") && (value.starts_with(['/', '~']) || value.get(1..3) == Some(":\\"));
    // `API key: billing` is a name in a sentence.
    let is_prose = name.contains(' ') && !value.bytes().any(|b| b.is_ascii_digit());
    matches!(value, "" | MASK | "true" | "false" | "null" | "[]" | "{}")
        || (is_number && name.ends_with('s'))
        || is_folder
        || is_prose
}

/// Not a word of a language: it has a digit, or is long, or changes case like nothing that people write.
fn looks_made_up(text: &str) -> bool {
    let has = |of: fn(&u8) -> bool| text.bytes().any(|b| of(&b));
    let changes_case = text.bytes().skip(1).any(|b| b.is_ascii_uppercase()) && has(u8::is_ascii_lowercase);
    has(u8::is_ascii_digit) || text.len() > WORD_BYTES_MAX || changes_case
}

fn without(text: &str, parts: &[(usize, usize)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (begin, end) in parts {
        out.push_str(&text[from..*begin]);
        out.push_str(MASK);
        from = *end;
    }
    out.push_str(&text[from..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_running_text_are_masked() {
        let texts = Texts::new();
        for (text, masked) in [
            ("Authorization: Bearer abcdef123", "Authorization: ***"),
            ("Authorization: Token 9944b09199c6", "Authorization: ***"),
            ("Cookie: theme=dark; sessionid=abc123def\nAccept: */*", "Cookie: ***\nAccept: */*"),
            ("sent Bearer abcdef123 to it", "sent Bearer *** to it"),
            ("Basic dXNlcjpwYXNz", "Basic ***"),
            ("/login?user=a&password=hunter2&next=/", "/login?user=a&password=***&next=/"),
            ("login failed with password: hunter2, again", "login failed with password: ***, again"),
            (r#"body {"api_key":"abc","n":1}"#, r#"body {"api_key":"***","n":1}"#),
            (r#"body {"password":"Tr0ub4dor & 3","n":1}"#, r#"body {"password":"***","n":1}"#),
            (r#"body {"password":"ab\"cd"}"#, r#"body {"password":"***"}"#),
            (r#"body {"passwords":["alpha","beta"]} end"#, r#"body {"passwords":***} end"#),
            (r#"body {\"token\": \"abc\"}"#, r#"body {\"token\": \"***\"}"#),
            ("postgres://app:s3cret@db/x", "postgres://app:***@db/x"),
            ("postgres://app:p@ss@db/x", "postgres://app:***@db/x"),
            ("got eyJhbGciOiJI.eyJzdWIiOiIx.c2ln back", "got *** back"),
            ("ghp_0123456789abcdef", "***"),
            ("/reset-password/0123456789abcdef01?x=1", "/reset-password/***?x=1"),
            ("/password/reset/0123456789abcdef0123", "/password/reset/***"),
            ("/accounts/reset/MQ/c2x5kd-0123456789abcdef/", "/accounts/reset/MQ/***/"),
            ("new_password2=hunter2", "new_password2=***"),
        ] {
            assert_eq!(texts.mask(text), masked, "{text}");
            assert_eq!(texts.mask(masked), masked, "masking again changes nothing");
        }
        // Written apart: nothing in this file may look like a key to whoever searches for keys.
        let (begin, end) =
            (["-----BEGIN RSA ", "PRIVATE KEY-----"].concat(), ["-----END RSA ", "PRIVATE KEY-----"].concat());
        assert_eq!(texts.mask(&format!("{begin}\nabc\n{end}x")), "***x");
        assert_eq!(texts.mask(&format!("{begin}\nabc")), "***");
        for plain in [
            "changed the password of alice",
            "a basic understanding",
            "basic misconfiguration of TLS",
            "Bearer authentication failed",
            "DELETE /api/v1/tokens/billing",
            "DELETE /api/v1/tokens/0198c0de-0000-7000-8000-000000000001",
            "/usr/share/postgresql-16-common",
            "https://example.org:8443/x@y",
            "the token was revoked",
            "PWD=/home/bob ; USER=root",
            "Talked to Crispin: he agreed",
            "spin: 3",
            "max_tokens=100",
            "has_password: true",
            "deleted API key: billing-prod",
        ] {
            assert_eq!(texts.mask(plain), plain);
        }
    }
}
