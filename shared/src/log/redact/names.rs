//! Names under which secrets stand.

use std::fmt::Write as _;

use regex::Regex;

use super::BadName;

/// A name that ends with one of these, whatever stands in front and however it is spelled: `userPassword`, `X-Api-Key`,
/// `dbpasswd`. Written without separators.
const LONG: [&str; 27] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "privatekey",
    "secretkey",
    "accesskey",
    "signingkey",
    "encryptionkey",
    "sessionkey",
    "authorization",
    "cookie",
    "securityanswer",
    "credentials",
    "cardnumber",
    "recoverycode",
    "backupcode",
    "mfacode",
    "verificationcode",
    "onetimecode",
    "otpcode",
    "authcode",
    "authorizationcode",
    "resetcode",
];
/// The same, where they are a word of their own: `card_pin`, not `shipping`.
const SHORT: [&str; 6] = ["pwd", "pass", "pin", "otp", "cvv2?|cvc2?", "jwt"];
/// What may follow the word for a secret: `password2`, `password_confirmation`, `token_hash`.
const TAIL: &str = "(?:[0-9]{1,2}|confirm(?:ation)?|repeat|again|new|old|plain|hash(?:es|ed)?|salt|value|string)?";
/// Most of a name that is looked at, in bytes from its end; names are no longer in any entry that people write.
const NAME_BYTES_MAX: usize = 256;

/// Which names stand for secrets.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Of names without separators.
    long: Regex,
    /// Of names with `_` between words.
    short: Regex,
    own: Option<Regex>,
}

/// What kind of name it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// A number under it is a secret like everything else.
    Secret,
    /// A number under it is a count: `max_tokens`.
    Plural,
}

impl Names {
    /// `more` are names as people write them; case, `-` and camel case do not matter, and `*` stands for anything.
    pub(super) fn new(more: &[String]) -> Result<Self, BadName> {
        let wrong = |_| BadName(more.join(", "));
        let mut own = String::new();
        for name in more {
            let plain = name.trim();
            let is_name =
                !plain.trim_matches('*').is_empty() && plain.len() <= NAME_BYTES_MAX && !plain.contains(['.', '/']);
            if !is_name {
                return Err(BadName(name.clone()));
            }
            let parts: Vec<String> = plain.split('*').map(|part| regex::escape(&snake(part))).collect();
            let _ = write!(own, "{}^{}$", if own.is_empty() { "" } else { "|" }, parts.join(".*"));
        }
        Ok(Self {
            long: Regex::new(&format!("(?:{})(s?){TAIL}$", LONG.join("|"))).map_err(wrong)?,
            short: Regex::new(&format!("(?:^|_)(?:{})(s?)$", SHORT.join("|"))).map_err(wrong)?,
            own: if own.is_empty() { None } else { Some(Regex::new(&own).map_err(wrong)?) },
        })
    }

    pub(super) fn kind(&self, name: &str) -> Kind {
        // A path such as `settings.smtp.password` is judged by its end, and `api.key` by both.
        let last = name.rsplit(['.', '/']).next().unwrap_or(name);
        let snake = snake(tail_of(last));
        if self.own.as_ref().is_some_and(|own| own.is_match(&snake)) {
            return Kind::Secret;
        }
        let squashed: String = snake.chars().filter(|c| *c != '_').collect();
        match self.long.captures(&squashed).or_else(|| self.short.captures(&snake)) {
            None => Kind::Plain,
            Some(found) if found.get(1).is_some_and(|plural| !plural.is_empty()) || snake.ends_with("pass") => {
                Kind::Plural
            }
            Some(_) => Kind::Secret,
        }
    }

    pub(super) fn stands_for_secret(&self, name: &str) -> bool {
        self.kind(name) != Kind::Plain
    }
}

fn tail_of(name: &str) -> &str {
    let mut from = name.len().saturating_sub(NAME_BYTES_MAX);
    while !name.is_char_boundary(from) {
        from += 1;
    }
    &name[from..]
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

/// A word of [`LONG`] in running text: letters with or without a separator in between would fit too much, so it may have one
/// where words meet.
fn spelled(word: &str) -> String {
    for second in ["key", "code", "number", "answer"] {
        if let Some(first) = word.strip_suffix(second).filter(|first| !first.is_empty()) {
            return format!("{}[_ -]?{second}", first.replace("onetime", "one[_ -]?time"));
        }
    }
    word.to_owned()
}

/// Names of secrets as running text has them, in front of `=` or `:`.
pub(super) fn in_text() -> String {
    let long: Vec<String> = LONG.iter().map(|word| spelled(word)).collect();
    let tail = format!("(?:[_-]?{TAIL})?");
    format!("(?:[a-z0-9_.-]*(?:{})s?{tail}|(?:[a-z0-9_.-]*[_.-])?(?:{})s?)", long.join("|"), SHORT.join("|"))
}

/// What a name of a secret looks like at its end, in any text: for finding entries that need a closer look.
pub(super) fn loosely(more: &[String]) -> String {
    // Any separator anywhere: names are compared without.
    let apart = |word: &str| word.chars().map(|c| c.to_string()).collect::<Vec<_>>().join("[_ -]?");
    let mut all: Vec<String> = LONG.iter().map(|word| apart(word)).collect();
    all.extend(SHORT.iter().map(|word| format!("(?:{word})")));
    let built_in = format!(r#"(?:{})s?[_ -]?{}(?:\\?["']|\s*[=:])"#, all.join("|"), TAIL);
    // The longest piece of an own name, wherever it stands.
    let own = more.iter().filter_map(|name| {
        let piece = name.split('*').max_by_key(|piece| piece.len())?;
        let words = snake(piece);
        let words: Vec<String> = words.split('_').filter(|word| !word.is_empty()).map(regex::escape).collect();
        (!words.is_empty()).then(|| words.join("[_ -]?"))
    });
    std::iter::once(built_in).chain(own).collect::<Vec<_>>().join("|")
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
            "passWord",
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
            "password1",
            "new_password2",
            "password_confirmation",
            "passwordConfirm",
            "token_hash",
            "SecretString",
            "authorization_code",
            "access_keys",
            "OTPCode",
            "ACCESSKey",
            "db_pass",
            "cvv2",
            "jwts",
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
            "bypass",
            "passed",
            "compass",
        ] {
            assert!(!names.stands_for_secret(plain), "{plain}");
        }
        for bad in ["*", "", "card.number", "a/b"] {
            assert!(Names::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
