//! Shortens values: a field that is too long ends with a mark, and if an entry is too long, each value that is removed from it
//! is replaced with its length and hash.

use piperoll_format::entry::{FieldLimit, field_limit};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::ordered::Pairs;

/// Mark of a shortened value.
const MARK: char = '\u{2026}';
/// Mark of a shortened action, which cannot contain [`MARK`].
const WORD_MARK: &str = "...";
/// Maximum bytes of an entry's fields and details, before the node adds its own fields; less than the limit of a body.
const ENTRY_BYTES_MAX: usize = 60_000;
/// Lengths in bytes, tried in this order, to which the texts of an entry that is too long are shortened.
const TEXT_BYTES: [usize; 4] = [16 * 1024, 4 * 1024, 1024, 256];

/// Returns a value shortened to the limits of its field, and whether it was changed.
pub(super) fn field(value: &str, limit: FieldLimit) -> (String, bool) {
    let mut text = value.to_owned();
    if limit.is_one_line {
        text = text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    }
    if text.len() > limit.bytes_max {
        let mark = if limit.is_word { WORD_MARK.to_owned() } else { MARK.to_string() };
        text.truncate(boundary(&text, limit.bytes_max - mark.len()));
        text.push_str(&mark);
    }
    let is_changed = text != value;
    (text, is_changed)
}

fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Shortens the fields of an entry to their limits. Then shortens the texts in `details` until the entry is within its limit,
/// and if that is not enough, leaves out the largest members of `details`.
pub(super) fn entry(entry: &mut Pairs) {
    for (name, value) in &mut entry.0 {
        if let Some(limit) = field_limit(name)
            && let Ok(text) = serde_json::from_str::<String>(value.get())
            && let (shorter, true) = field(&text, limit)
            && let Ok(raw) = RawValue::from_string(serde_json::Value::from(shorter).to_string())
        {
            *value = raw;
        }
    }
    let fixed: usize = entry
        .0
        .iter()
        .filter(|(name, _)| name != "details")
        .map(|(name, value)| name.len() + value.get().len() + 4)
        .sum();
    let Some(at) = entry.0.iter().position(|(name, _)| name == "details") else { return };
    let room = ENTRY_BYTES_MAX.saturating_sub(fixed);
    if entry.0[at].1.get().len() <= room {
        return;
    }
    let whole = entry.0[at].1.clone();
    for bytes in TEXT_BYTES {
        if let Some(shorter) = shorten(&whole, bytes) {
            let fits = shorter.get().len() <= room;
            entry.0[at].1 = shorter;
            if fits {
                return;
            }
        }
    }
    let Some(mut details) = Pairs::parse(entry.0[at].1.get()) else { return };
    let Some(originals) = Pairs::parse(whole.get()) else { return };
    let mut by_size: Vec<usize> = (0..details.0.len()).collect();
    by_size.sort_by_key(|at| std::cmp::Reverse(details.0[*at].1.get().len()));
    let mut bytes = details.to_text().len();
    for at in by_size {
        let left_out = omitted(originals.0[at].1.get());
        let is_shorter = left_out.get().len() < details.0[at].1.get().len();
        if bytes <= room || !is_shorter {
            break;
        }
        bytes -= details.0[at].1.get().len() - left_out.get().len();
        details.0[at].1 = left_out;
    }
    if details.to_text().len() > room {
        // The details have thousands of small members: keep as many as there is space for.
        let mut kept = room.saturating_sub(512);
        details.0.retain(|(name, value)| {
            let bytes = name.len() + value.get().len() + 8;
            let fits = bytes <= kept;
            kept = kept.saturating_sub(bytes);
            fits
        });
        details.0.push(("omitted".to_owned(), omitted(whole.get())));
    }
    if let Some(raw) = details.to_raw() {
        entry.0[at].1 = raw;
    }
}

