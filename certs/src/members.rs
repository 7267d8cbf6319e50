//! `members.json`: the members, and the certificates that were issued and revoked.

use std::path::Path;

use piperoll_evidence::bundle::{KeepPolicy, Membership, Moved};
use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_net::identity::Identity;
use piperoll_protocol::access::Role;
use piperoll_query::human_time;
use serde::{Deserialize, Serialize};

use super::error::{CertsError, Result, io};
use super::files::write_private;

/// Kind of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    Node,
    Aggregator,
    User,
    Archive,
}

impl MemberKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Aggregator => "aggregator",
            Self::User => "user",
            Self::Archive => "archive",
        }
    }
}

/// Membership period of a retired node, in the format of earlier versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Dates, such as 2026-04-15.
    pub first_day: String,
    pub last_day: String,
    pub last_seq: u64,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub kind: MemberKind,
    pub id: NodeId,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<Role>,
    /// Filter that limits the entries a person may see.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scope: Option<String>,
    /// Membership period in the format of earlier versions; [`Member::life`] reads it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retired: Option<Retired>,
    /// Start of the membership. `None` for members added before it was recorded, which count as having always been members.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member_from: Option<Timestamp>,
    /// End of the membership; `None` while it lasts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member_until: Option<Timestamp>,
    /// Changes of the membership instants.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub moved: Vec<Moved>,
    /// `seq` of the last entry of a node that left.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_seq: Option<u64>,
    /// Public key of a node's checkpoints, or of the cosignatures of an aggregator or an archive: 32 bytes in base64.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signing_key: Option<String>,
    /// Public key of an aggregator's manifests, or of an archive's steps.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub export_key: Option<String>,
    /// Aggregator that writes an archive.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub aggregator: Option<NodeId>,
    /// Newest epoch of a node's sealing secret; every epoch from 0 to this one has a secret.
    #[serde(default)]
    pub epoch: u32,
    /// Rotations of a node's checkpoint key.
    #[serde(default)]
    pub keys: KeyHistory,
}

/// History of a node's checkpoint keys other than the current one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHistory {
    /// Next key, with which the node signs in addition to the current one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
    /// Number of keys created after the first, used to name their files.
    #[serde(default)]
    pub made: u32,
    /// Log sizes for which a key may sign checkpoints, for every log in which the key changed.
    #[serde(default)]
    pub spans: Vec<KeyUse>,
    /// Replaced keys, valid for logs that ended before the replacement.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub former: Vec<FormerKey>,
}

/// A replaced checkpoint key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerKey {
    pub key: String,
    /// Time of the cosignature on the last checkpoint that the key is valid for.
    pub until: Timestamp,
}

/// Log sizes of one generation for which a key may sign checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUse {
    pub key: String,
    pub generation: String,
    pub from_size: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to_size: Option<u64>,
}

impl Member {
    pub(crate) fn new(kind: MemberKind, id: &NodeId, address: Option<&str>) -> Self {
        let address = address.map(str::to_owned);
        Self {
            kind,
            id: id.clone(),
            address,
            role: None,
            scope: None,
            retired: None,
            member_from: Some(SystemClock.now()),
            member_until: None,
            moved: Vec::new(),
            last_seq: None,
            signing_key: None,
            export_key: None,
            aggregator: None,
            epoch: 0,
            keys: KeyHistory::default(),
        }
    }

    /// Returns the period in which the node is a member.
    pub fn life(&self) -> Result<Membership> {
        let days = self.retired.as_ref().map(|retired| {
            let day = |text: &str| {
                let message = format!("{text:?} is not a valid date; retire {} again", self.id);
                human_time::day_range(text).ok_or(CertsError::Keys(message))
            };
            Ok::<_, CertsError>((day(&retired.first_day)?.0, day(&retired.last_day)?.1))
        });
        let days = days.transpose()?;
        Ok(Membership {
            from: self.member_from.or(days.map(|days| days.0)).unwrap_or(Timestamp::MIN),
            until: self.member_until.or(days.map(|days| days.1)).unwrap_or(Timestamp::MAX),
        })
    }
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IssuedSerial {
    id: NodeId,
    identity: String,
    serial: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Members {
    pub(crate) cluster: ClusterName,
    pub(crate) list: Vec<Member>,
    issued: Vec<IssuedSerial>,
    /// Serial numbers in hexadecimal.
    pub(crate) revoked: Vec<String>,
    pub(crate) crl_number: u64,
    /// Retention policies of all nodes, in ascending order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) retention: Vec<KeepPolicy>,
}

/// Number of days for which a new cluster keeps entries. The configurations of new nodes contain the same number.
const KEEP_DAYS_DEFAULT: u32 = 365;

impl Members {
    pub(crate) fn new(cluster: ClusterName) -> Self {
        let retention = vec![KeepPolicy { from: SystemClock.now(), keep_days: KEEP_DAYS_DEFAULT }];
        Self { cluster, list: Vec::new(), issued: Vec::new(), revoked: Vec::new(), crl_number: 0, retention }
    }

    pub(crate) fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| io(path, source))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| CertsError::Content { path: path.to_owned(), problem: e.to_string() })
    }

    pub(crate) fn store(&self, path: &Path) -> Result<()> {
        write_private(path, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    pub(crate) fn issued(&mut self, identity: &Identity, serial: String) {
        self.issued.push(IssuedSerial { id: identity.id.clone(), identity: identity.to_string(), serial });
    }

    pub(crate) fn revoked_of(&self, id: &NodeId) -> usize {
        self.issued.iter().filter(|issued| &issued.id == id && self.revoked.contains(&issued.serial)).count()
    }

    /// Revokes every certificate issued to an id so far. A certificate that `renew` issues later is valid again.
    pub(crate) fn revoke(&mut self, id: &NodeId) -> usize {
        let serials: Vec<String> = self
            .issued
            .iter()
            .filter(|issued| &issued.id == id && !self.revoked.contains(&issued.serial))
            .map(|issued| issued.serial.clone())
            .collect();
        let count = serials.len();
        self.revoked.extend(serials);
        count
    }
}
