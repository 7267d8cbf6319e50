//! JSON as a flat list of nodes. It is read in one pass without recursion, so nested values take up memory in proportion to their
//! depth, but no stack.

/// Reason why a text cannot be read as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoTree {
    /// JSON that is nested deeper than allowed.
    TooDeep,
    NotJson,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    String,
    /// Numbers, `true`, `false` and `null`.
    Plain,
}

/// One value: its bytes in the text, and the indexes of its relatives in the list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
    /// The bytes of the key, including the quotes, if the node is a member of an object.
    pub(super) key: Option<(usize, usize)>,
    parent: usize,
    first: usize,
    next: usize,
}

const NONE: usize = usize::MAX;

#[derive(Debug)]
pub(super) struct Tree<'t> {
    text: &'t str,
    nodes: Vec<Node>,
}

impl<'t> Tree<'t> {
    /// Reads a single value, surrounded only by white space.
    pub(super) fn parse(text: &'t str, depth_max: usize) -> Result<Self, NoTree> {
        let (tree, end) = Self::parse_prefix(text, 0, depth_max)?;
        if text[end..].trim_start().is_empty() { Ok(tree) } else { Err(NoTree::NotJson) }
    }

    /// Reads the value that begins at byte `at`; also returns where it ends.
    pub(super) fn parse_prefix(text: &'t str, at: usize, depth_max: usize) -> Result<(Self, usize), NoTree> {
        let mut parser = Parser { bytes: text.as_bytes(), at, depth_max, too_deep: false };
        let mut nodes = Vec::new();
        parser.value(&mut nodes)?;
        if parser.too_deep { Err(NoTree::TooDeep) } else { Ok((Self { text, nodes }, parser.at)) }
    }

    /// Returns the text that the tree was read from.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    pub(super) fn node(&self, at: usize) -> &Node {
        &self.nodes[at]
    }

    /// Returns the object or list that contains a node.
    pub(super) fn parent(&self, at: usize) -> Option<&Node> {
        self.nodes.get(self.nodes[at].parent)
    }

    pub(super) fn raw(&self, at: usize) -> &'t str {
        let node = &self.nodes[at];
        &self.text[node.start..node.end]
    }

    /// Returns the indexes of a node's children, in order.
    pub(super) fn children(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        let mut next = self.nodes[at].first;
        std::iter::from_fn(move || {
            let this = (next != NONE).then_some(next)?;
            next = self.nodes[this].next;
            Some(this)
        })
    }

    /// Returns a member's key with its escapes resolved.
    pub(super) fn key(&self, at: usize) -> Option<String> {
        let (from, to) = self.nodes[at].key?;
        serde_json::from_str(&self.text[from..to]).ok()
    }

    /// Returns a string with its escapes resolved; `None` for other kinds of nodes.
    pub(super) fn string(&self, at: usize) -> Option<String> {
        (self.nodes[at].kind == Kind::String).then(|| serde_json::from_str(self.raw(at)).ok()).flatten()
    }
}

struct Parser<'t> {
    bytes: &'t [u8],
    at: usize,
    depth_max: usize,
    too_deep: bool,
}

