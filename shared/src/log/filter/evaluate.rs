//! Whether an entry fits a filter.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{ActionPattern, EntityPattern, Filter, IpPattern, Property, Test};
use crate::log::column::Column;
use crate::log::time::Timestamp;
use crate::log::view::EntryView;

impl Filter {
    /// True when every term holds. An absent field fits no value, so its negation holds.
    pub fn matches(&self, entry: &EntryView<'_>) -> bool {
        self.terms.iter().all(|term| term.test.holds(entry) != term.negated)
    }
}

impl Test {
    fn holds(&self, entry: &EntryView<'_>) -> bool {
        match self {
            Self::Field(column, values) => {
                column.value(entry).is_some_and(|have| values.iter().any(|value| *value == have))
            }
            Self::Actor(values) => {
                ACTOR.iter().any(|column| is_one_of(*column, entry, values.iter().map(String::as_str)))
            }
            Self::Subject(needles) => {
                let within = |raw: &str| needles.iter().any(|needle| needle.is_in(raw));
                SUBJECT
                    .iter()
                    .any(|column| is_one_of(*column, entry, needles.iter().map(|needle| needle.text.as_str())))
                    || entry.description.as_deref().is_some_and(within)
                    || [entry.changes, entry.details].iter().flatten().any(|raw| within(raw.get()))
            }
            Self::Action(patterns) => entry.action.as_deref().is_some_and(|action| {
                patterns.iter().any(|pattern| match pattern {
                    ActionPattern::Exact(text) => action == text,
                    ActionPattern::Prefix(text) => action.starts_with(text.as_str()),
                })
            }),
            Self::Entity(patterns) => patterns.iter().any(|pattern| pattern.holds(entry)),
            Self::Ip(patterns) => {
                entry.ip_address.as_deref().is_some_and(|have| patterns.iter().any(|pattern| pattern.holds(have)))
            }
            Self::Agent(needles) => {
                entry.user_agent.as_deref().is_some_and(|agent| needles.iter().any(|n| n.is_in(agent)))
            }
            Self::Flag(rules) => entry.flag_rules().iter().any(|rule| rules.contains(rule)),
            Self::Via(values) => values
                .iter()
                .any(|value| entry.via == value.as_str() || entry.via.split(' ').next() == Some(value.as_str())),
            Self::Id(ids) => entry.id.parse().is_ok_and(|id| ids.contains(&id)),
            Self::Seq(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&entry.seq)),
            Self::Occurred(ranges) => {
                occurred(entry).is_some_and(|time| ranges.iter().any(|range| range.from <= time && time < range.to))
            }
            Self::Details(needles) => [entry.changes, entry.details]
                .iter()
                .flatten()
                .any(|raw| needles.iter().any(|needle| needle.is_in(raw.get()))),
            Self::Is(properties) => properties.iter().any(|property| property.holds(entry)),
            Self::Text(needle) => entry.description.as_deref().is_some_and(|text| needle.is_in(text)),
        }
    }
}

/// Where an entry says who acted.
pub(super) const ACTOR: [Column; 2] = [Column::User, Column::Impersonator];
/// Where an entry names whom it is about, besides its texts.
pub(super) const SUBJECT: [Column; 4] = [Column::User, Column::Impersonator, Column::Target, Column::EntityId];

fn is_one_of<'a>(column: Column, entry: &EntryView<'_>, mut values: impl Iterator<Item = &'a str>) -> bool {
    column.value(entry).is_some_and(|have| values.any(|value| value == have))
}

/// An entry without `occurred_at` happened when it was recorded.
fn occurred(entry: &EntryView<'_>) -> Option<Timestamp> {
    let text = entry.occurred_at.as_deref().unwrap_or(&entry.timestamp);
    Timestamp::parse_rfc3339(text).ok()
}

impl EntityPattern {
    fn holds(&self, entry: &EntryView<'_>) -> bool {
        entry.entity_type.as_deref() == Some(self.kind.as_str())
            && self.id.as_deref().is_none_or(|id| entry.entity_id.as_deref() == Some(id))
    }
}

impl IpPattern {
    fn holds(&self, have: &str) -> bool {
        match self {
            Self::Text(text) => have == text,
            Self::Net(net) => net_contains(net, have),
        }
    }
}

/// Whether a text is an address of a network. An IPv4 address written as IPv6 (::ffff:10.0.0.1) is the IPv4 address.
pub fn net_contains(net: &IpNet, have: &str) -> bool {
    have.parse().is_ok_and(|address| net_has(net, address))
}

/// The same for an address that was read already.
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
            // Of an erased row there is no entry to hold a filter against; see `Filter::on_erased`.
            Self::Erased => false,
        }
    }
}
