//! Walks an entry's JSON, masks values that have a secret's name, and examines texts.
//!
//! The walk keeps pending work in a list of its own. It recurses only for JSON inside JSON strings, and the depth of that is
//! limited by [`TEXTS_DEPTH_MAX`].

use std::collections::HashSet;
use std::ops::Range;

use piperoll_format::limits::{JSON_DEPTH_MAX, REDACTED_COUNT_MAX};

use super::mask::{MARK, MASK, json};
use super::members::{NAME_LISTS, is_about, is_content, is_label, is_labelled};
use super::names::Class;
use super::redactor::Redactor;
use super::texts::{commands, is_basic, is_pem_begin, is_pem_end};
use super::tree::{Kind, NoTree, Tree};
use super::values::{is_sentence, is_spared, is_state as is_state_word, looks_made_up};

/// Maximum length of one path. Longer paths are truncated, so that the list of masked paths stays small.
pub(super) const PATH_BYTES_MAX: usize = 128;
/// Maximum depth of JSON inside JSON strings that is examined; JSON below it is masked as a whole.
const TEXTS_DEPTH_MAX: usize = 3;
/// Maximum number of offsets in one text at which parsing JSON is attempted, which bounds the time for a text full of brackets.
const EMBEDDED_MAX: usize = 32;
/// Suffix of the path of a value that was masked because it could not be examined.
const TOO_DEEP: &str = " (nested too deep)";
/// Maximum number of secrets of one entry whose copies are searched for, and the minimum and maximum length of such a secret.
/// Shorter secrets are often words that also have other meanings.
const COPIES_MAX: usize = 32;
const COPY_BYTES_MIN: usize = 8;
const COPY_BYTES_MAX: usize = 4_096;

/// Paths of masked values, in order and without duplicates, up to the maximum number; `count` is the number of all masked values.
#[derive(Default)]
pub(super) struct Masked {
    pub(super) paths: Vec<String>,
    known: HashSet<String>,
    pub(super) count: usize,
    /// Masked secrets that are distinctive enough to search for copies of them.
    pub(super) secrets: Vec<String>,
}

impl Masked {
    pub(super) fn add(&mut self, path: &str, said: &str) {
        self.count += 1;
        let mut end = PATH_BYTES_MAX.min(path.len());
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        let path = format!("{}{said}", &path[..end]);
        if self.paths.len() < REDACTED_COUNT_MAX && self.known.insert(path.clone()) {
            self.paths.push(path);
        }
    }

    /// Remembers a secret, so that copies of it are masked too.
    fn remember(&mut self, secret: &str) {
        let is_distinct = (COPY_BYTES_MIN..=COPY_BYTES_MAX).contains(&secret.len())
            && looks_made_up(secret)
            && secret.bytes().any(|b| b.is_ascii_alphabetic() && !matches!(b, b'e' | b'E'));
        if is_distinct && self.secrets.len() < COPIES_MAX && !self.secrets.iter().any(|known| known == secret) {
            self.secrets.push(secret.to_owned());
        }
    }
}

/// Mode in which a value is examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    /// The value has a secret's name; `counts` is true if a number with this name is a count.
    Secret {
        class: Class,
        counts: bool,
    },
    /// The value is in an object with a secret's name.
    Within(Class),
    /// The whole value is secret, regardless of the names in it.
    All,
}

enum Job {
    Value(usize, Mode),
    /// A member of an object; its key is added to the path.
    Member {
        at: usize,
        key: String,
        mode: Mode,
    },
    /// Truncates the path to this length.
    Leave(usize),
}

/// Replacement of a byte range of the text that a tree was read from.
#[derive(Debug)]
struct Edit {
    from: usize,
    to: usize,
    with: String,
}

/// Returns the bytes `from..to` of a text with the edits applied. Edits must not overlap.
fn edited(text: &str, from: usize, to: usize, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| edit.from);
    let (mut out, mut copied) = (String::with_capacity(to - from), from);
    for edit in edits {
        out.push_str(&text[copied..edit.from]);
        out.push_str(&edit.with);
        copied = edit.to;
    }
    out.push_str(&text[copied..to]);
    out
}

