//! Finds secrets in XML, HTML, multipart forms, serialized PHP, and YAML in which the value of one key names the value of the
//! next.
//!
//! In XML and HTML, whether escaped or not, the secrets are the values of elements and attributes that have a secret's name, and
//! of elements with an attribute that names a secret.

use regex::Regex;

use super::examined::{Examined, Parts, is_no_secret, pattern};

/// Maximum number of bytes of one tag that are read.
const TAG_BYTES_MAX: usize = 2_048;
/// Attributes that name the content of an element (`LABELS`), and attributes that contain this content (`HOLDERS`).
const LABELS: [&str; 8] = ["name", "key", "id", "property", "param", "type", "field", "fieldname"];
const HOLDERS: [&str; 7] = ["value", "val", "data", "content", "newvalue", "oldvalue", "default"];

#[derive(Debug, Clone)]
pub(super) struct Markup {
    tag: Regex,
    attribute: Regex,
    /// `<name>password</name><value><string>S`
    labelled: Regex,
    /// RFC 7578: the name of a part, an empty line, and the value up to the boundary.
    part: Regex,
    /// `- name: API_TOKEN` followed by `value: S` on the next line.
    pair: Regex,
    /// PHP's serialize: `s:8:"password";s:6:"secret";`
    serialized: Regex,
    /// The `kind` line of a Kubernetes Secret.
    secret_data: Regex,
}

