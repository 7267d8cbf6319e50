//! Finds secrets by their form alone: private keys, tokens with published patterns, credentials after a scheme.

use regex::Regex;

use super::examined::{Examined, Parts, is_no_secret, pattern};
use crate::values::looks_made_up;

/// Shortened prefixes of tokens, and short options of commands, for the quick first test of whether a text may contain a secret.
pub(super) const PREFIXES: &str = "gh[pousr]_|glpat|glrt|gl[a-z]+-|xox[a-z]|xapp-|[srp]k_|sk-|AIza|prl_|npm_|SG\\.|hf_|hvs\\.|hvb\\.|s\\.[A-Za-z0-9]|ya29|1//|shp|dop_|doo_|dor_|AGE-|dapi|lin_api|dp\\.|atlasv1|AKIA|A3T|hooks\\.|:AA|PuTTY|figd_|ntn_|tfp_|EAA|nvapi|gsk_|r8_|pul-|rubygems_|pscale|sq0|NRAK|SK[0-9a-f]|AC[0-9a-f]|[MNO][A-Za-z0-9_-]{23}|ops_|-p|-a |-u|-w";

/// Token patterns published in the services' documentation on secret scanning and token formats. Each is anchored by its prefix
/// and length.
const TOKENS: [&str; 64] = [
    // GitHub: "About authentication to GitHub", token formats
    r"gh[pousr]_[A-Za-z0-9]{10,}",
    r"github_pat_[A-Za-z0-9_]{20,}",
    // GitLab: "Token overview", token prefixes
    r"gl(?:pat|rt|rtr|dt|ptt|ft|soat|imt|agent|oas|cbt|ffct|wt)-[A-Za-z0-9_.-]{10,}",
    // Slack: "Token types"
    r"xox[abceoprs]-[A-Za-z0-9-]{10,}",
    r"xapp-[0-9]-[A-Za-z0-9-]{10,}",
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_+-]{10,}",
    // Stripe: "API keys"
    r"[srp]k_(?:live|test)_[A-Za-z0-9]{10,}",
    r"whsec_[A-Za-z0-9+/=]{16,}",
    // OpenAI, Anthropic, Groq, Replicate, NVIDIA
    r"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{16,}",
    r"sk-ant-[A-Za-z0-9_-]{16,}",
    r"sk-or-v1-[A-Za-z0-9]{16,}",
    r"sk-[A-Za-z0-9]{20,}",
    r"gsk_[A-Za-z0-9]{20,}",
    r"r8_[A-Za-z0-9]{30,}",
    r"nvapi-[A-Za-z0-9_-]{20,}",
    // package registries
    r"npm_[A-Za-z0-9]{20,}",
    r"pypi-[A-Za-z0-9_-]{16,}",
    r"rubygems_[A-Za-z0-9]{20,}",
    r"cio[A-Za-z0-9]{32}",
    r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}",
    // SendGrid, Mailgun, Mailchimp, Postman, Twilio
    r"SG\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    r"key-[0-9a-f]{32}",
    r"[0-9a-f]{32}-us[0-9]{1,2}",
    r"PMAK-[A-Za-z0-9-]{20,}",
    r"SK[0-9a-f]{32}",
    // Hugging Face
    r"hf_[A-Za-z0-9]{20,}",
    r"api_org_[A-Za-z0-9]{20,}",
    // HashiCorp
    r"hv[sbr]\.[A-Za-z0-9_-]{16,}",
    r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{20,}",
    // Google
    r"AIza[A-Za-z0-9_-]{20,}",
    r"ya29\.[A-Za-z0-9_-]{10,}",
    r"1//0[A-Za-z0-9_-]{20,}",
    r"GOCSPX-[A-Za-z0-9_-]{20,}",
    // Shopify, Square, PayPal
    r"shp(?:at|ca|pa|ss)_[A-Za-z0-9]{16,}",
    r"sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{20,}",
    r"EAAA[A-Za-z0-9_-]{40,}",
    // DigitalOcean, Linode, Fly, Heroku, PlanetScale, Supabase, Pulumi
    r"do[opr]_v1_[A-Za-z0-9]{16,}",
    r"fo1_[A-Za-z0-9_-]{20,}",
    r"fm[12]r?_[A-Za-z0-9+/=_,-]{20,}",
    r"HRKU-[A-Za-z0-9_-]{20,}",
    r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.-]{20,}",
    r"sb[ps]_[A-Za-z0-9_]{20,}",
    r"pul-[0-9a-f]{40}",
    // age
    r"AGE-SECRET-KEY-1[A-Z0-9]{20,}",
    // Doppler, Linear, Notion, Figma, Airtable, Atlassian, Asana
    r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.-]{16,}",
    r"lin_(?:api|oauth)_[A-Za-z0-9]{16,}",
    r"(?:ntn|secret)_[A-Za-z0-9]{40,}",
    r"fig[dou]_[A-Za-z0-9_-]{20,}",
    r"pat[A-Za-z0-9]{14}\.[0-9a-f]{40,}",
    r"ATATT3[A-Za-z0-9_=-]{20,}",
    r"ATCTT3[A-Za-z0-9_=-]{20,}",
    // Databricks, Grafana, New Relic, Sentry, Datadog, Dynatrace
    r"dapi[0-9a-f]{32}(?:-[0-9])?",
    r"glsa_[A-Za-z0-9]{16,}(?:_[0-9a-f]{8})?",
    r"glc_[A-Za-z0-9+/=]{20,}",
    r"NRAK-[A-Z0-9]{20,}",
    r"sntr[yu]s_[A-Za-z0-9_=+/-]{20,}",
    r"dt0c01\.[A-Z0-9]{20,}\.[A-Z0-9]{40,}",
    // Telegram, Discord
    r"bot[0-9]{8,10}:AA[A-Za-z0-9_-]{32,}",
    r"[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}",
    r"[0-9]{8,10}:AA[A-Za-z0-9_-]{32,}",
    r"[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}",
    // 1Password, ours
    r"ops_eyJ[A-Za-z0-9_-]{20,}",
    r"prl_[A-Za-z0-9_-]{10,}",
    // JSON Web Tokens (RFC 7519), including encrypted ones (RFC 7516)
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,2}",
];

