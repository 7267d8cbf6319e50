//! Small parsing steps shared by several contexts. All backward and forward scans are bounded.

/// Maximum length of a name before a value.
pub(super) const NAME_BYTES_MAX: usize = 128;

/// Returns the largest char boundary that is not above `at`.
pub(super) fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Returns the offsets of the closing quote and of the text after it, for quoted text that begins at `from`. Without a closing
/// quote, both offsets are the end of the text. In JSON inside a text, `quote` begins with backslashes.
pub(super) fn quoted_end(text: &str, from: usize, quote: &str) -> (usize, usize) {
    let mut at = from;
    while let Some(found) = text[at..].find(quote) {
        let end = at + found;
        let slashes = text[from..end].bytes().rev().take_while(|b| *b == b'\\').count();
        let behind = end + quote.len();
        // An odd number of backslashes before a plain quote escapes it. In SQL, a doubled quote denotes a single one.
        let is_escaped = !quote.starts_with('\\') && slashes % 2 == 1;
        let is_doubled = quote == "'" && text[behind..].starts_with('\'');
        if is_escaped {
            at = behind;
        } else if is_doubled {
            at = behind + 1;
        } else {
            return (end, behind);
        }
    }
    (text.len(), text.len())
}

/// Returns the opening quote at `at` with the backslashes before it.
pub(super) fn opening_quote(text: &str, at: usize) -> Option<&str> {
    let rest = &text[at..];
    let slashes = rest.bytes().take_while(|b| *b == b'\\').count();
    let quote = rest[slashes..].chars().next().filter(|c| matches!(c, '"' | '\'' | '`' | '“' | '„' | '«'))?;
    (slashes <= 7).then(|| &rest[..slashes + quote.len_utf8()])
}

/// Returns the quote that closes an opening quote.
pub(super) fn closing(open: &str) -> &str {
    match open {
        "“" | "„" => "”",
        "«" => "»",
        same => same,
    }
}

/// Returns the end of the bracketed value that begins at `from`, or the end of the text if no bracket closes it.
pub(super) fn bracketed_end(text: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, b) in text.as_bytes()[from..].iter().enumerate() {
        match b {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return from + offset + 1;
        }
    }
    text.len()
}

/// Decodes `%77` and `\u0077` in a name, and returns the part after the last character that cannot be in a name.
pub(super) fn decoded_name(name: &str) -> String {
    let bytes = name.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let hex = |from: usize, length: usize| {
        let digits = name.get(from..from + length)?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    while at < bytes.len() {
        if bytes[at] == b'%'
            && let Some(byte) = hex(at + 1, 2).and_then(|byte| u8::try_from(byte).ok())
        {
            out.push(byte);
            at += 3;
        } else if bytes[at] == b'\\'
            && bytes.get(at + 1) == Some(&b'u')
            && let Some(c) = hex(at + 2, 4).and_then(char::from_u32)
        {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            at += 6;
        } else if bytes[at] == b'\\' {
            out.push(b' ');
            at += if matches!(bytes.get(at + 1), Some(b'n' | b'r' | b't')) { 2 } else { 1 };
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    let decoded = String::from_utf8_lossy(&out);
    // Text that was encoded twice is decoded again: `%253F` became `%3F`, which means `?`.
    if decoded.contains('%') && decoded.len() < name.len() {
        return decoded_name(&decoded);
    }
    let cut = |c: char| matches!(c, '?' | '&' | ' ' | '=' | '#' | ';' | ',' | '{' | '"' | '\'' | '(' | ':');
    decoded.rsplit(cut).next().unwrap_or_default().to_owned()
}

/// Returns whether a pair such as `name=` or `name:` begins at `at`, after white space.
pub(super) fn pair_begins(text: &str, at: usize) -> bool {
    let rest = text[at..].trim_start_matches([' ', '\t']);
    let mut length = 0;
    for c in rest.chars().take(48) {
        if c.is_alphanumeric()
            || matches!(c, '_' | '.' | '-' | '[' | ']' | '%' | '"' | '\'')
            || c == ' ' && length > 0 && at < text.len() && rest.as_bytes()[0].is_ascii_uppercase()
        {
            length += c.len_utf8();
        } else {
            let value = &rest[length + c.len_utf8()..];
            // The padding of base64 looks like the separator of a pair: `…m==;`
            let is_padding = c == '=' && (value.is_empty() || value.starts_with(['=', ';', '"', '\'']));
            return length > 0 && matches!(c, '=' | ':') && !is_padding && !value.starts_with("//");
        }
    }
    false
}
