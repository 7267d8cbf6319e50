//! Keys and values as they were typed.

use crate::log::filter::pattern::{Needle, Pattern};
use crate::log::filter::value::net_of_wildcard;

/// What a condition is about.
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

impl Value {
    /// The text, when nothing in it has a special meaning.
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

    /// What is not quoted of it, with its stars.
    pub(super) fn bare(&self) -> String {
        let bare = self.pieces.iter().map(|piece| match piece {
            Piece::Text { text, quoted: false } => text.as_str(),
            Piece::Text { .. } => "",
            Piece::Star => "*",
        });
        bare.collect()
    }

    /// The texts around `..`, when it has that outside quotes.
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

    /// The texts around the stars.
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

    pub(super) fn needle(&self) -> Needle {
        Needle::new(self.split())
    }

    pub(super) fn net_of_wildcard(&self) -> Option<ipnet::IpNet> {
        net_of_wildcard(&self.bare()).filter(|_| !self.is_quoted())
    }
}