const BEGIN: &str = "BEGIN ";
/// Length of a base64 line in PEM (RFC 7468 section 2), and in the output of older encoders.
const PEM_LINE_BYTES: [usize; 3] = [64, 70, 76];

#[derive(Debug, Clone)]
pub(super) struct Shapes {
    private_key: Regex,
    putty: Regex,
    tokens: Regex,
    schemes: Regex,
    encoded_json: Regex,
    protocols: Regex,
    pass: Regex,
}

impl Shapes {
    pub(super) fn new() -> Self {
        Self {
            private_key: pattern(
                r"(?s)-{4,5}\s?BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?\s?-{4,5}.*?(?:-{4,5}\s?END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?\s?-{4,5}|\z)",
            ),
            putty: pattern(r"(?s)Private-Lines: *[0-9]+(?:\\r)?(?:\\n|\r?\n).*?(?:Private-MAC: *[0-9a-f]+|\z)"),
            // A token must not directly follow a letter or digit, so that a word that ends with the prefix of a token does not
            // match.
            tokens: pattern(&format!(r"(?:^|[^A-Za-z0-9_])({})", TOKENS.join("|"))),
            schemes: pattern(
                r#"(?i)(?:^|[^a-z0-9_])(?:bearer|basic|negotiate|ntlm|apikey|splunk)(?:\s|\\t|%20|\+|: ?)+([a-z0-9._~+/=-]{6,})"#,
            ),
            // RFC 9051 section 6.2.3, RFC 4954 section 4, and .netrc
            protocols: pattern(
                r#"(?:^|[\s"'])(?:[A-Za-z]{0,4}[0-9]{1,6} LOGIN "?[^\s"]+"? "?([^\s"]+)|(?:AUTH|AUTHENTICATE) (?:PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|CRAM-MD5|NTLM) ([A-Za-z0-9+/=]{6,})|(?:machine\s{1,4}\S+|default)\s{1,4}login\s{1,4}\S+\s{1,4}(?:account\s{1,4}\S+\s{1,4})?password\s{1,4}(\S+))"#,
            ),
            // RFC 959 section 4.1.1 and RFC 1939 section 7. Test runners also print PASS, so one of these protocols must be named
            // before it.
            pass: pattern(
                r#"(?s)(?-u:\b)(?:FTP|ftpd?|POP3?|pop3|USER [^\s"]+)(?-u:\b).{0,256}?(?-u:\b)PASS ([^\s"\r\n]+)"#,
            ),
            encoded_json: pattern(r"(?:^|[^A-Za-z0-9+/_-])(eyJ[A-Za-z0-9+/_-]{8,}={0,2})"),
        }
    }
}

