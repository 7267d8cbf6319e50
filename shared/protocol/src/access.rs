//! Roles, permissions and kinds of credentials.

use serde::{Deserialize, Serialize};

/// A permission that a request can require. A role is an exact set of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Permission {
    /// Allows reading pages, entries, counts, tails and the list of nodes.
    #[serde(rename = "audit.view")]
    View,
    /// Allows exporting entries or proofs.
    #[serde(rename = "audit.export")]
    Export,
    /// Allows starting a verification, and acknowledging a violation.
    #[serde(rename = "audit.verify")]
    Verify,
    /// Allows creating, listing and revoking tokens.
    #[serde(rename = "tokens.manage")]
    ManageTokens,
    /// Allows accepting a node's new history as intended.
    #[serde(rename = "nodes.accept")]
    AcceptHistory,
    /// Allows running a round of the archive.
    #[serde(rename = "archive.manage")]
    ManageArchive,
}

impl Permission {
    pub const ALL: [Self; 6] =
        [Self::View, Self::Export, Self::Verify, Self::ManageTokens, Self::AcceptHistory, Self::ManageArchive];
}

/// Role of a token or a user: an exact set of permissions.
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

    /// Returns the exact permissions of the role; a role has no rights beyond this list.
    pub fn permissions(self) -> &'static [Permission] {
        match self {
            Self::Viewer => &[Permission::View],
            Self::Auditor => &[Permission::View, Permission::Export, Permission::Verify],
            Self::Admin => &Permission::ALL,
        }
    }

    /// Returns the name of the role as users type it.
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

/// `GET /api/v1/tokens`: token metadata; never the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenInfo {
    pub name: String,
    pub role: Role,
    /// RFC 3339.
    pub created: String,
    pub expires: Option<String>,
    /// Filter that limits what the holder may see. If it is absent, the holder may see everything.
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
    /// Expiry as an RFC 3339 time, or as a duration from now such as `90d`.
    #[serde(default)]
    pub expires: Option<String>,
    /// Filter that limits what the holder may see. Not allowed for admins.
    #[serde(default)]
    pub scope: Option<String>,
}

/// Answer to `POST /api/v1/tokens`, the only one that contains the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedToken {
    pub token: String,
    #[serde(flatten)]
    pub info: TokenInfo,
}

/// `POST /api/v1/session`: signs in with either a token or a link. Without both, signs in as the user named in the client
/// certificate.
#[derive(Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Fragment (after `#`) of a one-time sign-in address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

/// `GET /api/v1/session`: the caller's identity as this aggregator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionInfo {
    pub name: String,
    pub role: Role,
    pub permissions: Vec<Permission>,
    /// Filter that limits what the caller may see. If it is absent, the caller may see everything.
    pub limited_to: Option<String>,
    /// `token` or `certificate`: the credential that the caller presented with this request or when signing in.
    pub method: String,
    /// Present if the caller uses a browser session.
    pub session: Option<SessionTimes>,
    pub cluster: String,
    /// The version of this program.
    pub version: String,
}

/// Expiry of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionTimes {
    /// Seconds without a request after which the session ends. An open tail does not count as a request.
    pub idle_seconds: u64,
    /// Time at which the session ends even if it is in use, RFC 3339.
    pub ends: String,
}

/// `POST /api/v1/session/links`: a one-time URL that signs in one browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignInLink {
    /// Path and fragment; the code is in the fragment (after `#`), which browsers do not send to any server.
    pub path: String,
    /// RFC 3339.
    pub expires: String,
}

/// A search that a user saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SavedSearch {
    pub name: String,
    /// The parameters of the page, as in its address: `filter=…&from=…`.
    pub parameters: String,
}

/// `POST /api/v1/acknowledgements`: records that the caller has seen a problem. An acknowledgement only adds an entry to the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Acknowledge {
    /// The node whose log is affected.
    pub node: String,
    /// The affected row, if the problem concerns a single one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The verdict that the caller saw, such as `row_invalid` or `fork`.
    pub verdict: String,
    /// The message that the caller saw, so that the acknowledgement cannot be mistaken for that of a later problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// Findings or actions taken, for the record.
    pub reason: String,
}

/// A person's conclusion about a flagged entry. Requests may also use the former names `reviewed` and `false_alarm`. Recorded
/// entries contain only the former names, because recorded values never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FlagVerdict {
    /// The entry was investigated, and what it reports did happen.
    #[serde(alias = "reviewed")]
    TruePositive,
    /// The detection rule matched correctly, but nothing is wrong.
    #[serde(alias = "false_alarm")]
    FalsePositive,
}

impl FlagVerdict {
    /// Returns the value of `details.judgement` in the entry that records the verdict.
    pub fn recorded(self) -> &'static str {
        match self {
            Self::TruePositive => "reviewed",
            Self::FalsePositive => "false_alarm",
        }
    }
}

/// `POST /api/v1/verdicts`: records a verdict on a flagged entry. The flagged entry is not changed; the verdict is an entry that refers
/// to it. The former path `/api/v1/judgements` is served for one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RecordVerdict {
    /// Node and seq of the flagged entry.
    pub node: String,
    pub seq: u64,
    /// Generation of the log that contains the flagged entry: the entry's own `generation`. Defaults to the node's current
    /// generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// The former name `judgement` is accepted too.
    #[serde(alias = "judgement")]
    pub verdict: FlagVerdict,
    /// Findings, for the record.
    pub reason: String,
}
