//! Converts the bytes of foreign records to text, and notes whether the encoding was guessed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Decoded bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decoded {
    /// UTF-8, unchanged.
    Utf8(String),
    /// Text that is not UTF-8 but may be ISO 8859-1 (Latin-1), decoded as such.
    Latin1(String),
    /// UTF-8 with some invalid bytes, each of which became U+FFFD.
    Broken(String),
    /// Not text in any of these encodings.
    Binary,
}

impl Decoded {
    /// Returns a note for `details` on how the text was decoded; `None` for plain UTF-8. The notes must never be reworded: they
    /// are part of the entry, and a record that is read again must result in the same entry.
    pub(super) fn note(&self) -> Option<&'static str> {
        match self {
            Self::Utf8(_) => None,
            Self::Latin1(_) => Some("not UTF-8; read as ISO 8859-1"),
            Self::Broken(_) => Some("not valid UTF-8; bytes that are not became U+FFFD"),
            Self::Binary => Some("not text; in Base64"),
        }
    }

    /// Returns the text, or the Base64 form of bytes that are not text.
    pub(super) fn into_text(self, bytes: &[u8]) -> String {
        match self {
            Self::Utf8(text) | Self::Latin1(text) | Self::Broken(text) => text,
            Self::Binary => STANDARD.encode(bytes),
        }
    }
}

/// Decodes bytes that should be text.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Decoded::Utf8(text.to_owned());
    }
    // Text never contains a zero byte. Other control characters are allowed, such as line ends and those that set terminal
    // colors.
    if bytes.contains(&0) {
        return Decoded::Binary;
    }
    let lossy = String::from_utf8_lossy(bytes);
    let is_partly_utf8 = lossy.chars().any(|c| !c.is_ascii() && c != char::REPLACEMENT_CHARACTER);
    // ISO 8859-1 has no characters from 0x80 to 0x9f.
    let is_latin = bytes.iter().all(|byte| !(0x80..0xa0).contains(byte));
    match (is_partly_utf8, is_latin) {
        (true, _) => Decoded::Broken(lossy.into_owned()),
        (false, true) => Decoded::Latin1(bytes.iter().map(|byte| char::from(*byte)).collect()),
        (false, false) => Decoded::Broken(lossy.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_recognised_and_said() {
        assert_eq!(decode("Müller".as_bytes()), Decoded::Utf8("Müller".to_owned()));
        assert_eq!(decode(b"M\xfcller stra\xdfe"), Decoded::Latin1("Müller straße".to_owned()));
        assert_eq!(decode("Mü\u{1b}[31mller".as_bytes()).note(), None);
        // A truncated multi-byte character does not make the rest Latin-1.
        assert_eq!(decode(b"M\xc3\xbcller stra\xc3"), Decoded::Broken("Müller stra\u{fffd}".to_owned()));
        assert_eq!(decode(b"\x80uro"), Decoded::Broken("\u{fffd}uro".to_owned()));
        assert_eq!(decode(b"\x7fELF\0\xff"), Decoded::Binary);
        assert_eq!(decode(b"\0\xff").into_text(b"\0\xff"), "AP8=");
    }
}
