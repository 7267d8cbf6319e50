//! Recognizes values by their form: placeholders, references to a secret, or machine-generated text.

use super::mask::MASK;
use super::names::{Class, Names};

/// Maximum length of a word in a natural language. Longer text counts as machine-made even if it has no digits or mixed case.
const WORD_BYTES_MAX: usize = 20;
/// Maximum length of a reference to a secret; longer texts are not examined.
const REFERENCE_BYTES_MAX: usize = 1_024;

/// Words that describe the state of a secret, or its absence.
const STATES: [&str; 97] = [
    "true",
    "false",
    "null",
    "nil",
    "none",
    "undefined",
    "unset",
    "set",
    "empty",
    "yes",
    "no",
    "on",
    "off",
    "changed",
    "unchanged",
    "updated",
    "rotated",
    "revoked",
    "expired",
    "expires",
    "expiring",
    "missing",
    "required",
    "optional",
    "invalid",
    "valid",
    "incorrect",
    "wrong",
    "failed",
    "failure",
    "failing",
    "success",
    "succeeded",
    "ok",
    "accepted",
    "rejected",
    "denied",
    "refused",
    "allowed",
    "allow",
    "deny",
    "granted",
    "forbidden",
    "unauthorized",
    "authorized",
    "enabled",
    "disabled",
    "present",
    "absent",
    "not",
    "is",
    "was",
    "are",
    "were",
    "has",
    "have",
    "had",
    "must",
    "should",
    "may",
    "can",
    "cannot",
    "could",
    "will",
    "would",
    "too",
    "does",
    "did",
    "never",
    "reset",
    "created",
    "deleted",
    "removed",
    "added",
    "issued",
    "generated",
    "verified",
    "mismatch",
    "mismatched",
    "locked",
    "unknown",
    "malformed",
    "redacted",
    "filtered",
    "masked",
    "hidden",
    "sensitive",
    "omitted",
    "unavailable",
    "authentication",
    "authenticated",
    "validation",
    "received",
    "sent",
    "needed",
    "read",
    "write",
];
/// Words that end a phrase, because the text after them is about something else.
pub(super) const CONNECTORS: [&str; 22] = [
    "for", "from", "by", "at", "in", "on", "to", "with", "and", "or", "but", "of", "as", "is", "was", "user", "host",
    "port", "via", "into", "after", "before",
];

/// Prefixes of addresses and paths at which secrets are stored, as opposed to the secrets themselves.
const REFERENCES: [&str; 42] = [
    "arn:",
    "secret/",
    "secrets/",
    "kv/",
    "kv-v2/",
    "vault:",
    "ssm:",
    "projects/",
    "file:",
    "env:",
    "keychain:",
    "op://",
    "azure-keyvault:",
    "gs://",
    "s3://",
    "./",
    "../",
    "~/",
    "/run/",
    "/var/",
    "/etc/",
    "/home/",
    "/root/",
    "/usr/",
    "/opt/",
    "/srv/",
    "/tmp/",
    "/mnt/",
    "/dev/",
    "/proc/",
    "/data/",
    "/app/",
    "/secrets/",
    "/secret/",
    "/vault/",
    "/api/",
    "/v1/",
    "/users/",
    "/auth/",
    "/oauth",
    "urn:",
    "sha256:",
];

/// Returns whether a value with a secret's name is not a secret: it is empty, a placeholder, a variable, already masked, the path
/// of a secret that is stored elsewhere, the public half of a key pair, or the id of a key.
pub(super) fn is_spared(names: &Names, class: Class, value: &str) -> bool {
    let value = value.trim();
    let value = value.strip_prefix(['"', '\'']).map_or(value, |inner| inner.strip_suffix(['"', '\'']).unwrap_or(inner));
    value.is_empty()
        || value == MASK
        || is_placeholder(names, value)
        || is_public(value)
        || is_reference(value) && (class != Class::Password || is_kept_elsewhere(value))
}

