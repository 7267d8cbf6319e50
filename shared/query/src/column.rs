//! Columns by which entries are searched and counted. Each column holds at most one short text per entry.
//!
//! Filters, statistics and a node's index agree on the meaning of a column, because they all use this module.

use std::borrow::Cow;

use piperoll_format::view::EntryView;

/// Separator between the rules in [`Column::Flags`]. A rule that contains it cannot be represented; see [`columns_suffice`].
pub const FLAG_SEPARATOR: char = '\u{1f}';

/// A field with at most one short value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    User,
    UserType,
    Impersonator,
    Session,
    Credential,
    AuthMethod,
    Category,
    Action,
    Outcome,
    Reason,
    EntityType,
    EntityId,
    Target,
    Domain,
    Ip,
    Agent,
    Request,
    Node,
    Via,
    /// The rules that flagged the entry, sorted, each once, with [`FLAG_SEPARATOR`] between them.
    Flags,
    /// `bulk` and `redacted`, whichever apply, separated by a space.
    Marks,
}

/// Every column. The position of a column is its number in an index, so new columns are appended.
pub const COLUMNS: [Column; 21] = [
    Column::User,
    Column::UserType,
    Column::Impersonator,
    Column::Session,
    Column::Credential,
    Column::AuthMethod,
    Column::Category,
    Column::Action,
    Column::Outcome,
    Column::Reason,
    Column::EntityType,
    Column::EntityId,
    Column::Target,
    Column::Domain,
    Column::Ip,
    Column::Agent,
    Column::Request,
    Column::Node,
    Column::Via,
    Column::Flags,
    Column::Marks,
];

impl Column {
    /// Returns the entry's value. For an entry without an outcome, the outcome is `unknown`.
    pub fn value<'a>(self, entry: &'a EntryView<'_>) -> Option<Cow<'a, str>> {
        let text = match self {
            Self::User => entry.user.as_deref(),
            Self::UserType => entry.user_type.as_deref(),
            Self::Impersonator => entry.impersonator.as_deref(),
            Self::Session => entry.session.as_deref(),
            Self::Credential => entry.credential.as_deref(),
            Self::AuthMethod => entry.auth_method.as_deref(),
            Self::Category => entry.category.as_deref(),
            Self::Action => entry.action.as_deref(),
            Self::Outcome => Some(entry.outcome_or_unknown()),
            Self::Reason => entry.reason.as_deref(),
            Self::EntityType => entry.entity_type.as_deref(),
            Self::EntityId => entry.entity_id.as_deref(),
            Self::Target => entry.target.as_deref(),
            Self::Domain => entry.domain.as_deref(),
            Self::Ip => entry.ip_address.as_deref(),
            Self::Agent => entry.user_agent.as_deref(),
            Self::Request => entry.request_id.as_deref(),
            Self::Node => Some(entry.node_id.as_ref()),
            Self::Via => Some(entry.via.as_ref()),
            Self::Flags => return flags(entry).map(Cow::Owned),
            Self::Marks => return marks(entry).map(Cow::Borrowed),
        };
        text.map(Cow::Borrowed)
    }
}

fn flags(entry: &EntryView<'_>) -> Option<String> {
    entry.flags?;
    let mut rules = entry.flag_rules();
    rules.sort_unstable();
    rules.dedup();
    (!rules.is_empty()).then(|| rules.join(&FLAG_SEPARATOR.to_string()))
}

fn marks(entry: &EntryView<'_>) -> Option<&'static str> {
    let redacted = entry.redacted.is_some() && !entry.redacted_paths().is_empty();
    match (entry.details.is_some() && entry.is_bulk(), redacted) {
        (true, true) => Some("bulk redacted"),
        (true, false) => Some("bulk"),
        (false, true) => Some("redacted"),
        (false, false) => None,
    }
}

/// Whether every column represents this entry exactly.
pub fn columns_suffice(entry: &EntryView<'_>) -> bool {
    entry.flags.is_none() || !entry.flag_rules().iter().any(|rule| rule.contains(FLAG_SEPARATOR))
}
