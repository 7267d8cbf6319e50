//! Roles, permissions and kinds of credentials.

use serde::{Deserialize, Serialize};

/// One thing that a request can need. Roles are exact sets of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Permission {
    /// Read pages, rows, counts, tails and the list of nodes.
    #[serde(rename = "audit.view")]
    View,
    /// Take rows or proofs away.
    #[serde(rename = "audit.export")]
    Export,
    /// Have everything checked, and say that a violation was seen.
    #[serde(rename = "audit.verify")]
    Verify,
    /// Make, list and revoke tokens.
    #[serde(rename = "tokens.manage")]
    ManageTokens,
    /// Say that a node's new history is meant.
    #[serde(rename = "nodes.accept")]
    AcceptHistory,
}

impl Permission {
    pub const ALL: [Self; 5] = [Self::View, Self::Export, Self::Verify, Self::ManageTokens, Self::AcceptHistory];
}

/// What a token or a user may do; exact sets of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads, exports and verifies.
    Auditor,
    /// Reads, exports, verifies and manages tokens.
    Admin,
}

impl Role {
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Auditor, Self::Admin];

    /// Exactly these; no role outranks another beyond what stands here.
    pub fn permissions(self) -> &'static [Permission] {
        match self {
            Self::Viewer => &[Permission::View],
            Self::Auditor => &[Permission::View, Permission::Export, Permission::Verify],
            Self::Admin => &Permission::ALL,
        }
    }

    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    pub fn may(self, permission: Permission) -> bool {
        self.permissions().contains(&permission)
    }
}

/// `GET /api/v1/tokens`: never the token, only what is known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenInfo {
    pub name: String,
    pub role: Role,
    /// RFC 3339.
    pub created: String,
    pub expires: Option<String>,
    /// What its holder may see at all, as a filter; everything without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// `POST /api/v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    pub name: String,
    pub role: Role,
    /// RFC 3339 or an age from now such as `90d`.
    #[serde(default)]
    pub expires: Option<String>,
    /// A filter: what its holder may see at all. Not for admins.
    #[serde(default)]
    pub scope: Option<String>,
}

/// The one time the token itself is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedToken {
    pub token: String,
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// `POST /api/v1/session`: one of both, or neither for the person that a certificate names.
#[derive(Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The part behind `#` of a one-time address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// `GET /api/v1/session`: who the caller is to this aggregator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionInfo {
    pub name: String,
    pub role: Role,
    pub permissions: Vec<Permission>,
    /// What the caller may see at all, as a filter; everything without one.
    pub limited_to: Option<String>,
    /// `token` or `certificate`: what the caller has shown, at the latest when signing in.
    pub method: String,
    /// Present when signed in with a browser.
    pub session: Option<SessionTimes>,
    pub cluster: String,
    /// The version of this program.
    pub version: String,
}

/// When a session ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionTimes {
    /// Without a request for this long. A tail that stays open is not a request.
    pub idle_seconds: u64,
    /// In any case then, RFC 3339.
    pub ends: String,
}

/// `POST /api/v1/session/links`: an address that signs one browser in, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignInLink {
    /// Path and fragment; the code stands behind `#`, which browsers send to nobody.
    pub path: String,
    /// RFC 3339.
    pub expires: String,
}

/// A search that a person keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SavedSearch {
    pub name: String,
    /// The parameters of the page, as in its address: `filter=…&from=…`.
    pub parameters: String,
}

/// `POST /api/v1/acknowledgements`: somebody has seen that something is wrong. It changes nothing but the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Acknowledge {
    /// The node whose log it is about.
    pub node: String,
    /// The row, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// What was seen: a verdict such as `row_invalid` or `fork`.
    pub verdict: String,
    /// The words about it that were seen, so that nobody takes it for an acknowledgement of what came later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// What was found out or is being done, for the record.
    pub reason: String,
}

/// What somebody concludes about a flagged entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// It was looked into, and what it shows did happen.
    Reviewed,
    /// The rule was right to notice, and nothing is wrong.
    FalseAlarm,
}

/// `POST /api/v1/judgements`: what a flag meant. The entry that was flagged stays as it is; the judgement is an entry that points at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// The node and the number of the flagged entry.
    pub node: String,
    pub seq: u64,
    /// The log that it is in, as the entry itself says; the node's present one by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    pub judgement: Judgement,
    /// What was found out, for the record.
    pub reason: String,
}
