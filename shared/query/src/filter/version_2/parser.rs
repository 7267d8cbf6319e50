//! Parses conditions and operators.

use super::keys::{self, test_of};
use super::typed::{Comparison, Key};
use crate::filter::expr::{Expr, Filter, Result, TypedFilter, VERSION_1_MARK, VERSION_2_MARK};
use crate::filter::keywords::canonical_key;
use crate::filter::path::PATH_KEYS_MAX;
use crate::filter::test::Test;
use crate::filter::{suggest, version_1};
use crate::zone::Now;
use piperoll_format::limits::{FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_TERMS_MAX, FILTER_TEXTS_MAX};

/// Parses text of version 2. `is_stored` is true for text that this program wrote, which may be nested more deeply.
pub(in crate::filter) fn parse(text: &str, now: Now, is_stored: bool) -> Result<TypedFilter> {
    let depth_spare = if is_stored { 4 } else { 0 };
    if text.trim().len() > FILTER_BYTES_MAX {
        return Err((0, format!("{} bytes, more than the limit of {FILTER_BYTES_MAX}", text.trim().len())));
    }
    let mut parser = Parser { chars: text.chars().collect(), at: 0, now, terms: 0, hints: Vec::new(), depth_spare };
    parser.skip_space();
    let filter = if parser.peek().is_none() { Filter::default() } else { Filter::of(parser.whole()?) };
    filter.check_written_length()?;
    let texts: usize = filter.tests().map(Test::texts).sum();
    if texts > FILTER_TEXTS_MAX {
        return Err((0, format!("{texts} texts to search for, more than the limit of {FILTER_TEXTS_MAX}")));
    }
    Ok(TypedFilter { filter, hints: parser.hints })
}

pub(super) struct Parser {
    pub(super) chars: Vec<char>,
    pub(super) at: usize,
    pub(super) now: Now,
    pub(super) terms: usize,
    pub(super) hints: Vec<String>,
    /// Nesting levels allowed beyond those of typed text, because combining a filter with a scope adds brackets.
    pub(super) depth_spare: usize,
}

/// Operator between a key and its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Is,
    IsNot,
    Compare(Comparison),
}

/// A part of a filter and, if the part is a bare word of free text, that word.
pub(super) struct Item {
    at: usize,
    part: Expr,
    word: Option<String>,
}

/// Conditions joined by AND or OR, and whether the first and the last of them are bare words.
pub(super) struct Conjunction {
    part: Expr,
    /// The bare word, if there is only one condition and it is a bare word.
    word: Option<String>,
    begins_bare: bool,
    ends_bare: bool,
}

/// Words that join conditions, in capitals only.
const OPERATORS: [&str; 3] = ["AND", "OR", "NOT"];

impl Parser {
    pub(super) fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    pub(super) fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// Whether the text continues with this operator: the word, followed by a space, a bracket or the end.
    pub(super) fn is_at(&self, operator: &str) -> bool {
        let word: Vec<char> = operator.chars().collect();
        let end = self.at + word.len();
        self.chars.get(self.at..end).is_some_and(|found| found == word)
            && self.chars.get(end).is_none_or(|c| c.is_whitespace() || "()".contains(*c))
    }

    pub(super) fn whole(&mut self) -> Result<Expr> {
        let whole = self.alternatives(0)?;
        match self.peek() {
            None => Ok(whole.part),
            Some(_) => Err((self.at, "unmatched closing parenthesis; quote it to search for it".to_owned())),
        }
    }

    /// Parses conditions joined by OR, up to the end or a closing bracket.
    pub(super) fn alternatives(&mut self, depth: usize) -> Result<Conjunction> {
        let first = self.run(depth)?;
        let word = first.word;
        let (mut parts, begins_bare, mut ends_bare) = (vec![first.part], first.begins_bare, first.ends_bare);
        while self.is_at("OR") {
            self.at += 2;
            let next = self.run(depth)?;
            if ends_bare || next.begins_bare {
                self.hint_operator("OR", "matches either side");
            }
            parts.push(next.part);
            ends_bare = next.ends_bare;
        }
        let word = word.filter(|_| parts.len() == 1);
        Ok(Conjunction { part: Expr::any(parts), word, begins_bare, ends_bare })
    }

    pub(super) fn hint_operator(&mut self, word: &str, does: &str) {
        let hint = format!("{word} {does} here; to search for the word, quote it: \"{word}\"");
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
    }

