//! How secrets look in running text: headers, addresses with passwords in them, `name=value`, keys, tokens.

use std::borrow::Cow;

use regex::{Captures, Regex};

use super::MASK;
use super::names::loose_endings;

/// A part of a path behind a word such as `reset` is taken for a secret when it is at least so many bytes long and has a
/// digit: names of things are shorter or have none.
const SEGMENT_BYTES_MIN: usize = 16;

/// Patterns and what is kept of each find; `$1` and so on are its groups.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    patterns: Vec<(Regex, &'static str)>,
    segments: Regex,
}

/// Each is a constant, so a wrong one is found by the first test.
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

impl Texts {
    pub(super) fn new() -> Self {
        let named = format!(
            r#"(?i)((?:^|[^a-z0-9])[a-z0-9_.-]*{}\\?["']?\s*[=:]\s*\\?["']?)([^\s&;,"'\\}}]+)"#,
            loose_endings()
        );
        Self {
            patterns: vec![
                (pattern(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)"), MASK),
                // Before `name=value`, which would take the word `Bearer` for the value.
                (pattern(r"(?i)\b(bearer)\s+[a-z0-9._~+/=-]{6,}"), "$1 ***"),
                (pattern(r"(?i)\b(basic)\s+[a-z0-9+/=]{16,}"), "$1 ***"),
                (pattern(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), MASK),
                (
                    pattern(
                        r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk_live_|rk_live_|prl_)[A-Za-z0-9_-]{10,}",
                    ),
                    MASK,
                ),
                (pattern(r#"(?i)(\b[a-z][a-z0-9+.-]*://[^\s/?#:@"']*):[^\s/?#@"']+@"#), "$1:***@"),
                (pattern(&named), "$1***"),
            ],
            segments: pattern(
                r"(?i)(/[a-z0-9_-]*(?:passw|token|secret|reset|invit|magic|verif|confirm|unsubscribe|share)[a-z0-9_-]*/)([^/?#\s]+)",
            ),
        }
    }

    /// The text without secrets.
    pub(super) fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut masked = Cow::Borrowed(text);
        for (pattern, kept) in &self.patterns {
            if let Cow::Owned(new) = pattern.replace_all(&masked, *kept) {
                masked = Cow::Owned(new);
            }
        }
        let segment = |found: &Captures<'_>| {
            let part = &found[2];
            let is_secret = part.len() >= SEGMENT_BYTES_MIN && part.bytes().any(|b| b.is_ascii_digit());
            format!("{}{}", &found[1], if is_secret { MASK } else { part })
        };
        if let Cow::Owned(new) = self.segments.replace_all(&masked, segment) {
            masked = Cow::Owned(new);
        }
        // A pattern that finds what was masked before changes nothing.
        if masked == text { Cow::Borrowed(text) } else { masked }
    }

    /// What any of the patterns begins with, in JSON text: cheap to look for.
    pub(super) fn loose() -> String {
        format!(
            r#"{}(?:\\?["']|\s*[=:])|bearer\s|basic\s+[a-z0-9]|eyJ|PRIVATE KEY|://[^\s/"]*:[^\s/"]*@|gh[pousr]_|github_pat|glpat|xox[abprs]-|k_live_|prl_|/[a-z0-9_-]*(?:passw|token|secret|reset|invit|magic|verif|confirm|unsubscribe|share)[a-z0-9_-]*/"#,
            loose_endings()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_running_text_are_masked() {
        let texts = Texts::new();
        for (text, masked) in [
            ("Authorization: Bearer abcdef123", "Authorization: *** ***"),
            ("sent Bearer abcdef123 to it", "sent Bearer *** to it"),
            ("Basic dXNlcjpwYXNzd29yZA==", "Basic ***"),
            ("/login?user=a&password=hunter2&next=/", "/login?user=a&password=***&next=/"),
            ("login failed with password: hunter2, again", "login failed with password: ***, again"),
            (r#"body {"api_key":"abc","n":1}"#, r#"body {"api_key":"***","n":1}"#),
            (r#"body {\"token\": \"abc\"}"#, r#"body {\"token\": \"***\"}"#),
            ("postgres://app:s3cret@db/x", "postgres://app:***@db/x"),
            ("got eyJhbGciOiJI.eyJzdWIiOiIx.c2ln back", "got *** back"),
            ("ghp_0123456789abcdef", "***"),
            ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----x", "***x"),
            ("-----BEGIN PRIVATE KEY-----\nabc", "***"),
            ("/reset-password/0123456789abcdef01?x=1", "/reset-password/***?x=1"),
        ] {
            assert_eq!(texts.mask(text), masked, "{text}");
            assert_eq!(texts.mask(masked), masked, "masking again changes nothing");
        }
        for plain in [
            "changed the password of alice",
            "a basic understanding",
            "DELETE /api/v1/tokens/billing",
            "https://example.org:8443/x@y",
            "the token was revoked",
        ] {
            assert_eq!(texts.mask(plain), plain);
        }
    }
}