fn is_placeholder(names: &Names, value: &str) -> bool {
    const PLACEHOLDER_BYTES_MAX: usize = 256;
    if value.len() > PLACEHOLDER_BYTES_MAX {
        return false;
    }
    let lower = value.to_ascii_lowercase();
    let same = |allowed: &[char]| value.chars().count() >= 3 && value.chars().all(|c| allowed.contains(&c));
    if same(&['*']) || same(&['x', 'X']) || same(&['•']) || same(&['.', '…']) || same(&['-']) || same(&['#']) {
        return true;
    }
    if matches!(lower.as_str(), "true" | "false" | "null" | "nil" | "none" | "undefined" | "[]" | "{}" | "?" | "n/a") {
        return true;
    }
    // `HIDDEN_DUE_TO_SECURITY_REASONS`
    let said =
        value.bytes().filter(|b| *b == b'_').count() >= 2 && value.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    if said {
        return true;
    }
    let inside = |open: &str, close: &str| lower.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    // `[REDACTED]`, `<password>`, `(hidden)`: only words, possibly in brackets.
    for (open, close) in [("[", "]"), ("<", ">"), ("(", ")"), ("{", "}"), ("__", "__"), ("", "")] {
        let Some(word) = inside(open, close) else { continue };
        let is_said =
            ["redacted", "filtered", "masked", "hidden", "removed", "sensitive", "secret", "protected", "omitted"]
                .iter()
                .any(|said| word == *said || (!open.is_empty() && word.starts_with(said) && is_words(word)));
        if is_said && !(open.is_empty() && word == "secret") {
            return true;
        }
    }
    if inside("<", ">").is_some_and(|word| is_words(word) && word.len() <= 64) {
        return true;
    }
    // `${…}`, `$(…)`, `{{…}}`, `%(name)s`, `${{…}}`, `<%= … %>`
    for (open, close) in [("${", "}"), ("$(", ")"), ("{{", "}}"), ("%(", ")s"), ("<%", "%>"), ("#{", "}"), ("%{", "}")]
    {
        if inside(open, close).is_some() {
            return true;
        }
    }
    let is_name = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !text.as_bytes()[0].is_ascii_digit()
    };
    let is_variable = |text: &str| {
        is_name(text)
            && (text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
                || names.class(text).is_secret())
    };
    value.strip_prefix('$').is_some_and(|rest| is_variable(rest) || rest.parse::<u8>().is_ok() || is_env(rest))
        || value.strip_prefix(['@', ':']).is_some_and(|rest| is_name(rest) && names.class(rest).is_secret())
        || value.strip_prefix('%').and_then(|rest| rest.strip_suffix('%')).is_some_and(is_variable)
        || matches!(value, "%s" | "%d" | "%v" | "%q" | "%r")
        || is_env(value)
}

/// Returns whether a value refers to an environment variable or the like: `env.DB_PASSWORD`, `process.env.X`, `os.environ["X"]`,
/// `secrets.TOKEN`.
fn is_env(value: &str) -> bool {
    [
        "process.env",
        "os.environ",
        "os.getenv",
        "os.Getenv",
        "ENV.",
        "Deno.env",
        "std::env",
        "env(",
        "getenv(",
        "env.",
        "env:",
        "ENV[",
        "System.getenv",
        "var.",
        "secrets.",
    ]
    .iter()
    .any(|begin| value.starts_with(begin))
}

fn is_words(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '_' | '-' | '.'))
}

/// Returns whether a value is the address of a secret rather than the secret.
pub(super) fn is_reference(value: &str) -> bool {
    if value.len() > REFERENCE_BYTES_MAX || value.contains(char::is_whitespace) {
        return false;
    }
    let lower = value.to_ascii_lowercase();
    let bare = lower.strip_prefix('@').unwrap_or(&lower);
    REFERENCES.iter().any(|begin| bare.starts_with(begin) || begin.strip_suffix('/') == Some(bare))
        || value.get(1..3) == Some(":\\")
        || lower.ends_with(".pem")
        || lower.ends_with(".key")
        || lower.ends_with(".txt")
        || lower.ends_with(".json")
}