/// An object or list that is still open, with its last child so far.
struct OpenContainer {
    node: usize,
    last: usize,
    is_object: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, nodes: &mut Vec<Node>) -> Result<(), NoTree> {
        let mut open: Vec<OpenContainer> = Vec::new();
        loop {
            self.skip_space();
            let key = match open.last() {
                Some(OpenContainer { is_object: true, .. }) => {
                    let key = self.string()?;
                    self.skip_space();
                    self.take(b':')?;
                    self.skip_space();
                    Some(key)
                }
                _ => None,
            };
            let start = self.at;
            let kind = match self.peek() {
                Some(b'{') => Kind::Object,
                Some(b'[') => Kind::Array,
                Some(b'"') => Kind::String,
                _ => Kind::Plain,
            };
            // Values that are nested too deep are parsed but not stored, so the only memory that they use is for their brackets.
            let place = if open.len() > self.depth_max {
                self.too_deep = true;
                NONE
            } else {
                let parent = open.last().map_or(NONE, |open| open.node);
                nodes.push(Node { kind, start, end: start, key, parent, first: NONE, next: NONE });
                let place = nodes.len() - 1;
                if let Some(parent) = open.last_mut() {
                    match (parent.last, parent.node) {
                        (NONE, NONE) => {}
                        (NONE, node) => nodes[node].first = place,
                        (last, _) => nodes[last].next = place,
                    }
                    parent.last = place;
                }
                place
            };
            match kind {
                Kind::Object | Kind::Array => {
                    self.at += 1;
                    self.skip_space();
                    let close = if kind == Kind::Object { b'}' } else { b']' };
                    if self.peek() != Some(close) {
                        open.push(OpenContainer { node: place, last: NONE, is_object: kind == Kind::Object });
                        continue;
                    }
                    self.at += 1;
                }
                Kind::String => drop(self.string()?),
                Kind::Plain => self.plain()?,
            }
            if let Some(node) = nodes.get_mut(place) {
                node.end = self.at;
            }
            // Close the objects and lists that end after this value.
            loop {
                let Some(parent) = open.last() else { return Ok(()) };
                self.skip_space();
                let close = if parent.is_object { b'}' } else { b']' };
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        break;
                    }
                    Some(byte) if byte == close => {
                        self.at += 1;
                        if let Some(node) = nodes.get_mut(parent.node) {
                            node.end = self.at;
                        }
                        open.pop();
                    }
                    _ => return Err(NoTree::NotJson),
                }
            }
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), NoTree> {
        if self.peek() != Some(byte) {
            return Err(NoTree::NotJson);
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(usize, usize), NoTree> {
        let start = self.at;
        self.take(b'"')?;
        loop {
            match self.peek() {
                None | Some(0..=0x1f) => return Err(NoTree::NotJson),
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        Ok((start, self.at))
    }

    fn plain(&mut self) -> Result<(), NoTree> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9' | b'+' | b'-' | b'.' | b'a'..=b'z' | b'E')) {
            self.at += 1;
        }
        let word = &self.bytes[start..self.at];
        let is_number = serde_json::from_slice::<serde_json::Number>(word).is_ok()
            || word.first().is_some_and(|b| b.is_ascii_digit() || *b == b'-')
                && serde_json::from_slice::<&serde_json::value::RawValue>(word).is_ok();
        if is_number || matches!(word, b"true" | b"false" | b"null") { Ok(()) } else { Err(NoTree::NotJson) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn depth_is_bounded_and_costs_no_stack() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(Tree::parse(&deep(32), 32).is_ok());
        assert_eq!(Tree::parse(&deep(40), 32).err(), Some(NoTree::TooDeep));
        assert_eq!(Tree::parse(&deep(1_000_000), 32).err(), Some(NoTree::TooDeep));
        assert_eq!(Tree::parse(&"[".repeat(1_000_000), 32).err(), Some(NoTree::NotJson));
    }

    #[test]
    fn members_come_in_order_with_their_keys() {
        let tree = Tree::parse(r#" {"a": [1, "x"], "\u0062": {}} "#, 32).expect("JSON");
        let members: Vec<_> = tree.children(0).map(|at| (tree.key(at), tree.raw(at))).collect();
        assert_eq!(members, [(Some("a".to_owned()), r#"[1, "x"]"#), (Some("b".to_owned()), "{}")]);
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{}:,\" \\\\0-9a-eE.+\\-tnul]{0,24}") {
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            let ours = Tree::parse(&text, 32).is_ok();
            // `Tree` checks escapes only when a string is decoded.
            prop_assert!(ours == theirs || (ours && text.contains('\\')), "{}: {} {}", text, ours, theirs);
        }
    }
}