    /// Parses conditions joined by AND or a space, up to an OR, the end or a closing bracket.
    pub(super) fn run(&mut self, depth: usize) -> Result<Conjunction> {
        let mut items: Vec<Item> = Vec::new();
        let mut and = None;
        loop {
            self.skip_space();
            let ends = self.peek().is_none_or(|c| c == ')') || self.is_at("OR");
            if (ends && items.is_empty()) || (self.is_at("AND") && (items.is_empty() || and.is_some())) {
                return Err((self.at, self.missing_condition()));
            }
            if ends {
                break;
            }
            if self.is_at("AND") {
                and = Some(self.at);
                self.at += 3;
                continue;
            }
            let item = self.part(depth)?;
            if and.take().is_some() && (item.word.is_some() || items.last().is_some_and(|last| last.word.is_some())) {
                self.hint_operator("AND", "requires both sides");
            }
            items.push(item);
        }
        if let Some(at) = and {
            return Err((at, "AND needs a condition on both sides; to search for the word, quote it".to_owned()));
        }
        self.check_small_operators(&items)?;
        let bare = |item: Option<&Item>| item.is_some_and(|item| item.word.is_some());
        let (begins_bare, ends_bare) = (bare(items.first()), bare(items.last()));
        let word = items.first().filter(|_| items.len() == 1).and_then(|item| item.word.clone());
        Ok(Conjunction {
            part: Expr::all(items.into_iter().map(|item| item.part).collect()),
            word,
            begins_bare,
            ends_bare,
        })
    }

    pub(super) fn missing_condition(&self) -> String {
        let word = OPERATORS.into_iter().find(|word| self.is_at(word));
        match (word, self.peek()) {
            (Some(word), _) => format!("{word} needs a condition on both sides; to search for the word, quote it"),
            (None, Some(_)) => "these parentheses are empty".to_owned(),
            (None, None) => "a condition is missing at the end; to search for the last word, quote it".to_owned(),
        }
    }

    /// Refuses `and`, `or` and `not` in lower case next to a condition that is not a bare word, because an operator is probably
    /// meant. Between bare words, such a word may itself be searched for, so a hint is added instead. Also refuses the syntax of
    /// other languages, as in `user is alice`.
    pub(super) fn check_small_operators(&mut self, items: &[Item]) -> Result<()> {
        for (place, item) in items.iter().enumerate() {
            let Some(word) = &item.word else { continue };
            let next = items.get(place + 1).and_then(|item| item.word.as_deref());
            if canonical_key(word).is_some() && next.is_some_and(suggest::is_foreign_operator) {
                return Err((
                    item.at,
                    format!(
                        "write {word}:alice, or {word}:alice,bob for one of several values; quote {word:?} to search for the word"
                    ),
                ));
            }
            let Some(operator) = OPERATORS.into_iter().find(|operator| word.eq_ignore_ascii_case(operator)) else {
                continue;
            };
            let mut beside = place
                .checked_sub(1)
                .and_then(|before| items.get(before))
                .into_iter()
                .chain(items.get(place + 1))
                .peekable();
            if beside.peek().is_none() {
                continue;
            }
            if beside.any(|other| other.word.is_none()) {
                return Err((
                    item.at,
                    format!(
                        "write {operator} in capitals to join conditions, or \"{word}\" in quotes to search for the word"
                    ),
                ));
            }
            self.hints.push(format!("{word:?} is searched for as a word; in capitals, {operator} joins conditions"));
        }
        Ok(())
    }

    /// Parses one condition, a negated one, or a group in brackets.
    pub(super) fn part(&mut self, depth: usize) -> Result<Item> {
        let at = self.at;
        if depth > FILTER_DEPTH_MAX + self.depth_spare {
            return Err((at, format!("parentheses and NOT are nested more than {FILTER_DEPTH_MAX} levels deep")));
        }
        if self.is_at("NOT") {
            self.at += 3;
            self.skip_space();
            if self.peek().is_none_or(|c| c == ')') || ["AND", "OR"].iter().any(|word| self.is_at(word)) {
                return Err((at, "NOT needs a condition after it; to search for the word, quote it".to_owned()));
            }
            let item = self.part(depth + 1)?;
            if item.word.is_some() {
                self.hint_operator("NOT", "excludes what follows");
            }
            return Ok(Item { at, part: Expr::not(item.part), word: item.word });
        }
        match self.peek() {
            Some('-') => {
                self.at += 1;
                match self.peek() {
                    None => return Err((at, "a minus needs a condition directly after it".to_owned())),
                    Some(c) if c.is_whitespace() => {
                        return Err((at, "a minus needs a condition directly after it".to_owned()));
                    }
                    Some('-') => {
                        return Err((
                            at,
                            "one minus is enough to exclude a condition; quote text that begins with minus signs"
                                .to_owned(),
                        ));
                    }
                    Some(_) => {}
                }
                let item = if self.peek() == Some('(') { self.group(depth)? } else { self.condition()? };
                Ok(Item { at, part: Expr::not(item.part), word: None })
            }
            Some('(') => self.group(depth),
            Some('!') => Err((
                at,
                "to exclude a condition, write -… or NOT …, as in -user:alice; quote text that begins with !"
                    .to_owned(),
            )),
            _ => self.condition(),
        }
    }

