//! Folds case, and resolves the escapes of JSON text.

use std::borrow::Cow;

/// Converts to lower case, character by character. The result for a character does not depend on its neighbors, so any part of a
/// text, once folded, is found in the folded text; by contrast, `str::to_lowercase` turns `Σ` into `ς` at the end of a word and
/// into `σ` elsewhere. In terms of Unicode this is simple caseless comparison, except that `ς` is treated as `σ`.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            folded.push(c.to_ascii_lowercase());
        } else {
            folded.extend(c.to_lowercase().map(|c| if c == 'ς' { 'σ' } else { c }));
        }
    }
    folded
}

/// Resolves the escapes of the strings in JSON text, so that `"M\u00fcller"` and `"Müller"` become the same. The quotes that begin and
/// end strings are kept. (RFC 8259, section 7)
pub fn unescaped(json: &str) -> Cow<'_, str> {
    if !json.contains('\\') {
        return Cow::Borrowed(json);
    }
    let mut plain = String::with_capacity(json.len());
    let mut rest = json.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match rest.next() {
            Some('b') => plain.push('\u{8}'),
            Some('f') => plain.push('\u{c}'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('t') => plain.push('\t'),
            Some('u') => plain.push(escaped_char(&mut rest)),
            Some(c) => plain.push(c),
            None => {}
        }
    }
    Cow::Owned(plain)
}

/// Reads the character encoded by four hexadecimal digits, or by two such escapes that form a surrogate pair. An unpaired
/// surrogate becomes U+FFFD.
fn escaped_char(rest: &mut std::str::Chars<'_>) -> char {
    let Some(first) = unit(rest) else { return char::REPLACEMENT_CHARACTER };
    if let Some(c) = char::from_u32(first) {
        return c;
    }
    let mut ahead = rest.clone();
    let second = (ahead.next() == Some('\\') && ahead.next() == Some('u')).then(|| unit(&mut ahead)).flatten();
    match second.filter(|second| (0xd800..0xdc00).contains(&first) && (0xdc00..0xe000).contains(second)) {
        Some(second) => {
            *rest = ahead;
            char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
                .unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        None => char::REPLACEMENT_CHARACTER,
    }
}

fn unit(rest: &mut std::str::Chars<'_>) -> Option<u32> {
    let mut value = 0;
    for _ in 0..4 {
        value = value * 16 + rest.next()?.to_digit(16)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_folds_alike_wherever_it_stands() {
        assert_eq!(fold("ΟΔΟΣ οδος Straße ÄÖÜ İ"), "οδοσ οδοσ straße äöü i\u{307}");
    }

    proptest! {
        #[test]
        fn a_part_is_found_in_its_text(text in "\\PC{0,20}", from in 0usize..20, to in 0usize..20) {
            let chars: Vec<char> = text.chars().collect();
            let (from, to) = (from.min(chars.len()), to.min(chars.len()));
            let part: String = chars[from.min(to)..to.max(from)].iter().collect();
            prop_assert!(fold(&text).contains(&fold(&part)));
            prop_assert!(fold(&text.to_uppercase()).len() >= part.len().min(1));
        }

        /// A string resolves to the same text however it is escaped.
        #[test]
        fn escapes_are_resolved_as_a_parser_does(text in "\\PC{0,12}", kinds in prop::collection::vec(0u8..3, 12)) {
            let mut json = String::from("\"");
            for (c, kind) in text.chars().zip(kinds.iter().cycle()) {
                match (kind, c) {
                    (0, '"' | '\\' | '/') | (1, '"' | '\\' | '/') => json.extend(['\\', c]),
                    (0, _) if c >= ' ' => json.push(c),
                    _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| json.push_str(&format!("\\u{unit:04x}"))),
                }
            }
            json.push('"');
            let parsed: String = serde_json::from_str(&json).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(unescaped(&json).into_owned(), format!("\"{parsed}\""));
        }
    }

    #[test]
    fn half_a_pair_is_a_replacement_character() {
        for (json, plain) in [
            (r"\ud83d\ude00", "😀"),
            (r"\ud83dx", "\u{fffd}x"),
            (r"\ude00", "\u{fffd}"),
            (r"\ud83d\n", "\u{fffd}\n"),
            (r"\u12", "\u{fffd}"),
        ] {
            assert_eq!(unescaped(json), plain, "{json}");
        }
    }
}
