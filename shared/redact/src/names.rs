//! Recognizes names of secrets.

use std::fmt::Write as _;

use regex::Regex;

use super::mask::BadName;

/// Kind of value that a name denotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Plain,
    /// A password, PIN or one-time code. A number with such a name is a secret too.
    Password,
    /// A token, key or other machine-made credential. If the name is plural, a number is a count: `max_tokens`.
    Token,
    /// An HTTP header that carries credentials. Its value extends to the end of the line.
    Header,
}

impl Class {
    pub(super) fn is_secret(self) -> bool {
        self != Self::Plain
    }
}

/// Words for a password, written without separators. A name that ends with one of them, in any spelling, is the name of a
/// password: `userPassword`, `X-Pass-Phrase`.
const PASSWORDS: &str = "password|passwd|passphrase|passcode|pwd|passwort|kennwort|contrase(?:n|ñ)a|motdepasse|senha|wachtwoord|parola|lösenord|пароль|密码|密碼|パスワード|securityanswer|cardnumber|recoverycode|backupcode|mfacode|verificationcode|onetimecode|onetimepassword|otpcode|pincode|resetcode|tancode|cvvcode|securitycode|accesscode";
/// Words for tokens, keys and other credentials.
const TOKENS: &str = "secret|token|apikey|appkey|privatekey|secretkey|accesskey|signingkey|encryptionkey|decryptionkey|sessionkey|masterkey|sshkey|accountkey|sharedkey|presharedkey|hmackey|aeskey|authkey|clientkey|storagekey|servicekey|functionkey|subscriptionkey|webhookkey|licensekey|deploykey|rootkey|signaturekey|secretkeybase|credentials|authcode|authorizationcode|jsessionid|phpsessid|aspnetsessionid|connectsid|sharedaccesssignature|sastoken";
const HEADERS: &str = "authorization|cookie";
/// Short words that count only as separate words of a name: `card_pin`, not `shipping`.
const SHORT: &str = "pw|puk|rootpw|pin|otp|totp|cvv2?|cvc2?|psk|passw";
const SHORT_TOKENS: &str = "jwt|pat|sas";
/// Suffixes that may follow a word in `PASSWORDS` or `TOKENS`: `password2`, `password_confirmation`, `token_hash`.
const TAIL: &str = "(?:[0-9]{1,2}|confirm(?:ation)?|repeat|again|new|old|current|previous|plain(?:text)?|raw|hash(?:es|ed)?|salt|value|string|binary|b64|base64|enc(?:oded|rypted)?)?";
/// Words that end with "pass" but do not name a password.
const NO_PASS: [&str; 9] =
    ["bypass", "compass", "trespass", "encompass", "surpass", "overpass", "underpass", "bandpass", "highpass"];
/// Names of pagination tokens and other values that grant no access.
const NO_TOKENS: [&str; 16] = [
    "nexttoken",
    "pagetoken",
    "nextpagetoken",
    "paginationtoken",
    "continuationtoken",
    "continuetoken",
    "synctoken",
    "cancellationtoken",
    "starttoken",
    "nosecret",
    "existingsecret",
    "imagepullsecret",
    "imagepullsecrets",
    "pullsecret",
    "externalsecret",
    "sealedsecret",
];
/// Last components of a path that qualify a value without naming it: `smtp.password.value`, `/password/old`.
const SIDES: [&str; 24] = [
    "value",
    "values",
    "old",
    "new",
    "string",
    "text",
    "data",
    "current",
    "previous",
    "plain",
    "from",
    "to",
    "before",
    "after",
    "-",
    "content",
    "prod",
    "production",
    "dev",
    "staging",
    "stage",
    "test",
    "qa",
    "live",
];
/// Maximum number of bytes at the end of a name that are examined.
const NAME_BYTES_MAX: usize = 256;

/// Compiled patterns of the names of secrets.
#[derive(Debug, Clone)]
pub(super) struct Names {
    passwords: Regex,
    tokens: Regex,
    headers: Regex,
    short: Regex,
    short_tokens: Regex,
    /// Cheap pre-check: a name that does not match is not the name of a secret, unless it is a custom name.
    hint: Regex,
    own: Option<Regex>,
}