    pub(super) fn group(&mut self, depth: usize) -> Result<Item> {
        let at = self.at;
        self.at += 1;
        let inside = self.alternatives(depth + 1)?;
        if self.peek() != Some(')') {
            return Err((at, "this parenthesis is never closed; quote it to search for it".to_owned()));
        }
        self.at += 1;
        if self.peek().is_some_and(|c| !c.is_whitespace() && c != ')') {
            return Err((self.at, "a space is missing after the parenthesis".to_owned()));
        }
        Ok(Item { at, part: inside.part, word: inside.word })
    }

    /// Parses a condition with a key, or free text.
    pub(super) fn condition(&mut self) -> Result<Item> {
        self.terms += 1;
        if self.terms > FILTER_TERMS_MAX {
            return Err((self.at, format!("more than {FILTER_TERMS_MAX} conditions")));
        }
        let at = self.at;
        if self.chars[at..].starts_with(&['v', '1', ':', '"']) {
            return self.of_version_1();
        }
        if let Some((key, operator)) = self.key()? {
            return self.keyed(at, &key, operator);
        }
        let value = self.value(true)?;
        let word = value.text().filter(|_| !value.is_quoted());
        if let Some(word) = &word {
            suggest::refuse_foreign_word(word).map_err(|problem| (at, problem))?;
        }
        value.check_pieces().map_err(|problem| (at, problem))?;
        Ok(Item { at, part: Expr::Test(Test::Text(vec![value.needle()])), word })
    }

    /// Parses `v1:"…"`, which contains conditions in the syntax of version 1.
    pub(super) fn of_version_1(&mut self) -> Result<Item> {
        let at = self.at;
        self.at += VERSION_1_MARK.len();
        let text = self.quoted()?;
        let inside = version_1::parse(&text, self.now.at).map_err(|(_, problem)| (at, problem))?;
        self.terms += inside.all.len().saturating_sub(1);
        if inside.is_empty() || self.terms > FILTER_TERMS_MAX {
            return Err((at, format!("a filter must have 1 to {FILTER_TERMS_MAX} conditions")));
        }
        Ok(Item { at, part: Expr::all(inside.all), word: None })
    }

    /// Parses a key with its operator. Consumes nothing and returns `None` if the text does not continue with a key.
    pub(super) fn key(&mut self) -> Result<Option<(Key, Operator)>> {
        let start = self.at;
        let mut end = start;
        while self.chars.get(end).is_some_and(|c| !c.is_whitespace() && !"\":=<>()".contains(*c)) {
            end += 1;
        }
        let mut word: String = self.chars[start..end].iter().collect();
        if self.chars.get(end) == Some(&'"')
            && word.ends_with('.')
            && (word.starts_with("details.") || word.starts_with("changes."))
        {
            // The path to a value continues with a quoted key.
        } else if word.is_empty() || self.chars.get(end).is_none_or(|c| !":=<>".contains(*c)) {
            if let Some(negated) = word.find("!~") {
                return Err((start + word[..negated].chars().count(), suggest::NO_REGEX.to_owned()));
            }
            return Ok(None);
        }
        self.at = end;
        let is_not = word.ends_with('!') && self.peek() == Some('=');
        if is_not {
            word.pop();
        }
        let key = match word.split_once('.') {
            Some((root @ ("details" | "changes"), _)) => {
                self.at = start + root.len() + 1;
                Key::Path(root.to_owned(), self.path(start)?)
            }
            _ => match canonical_key(&word) {
                Some(key) => Key::Name(key),
                None => return Err((start, suggest::unknown_key(&word))),
            },
        };
        let operator = self.operator(is_not)?;
        Ok(Some((key, operator)))
    }

