//! Measures, cuts, pads and wraps text for a terminal.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Returns the number of columns of a text without control characters.
pub(super) fn columns(text: &str) -> usize {
    text.width()
}

/// Cuts a text to at most `most` columns, with `…` if something is cut off.
pub(super) fn cut(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > most {
            break;
        }
        shown.push(c);
    }
    if most > 0 {
        shown.push('…');
    }
    shown
}

/// Pads a text with spaces up to a column.
pub(super) fn pad(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(columns(text))))
}

/// Wraps a text into lines of at most `width` columns. A word that is longer than a line is split.
pub(super) fn wrap(text: &str, width: usize, indent: &str) -> String {
    let options = textwrap::Options::new(width.max(20)).initial_indent(indent).subsequent_indent(indent);
    let options = options
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options)
}

/// Wraps a text like `wrap`, but indents it only from the second line on.
pub(super) fn wrap_after(text: &str, width: usize, indent: &str) -> String {
    let options = textwrap::Options::new(width.max(20)).subsequent_indent(indent);
    let options = options
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options)
}

/// Wraps a sentence. A word that is longer than a line, such as an address, is not broken, so that it can be copied.
pub(super) fn wrap_sentence(text: &str, width: usize) -> String {
    let options = textwrap::Options::new(width.max(20)).break_words(false);
    let options = options
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_columns_and_wrapped_at_words() {
        assert_eq!(
            (cut("abcdef", 4).as_str(), cut("日本語", 5).as_str(), cut("ab", 2).as_str()),
            ("abc…", "日本…", "ab")
        );
        assert_eq!(pad("日本", 6), "日本  ");
        assert_eq!(wrap("one two three four five", 20, "  "), "  one two three four\n  five");
    }
}
