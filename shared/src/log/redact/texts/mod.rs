//! How secrets occur in running text: a table of named contexts, each of which reads the text once.

mod addresses;
pub(super) mod commands;
mod headers;
mod keyed;
mod markup;
mod phrases;
mod scan;
mod shapes;
mod sql;

use std::cell::Cell;
use std::ops::Range;

use regex::{Regex, RegexBuilder};

use super::MASK;
use super::names::{Class, Names, own_hints};
use super::values::{is_spared, is_state};

pub(super) use shapes::{is_basic, is_pem_begin, is_pem_end};

/// Memory of the pattern that says whether a text is worth a closer look; own names make it larger.
const WORTH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What every context has at least one of. Longer words that contain a shorter one need not be here.
const WORTH: [&str; 58] = [
    "pass",
    "pwd",
    "pw",
    "contrase",
    "senha",
    "wachtwoord",
    "parola",
    "kennwort",
    "senord",
    "пароль",
    "密",
    "パス",
    "answer",
    "cardnumber",
    "card[_ -]number",
    "code",
    "secret",
    "token",
    "key",
    "credential",
    "sess",
    "sid",
    "authori",
    "cookie",
    "pin",
    "otp",
    "cv[vc]",
    "psk",
    "jwt",
    "pat",
    "sas",
    "sig",
    "identified",
    "bearer",
    "basic ",
    "ntlm",
    "hmac",
    "passe",
    "eyJ",
    "PRIVATE",
    "@",
    "ticket",
    "assertion",
    "saml",
    "requirepass",
    "%",
    "net\\W{1,5}user",
    "\"-",
    "\"auth\"",
    "netrc",
    "/p:",
    "\"/p\"",
    "secret set",
    "LOGIN ",
    "AUTH ",
    "puk",
    "form-data",
    "Q~",
];

/// The patterns, made once.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    worth: Regex,
    shapes: shapes::Shapes,
    addresses: addresses::Addresses,
    sql: sql::Sql,
    markup: markup::Markup,
    commands: commands::Commands,
}

/// Each is a constant, so a wrong one is found by the first test.
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

/// What a context sees.
pub(super) struct Look<'t> {
    pub(super) names: &'t Names,
    pub(super) texts: &'t Texts,
    pub(super) text: &'t str,
    /// Asked here once, because asking at every name would read the text as often as it has names.
    pub(super) has_lines: bool,
    pub(super) says_fail: bool,
    /// Where JSON is in the text, which was looked through as such before; in order.
    json: &'t [Range<usize>],
    /// The line that was asked for last.
    line: Cell<(usize, usize)>,
}

impl Look<'_> {
    /// The end of the line that holds byte `at`. Every byte is read once, however often it is asked for.
    fn line_end(&self, at: usize) -> usize {
        let (from, to) = self.line.get();
        if from <= at && at <= to {
            return to;
        }
        let to = at + self.text[at..].find(['\r', '\n']).unwrap_or(self.text.len() - at);
        self.line.set((at, to));
        to
    }

    fn is_in_json(&self, at: usize) -> bool {
        let behind = self.json.partition_point(|range| range.start <= at);
        behind > 0 && at < self.json[behind - 1].end
    }
}

/// Where secrets are, in bytes of the text.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<(usize, usize)>);

impl Parts {
    fn add(&mut self, from: usize, to: usize) {
        if from < to {
            self.0.push((from, to));
        }
    }

