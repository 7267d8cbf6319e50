//! Plan of a count: fields, buckets, and the time axis.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::column::Column;
use crate::filter::verb;
use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;

/// Number of values listed per field: default and maximum.
pub const TOP_DEFAULT: usize = 20;
pub const TOP_MAX: usize = 1_000;
/// Maximum number of fields counted in one answer.
pub const FACETS_MAX: usize = 8;
/// Limits of the width of a bucket: from one microsecond, the resolution of timestamps, to a thousand years.
pub const BUCKET_MICROS_MIN: i64 = 1;
pub const BUCKET_MICROS_MAX: i64 = 1_000 * 366 * 86_400 * 1_000_000;
/// Maximum number of buckets of one histogram.
pub const BUCKETS_MAX: i64 = 10_000;
/// A field whose values can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Facet {
    Of(Column),
    /// Type and id together, as `type/id`.
    Entity,
    /// The rules that flagged an entry; it may have several.
    Flag,
    /// The last word of the action.
    Verb,
}

/// Facets with their names in an entry and in a filter.
const FACETS: [(&str, &str, Facet); 21] = [
    ("user", "user", Facet::Of(Column::User)),
    ("user_type", "user_type", Facet::Of(Column::UserType)),
    ("impersonator", "impersonator", Facet::Of(Column::Impersonator)),
    ("session", "session", Facet::Of(Column::Session)),
    ("credential", "credential", Facet::Of(Column::Credential)),
    ("auth_method", "auth_method", Facet::Of(Column::AuthMethod)),
    ("category", "category", Facet::Of(Column::Category)),
    ("action", "action", Facet::Of(Column::Action)),
    ("verb", "verb", Facet::Verb),
    ("outcome", "outcome", Facet::Of(Column::Outcome)),
    ("reason", "reason", Facet::Of(Column::Reason)),
    ("entity_type", "entity_type", Facet::Of(Column::EntityType)),
    ("entity", "entity", Facet::Entity),
    ("target", "target", Facet::Of(Column::Target)),
    ("domain", "domain", Facet::Of(Column::Domain)),
    ("ip_address", "ip", Facet::Of(Column::Ip)),
    ("user_agent", "agent", Facet::Of(Column::Agent)),
    ("request_id", "request", Facet::Of(Column::Request)),
    ("node_id", "node", Facet::Of(Column::Node)),
    ("flag", "flag", Facet::Flag),
    ("via", "via", Facet::Of(Column::Via)),
];

/// Error for a name that is not a field whose values can be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot count by {0:?}; the fields are {names}", names = FACETS.map(|(name, ..)| name).join(", "))]
pub struct UnknownFacet(String);

impl TryFrom<String> for Facet {
    type Error = UnknownFacet;

    fn try_from(name: String) -> Result<Self, UnknownFacet> {
        Self::parse(&name)
    }
}

impl From<Facet> for &'static str {
    fn from(facet: Facet) -> Self {
        facet.name()
    }
}

impl Facet {
    /// Finds a facet by its name in an entry or in a filter.
    pub fn parse(name: &str) -> Result<Self, UnknownFacet> {
        FACETS
            .iter()
            .find(|(entry, filter, _)| name == *entry || name == *filter)
            .map(|(.., facet)| *facet)
            .ok_or_else(|| UnknownFacet(name.to_owned()))
    }

    pub fn name(self) -> &'static str {
        FACETS.iter().find(|(.., facet)| *facet == self).map_or("", |(name, ..)| name)
    }

    pub(super) fn values<'a>(self, entry: &'a EntryView<'_>) -> Vec<Cow<'a, str>> {
        match self {
            Self::Of(column) => column.value(entry).into_iter().collect(),
            Self::Verb => entry.action.as_deref().map(verb).map(Cow::Borrowed).into_iter().collect(),
            Self::Entity => {
                let both = entry.entity_type.as_deref().zip(entry.entity_id.as_deref());
                both.map(|(kind, id)| Cow::Owned(format!("{kind}/{id}"))).into_iter().collect()
            }
            Self::Flag => {
                let mut rules = entry.flag_rules();
                rules.sort();
                rules.dedup();
                rules.into_iter().map(Cow::Owned).collect()
            }
        }
    }
}