pub(super) struct Walk<'r> {
    redactor: &'r Redactor,
    pub(super) path: String,
    pub(super) masked: Masked,
    /// Current depth of JSON strings inside JSON strings.
    depth: usize,
}

impl<'r> Walk<'r> {
    pub(super) fn new(redactor: &'r Redactor) -> Self {
        Self { redactor, path: String::new(), masked: Masked::default(), depth: 0 }
    }

    /// Returns the value at `root` with its secrets masked and otherwise as written; `path` must be the path of that value.
    pub(super) fn value(&mut self, tree: &Tree<'_>, root: usize) -> String {
        let mut edits = Vec::new();
        let mut jobs = vec![Job::Value(root, Mode::Open)];
        while let Some(job) = jobs.pop() {
            match job {
                Job::Value(at, mode) => self.one(tree, at, mode, &mut jobs, &mut edits),
                Job::Leave(length) => self.path.truncate(length),
                Job::Member { at, key, mode } => {
                    jobs.push(Job::Leave(self.path.len()));
                    self.enter(&key);
                    jobs.push(Job::Value(at, mode));
                }
            }
        }
        let node = tree.node(root);
        edited(tree.text(), node.start, node.end, edits)
    }

    pub(super) fn enter(&mut self, name: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        // Paths are truncated to this length anyway.
        self.path.extend(name.chars().take(PATH_BYTES_MAX));
    }

    fn mask(&mut self, tree: &Tree<'_>, at: usize, edits: &mut Vec<Edit>) {
        self.replace(tree, at, MASK, edits);
    }

    fn replace(&mut self, tree: &Tree<'_>, at: usize, text: &str, edits: &mut Vec<Edit>) {
        self.masked.add(&self.path, "");
        let node = tree.node(at);
        edits.push(Edit { from: node.start, to: node.end, with: json(text) });
    }

    fn one(&mut self, tree: &Tree<'_>, at: usize, mode: Mode, jobs: &mut Vec<Job>, edits: &mut Vec<Edit>) {
        let node = *tree.node(at);
        match node.kind {
            Kind::Object => self.object(tree, at, mode, jobs, edits),
            Kind::Array => self.array(tree, at, mode, jobs, edits),
            Kind::String => self.string(tree, at, mode, edits),
            Kind::Plain => {
                let raw = tree.raw(at);
                // `null`, `true` and `false` show only whether there is a secret, so they are kept.
                let is_number = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
                if is_number && matches!(mode, Mode::Secret { counts: false, .. } | Mode::All) {
                    self.masked.remember(raw);
                    self.mask(tree, at, edits);
                }
            }
        }
    }

