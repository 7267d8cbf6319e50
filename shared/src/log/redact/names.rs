//! Names under which secrets stand.

use std::fmt::Write as _;

use regex::Regex;

use super::BadName;

/// A name that ends with one of these, whatever stands in front: `userPassword`, `X-Api-Key`, `dbpasswd`.
const ENDINGS: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "api_?key",
    "private_?key",
    "authorization",
    "cookie",
    "security_?answer",
];
/// The same, where they are a word of their own: `card_pin`, not `shipping`.
const WORDS: [&str; 17] = [
    "pwd",
    "pin",
    "otp",
    "cvv",
    "cvc",
    "jwt",
    "credentials",
    "access_key",
    "secret_key",
    "signing_key",
    "encryption_key",
    "session_key",
    "password_hash",
    "password_salt",
    "card_number",
    "(?:recovery|backup|mfa|verification|one_time|otp)_codes?",
    "auth_code",
];
/// Most of a name that is looked at, in bytes from its end; names are no longer in any entry that people write.
const NAME_BYTES_MAX: usize = 256;

/// Which names stand for secrets.
#[derive(Debug, Clone)]
pub(super) struct Names(Regex);

impl Names {
    /// `more` are names as people write them; case, `-` and camel case do not matter, and `*` stands for anything.
    pub(super) fn new(more: &[String]) -> Result<Self, BadName> {
        let mut pattern = format!("(?:(?:{})s?|(?:^|_)(?:{}))$", ENDINGS.join("|"), WORDS.join("|"));
        for name in more {
            let plain = name.trim();
            if plain.trim_matches('*').is_empty() || plain.len() > NAME_BYTES_MAX {
                return Err(BadName(name.clone()));
            }
            let parts: Vec<String> = plain.split('*').map(|part| regex::escape(&snake(part))).collect();
            let _ = write!(pattern, "|^{}$", parts.join(".*"));
        }
        Regex::new(&pattern).map(Self).map_err(|_| BadName(more.join(", ")))
    }

    pub(super) fn stands_for_secret(&self, name: &str) -> bool {
        // A path such as `settings.smtp.password` is judged by its end.
        let last = name.rsplit(['.', '/']).next().unwrap_or(name);
        let mut from = last.len().saturating_sub(NAME_BYTES_MAX);
        while !last.is_char_boundary(from) {
            from += 1;
        }
        self.0.is_match(&snake(&last[from..]))
    }
}

/// `userPassword`, `User-Password` and `user password` are `user_password`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut before_is_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            if before_is_lower {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        } else {
            out.push(if matches!(c, '-' | ' ') { '_' } else { c });
        }
        before_is_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    out
}

/// What a name of a secret looks like at its end, in any text: for finding entries that need a closer look.
pub(super) fn loose_endings() -> String {
    let all: Vec<String> =
        ENDINGS.iter().chain(&WORDS).map(|word| word.replace("_?", "_").replace('_', "[_ -]?")).collect();
    format!("(?:{})s?", all.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_and_others_are_left_alone() {
        let names = Names::new(&["ssn".to_owned(), "card*".to_owned(), "X-Door".to_owned()]).expect("good names");
        for secret in [
            "password",
            "Password",
            "userPassword",
            "new_password",
            "db.password",
            "settings/smtp/passwd",
            "apiKey",
            "API_KEY",
            "x-api-key",
            "client_secret",
            "secrets",
            "accessToken",
            "refresh_token",
            "Authorization",
            "Set-Cookie",
            "cookies",
            "pin",
            "card_pin",
            "otp",
            "passwordHash",
            "recovery_codes",
            "private_key",
            "ssn",
            "cardHolder",
            "x_door",
            "accesstoken",
        ] {
            assert!(names.stands_for_secret(secret), "{secret}");
        }
        for plain in [
            "password_changed_at",
            "token_id",
            "token_count",
            "shipping",
            "access_key_id",
            "secretary",
            "keys",
            "key",
            "author",
            "credential",
            "session",
            "public_key",
            "cookie_consent",
            "has_password_policy",
            "spin",
            "user",
        ] {
            assert!(!names.stands_for_secret(plain), "{plain}");
        }
        assert!(Names::new(&["*".to_owned()]).is_err());
    }
}