/// Placeholder for a value that was left out.
fn omitted(value: &str) -> Box<RawValue> {
    let text = format!("{{\"omitted_bytes\":{},\"sha256\":\"{}\"}}", value.len(), hex::encode(Sha256::digest(value)));
    RawValue::from_string(text).unwrap_or_else(|_| unreachable!("numbers and hexadecimal digits are JSON"))
}

/// Shortens each text in a value that is longer than `bytes`, and adds its length and hash; `None` if the value is not JSON.
fn shorten(value: &RawValue, bytes: usize) -> Option<Box<RawValue>> {
    match value.get().as_bytes().first()? {
        b'"' if value.get().len() > bytes => {
            let text: String = serde_json::from_str(value.get()).ok()?;
            if text.len() <= bytes {
                return Some(value.to_owned());
            }
            let kept = &text[..boundary(&text, bytes)];
            let shorter =
                format!("{kept}{MARK} ({} bytes, SHA-256 {})", text.len(), hex::encode(Sha256::digest(&text)));
            RawValue::from_string(serde_json::to_string(&shorter).ok()?).ok()
        }
        b'{' => {
            let mut inner = Pairs::parse(value.get())?;
            for (_, value) in &mut inner.0 {
                *value = shorten(value, bytes)?;
            }
            inner.to_raw()
        }
        b'[' => {
            let items: Vec<Box<RawValue>> = serde_json::from_str(value.get()).ok()?;
            let items = items.iter().map(|item| shorten(item, bytes)).collect::<Option<Vec<_>>>()?;
            RawValue::from_string(serde_json::to_string(&items).ok()?).ok()
        }
        _ => Some(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(details: &str) -> Pairs {
        let mut pairs = Pairs::parse(&format!("{{\"action\":\"a\",\"details\":{details}}}")).expect("JSON");
        entry(&mut pairs);
        assert!(pairs.to_text().len() <= ENTRY_BYTES_MAX + 64, "{}", pairs.to_text().len());
        Pairs::parse(pairs.member("details").expect("details").get()).expect("an object")
    }

    #[test]
    fn fields_are_shortened_with_a_mark() {
        let limit = |bytes_max, is_one_line, is_word| FieldLimit { bytes_max, is_one_line, is_word };
        for (value, limit, wanted) in [
            ("kim", limit(8, true, false), "kim"),
            ("kim\nroot", limit(32, true, false), "kim\u{fffd}root"),
            ("kim\nroot", limit(32, false, false), "kim\nroot"),
            ("123456789", limit(8, true, false), "12345\u{2026}"),
            ("12345\u{fc}789", limit(9, true, false), "12345\u{2026}"),
            ("a.very.long", limit(8, true, true), "a.ver..."),
        ] {
            let (found, is_changed) = field(value, limit);
            assert_eq!((found.as_str(), is_changed), (wanted, wanted != value));
            assert!(found.len() <= limit.bytes_max);
        }
    }

    #[test]
    fn what_an_entry_has_no_room_for_keeps_length_and_hash() {
        let long = "\u{fc}".repeat(50_000);
        let details = fitted(&format!("{{\"a\":1.50,\"list\":[{{\"text\":\"{long}\"}}],\"z\":\"short\"}}"));
        let text = details.to_text();
        let hash = hex::encode(Sha256::digest(&long));
        assert!(
            text.contains("100000 bytes")
                && text.contains(&hash)
                && text.contains("\"a\":1.50")
                && text.ends_with("\"z\":\"short\"}")
        );
        // There are many texts, and each of them is short.
        let many: Vec<String> = (0..900).map(|number| format!("\"k{number}\":\"{}\"", "x".repeat(200))).collect();
        let details = fitted(&format!("{{{}}}", many.join(",")));
        assert!(details.to_text().contains("sha256"));
        let whole = fitted("{\"a\":\"b\"}");
        assert_eq!(whole.to_text(), "{\"a\":\"b\"}");
    }
}
