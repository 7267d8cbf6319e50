//! Lists all contexts (the named methods of finding secrets), and redacts a text with them.

use std::cell::Cell;
use std::ops::Range;

use regex::{Regex, RegexBuilder};

use super::examined::{Examined, Parts};
use super::{addresses, commands, keyed, markup, shapes, sql};
use crate::mask::MASK;
use crate::names::{Names, own_hints};

/// Memory limit of the compiled pattern in [`Texts::worth`], which grows with custom names.
const WORTH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Patterns for a quick first test. Every text with a secret matches at least one of them, one of `shapes::PREFIXES`, or a
/// custom name. A longer word that contains a listed pattern need not be listed itself.
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

/// The compiled patterns of all contexts.
#[derive(Debug, Clone)]
pub(crate) struct Texts {
    worth: Regex,
    shapes: shapes::Shapes,
    addresses: addresses::Addresses,
    sql: sql::Sql,
    markup: markup::Markup,
    commands: commands::Commands,
}

type Context = fn(&Texts, &Examined<'_>, &mut Parts);

/// The contexts and their names (docs/recording.md, "Secrets"). Each examines a text in time linear in the text's length.
const CONTEXTS: [(&str, Context); 9] = [
    ("private keys", |texts, examined, parts| shapes::private_keys(&texts.shapes, examined, parts)),
    ("well-known token shapes", |texts, examined, parts| shapes::tokens(&texts.shapes, examined, parts)),
    ("authorization schemes and protocols", |texts, examined, parts| shapes::schemes(&texts.shapes, examined, parts)),
    ("names with values: queries, forms, headers, environment, YAML, dumps", |_, examined, parts| {
        keyed::values(examined, parts)
    }),
    ("URL user information and connection strings", |texts, examined, parts| {
        addresses::credentials(&texts.addresses, examined, parts)
    }),
    ("codes in paths", |texts, examined, parts| addresses::codes_in_paths(&texts.addresses, examined, parts)),
    ("command lines", |texts, examined, parts| commands::in_text(&texts.commands, examined, parts)),
    ("SQL", |texts, examined, parts| sql::literals(&texts.sql, examined, parts)),
    ("XML", |texts, examined, parts| markup::elements(&texts.markup, examined, parts)),
];

/// Returns the names of the contexts.
pub(crate) fn context_names() -> impl Iterator<Item = &'static str> {
    CONTEXTS.iter().map(|(name, _)| *name)
}

impl Texts {
    /// Compiles the patterns; `more` are the custom names.
    pub(crate) fn new(more: &[String]) -> Result<Self, regex::Error> {
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

    /// Returns a pattern that matches every text that may contain a secret, for a quick first test.
    pub(crate) fn worth(more: &[String]) -> String {
        let built_in = WORTH.iter().map(|word| (*word).to_owned());
        built_in.chain([shapes::PREFIXES.to_owned()]).chain(own_hints(more)).collect::<Vec<_>>().join("|")
    }

    /// Returns the text with its secrets masked, together with the secrets, or `None` if there are none. `json` lists the ranges
    /// of JSON in the text that was already examined as JSON.
    pub(crate) fn masked_parts(
        &self,
        names: &Names,
        text: &str,
        json: &[Range<usize>],
    ) -> Option<(String, Vec<String>)> {
        if !self.worth.is_match(text) {
            return None;
        }
        let (has_lines, says_fail) = (text.contains('\n'), text.contains("fail"));
        let examined = Examined { names, text, has_lines, says_fail, json, line: Cell::new((1, 0)) };
        let mut parts = Parts::default();
        for (_, context) in CONTEXTS {
            context(self, &examined, &mut parts);
        }
        let mut merged = parts.merged();
        // Leave out text that is already the mask.
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