impl Markup {
    pub(super) fn new() -> Self {
        Self {
            tag: pattern(r"(?:<|&lt;|\\u003[cC])([A-Za-z_][A-Za-z0-9_.:-]*)"),
            labelled: pattern(
                r"(?s)<(?:name|key|string|param-name|Name|Key)>\s*([A-Za-z0-9_.:/-]+)\s*</[A-Za-z0-9_-]+>\s*<(?:value|string|val|param-value|Value)>\s*(?:<[A-Za-z0-9_]+>)?([^<]+)<",
            ),
            part: pattern(
                r#"(?s)name=\\?"([^"\r\n]+?)\\?"[^\r\n]*?(?:\r?\n[A-Za-z-]+:[^\r\n]*)*(?:\r?\n\r?\n|\\r\\n\\r\\n)(.*?)(?:\r?\n--|\\r\\n--|\z)"#,
            ),
            pair: pattern(
                r#"(?:name|key|Name|Key)\s*:\s*["']?([A-Za-z0-9_./-]+)["']?[\t ]*\r?\n[\t -]*[vV]alue\s*:[\t ]*["']?([^\r\n"']+)"#,
            ),
            serialized: pattern(r#"s:[0-9]{1,4}:\\?"([^"\\]+)\\?";(?:s:[0-9]{1,5}:\\?"|[id]:)(.*?)\\?"?;"#),
            secret_data: pattern(r"(?m)^\s*kind:\s*Secret\s*$"),
            attribute: pattern(
                r#"([A-Za-z_][A-Za-z0-9_.:-]*)\s*=\s*(?:\\?"([^"<>]*?)\\?"|'([^'<>]*)'|&quot;(.*?)&quot;)"#,
            ),
        }
    }
}

pub(super) fn elements(markup: &Markup, examined: &Examined<'_>, parts: &mut Parts) {
    let text = examined.text;
    for pattern in [&markup.labelled, &markup.part, &markup.pair, &markup.serialized] {
        for found in pattern.captures_iter(text) {
            let (Some(name), Some(value)) = (found.get(1), found.get(2)) else { continue };
            if examined.names.class(name.as_str()).is_secret() && !is_no_secret(examined, value.as_str()) {
                let value_text = value.as_str();
                let lead = value_text.len() - value_text.trim_start().len();
                parts.add(value.start() + lead, value.start() + lead + value_text.trim().len());
            }
        }
    }
    if markup.secret_data.is_match(text) {
        secret_data(examined, parts);
    }
    let mut next_end = ("", 0);
    for found in markup.tag.captures_iter(text) {
        let (Some(whole), Some(name)) = (found.get(0), found.get(1)) else { continue };
        let open = &text[whole.start()..name.start()];
        let (close, end_tag) = match open {
            "<" => (">", "</"),
            "&lt;" => ("&gt;", "&lt;/"),
            _ => (
                if open.ends_with('C') { "\\u003E" } else { "\\u003e" },
                if open.ends_with('C') { "\\u003C/" } else { "\\u003c/" },
            ),
        };
        let limit = super::scan::floor(text, name.end() + TAG_BYTES_MAX);
        let Some(length) = text[name.end()..limit].find(close) else { continue };
        let tag = &text[name.end()..name.end() + length];
        let mut is_secret = examined.names.class(name.as_str()).is_secret();
        let mut holders = Vec::new();
        for attribute in markup.attribute.captures_iter(tag) {
            let (Some(key), Some(value)) =
                (attribute.get(1), attribute.get(2).or(attribute.get(3)).or(attribute.get(4)))
            else {
                continue;
            };
            let key = key.as_str().rsplit(':').next().unwrap_or_default();
            if LABELS.iter().any(|label| key.eq_ignore_ascii_case(label)) {
                is_secret |= examined.names.class(value.as_str()).is_secret();
            }
            if HOLDERS.iter().any(|holder| key.eq_ignore_ascii_case(holder)) {
                holders.push((name.end() + value.start(), name.end() + value.end()));
            }
        }
        if !is_secret {
            continue;
        }
        for (from, to) in holders {
            if !is_no_secret(examined, &text[from..to]) {
                parts.add(from, to);
            }
        }
        if tag.ends_with('/') {
            continue;
        }
        let from = name.end() + length + close.len();
        let body = &text[from..];
        // An element with child elements is not masked as a whole; its children are examined by their own names.
        let plain = body.strip_prefix("<![CDATA[");
        let (from, to) = match plain {
            Some(inner) => (from + 9, from + 9 + inner.find("]]>").unwrap_or(inner.len())),
            None => {
                // Find the next end tag only once, because it is the same for all elements that begin before it.
                if next_end.0 != end_tag || next_end.1 < from {
                    next_end = (end_tag, body.find(end_tag).map_or(usize::MAX, |to| from + to));
                }
                match next_end.1 {
                    usize::MAX => continue,
                    to => (from, to),
                }
            }
        };
        let value = &text[from..to];
        if (plain.is_some() || !value.as_bytes().iter().take(TAG_BYTES_MAX).any(|b| *b == b'<'))
            && !is_no_secret(examined, value)
        {
            let lead = value.len() - value.trim_start().len();
            parts.add(from + lead, from + lead + value.trim().len());
        } else if let Some(inner) =
            value.trim_start().strip_prefix("<value>").or(value.trim_start().strip_prefix("<Value>"))
        {
            // `<property><name>…</name><value>S</value>`
            let at = to - inner.len();
            parts.add(at, at + inner.find('<').unwrap_or(inner.len()));
        }
    }
}

/// Masks the values below `data:` and `stringData:` of a Kubernetes Secret in YAML.
fn secret_data(examined: &Examined<'_>, parts: &mut Parts) {
    let (mut at, mut block) = (0, None);
    for line in examined.text.split_inclusive('\n') {
        let from = at;
        at += line.len();
        let trimmed = line.trim();
        let indent = line.len() - line.trim_start().len();
        if trimmed.is_empty() {
            continue;
        }
        match block {
            Some(outer) if indent > outer => {
                let value = line.find(": ").map_or(indent, |colon| colon + 2);
                let text = line[value..].trim();
                let begin = from + value + (line[value..].len() - line[value..].trim_start().len());
                if !matches!(text, "|" | ">" | "|-" | ">-")
                    && !line.trim_end().ends_with(':')
                    && !is_no_secret(examined, text)
                {
                    parts.add(begin, begin + text.len());
                }
            }
            _ => block = matches!(trimmed, "data:" | "stringData:").then_some(indent),
        }
    }
}
