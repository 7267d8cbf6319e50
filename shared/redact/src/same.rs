//! Compares two entries, ignoring masked values.

use super::mask::MASK;
use super::tree::{Kind, Tree};
use piperoll_format::entry::{CallerEntry, caller_object};
use piperoll_format::limits::JSON_DEPTH_MAX;

/// Returns whether `entry` and `body`, an entry already stored under the same id, have the same fields of the caller. A value
/// that is masked in only one of the two counts as equal, because `body` may have been stored under earlier masking rules.
pub fn is_same_entry(entry: &CallerEntry, body: &str) -> bool {
    if entry.is_same_text(body) {
        return true;
    }
    let sent = entry.to_object();
    if !body.contains(MASK) && !sent.contains(MASK) {
        return false;
    }
    caller_object(body).is_some_and(|stored| is_same_but_for_masks(&stored, &sent))
}

/// Returns whether two JSON objects differ only in masked values, which happens if different versions of the rules masked the
/// same entry. The text of numbers, the order of keys and the spelling of strings are compared; the content of `redacted` is not.
fn is_same_but_for_masks(one: &str, other: &str) -> bool {
    let (Ok(a), Ok(b)) = (Tree::parse(one, JSON_DEPTH_MAX), Tree::parse(other, JSON_DEPTH_MAX)) else { return false };
    let mut pairs = vec![(0, 0)];
    while let Some((at, to)) = pairs.pop() {
        let (x, y) = (a.node(at), b.node(to));
        if a.raw(at) == b.raw(to) {
            continue;
        }
        let (text, other_text) = (a.string(at), b.string(to));
        if [&text, &other_text].into_iter().flatten().any(|text| text == MASK) {
            continue;
        }
        match (text, other_text) {
            (Some(text), Some(other_text)) => {
                if !is_same_around_masks(&text, &other_text) {
                    return false;
                }
            }
            (None, None) if x.kind == y.kind && matches!(x.kind, Kind::Object | Kind::Array) => {
                let members = |tree: &Tree<'_>, place: usize| -> Vec<(usize, Option<String>)> {
                    let all = tree.children(place).map(|child| (child, tree.key(child)));
                    all.filter(|(_, key)| place != 0 || key.as_deref() != Some("redacted")).collect()
                };
                let (left, right) = (members(&a, at), members(&b, to));
                // A `details` field that was masked as a whole became an empty object.
                let key = x.key.and_then(|_| a.key(at));
                if key.as_deref() == Some("details")
                    && (left.is_empty() || right.is_empty())
                    && names_details(one, other)
                {
                    continue;
                }
                let is_like = |x: &Option<String>, y: &Option<String>| match (x, y) {
                    (Some(x), Some(y)) => x == y || is_same_around_masks(x, y),
                    (x, y) => x == y,
                };
                if left.len() != right.len() || !left.iter().zip(&right).all(|((_, x), (_, y))| is_like(x, y)) {
                    return false;
                }
                pairs.extend(left.into_iter().zip(right).map(|((x, _), (y, _))| (x, y)));
            }
            _ => return false,
        }
    }
    true
}

/// Returns whether two texts are equal before the first mask in either text and after the last mask in either text.
fn is_same_around_masks(one: &str, other: &str) -> bool {
    let first = [one.find(MASK), other.find(MASK)].into_iter().flatten().min();
    let Some(first) = first else { return one == other };
    let behind = |text: &str| text.rfind(MASK).map(|at| text.len() - at - MASK.len());
    let last = [behind(one), behind(other)].into_iter().flatten().min().unwrap_or_default();
    let ends = |text: &str| text.len() >= first + last;
    ends(one)
        && ends(other)
        && one.as_bytes()[..first] == other.as_bytes()[..first]
        && one.as_bytes()[one.len() - last..] == other.as_bytes()[other.len() - last..]
}

fn names_details(one: &str, other: &str) -> bool {
    [one, other].iter().any(|text| text.contains(r#""redacted":["details""#))
}
