//! Traits of row groups that allow readers to rule out conditions which columns and Bloom filters alone cannot decide.

use std::net::IpAddr;

use piperoll_format::view::EntryView;
use piperoll_query::filter::{fold, unescaped};
use serde::{Deserialize, Serialize};

/// The member of `details` that lists further entities. A search for an entity finds these lists too, so without this trait it would have to
/// read the details of every row.
pub(crate) const AFFECTED: &str = "affected";

/// Properties that entries of a row group may have. A trait that a file does not mention may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traits {
    /// `changes` or `details` contain the text `affected`, folded, as it is stored or with its escapes resolved.
    #[serde(default = "may_be")]
    pub(crate) affected: bool,
    /// An `ip_address` is an address, but not written in the canonical form: IPv4 addresses with dots, also if they are mapped to IPv6, and
    /// IPv6 addresses according to RFC 5952. A search for one address then has to read all of them.
    #[serde(default = "may_be")]
    pub(crate) other_addresses: bool,
}

fn may_be() -> bool {
    true
}

/// No entries.
impl Default for Traits {
    fn default() -> Self {
        Self { affected: false, other_addresses: false }
    }
}

impl Traits {
    /// Traits of a row group about which nothing is known.
    pub(crate) const UNKNOWN: Self = Self { affected: true, other_addresses: true };

    /// Traits of one entry.
    pub(super) fn of(view: &EntryView<'_>) -> Self {
        let mentions = |text: &str| fold(text).contains(AFFECTED) || fold(&unescaped(text)).contains(AFFECTED);
        let address = view.ip_address.as_deref();
        Self {
            affected: [view.changes, view.details].into_iter().flatten().any(|raw| mentions(raw.get())),
            other_addresses: address.is_some_and(|text| {
                text.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().to_string() != text)
            }),
        }
    }

    /// Adds those of further entries.
    pub(super) fn join(&mut self, more: Self) {
        self.affected |= more.affected;
        self.other_addresses |= more.other_addresses;
    }

    /// The first trait that an entry has although the row group should not have it.
    pub(super) fn lacks(self, entry: Self) -> Option<&'static str> {
        match (entry.affected && !self.affected, entry.other_addresses && !self.other_addresses) {
            (true, _) => Some("affected"),
            (_, true) => Some("other_addresses"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traits_are_those_of_the_entries() {
        let of = |body: &str| Traits::of(&EntryView::parse(body.as_bytes()).expect("an entry"));
        assert_eq!(of(r#"{"ip_address":"10.0.0.1","details":{"n":1}}"#), Traits::default());
        for text in ["AFFECTED", "\\u0061ffected", "x\\u0041ffecteds"] {
            assert!(of(&format!(r#"{{"details":{{"{text}":["message/1"]}}}}"#)).affected, "{text}");
            assert!(of(&format!(r#"{{"changes":{{"a":"{text}"}}}}"#)).affected, "{text}");
        }
        for (text, is_other) in [
            ("::ffff:10.0.0.1", true),
            ("::ffff:a00:1", true),
            ("2001:DB8::1", true),
            ("2001:db8:0:0:0:0:0:1", true),
            ("2001:db8::1", false),
            ("10.0.0.1", false),
            ("010.0.0.1", false),
            ("a proxy", false),
        ] {
            assert_eq!(of(&format!(r#"{{"ip_address":"{text}"}}"#)).other_addresses, is_other, "{text}");
        }
        let unknown: Traits = serde_json::from_str("{}").expect("an object");
        assert_eq!(unknown, Traits::UNKNOWN);
    }
}