/// Plan of a count: the fields, the histogram, and the time that the histogram uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AskedPlan")]
pub struct Plan {
    pub facets: Vec<Facet>,
    /// Values listed per field.
    pub top: usize,
    /// Width of the histogram's buckets in microseconds, [`BUCKET_MICROS_MIN`] to [`BUCKET_MICROS_MAX`].
    pub bucket_micros: Option<i64>,
    /// The time that decides the bucket. Nodes whose version does not know this field would reject it, so it is sent only if it
    /// is not the default.
    #[serde(default, skip_serializing_if = "Axis::is_recorded")]
    pub axis: Axis,
}

/// The time of an entry that decides its bucket. Ranges, order and completeness always use the time of recording.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    #[default]
    Recorded,
    /// Time at which the event happened according to the caller, or the time of recording if the caller stated none.
    Occurred,
}

impl Axis {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
    fn is_recorded(&self) -> bool {
        *self == Self::Recorded
    }

    /// Returns the time of an entry that was recorded at `recorded`.
    pub fn time(self, entry: &EntryView<'_>, recorded: Timestamp) -> Timestamp {
        match self {
            Self::Recorded => recorded,
            Self::Occurred => {
                let occurred = entry.occurred_at.as_deref().and_then(|text| Timestamp::parse_rfc3339(text).ok());
                occurred.unwrap_or(recorded)
            }
        }
    }
}

/// Plan as received from a client or a peer; its limits are checked before it becomes a [`Plan`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedPlan {
    #[serde(default)]
    facets: Vec<Facet>,
    #[serde(default)]
    top: usize,
    #[serde(default)]
    bucket_micros: Option<i64>,
    #[serde(default)]
    axis: Axis,
}

/// Error for a plan that exceeds the limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPlan {
    #[error("bucket_micros is {0}; it must be {BUCKET_MICROS_MIN} to {BUCKET_MICROS_MAX}")]
    Bucket(i64),
    #[error("{0} facets, more than the limit of {FACETS_MAX}")]
    Facets(usize),
    #[error("top is {0}, more than the limit of {TOP_MAX}")]
    Top(usize),
}

impl TryFrom<AskedPlan> for Plan {
    type Error = BadPlan;

    fn try_from(asked: AskedPlan) -> Result<Self, BadPlan> {
        let AskedPlan { facets, top, bucket_micros, axis } = asked;
        match bucket_micros {
            Some(width) if !(BUCKET_MICROS_MIN..=BUCKET_MICROS_MAX).contains(&width) => Err(BadPlan::Bucket(width)),
            _ if facets.len() > FACETS_MAX => Err(BadPlan::Facets(facets.len())),
            _ if top > TOP_MAX => Err(BadPlan::Top(top)),
            bucket_micros => Ok(Self { facets, top, bucket_micros, axis }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_would_not_end_is_none() {
        let read =
            |width: &str| serde_json::from_str::<Plan>(&format!(r#"{{"facets":[],"top":1,"bucket_micros":{width}}}"#));
        for good in ["null", "1", "3600000000"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in ["0", "-1", "-9223372036854775808", "9223372036854775807"] {
            assert!(read(bad).is_err_and(|error| error.to_string().contains("bucket_micros")), "{bad}");
        }
        assert!(serde_json::from_str::<Plan>(r#"{"facets":[],"top":1000000}"#).is_err());
        let many = ["\"user\""; FACETS_MAX + 1].join(",");
        assert!(serde_json::from_str::<Plan>(&format!(r#"{{"facets":[{many}],"top":1}}"#)).is_err());
    }

    #[test]
    fn every_field_has_a_name_that_is_understood() {
        for (entry, filter, facet) in FACETS {
            assert_eq!((Facet::parse(entry), Facet::parse(filter), facet.name()), (Ok(facet), Ok(facet), entry));
        }
        assert!(Facet::parse("nobody").is_err_and(|error| error.to_string().contains("ip_address")));
    }
}