    fn object(&mut self, tree: &Tree<'_>, at: usize, mode: Mode, jobs: &mut Vec<Job>, edits: &mut Vec<Edit>) {
        let children: Vec<usize> = tree.children(at).collect();
        let mut keys = Vec::with_capacity(children.len());
        for child in &children {
            // The tree's parser accepted this key, but if it cannot be decoded, the value must not remain unexamined.
            let Some(key) = tree.key(*child) else { return self.mask(tree, at, edits) };
            keys.push(key);
        }
        if keys.iter().any(|key| key == MARK) {
            return self.mask(tree, at, edits);
        }
        let names = &self.redactor.names;
        let within = match mode {
            // An object with a header's name (`cookie`, `authorization`) describes permissions; it is not the value of a header.
            Mode::Secret { class: Class::Header, .. } | Mode::Open => None,
            Mode::Secret { class, .. } | Mode::Within(class) => Some(class),
            Mode::All => Some(Class::Password),
        };
        // In `{"field":"password","old":…,"new":…}` and `{"name":"Authorization","value":…}`, the value of one member is the
        // name of the secret in another.
        let subject = children.iter().zip(&keys).find_map(|(child, key)| {
            let label = is_label(key).then(|| tree.string(*child)).flatten()?;
            names.class(&label).is_secret().then_some(label)
        });
        let counts_tests = keys.iter().any(|key| key.to_ascii_lowercase().starts_with("fail"));
        let is_kubernetes_secret = children
            .iter()
            .zip(&keys)
            .any(|(child, key)| key == "kind" && tree.string(*child).is_some_and(|kind| kind == "Secret"));
        let mut shown_keys: HashSet<String> = HashSet::new();
        let mut members = Vec::with_capacity(children.len());
        for (child, key) in children.into_iter().zip(keys) {
            let beside = is_labelled(&key);
            let class = names.class(&key);
            let secret = |class: Class, name: &str| Mode::Secret { class, counts: names.is_count(name) };
            // The old and the new value share one path: `changes.password`.
            let mut path = None;
            let child_mode =
                if mode == Mode::All || is_kubernetes_secret && matches!(key.as_str(), "data" | "stringData") {
                    Mode::All
                } else if let Some(label) = subject.as_deref().filter(|_| beside) {
                    path = Some(label.to_owned());
                    secret(names.class(label), label)
                } else if counts_tests && key == "pass" && tree.node(child).kind == Kind::Plain {
                    Mode::Open
                } else if class.is_secret() {
                    secret(class, &key)
                } else {
                    match (within, tree.node(child).kind) {
                        (None, _) => Mode::Open,
                        (Some(_), _) if is_about(&key) => Mode::Open,
                        (Some(class), Kind::Object | Kind::Array) => Mode::Within(class),
                        // In an object with the name of a token or key, a member whose value is an ordinary word does not contain
                        // the token, unless the member's name marks the value as the content.
                        (Some(Class::Token), Kind::String)
                            if !is_content(&key) && tree.string(child).is_some_and(|text| !looks_made_up(&text)) =>
                        {
                            Mode::Open
                        }
                        (Some(class), _) => Mode::Secret { class, counts: false },
                    }
                };
            if let (Some(with), Some((from, to))) = (self.shown_key(&key, &mut shown_keys), tree.node(child).key) {
                edits.push(Edit { from, to, with });
            }
            members.push(Job::Member { at: child, key: path.unwrap_or(key), mode: child_mode });
        }
        jobs.extend(members.into_iter().rev());
    }

    /// Returns a key with its secret masked, made unique among its siblings; `None` if the key needs no masking.
    fn shown_key(&mut self, key: &str, shown: &mut HashSet<String>) -> Option<String> {
        let Some((masked, secrets)) = self.redactor.texts.masked_parts(&self.redactor.names, key, &[]) else {
            shown.insert(key.to_owned());
            return None;
        };
        secrets.iter().for_each(|secret| self.masked.remember(secret));
        self.masked.add(&self.path, "");
        let mut name = masked.clone();
        let mut number = 1;
        while !shown.insert(name.clone()) {
            number += 1;
            name = format!("{masked} ({number})");
        }
        Some(json(&name))
    }