pub(super) fn private_keys(shapes: &Shapes, examined: &Examined<'_>, parts: &mut Parts) {
    for found in shapes.private_key.find_iter(examined.text).chain(shapes.putty.find_iter(examined.text)) {
        parts.add(found.start(), found.end());
    }
    // A key's END line without its BEGIN line: the key was split into several records. Everything before the END line belongs to
    // the key.
    if let Some(end) = end_without_begin(examined.text) {
        parts.add(0, end);
    }
    // This may be a single line of a key that was split into lines.
    let line = examined.text.trim();
    let is_base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    let has = |of: fn(&u8) -> bool| line.bytes().any(|b| of(&b));
    let is_mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    if PEM_LINE_BYTES.contains(&line.len()) && line.bytes().all(is_base64) && is_mixed {
        let from = examined.text.len() - examined.text.trim_start().len();
        parts.add(from, from + line.len());
    }
}

fn end_without_begin(text: &str) -> Option<usize> {
    let at = text.find("-----END ")?;
    let rest = &text[at..];
    let line = rest.lines().next().unwrap_or(rest);
    (is_pem_end(line) && !text[..at].contains(BEGIN)).then(|| at + line.trim_end().len())
}

pub(in super::super) fn is_pem_begin(text: &str) -> bool {
    text.contains("-----BEGIN ") && text.contains("PRIVATE KEY")
}

pub(in super::super) fn is_pem_end(text: &str) -> bool {
    text.contains("-----END ") && text.contains("PRIVATE KEY")
}

pub(super) fn tokens(shapes: &Shapes, examined: &Examined<'_>, parts: &mut Parts) {
    for found in shapes.tokens.captures_iter(examined.text) {
        let Some(token) = found.get(1) else { continue };
        let mut from = token.start();
        // Keep the host of a Slack webhook address.
        if let Some(path) = token.as_str().strip_prefix("hooks.slack.com/") {
            from = token.end() - path.len() + path.find('/').map_or(0, |at| at + 1);
        }
        // Skip ordinary words after a token's prefix: `sk-learn-something-else`, or `pypi-publish-to-test-index`, a job's name.
        if looks_made_up(
            examined.text[from..token.end()]
                .trim_start_matches(|c: char| c.is_ascii_lowercase() || matches!(c, '-' | '_')),
        ) {
            parts.add(from, token.end());
        }
    }
    for found in shapes.encoded_json.captures_iter(examined.text) {
        let Some(token) = found.get(1) else { continue };
        if holds_secret(examined, token.as_str()) {
            parts.add(token.start(), token.end());
        }
    }
}

/// Returns whether a text is base64 of `user:password`, as in the configuration of container registries.
pub(in super::super) fn is_basic(text: &str) -> bool {
    use base64::Engine as _;
    const BYTES_MIN: usize = 8;
    let plain = text.trim_end_matches('=');
    let decoded = base64::engine::general_purpose::STANDARD_NO_PAD.decode(plain).ok();
    let decoded = decoded.filter(|_| text.len() >= BYTES_MIN).and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.is_some_and(|text| text.contains(':') && !text.contains(char::is_control))
}

/// Returns whether a base64 text decodes to JSON that contains the name of a secret.
fn holds_secret(examined: &Examined<'_>, token: &str) -> bool {
    use base64::Engine as _;
    const KEYS_MAX: usize = 256;
    let plain = token.trim_end_matches('=').replace('-', "+").replace('_', "/");
    let Ok(bytes) = base64::engine::general_purpose::STANDARD_NO_PAD.decode(plain) else { return false };
    let Ok(text) = std::str::from_utf8(&bytes) else { return false };
    let mut keys = text.split('"').skip(1).step_by(2).take(KEYS_MAX);
    keys.any(|key| examined.names.class(key).is_secret())
}

pub(super) fn schemes(shapes: &Shapes, examined: &Examined<'_>, parts: &mut Parts) {
    for found in shapes.protocols.captures_iter(examined.text).chain(shapes.pass.captures_iter(examined.text)) {
        let secret = found.iter().skip(1).flatten().next().filter(|secret| !is_no_secret(examined, secret.as_str()));
        if let Some(secret) = secret {
            parts.add(secret.start(), secret.end());
        }
    }
    for found in shapes.schemes.captures_iter(examined.text) {
        if let Some(token) = found.get(1)
            && looks_made_up(token.as_str())
        {
            parts.add(token.start(), token.end());
        }
    }
}
