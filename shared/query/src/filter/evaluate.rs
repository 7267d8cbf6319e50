//! Evaluates a filter on an entry.

use std::cell::OnceCell;
use std::net::IpAddr;

use ipnet::IpNet;

use super::expr::{Expr, Filter};
use super::fold::{fold, unescaped};
use super::path;
use super::pattern::{Pattern, TextPattern};
use super::test::{EntityPattern, IpPattern, Property, Test, verb};
use crate::column::Column;
use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;

impl Filter {
    /// Whether the entry matches. A condition on an absent field never matches, so its negation always does.
    pub fn matches(&self, entry: &EntryView<'_>) -> bool {
        let texts = Texts::of(entry);
        // Short values are tested first, because searching texts takes longer.
        let (long, short): (Vec<&Expr>, Vec<&Expr>) = self.all.iter().partition(|part| part.reads_texts());
        short.into_iter().chain(long).all(|part| part.holds(entry, &texts))
    }
}

impl Expr {
    fn holds(&self, entry: &EntryView<'_>, texts: &Texts<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(entry, texts)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(entry, texts)),
            Self::Not(part) => !part.holds(entry, texts),
            Self::Test(test) => test.holds(entry, texts),
        }
    }

    fn reads_texts(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::reads_texts),
            Self::Not(part) => part.reads_texts(),
            Self::Test(test) => test.reads_texts(),
        }
    }
}

/// Case-folded texts of one entry, each computed once, when it is first searched.
struct Texts<'a> {
    description: Text<'a>,
    agent: Text<'a>,
    json: [Text<'a>; 2],
}

struct Text<'a> {
    stored: Option<&'a str>,
    folded: OnceCell<String>,
    /// Folded text with the escapes of JSON resolved; `None` if it has no escapes.
    plain: OnceCell<Option<String>>,
}

impl<'a> Text<'a> {
    fn new(stored: Option<&'a str>) -> Self {
        Self { stored, folded: OnceCell::new(), plain: OnceCell::new() }
    }

    /// Whether the text contains the needle. JSON is also searched with its escapes resolved, unless the needle applies only to
    /// the stored form.
    fn has(&self, needle: &TextPattern, is_json: bool) -> bool {
        let Some(stored) = self.stored else { return false };
        if needle.is_in_folded(self.folded.get_or_init(|| fold(stored))) {
            return true;
        }
        if !is_json || needle.stored_form_only {
            return false;
        }
        let plain = self.plain.get_or_init(|| stored.contains('\\').then(|| fold(&unescaped(stored))));
        plain.as_ref().is_some_and(|plain| needle.is_in_folded(plain))
    }
}

impl<'a> Texts<'a> {
    fn of(entry: &'a EntryView<'_>) -> Self {
        Self {
            description: Text::new(entry.description.as_deref()),
            agent: Text::new(entry.user_agent.as_deref()),
            json: [entry.changes, entry.details].map(|json| Text::new(json.map(|json| json.get()))),
        }
    }

    fn json_has(&self, needle: &TextPattern) -> bool {
        self.json.iter().any(|text| text.has(needle, true))
    }
}

impl Test {
    fn holds(&self, entry: &EntryView<'_>, texts: &Texts<'_>) -> bool {
        match self {
            Self::Field(column, patterns) => is_one_of(*column, entry, patterns),
            Self::Actor(patterns) => ACTOR.iter().any(|column| is_one_of(*column, entry, patterns)),
            Self::Subject(subjects) => subjects.iter().any(|subject| {
                SUBJECT.iter().any(|column| column.value(entry).is_some_and(|have| subject.whole.matches(&have)))
                    || texts.description.has(&subject.part, false)
                    || texts.json_has(&subject.part)
            }),
            Self::Verb(patterns) => entry
                .action
                .as_deref()
                .is_some_and(|action| patterns.iter().any(|pattern| pattern.matches(verb(action)))),
            Self::Entity(patterns) => patterns.iter().any(|pattern| pattern.holds(entry)),
            Self::Ip(patterns) => {
                entry.ip_address.as_deref().is_some_and(|have| patterns.iter().any(|pattern| pattern.matches(have)))
            }
            Self::Agent(needles) => needles.iter().any(|needle| texts.agent.has(needle, false)),
            Self::Flag(patterns) => {
                entry.flag_rules().iter().any(|rule| patterns.iter().any(|pattern| pattern.matches(rule)))
            }
            Self::Via(patterns) => patterns.iter().any(|pattern| via_matches(pattern, &entry.via)),
            Self::Id(ids) => entry.id.parse().is_ok_and(|id| ids.contains(&id)),
            Self::Seq(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&entry.seq)),
            Self::Occurred(ranges) => {
                occurred(entry).is_some_and(|time| ranges.iter().any(|range| range.from <= time && time < range.to))
            }
            Self::Details(needles) => needles.iter().any(|needle| texts.json_has(needle)),
            Self::Path(root, path, values) => path::holds(entry, *root, path, values),
            Self::Is(properties) => properties.iter().any(|property| property.holds(entry)),
            Self::Text(needles) => needles.iter().any(|needle| texts.description.has(needle, false)),
        }
    }
}