    fn array(&mut self, tree: &Tree<'_>, at: usize, mode: Mode, jobs: &mut Vec<Job>, edits: &mut Vec<Edit>) {
        let children: Vec<usize> = tree.children(at).collect();
        let kinds = || children.iter().map(|child| tree.node(*child).kind);
        let names = &self.redactor.names;
        let mut modes = vec![Mode::Open; children.len()];
        let mut replaced: Vec<Option<String>> = vec![None; children.len()];
        match mode {
            Mode::Secret { class, .. } if kinds().any(|kind| matches!(kind, Kind::Object | Kind::Array)) => {
                modes.fill(match class {
                    Class::Header => Mode::Open,
                    class => Mode::Within(class),
                });
            }
            Mode::Within(class) => modes.fill(Mode::Within(class)),
            Mode::Secret { .. } | Mode::All if children.is_empty() => {}
            // A list of plain values gets a single mask, which reveals the least.
            Mode::Secret { .. } | Mode::All => {
                let spared = children.iter().all(|child| match tree.string(*child) {
                    Some(text) => is_spared(names, Class::Token, &text) || is_sentence(&text),
                    None => matches!(tree.raw(*child), "null" | "true" | "false"),
                });
                if !spared {
                    for child in &children {
                        if let Some(text) = tree.string(*child) {
                            self.masked.remember(&text);
                        }
                    }
                    return self.mask(tree, at, edits);
                }
            }
            Mode::Open => {
                let strings: Vec<Option<String>> = children.iter().map(|child| tree.string(*child)).collect();
                let is_pair = tree.parent(at).is_some_and(|parent| parent.kind == Kind::Array);
                self.list(&strings, is_pair, &mut modes, &mut replaced);
            }
        }
        let mut items = Vec::with_capacity(children.len());
        for ((at, mode), replaced) in children.into_iter().zip(modes).zip(replaced) {
            match replaced {
                Some(replaced) => self.replace(tree, at, &replaced, edits),
                None => items.push(Job::Value(at, mode)),
            }
        }
        jobs.extend(items.into_iter().rev());
    }

    /// Examines a list as a whole: a name and its value, the words of a command, or the lines of a key.
    fn list(&mut self, strings: &[Option<String>], is_pair: bool, modes: &mut [Mode], replaced: &mut [Option<String>]) {
        let names = &self.redactor.names;
        let parent = self.path.rsplit('.').next().unwrap_or_default();
        let lists_names = NAME_LISTS.iter().any(|list| parent.eq_ignore_ascii_case(list));
        if let [Some(name), value] = strings {
            let class = names.class(name);
            let has_digit = |text: &str| text.bytes().any(|b| b.is_ascii_digit());
            let is_name =
                |text: &str| names.class(text).is_secret() && text.len() <= PATH_BYTES_MAX && !has_digit(text);
            let names_two =
                value.as_deref().is_some_and(|value| is_name(value) || lists_names && !looks_made_up(value));
            // A list that is not inside another one may be a list of names: `["secrets","configmaps"]`
            let is_identifier = |text: &str| {
                text.bytes().all(|b| b.is_ascii_alphabetic() || matches!(b, b'_' | b'.' | b':' | b'*' | b'/' | b'-'))
            };
            let names_two = names_two || !is_pair && value.as_deref().is_some_and(is_identifier);
            if class.is_secret() && name.len() <= PATH_BYTES_MAX && !names_two && !name.contains(char::is_whitespace) {
                modes[1] = Mode::Secret { class, counts: names.is_count(name) };
            }
        }
        if strings.len() >= 2 && strings.iter().all(Option::is_some) {
            let words: Vec<&str> = strings.iter().flatten().map(String::as_str).collect();
            for (at, range) in commands::secrets_in_words(names, &words) {
                let word = words[at];
                self.masked.remember(&word[range.clone()]);
                let rest = format!("{}{MASK}{}", &word[..range.start], &word[range.end..]);
                replaced[at] = Some(rest);
            }
        }
        let mut inside = false;
        for (at, text) in strings.iter().enumerate() {
            let Some(text) = text else { continue };
            if inside {
                replaced[at] = Some(MASK.to_owned());
                inside = !is_pem_end(text);
            } else {
                inside = is_pem_begin(text) && !is_pem_end(text);
            }
        }
    }

