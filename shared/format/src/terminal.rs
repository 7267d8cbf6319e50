//! Escapes text from entries for display on a terminal, because that text is untrusted.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes characters that could move the cursor, change a color, reorder a line, or be mistaken for others: control characters,
/// invisible characters (Unicode `Default_Ignorable_Code_Point`), spaces other than U+0020, and, in a word with Latin letters,
/// letters of other scripts that look like Latin ones.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_control()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut before = ' ';
    for word in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let is_latin = word.chars().any(|c| c.is_ascii_alphabetic());
        for c in word.chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                // Keep a variation selector after a symbol.
                '\u{fe0e}' | '\u{fe0f}' if before >= '\u{2190}' => out.push(c),
                c if c.is_control() || is_invisible(c) || (is_latin && looks_latin(c)) => {
                    let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
                }
                c => out.push(c),
            }
            before = c;
        }
    }
    Cow::Owned(out)
}

/// Returns whether a character is invisible, controls text direction, or is a space other than U+0020 (Unicode 16,
/// `DerivedCoreProperties.txt`, `Default_Ignorable_Code_Point`; `UnicodeData.txt`, `Zs`, `Zl`, `Zp`).
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{1680}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{2800}'
        | '\u{3000}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns whether a character belongs to Greek, Cyrillic, Armenian or Cherokee, where many letters look like Latin ones.
fn looks_latin(c: char) -> bool {
    matches!(c,
        '\u{370}'..='\u{58f}' | '\u{13a0}'..='\u{13ff}' | '\u{1c80}'..='\u{1c8f}' | '\u{1f00}'..='\u{1fff}' | '\u{2de0}'..='\u{2dff}'
        | '\u{a640}'..='\u{a69f}' | '\u{ab70}'..='\u{abbf}')
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_that_steers_a_terminal_passes() {
        assert_eq!(escape("a\u{1b}[31mb\nc\u{9b}d\u{202e}e"), "a\\u{1b}[31mb\\nc\\u{9b}d\\u{202e}e");
        assert_eq!(escape("Zürich, 東京"), "Zürich, 東京");
    }

    #[test]
    fn what_looks_like_another_name_is_shown() {
        for (text, shown) in [
            ("alice\u{61c}", "alice\\u{61c}"),
            ("al\u{ad}ice", "al\\u{ad}ice"),
            ("\u{3164}", "\\u{3164}"),
            ("alice\u{a0}", "alice\\u{a0}"),
            ("alice\u{fe0f}", "alice\\u{fe0f}"),
            ("\u{e0061}", "\\u{e0061}"),
            ("\u{430}lice", "\\u{430}lice"),
            ("r\u{3bf}ot", "r\\u{3bf}ot"),
            ("Олег wrote to alice", "Олег wrote to alice"),
            ("Αθήνα", "Αθήνα"),
            ("❤\u{fe0f}", "❤\u{fe0f}"),
            ("한국어 فارسی", "한국어 فارسی"),
        ] {
            assert_eq!(escape(text), shown);
        }
    }
}