/// Columns that name the acting person.
pub(super) const ACTOR: [Column; 2] = [Column::User, Column::Impersonator];
/// Columns that name the person or thing that an entry is about. The entry's texts are searched in addition.
pub(super) const SUBJECT: [Column; 4] = [Column::User, Column::Impersonator, Column::Target, Column::EntityId];

fn is_one_of(column: Column, entry: &EntryView<'_>, patterns: &[Pattern]) -> bool {
    column.value(entry).is_some_and(|have| patterns.iter().any(|pattern| pattern.matches(&have)))
}

/// Whether the pattern matches the whole of `via`, or its first word.
pub(super) fn via_matches(pattern: &Pattern, via: &str) -> bool {
    pattern.matches(via) || via.split(' ').next().is_some_and(|word| pattern.matches(word))
}

/// Returns the time at which an entry's event occurred or, without `occurred_at`, the time at which it was recorded.
fn occurred(entry: &EntryView<'_>) -> Option<Timestamp> {
    let text = entry.occurred_at.as_deref().unwrap_or(&entry.timestamp);
    Timestamp::parse_rfc3339(text).ok()
}

impl EntityPattern {
    fn holds(&self, entry: &EntryView<'_>) -> bool {
        let is_kind = entry.entity_type.as_deref().is_some_and(|kind| self.kind.matches(kind));
        let Some(id) = &self.id else { return is_kind };
        (is_kind && entry.entity_id.as_deref().is_some_and(|have| id.matches(have)))
            || (self.affected
                && path::affects(entry, |name| {
                    (is_kind && id.matches(name))
                        || name.split_once('/').is_some_and(|(kind, name)| self.kind.matches(kind) && id.matches(name))
                }))
    }
}

impl IpPattern {
    fn matches(&self, have: &str) -> bool {
        match self {
            Self::Text(pattern) => pattern.matches(have),
            Self::Net(net) => net_contains(net, have),
            Self::Range(from, to) => range_contains(*from, *to, have),
        }
    }
}

/// Whether a text is an address in the range from `from` to `to`, which belong to the same address family.
pub(super) fn range_contains(from: IpAddr, to: IpAddr, have: &str) -> bool {
    let Ok(address) = have.parse::<IpAddr>() else { return false };
    let address = address.to_canonical();
    address.is_ipv4() == from.is_ipv4() && (from..=to).contains(&address)
}

/// Whether a text is an address of a network. An IPv4 address written as IPv6 (::ffff:10.0.0.1) counts as the IPv4 address.
pub fn net_contains(net: &IpNet, have: &str) -> bool {
    have.parse().is_ok_and(|address| net_has(net, address))
}

/// Like [`net_contains`], for an address that is already parsed.
pub fn net_has(net: &IpNet, address: IpAddr) -> bool {
    match (net, address.to_canonical()) {
        (IpNet::V4(net), IpAddr::V4(address)) => net.contains(&address),
        (IpNet::V6(net), IpAddr::V6(address)) => net.contains(&address),
        _ => false,
    }
}

impl Property {
    fn holds(self, entry: &EntryView<'_>) -> bool {
        match self {
            Self::Failed => entry.outcome.as_deref() == Some("failure"),
            Self::Denied => entry.outcome.as_deref() == Some("denied"),
            Self::Flagged => !entry.flag_rules().is_empty(),
            Self::Impersonated => entry.impersonator.is_some(),
            Self::Bulk => entry.is_bulk(),
            Self::Redacted => !entry.redacted_paths().is_empty(),
            // An erased row is no longer an entry; see `Filter::on_erased`.
            Self::Erased => false,
        }
    }
}