    fn string(&mut self, tree: &Tree<'_>, at: usize, mode: Mode, edits: &mut Vec<Edit>) {
        let Some(text) = tree.string(at) else { return self.mask(tree, at, edits) };
        let names = &self.redactor.names;
        let is_secret = match mode {
            Mode::All => !text.is_empty(),
            Mode::Secret { class: class @ Class::Header, .. } => {
                !is_spared(names, class, &text) && !super::texts::is_prose_header(&text)
            }
            Mode::Secret { class, .. } | Mode::Within(class) => {
                !is_spared(names, class, &text)
                    && !is_folder(&self.path, &text)
                    && !is_sentence(&text)
                    && !is_state_word(&text)
            }
            Mode::Open => tree.key(at).is_some_and(|key| key == "auth") && is_basic(&text),
        };
        if is_secret {
            self.masked.remember(&text);
            return self.mask(tree, at, edits);
        }
        if let Some(masked) = self.text(&text) {
            let node = tree.node(at);
            edits.push(Edit { from: node.start, to: node.end, with: json(&masked) });
        }
    }

    /// Masks the secrets in running text, or in JSON stored as a string. Returns `None` if there is nothing to mask.
    pub(super) fn text(&mut self, text: &str) -> Option<String> {
        let trimmed = text.trim();
        if trimmed.starts_with(['{', '[', '"']) {
            match Tree::parse(trimmed, JSON_DEPTH_MAX) {
                Ok(tree) if self.depth < TEXTS_DEPTH_MAX => {
                    let before = self.masked.count;
                    self.depth += 1;
                    let inside = self.value(&tree, 0);
                    self.depth -= 1;
                    return (self.masked.count > before).then_some(inside);
                }
                Err(NoTree::NotJson) => {}
                // Text that cannot be examined is masked as a whole.
                Ok(_) | Err(NoTree::TooDeep) => {
                    self.masked.add(&self.path, TOO_DEEP);
                    return Some(MASK.to_owned());
                }
            }
        }
        let (embedded, json) = self.embedded(text);
        let rest = embedded.as_deref().unwrap_or(text);
        let Some((masked, secrets)) = self.redactor.texts.masked_parts(&self.redactor.names, rest, &json) else {
            return embedded;
        };
        secrets.iter().for_each(|secret| self.masked.remember(secret));
        self.masked.add(&self.path, "");
        Some(masked)
    }

    /// Examines JSON in the middle of a text, as in `body={"token":…}`. Returns the text with its secrets masked (`None` if it
    /// has no secrets) and the ranges of JSON in the resulting text.
    fn embedded(&mut self, text: &str) -> (Option<String>, Vec<Range<usize>>) {
        let bytes = text.as_bytes();
        let (mut out, mut found) = (String::new(), Vec::new());
        let (mut copied, mut at, mut tries) = (0, 0, 0);
        while tries < EMBEDDED_MAX {
            let Some(next) = bytes[at..].iter().position(|b| matches!(b, b'{' | b'[')) else { break };
            let start = at + next;
            at = start + 1;
            let next = bytes[at..].iter().take(64).find(|b| !b.is_ascii_whitespace());
            if !matches!(next, Some(b'"' | b'{' | b'[')) {
                continue;
            }
            tries += 1;
            match Tree::parse_prefix(text, start, JSON_DEPTH_MAX) {
                Ok((tree, end)) if self.depth < TEXTS_DEPTH_MAX => {
                    self.depth += 1;
                    let inside = self.value(&tree, 0);
                    self.depth -= 1;
                    out.push_str(&text[copied..start]);
                    found.push(out.len()..out.len() + inside.len());
                    out.push_str(&inside);
                    (copied, at) = (end, end);
                }
                Err(NoTree::NotJson) => {}
                Ok(_) | Err(NoTree::TooDeep) => {
                    self.masked.add(&self.path, TOO_DEEP);
                    out.push_str(&text[copied..start]);
                    out.push_str(MASK);
                    return (Some(out), found);
                }
            }
        }
        out.push_str(&text[copied..]);
        ((out != text).then_some(out), found)
    }
}

/// Returns whether a value is a working directory, which is not a secret: `PWD=/home/bob`.
fn is_folder(path: &str, value: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or_default();
    (name.eq_ignore_ascii_case("pwd") || name.eq_ignore_ascii_case("oldpwd")) && super::values::is_reference(value)
}
