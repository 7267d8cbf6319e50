//! Compacts strict JSON without re-serializing it: white space outside strings is removed, everything else is kept
//! byte for byte, so numbers keep every digit and strings keep their escapes (docs/format.md, "Body").

use std::collections::HashSet;

use crate::limits::JSON_DEPTH_MAX;

/// Error for a text that is not acceptable JSON: the offset and the problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
pub struct JsonError {
    /// Byte offset into the text as the caller sent it.
    pub offset: usize,
    pub problem: String,
}

/// Copies one JSON value without insignificant white space. Refuses duplicate keys (two parsers could
/// return two different values), nesting beyond [`JSON_DEPTH_MAX`], lone surrogates and trailing text.
pub fn compact(text: &str) -> Result<String, JsonError> {
    let mut scanner = Scanner { text: text.as_bytes(), source: text, at: 0, out: String::with_capacity(text.len()) };
    scanner.skip_space();
    scanner.value(1)?;
    scanner.skip_space();
    if scanner.at != text.len() {
        return Err(scanner.error("unexpected text after the value"));
    }
    Ok(scanner.out)
}

struct Scanner<'a> {
    text: &'a [u8],
    source: &'a str,
    at: usize,
    out: String,
}

impl<'a> Scanner<'a> {
    fn error(&self, problem: &str) -> JsonError {
        JsonError { offset: self.at, problem: problem.to_owned() }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Copies the text from `start` to the current offset. Both ends are at ASCII characters, so the slice is valid UTF-8.
    fn copy_from(&mut self, start: usize) {
        self.out.push_str(&self.source[start..self.at]);
    }

    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        match self.peek() {
            None => Err(self.error("expected a value, found the end of the text")),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(_) => Err(self.error("invalid character at the start of a value")),
        }
    }

    fn open(&mut self, depth: usize, bracket: char) -> Result<(), JsonError> {
        if depth > JSON_DEPTH_MAX {
            return Err(self.error(&format!("more than {JSON_DEPTH_MAX} levels of nesting")));
        }
        self.at += 1;
        self.out.push(bracket);
        self.skip_space();
        Ok(())
    }

    fn close_if(&mut self, bracket: u8) -> bool {
        let closes = self.peek() == Some(bracket);
        if closes {
            self.at += 1;
            self.out.push(char::from(bracket));
        }
        closes
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        self.open(depth, '{')?;
        if self.close_if(b'}') {
            return Ok(());
        }
        let mut keys: HashSet<String> = HashSet::new();
        loop {
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a quoted key"));
            }
            let key = self.string()?;
            // Two spellings of one key ("a" and "\u0061") are the same key to every parser.
            let key: String =
                serde_json::from_str(key).map_err(|e| JsonError { offset: key_at, problem: e.to_string() })?;
            if let Some(twice) = keys.replace(key) {
                return Err(JsonError { offset: key_at, problem: format!("the key {twice:?} occurs twice") });
            }
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.error("expected ':' after a key"));
            }
            self.at += 1;
            self.out.push(':');
            self.skip_space();
            self.value(depth + 1)?;
            self.skip_space();
            if self.close_if(b'}') {
                return Ok(());
            }
            self.comma()?;
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        self.open(depth, '[')?;
        if self.close_if(b']') {
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.skip_space();
            if self.close_if(b']') {
                return Ok(());
            }
            self.comma()?;
        }
    }

    fn comma(&mut self) -> Result<(), JsonError> {
        if self.peek() != Some(b',') {
            return Err(self.error("expected ',' or a closing bracket"));
        }
        self.at += 1;
        self.out.push(',');
        self.skip_space();
        Ok(())
    }

    /// Copies a string with its quotes and returns its source text.
    fn string(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(self.error("unterminated string")),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(0..=0x1f) => return Err(self.error("unescaped control character in a string")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let source = self.source.get(start..self.at).ok_or_else(|| self.error("a broken escape"))?;
        if escaped {
            // serde_json validates the escapes, including lone surrogates.
            serde_json::from_str::<String>(source)
                .map_err(|_| JsonError { offset: start, problem: "invalid escape in the string".to_owned() })?;
        }
        self.out.push_str(source);
        Ok(source)
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.error("expected a digit"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.error("a number cannot have leading zeros"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        self.copy_from(start);
        Ok(())
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("expected true, false or null"));
        }
        self.at += word.len();
        self.out.push_str(word);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_and_strings_stay_byte_for_byte() {
        let text = " { \"n\" : [ 12345678901234567890123456789.10e+07 , -0.0 ] , \"s\" : \"a \\u0041 \u{e9}\" } ";
        assert_eq!(
            compact(text).as_deref(),
            Ok("{\"n\":[12345678901234567890123456789.10e+07,-0.0],\"s\":\"a \\u0041 \u{e9}\"}")
        );
    }

    #[test]
    fn what_is_refused_says_where() {
        for (text, offset) in [
            ("{\"a\":1,\"a\":2}", 7),
            ("{\"a\":1,\"\\u0061\":2}", 7),
            ("[1,]", 3),
            ("01", 1),
            ("{\"a\" 1}", 5),
            ("\"\\ud800\"", 0),
            ("\"a\nb\"", 2),
            ("1 2", 2),
            ("", 0),
            ("\"\\", 3),
            ("nul", 0),
            ("1.", 2),
            ("\"abc", 4),
        ] {
            let error = compact(text).expect_err(text);
            assert_eq!(error.offset, offset, "{text}: {error}");
        }
        let deep = "[".repeat(JSON_DEPTH_MAX + 1) + &"]".repeat(JSON_DEPTH_MAX + 1);
        assert!(compact(&deep).is_err());
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_what_is_json(text in "[\\[\\]{}:,\" \\\\0-9a-eE.+\\-tnul]{0,24}") {
            let ours = compact(&text);
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            if let Ok(value) = &theirs
                && ours.is_err()
            {
                // Duplicate keys are the only JSON that `compact` refuses and serde_json accepts.
                prop_assert!(ours.as_ref().is_err_and(|e| e.problem.contains("twice")), "{} {:?} {}", text, ours, value);
            }
            if let Ok(compacted) = &ours {
                // Numbers beyond the range of a double are the only JSON that `compact` accepts and serde_json refuses.
                if let Ok(value) = theirs {
                    prop_assert_eq!(serde_json::from_str::<serde_json::Value>(compacted).ok(), Some(value));
                }
            }
        }
    }
}