/// Returns whether a value is an address in a secret store. Other paths do not count, because a password may look like a path.
fn is_kept_elsewhere(value: &str) -> bool {
    [
        "arn:",
        "vault:",
        "op://",
        "ssm:",
        "/run/secrets/",
        "/var/run/secrets/",
        "projects/",
        "azure-keyvault:",
        "keychain:",
        "secret/",
        "secrets/",
    ]
    .iter()
    .any(|begin| value.starts_with(begin))
}

/// Returns whether a value is public: a public key, a certificate, a fingerprint, or the id of a key.
fn is_public(value: &str) -> bool {
    let begins = |begin: &str| value.starts_with(begin);
    let is_aws_id = value.len() == 20
        && ["AKIA", "ASIA", "AROA", "AIDA", "AGPA", "ANPA"].iter().any(|begin| begins(begin))
        && value.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    is_aws_id
        || [
            "ssh-rsa ",
            "ssh-ed25519 ",
            "ssh-dss ",
            "ecdsa-sha2-",
            "sk-ssh-",
            "SHA256:",
            "MD5:",
            "-----BEGIN PUBLIC",
            "-----BEGIN CERT",
            "-----BEGIN RSA PUBLIC",
        ]
        .iter()
        .any(|begin| begins(begin))
}

/// Returns whether a word describes the state of a secret.
pub(super) fn is_state(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    STATES.iter().any(|state| word.eq_ignore_ascii_case(state))
}

/// Beginnings of messages in which validators reject a secret.
const COMPLAINTS: [&str; 20] = [
    "is too ",
    "is not ",
    "is invalid",
    "is required",
    "is missing",
    "is reserved",
    "is weak",
    "can't be ",
    "cannot be ",
    "must ",
    "has already ",
    "has been ",
    "does not ",
    "doesn't ",
    "should ",
    "was ",
    "needs to ",
    "may not ",
    "contains ",
    "not ",
];

/// Returns whether a value is a message that rejects a secret: `is too short (minimum is 12 characters)`.
pub(super) fn is_sentence(value: &str) -> bool {
    let lower = value.trim().to_ascii_lowercase();
    COMPLAINTS.iter().any(|begin| lower.starts_with(begin)) && !value.split_whitespace().any(looks_secret)
}

/// Returns whether a text is unlikely to be a word of a natural language: it has a digit, is long, or has lower-case letters and
/// an upper-case letter after its first character.
pub(super) fn looks_made_up(text: &str) -> bool {
    let has = |of: fn(&u8) -> bool| text.bytes().any(|b| of(&b));
    let changes_case = text.bytes().skip(1).any(|b| b.is_ascii_uppercase()) && has(u8::is_ascii_lowercase);
    has(u8::is_ascii_digit) || text.len() > WORD_BYTES_MAX || changes_case
}

/// Returns whether a text is certainly not a word, name, number, date or address: it mixes letters and digits in both cases, or
/// contains characters that only passwords have.
pub(super) fn looks_secret(text: &str) -> bool {
    const BYTES_MIN: usize = 6;
    let has = |of: fn(&u8) -> bool| text.bytes().any(|b| of(&b));
    let (upper, lower, digit) = (has(u8::is_ascii_uppercase), has(u8::is_ascii_lowercase), has(u8::is_ascii_digit));
    let sign = text.bytes().any(|b| b"!#$%^&*+=~?".contains(&b));
    text.len() >= BYTES_MIN
        && !text.contains('/')
        && ((upper && lower && digit)
            || (sign && (upper || lower) && digit)
            || (sign && upper && lower && !text.ends_with(['!', '?'])))
}
