//! Keys and values as they were typed.

use crate::filter::pattern::{Pattern, TextPattern};
use crate::filter::value::net_of_wildcard;
use piperoll_format::terminal::escape;

/// Key of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Name(&'static str),
    /// `details` or `changes`, and the keys that lead to the value.
    Path(String, Vec<String>),
}

impl Key {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Name(name) => (*name).to_owned(),
            Self::Path(root, path) => format!("{root}.{}", path.join(".")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A piece of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text { text: String, quoted: bool },
    Star,
}

/// A value as it was typed.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) at: usize,
    pub(super) pieces: Vec<Piece>,
    pub(super) ignore_case: bool,
    pub(super) comparison: Option<Comparison>,
}

/// Whether `escape` replaces the character with its code point, because a terminal would not show it as it is.
pub(in super::super) fn is_hidden(c: char) -> bool {
    let mut bytes = [0; 4];
    let text = &*c.encode_utf8(&mut bytes);
    escape(text) != text
}

impl Value {
    /// Refuses unquoted text that is almost certainly a mistake: operators of other tools, and invisible characters.
    pub(super) fn check_pieces(&self) -> Result<(), String> {
        let mut after_quotes = false;
        for piece in &self.pieces {
            let Piece::Text { text, quoted } = piece else { continue };
            if *quoted {
                after_quotes = true;
                continue;
            }
            let hidden = text.chars().find(|c| !c.is_whitespace() && is_hidden(*c));
            if let Some(c) = hidden {
                return Err(format!("invisible character U+{:04X}; quote a value that contains it", u32::from(c)));
            }
            let problem = match text.as_str() {
                _ if text.starts_with('\'') => {
                    "quote with \", not '; a value that begins with ' must be in double quotes"
                }
                _ if text.starts_with('+') => {
                    "a plus is not needed, because all conditions must hold anyway; quote text that begins with +"
                }
                _ if text.starts_with(',') => {
                    "a comma separates the values of one key, as in user:alice,bob; quote text that begins with one"
                }
                _ if text.ends_with('\\') => {
                    "a backslash escapes only inside quotes; quote the value instead, as in \"a*b\""
                }
                _ if after_quotes && text.starts_with(['~', '^']) => {
                    "fuzzy distances and boosts are not supported; quote a value that contains this character"
                }
                _ => continue,
            };
            return Err(problem.to_owned());
        }
        Ok(())
    }

    /// Returns the text, if nothing in it has a special meaning.
    pub(super) fn text(&self) -> Option<String> {
        let mut all = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text { text, .. } => all.push_str(text),
                Piece::Star => return None,
            }
        }
        Some(all)
    }

    pub(super) fn is_quoted(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Text { quoted: true, .. }))
    }

    /// Returns the unquoted parts of the value, with its stars.
    pub(super) fn bare(&self) -> String {
        let bare = self.pieces.iter().map(|piece| match piece {
            Piece::Text { text, quoted: false } => text.as_str(),
            Piece::Text { .. } => "",
            Piece::Star => "*",
        });
        bare.collect()
    }

    /// Returns the texts before and after `..`, if the value contains it outside quotes.
    pub(super) fn range(&self) -> Option<(String, String)> {
        let at = self
            .pieces
            .iter()
            .position(|piece| matches!(piece, Piece::Text { text, quoted: false } if text.contains("..")))?;
        let Piece::Text { text, .. } = &self.pieces[at] else { return None };
        let (before, after) = text.split_once("..")?;
        let texts = |pieces: &[Piece]| -> Option<String> { Self { pieces: pieces.to_vec(), ..self.clone() }.text() };
        Some((texts(&self.pieces[..at])? + before, after.to_owned() + &texts(&self.pieces[at + 1..])?))
    }

    /// Returns the texts before, between and after the stars.
    pub(super) fn split(&self) -> Vec<String> {
        let mut texts = vec![String::new()];
        for piece in &self.pieces {
            match piece {
                Piece::Star => texts.push(String::new()),
                Piece::Text { text, .. } => {
                    if let Some(last) = texts.last_mut() {
                        last.push_str(text);
                    }
                }
            }
        }
        texts
    }

    pub(super) fn pattern(&self) -> Pattern {
        Pattern::new(self.split(), self.ignore_case)
    }

    pub(super) fn needle(&self) -> TextPattern {
        TextPattern::new(self.split())
    }

    pub(super) fn net_of_wildcard(&self) -> Option<ipnet::IpNet> {
        net_of_wildcard(&self.bare()).filter(|_| !self.is_quoted())
    }
}