impl Names {
    /// Compiles the patterns. `more` are custom names as people write them: case, `-` and camel case do not matter, and `*`
    /// matches anything.
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
        let regex = |text: String| Regex::new(&text).map_err(wrong);
        Ok(Self {
            passwords: regex(format!("(?:{PASSWORDS})(s?|en)(?:{TAIL})$"))?,
            tokens: regex(format!("(?:{TOKENS})(s?)(?:{TAIL})$"))?,
            headers: regex(format!("(?:{HEADERS})s?$"))?,
            short: regex(format!("(?:^|_)(?:{SHORT})(?:s|_?[0-9]{{1,2}})?$"))?,
            short_tokens: regex(format!("(?:^|_)(?:{SHORT_TOKENS})s?$"))?,
            hint: regex(format!("(?i){}", HINTS))?,
            own: if own.is_empty() { None } else { Some(regex(own)?) },
        })
    }

    /// Returns the class of a name, which may be a path: `smtp.password.value`, `/tokens/-`, `user[password]`.
    pub(super) fn class(&self, name: &str) -> Class {
        self.classify(name).0
    }

    /// Returns whether a number with this name is a count of secrets.
    pub(super) fn is_count(&self, name: &str) -> bool {
        let (class, plural) = self.classify(name);
        plural && matches!(class, Class::Token | Class::Password)
    }

    fn classify(&self, name: &str) -> (Class, bool) {
        let name = tail_of(name);
        if !self.hint.is_match(name) && self.own.is_none() {
            return (Class::Plain, false);
        }
        let last = last_piece(name);
        let snake = snake(last);
        if self.own.as_ref().is_some_and(|own| own.is_match(&snake)) {
            return (Class::Password, false);
        }
        let squashed: String = snake.chars().filter(|c| *c != '_').collect();
        if NO_TOKENS.contains(&squashed.as_str()) {
            return (Class::Plain, false);
        }
        let plural = |regex: &Regex| {
            regex.captures(&squashed).map(|found| found.get(1).is_some_and(|plural| !plural.is_empty()))
        };
        if let Some(plural) = plural(&self.passwords) {
            return (Class::Password, plural);
        }
        if let Some(plural) = plural(&self.tokens) {
            return (Class::Token, plural);
        }
        if self.headers.is_match(&squashed) {
            return (Class::Header, false);
        }
        // `gpio_pin` is a pin of a chip.
        if squashed.starts_with("gpio") {
            return (Class::Plain, false);
        }
        // `db_pass`, `mypass`, `pass1`: a number with such a name is a PIN, never a count.
        let word = snake.rsplit('_').find(|word| !word.bytes().all(|b| b.is_ascii_digit())).unwrap_or_default();
        let bare = word.trim_end_matches(|c: char| c.is_ascii_digit());
        let is_pass = bare.ends_with("pass") && !NO_PASS.iter().any(|other| bare.ends_with(other));
        if is_pass || self.short.is_match(&snake) {
            return (Class::Password, false);
        }
        if self.short_tokens.is_match(&snake) { (Class::Token, true) } else { (Class::Plain, false) }
    }
}

/// Alternatives of a pattern that every name of a secret matches, except custom names.
const HINTS: &str = "pass|pwd|pw|contrase|senha|wachtwoord|parola|senord|пароль|密|パス|answer|number|code|secret|token|key|credential|sess|sid|author|cookie|pin|puk|otp|cv[vc]|psk|jwt|pat|sas|kennwort|signature";

/// Returns the last component of a path that names something, skipping indexes and the words in [`SIDES`].
fn last_piece(name: &str) -> &str {
    let pieces = || name.rsplit(['.', '/', '[', ']', ':']).map(str::trim).filter(|piece| !piece.is_empty());
    let names_something = |piece: &&str| {
        !piece.bytes().all(|b| b.is_ascii_digit()) && !SIDES.iter().any(|side| piece.eq_ignore_ascii_case(side))
    };
    pieces().find(names_something).or_else(|| pieces().next()).unwrap_or(name)
}

fn tail_of(name: &str) -> &str {
    let mut from = name.len().saturating_sub(NAME_BYTES_MAX);
    while !name.is_char_boundary(from) {
        from += 1;
    }
    &name[from..]
}

/// Converts a name to snake case: `userPassword`, `User-Password` and `user password` become `user_password`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut before_is_lower = false;
    for c in name.chars() {
        if matches!(c, '-' | ' ' | '$' | '@' | '"' | '\'') {
            out.push('_');
        } else if c.is_uppercase() {
            if before_is_lower {
                out.push('_');
            }
            out.extend(c.to_lowercase());
        } else {
            out.push(c);
        }
        before_is_lower = c.is_lowercase() || c.is_ascii_digit();
    }
    out
}

/// Returns a pattern for every custom name, used to test quickly whether an entry can contain that name.
pub(super) fn own_hints(more: &[String]) -> impl Iterator<Item = String> + '_ {
    // Use the longest part of the name between asterisks; it may occur anywhere in the text.
    more.iter().filter_map(|name| {
        let piece = name.split('*').max_by_key(|piece| piece.len())?;
        let words = snake(piece);
        let words: Vec<String> = words.split('_').filter(|word| !word.is_empty()).map(regex::escape).collect();
        (!words.is_empty()).then(|| words.join("[_ -]?"))
    })
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
            "dbpwd",
            "pwd2",
            "pass1",
            "mypass",
            "pw",
            "passwort",
            "psk",
            "AccountKey",
            "master_key",
            "ssh_key",
            "/passwords/0",
            "/tokens/-",
            "/password/",
            "passwords[0]",
            "smtp.password.value",
            "user[password]",
            "contraseña",
        ] {
            assert!(names.class(secret).is_secret(), "{secret}");
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
            "nextToken",
            "secretName",
            "secretKeyRef",
            "password_file",
            "authorization.k8s.io/decision",
            "code",
            "value",
        ] {
            assert!(!names.class(plain).is_secret(), "{plain}");
        }
        for bad in ["*", "", "card.number", "a/b"] {
            assert!(Names::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_counts_only_under_plurals_of_what_is_counted() {
        let names = Names::new(&[]).expect("no names");
        for count in ["max_tokens", "failed_passwords", "tokens", "secrets"] {
            assert!(names.is_count(count), "{count}");
        }
        for secret in ["pins", "pass", "db_pass", "otp", "password", "token"] {
            assert!(!names.is_count(secret), "{secret}");
        }
    }
}