    /// In order, and those that overlap or touch as one.
    fn merged(mut self) -> Vec<(usize, usize)> {
        self.0.sort_unstable();
        let mut merged: Vec<(usize, usize)> = Vec::with_capacity(self.0.len());
        for (from, to) in self.0 {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        merged
    }
}

type Context = fn(&Look<'_>, &mut Parts);

/// The contexts by name (docs/recording.md, "Secrets"). Each reads the text in time linear to its length.
pub(super) const CONTEXTS: [(&str, Context); 9] = [
    ("private keys", shapes::private_keys),
    ("well-known token shapes", shapes::tokens),
    ("authorization schemes and protocols", shapes::schemes),
    ("names with values: queries, forms, headers, environment, YAML, dumps", keyed::values),
    ("URL user information and connection strings", addresses::credentials),
    ("codes in paths", addresses::codes_in_paths),
    ("command lines", commands::in_text),
    ("SQL", sql::literals),
    ("XML", markup::elements),
];

impl Texts {
    /// What finds texts that are worth a look; `more` are own names.
    pub(super) fn new(more: &[String]) -> Result<Self, regex::Error> {
        let worth = RegexBuilder::new(&format!("(?i){}", Self::worth(more))).size_limit(WORTH_BYTES_MAX).build()?;
        Ok(Self {
            worth,
            shapes: shapes::Shapes::new(),
            addresses: addresses::Addresses::new(),
            sql: sql::Sql::new(),
            markup: markup::Markup::new(),
            commands: commands::Commands::new(),
        })
    }

    /// A pattern of what entries with secrets have in common.
    pub(super) fn worth(more: &[String]) -> String {
        let built_in = WORTH.iter().map(|word| (*word).to_owned());
        built_in.chain([shapes::PREFIXES.to_owned()]).chain(own_hints(more)).collect::<Vec<_>>().join("|")
    }

    /// The text without its secrets, and the secrets; nothing when there is none. `json` is where JSON was looked through before.
    pub(super) fn masked_parts(
        &self,
        names: &Names,
        text: &str,
        json: &[Range<usize>],
    ) -> Option<(String, Vec<String>)> {
        if !self.worth.is_match(text) {
            return None;
        }
        let (has_lines, says_fail) = (text.contains('\n'), text.contains("fail"));
        let look = Look { names, texts: self, text, has_lines, says_fail, json, line: Cell::new((1, 0)) };
        let mut parts = Parts::default();
        for (_, context) in CONTEXTS {
            context(&look, &mut parts);
        }
        let mut merged = parts.merged();
        // What was masked before stays as it is.
        merged.retain(|(from, to)| &text[*from..*to] != MASK);
        if merged.is_empty() {
            return None;
        }
        let (mut out, mut from, mut secrets) = (String::with_capacity(text.len()), 0, Vec::new());
        for (begin, end) in merged {
            out.push_str(&text[from..begin]);
            out.push_str(MASK);
            secrets.push(text[begin..end].to_owned());
            from = end;
        }
        out.push_str(&text[from..]);
        Some((out, secrets))
    }
}

/// Schemes of RFC 9110 section 11.6.2 and others in use, in lower case.
const SCHEMES: [&str; 20] = [
    "bearer",
    "basic",
    "digest",
    "token",
    "negotiate",
    "ntlm",
    "apikey",
    "api-key",
    "aws4-hmac-sha256",
    "oauth",
    "hawk",
    "signature",
    "hmac",
    "hmac-sha256",
    "sharedkey",
    "sharedaccesssignature",
    "splunk",
    "jwt",
    "key",
    "scram-sha-256",
];

/// Whether what follows the name of a credentials header is a sentence about it: `authorization: denied by policy`.
pub(super) fn is_prose_header(value: &str) -> bool {
    // A longer value is no sentence.
    const VALUE_BYTES_MAX: usize = 512;
    if value.len() > VALUE_BYTES_MAX {
        return false;
    }
    let mut words = value.split_whitespace();
    let Some(first) = words.next() else { return true };
    let plain = |word: &str| {
        word.bytes().all(|b| b.is_ascii_alphabetic() || b"'-.,;:!?()".contains(&b))
            || word.bytes().all(|b| b.is_ascii_digit())
    };
    if is_state(first) {
        return true;
    }
    let is_scheme = SCHEMES.iter().any(|scheme| first.eq_ignore_ascii_case(scheme));
    let mut more = words.peekable();
    if is_scheme {
        if more.clone().count() > 0
            && more
                .clone()
                .all(|word| word.trim_end_matches(['"', '\'', ',']).bytes().all(|b| matches!(b, b'*' | b'.')))
        {
            return true;
        }
        // `Bearer token required`
        return more.peek().is_some_and(|second| is_state(second)) || more.clone().count() >= 2 && more.all(plain);
    }
    more.peek().is_some() && plain(first) && more.all(plain)
}

/// Whether a value in a text is no secret, whatever its name.
fn is_no_secret(look: &Look<'_>, value: &str) -> bool {
    is_spared(look.names, Class::Token, value)
}