    /// Parses the keys of `details.a."b c".d` after the first dot.
    pub(super) fn path(&mut self, start: usize) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        loop {
            let at = self.at;
            let key = if self.peek() == Some('"') {
                self.quoted()?
            } else {
                while self.peek().is_some_and(|c| !c.is_whitespace() && !"\".:=<>!(),*[]".contains(c)) {
                    self.at += 1;
                }
                self.chars[at..self.at].iter().collect()
            };
            if key.is_empty() {
                return Err((
                    at,
                    "a key is missing here (example: details.subject:hello); quote a key with special characters"
                        .to_owned(),
                ));
            }
            if keys.len() == PATH_KEYS_MAX {
                return Err((start, format!("a path has more than {PATH_KEYS_MAX} keys")));
            }
            keys.push(key);
            match self.peek() {
                Some('.') => self.at += 1,
                Some(':' | '=' | '<' | '>' | '!') => return Ok(keys),
                Some('[') => {
                    return Err((
                        self.at,
                        "list elements cannot be indexed here; every element is compared".to_owned(),
                    ));
                }
                _ => {
                    return Err((
                        self.at,
                        "a value is missing after this key (example: details.subject:hello)".to_owned(),
                    ));
                }
            }
        }
    }

    pub(super) fn operator(&mut self, is_not: bool) -> Result<Operator> {
        let at = self.at;
        let is_not = is_not || (self.peek() == Some('!') && self.chars.get(at + 1) == Some(&'='));
        if self.peek() == Some('!') {
            self.at += 1;
        }
        let symbol = self.peek();
        self.at += 1;
        let equals = self.peek() == Some('=');
        let operator = match symbol {
            Some(':') => return Ok(Operator::Is),
            Some('=') if self.peek() == Some('~') => return Err((at, suggest::NO_REGEX.to_owned())),
            Some('=') if equals => return Err((at, "one = is enough".to_owned())),
            Some('=') if is_not => return Ok(Operator::IsNot),
            Some('=') => return Ok(Operator::Is),
            Some('<') if equals => Comparison::LessOrEqual,
            Some('<') => Comparison::Less,
            Some('>') if equals => Comparison::GreaterOrEqual,
            Some('>') => Comparison::Greater,
            _ => return Err((at, "a colon is missing here (example: user:alice)".to_owned())),
        };
        self.at += usize::from(equals);
        Ok(Operator::Compare(operator))
    }

    pub(super) fn keyed(&mut self, at: usize, key: &Key, operator: Operator) -> Result<Item> {
        let is_in_brackets = self.peek() == Some('(');
        let mut values = if is_in_brackets { self.bracketed_values(key)? } else { self.values(key)? };
        let compared = |less: bool| {
            let is_less = |comparison| matches!(comparison, Comparison::Less | Comparison::LessOrEqual);
            values.iter().find(|value| value.comparison.is_some_and(|comparison| is_less(comparison) == less))
        };
        // In brackets, the author wrote OR explicitly, so both comparisons are intended.
        if let (Some(less), Some(greater)) = (compared(true), compared(false))
            && !is_in_brackets
        {
            let at = less.at.min(greater.at);
            return Err((
                at,
                "a comma means OR; for a value between two bounds, write 5..9 or two conditions".to_owned(),
            ));
        }
        if let Operator::Compare(comparison) = operator {
            if let Some(twice) = values.iter().find(|value| value.comparison.is_some()) {
                return Err((twice.at, "one comparison is enough".to_owned()));
            }
            values.iter_mut().for_each(|value| value.comparison = Some(comparison));
        }
        let part = Expr::Test(test_of(key, &values, self.now)?);
        self.hints.extend(keys::hint(key, &values));
        Ok(Item { at, part: if operator == Operator::IsNot { Expr::not(part) } else { part }, word: None })
    }
}

impl Filter {
    /// Checks the length of the canonical text, including added quotes. This text is sent to nodes and stored in cursors and
    /// manifests, so it must be a valid filter too.
    pub(in crate::filter) fn check_written_length(&self) -> Result<()> {
        let written = self.to_string().len();
        if written > FILTER_BYTES_MAX + VERSION_2_MARK.len() + 1 {
            return Err((
                0,
                format!("{written} bytes when written out with all quotes, more than the limit of {FILTER_BYTES_MAX}"),
            ));
        }
        Ok(())
    }
}
