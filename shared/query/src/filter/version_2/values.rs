//! Parses values: quoted and unquoted pieces, lists, and prefixes.

use super::parser::Parser;
use super::typed::{Comparison, Key, Piece, Value};
use crate::filter::expr::Result;
use piperoll_format::limits::FILTER_VALUES_MAX;

impl Parser {
    pub(super) fn values(&mut self, key: &Key) -> Result<Vec<Value>> {
        let mut values = Vec::new();
        loop {
            let value = self.value(false)?;
            self.push(&mut values, value, key)?;
            match self.peek() {
                Some(',') => self.at += 1,
                None | Some(')') => return Ok(values),
                Some(c) if c.is_whitespace() => return Ok(values),
                Some(_) => {
                    return Err((
                        self.at,
                        "quote a value with parentheses, or put a space before the parenthesis".to_owned(),
                    ));
                }
            }
        }
    }

    fn push(&self, values: &mut Vec<Value>, value: Value, key: &Key) -> Result<()> {
        let may_be_empty = matches!(key, Key::Path(..)) && value.is_quoted() && value.comparison.is_none();
        if value.split().iter().all(String::is_empty) && !value.pieces.contains(&Piece::Star) && !may_be_empty {
            return Err((value.at, self.missing_value(key)));
        }
        value.check_pieces().map_err(|problem| (value.at, problem))?;
        if values.len() == FILTER_VALUES_MAX {
            return Err((value.at, format!("more than {FILTER_VALUES_MAX} values")));
        }
        values.push(value);
        Ok(())
    }

    fn missing_value(&self, key: &Key) -> String {
        let name = key.name();
        if self.peek() == Some('"') || self.chars.get(self.at.saturating_sub(1)) == Some(&'"') {
            return format!("no entry has an empty value; -{name}:* finds entries without this field");
        }
        let goes_on =
            self.peek().is_some_and(char::is_whitespace) && self.chars[self.at..].iter().any(|c| !c.is_whitespace());
        let advice = if goes_on { "; write the value without a space before it" } else { "" };
        format!("the key {name:?} needs a value here{advice}")
    }

    /// Parses `key:(a OR b)`, the list syntax of other languages.
    pub(super) fn bracketed_values(&mut self, key: &Key) -> Result<Vec<Value>> {
        let open = self.at;
        self.at += 1;
        let mut values = Vec::new();
        loop {
            self.skip_space();
            self.refuse_conditions(key)?;
            let value = self.value(false)?;
            if value.pieces.is_empty() {
                return Err((
                    self.at,
                    if self.peek().is_none() {
                        "the parenthesis before this is never closed".to_owned()
                    } else {
                        "a value is missing here".to_owned()
                    },
                ));
            }
            self.push(&mut values, value, key)?;
            self.skip_space();
            self.refuse_conditions(key)?;
            match self.peek() {
                Some(')') => break,
                Some(',') => self.at += 1,
                _ if self.is_at("OR") => self.at += 2,
                None => return Err((open, "this parenthesis is never closed".to_owned())),
                Some(_) => return Err((self.at, "OR or a comma is missing between the values".to_owned())),
            }
        }
        self.at += 1;
        if self.peek().is_some_and(|c| !c.is_whitespace() && c != ')') {
            return Err((self.at, "a space is missing after the parenthesis".to_owned()));
        }
        Ok(values)
    }

    /// Refuses conditions in the brackets after a key, which can contain only values.
    fn refuse_conditions(&self, key: &Key) -> Result<()> {
        if !["AND", "NOT"].iter().any(|word| self.is_at(word)) && self.peek() != Some('-') {
            return Ok(());
        }
        let name = key.name();
        Err((
            self.at,
            format!(
                "the parentheses after a key can contain only values joined by OR; write other conditions separately, as in {name}:a AND -{name}:b"
            ),
        ))
    }

    /// Parses one value. In free text, a comma is part of the value.
    pub(super) fn value(&mut self, is_free_text: bool) -> Result<Value> {
        let mut value = Value { at: self.at, pieces: Vec::new(), ignore_case: false, comparison: None };
        if !is_free_text {
            self.prefix(&mut value)?;
        }
        loop {
            match self.peek() {
                None | Some(')') => break,
                Some(c) if c.is_whitespace() || (c == ',' && !is_free_text) => break,
                Some('(') if is_free_text && !value.pieces.is_empty() => {
                    return Err((
                        self.at,
                        "quote text with parentheses, or put a space before the parenthesis".to_owned(),
                    ));
                }
                Some('(') => break,
                Some('“' | '”' | '„' | '«' | '»') => {
                    return Err((
                        self.at,
                        "this is a typographic quote; use \" or quote the value that contains it".to_owned(),
                    ));
                }
                Some('"') => {
                    let text = self.quoted()?;
                    value.pieces.push(Piece::Text { text, quoted: true });
                }
                Some('*') => {
                    self.at += 1;
                    value.pieces.push(Piece::Star);
                }
                Some(c) if is_free_text && ":=<>".contains(c) && !value.pieces.is_empty() => {
                    return Err((self.at, format!("quote text that contains {c:?}: \"…\"")));
                }
                Some(c) if is_free_text && "=<>:".contains(c) => {
                    return Err((self.at, format!("a key is missing before {c:?}; quote text that contains it")));
                }
                Some(_) => {
                    let start = self.at;
                    let ends = |c: char| {
                        c.is_whitespace()
                            || "\"*()“”„«»".contains(c)
                            || (if is_free_text { ":=<>".contains(c) } else { c == ',' })
                    };
                    while self.peek().is_some_and(|c| !ends(c)) {
                        self.at += 1;
                    }
                    value.pieces.push(Piece::Text { text: self.chars[start..self.at].iter().collect(), quoted: false });
                }
            }
        }
        if is_free_text && value.split().iter().all(String::is_empty) && !value.pieces.contains(&Piece::Star) {
            return Err((value.at, "there is no text to look for".to_owned()));
        }
        Ok(value)
    }

    /// Parses `~` and comparisons before a value.
    fn prefix(&mut self, value: &mut Value) -> Result<()> {
        match self.peek() {
            Some('~') => {
                self.at += 1;
                value.ignore_case = true;
            }
            Some(c @ ('<' | '>')) => {
                self.at += 1;
                let equals = self.peek() == Some('=');
                self.at += usize::from(equals);
                value.comparison = Some(match (c, equals) {
                    ('<', false) => Comparison::Less,
                    ('<', true) => Comparison::LessOrEqual,
                    (_, false) => Comparison::Greater,
                    (_, true) => Comparison::GreaterOrEqual,
                });
            }
            Some(c @ ('=' | '!')) => {
                return Err((self.at, format!("quote a value that begins with {c:?}; -user:alice excludes a value")));
            }
            Some(c @ ('[' | '{')) => {
                return Err((self.at, format!("quote a value that begins with {c:?}; write a range as 10..20")));
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn quoted(&mut self) -> Result<String> {
        let at = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err((at, "this quote is never closed".to_owned())),
                Some('"') => break,
                Some('\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(c @ ('"' | '\\')) => text.push(c),
                        _ => return Err((self.at - 1, "only \\\" and \\\\ can be escaped".to_owned())),
                    }
                }
                Some(c) => text.push(c),
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(text)
    }
}
