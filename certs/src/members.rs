//! `members.json`: who belongs to the cluster, and which certificates were issued and revoked.

use std::path::Path;

use piperoll_shared::api::access::Role;
use piperoll_shared::log::ids::{ClusterName, NodeId};
use piperoll_shared::net::identity::Identity;
use serde::{Deserialize, Serialize};

use super::folder::write_private;
use super::{CertsError, Result, io};

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    Node,
    Aggregator,
    User,
}

impl MemberKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Aggregator => "aggregator",
            Self::User => "user",
        }
    }
}

/// The life of a node that left for good.
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
    /// What a person may see at all, as a filter.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retired: Option<Retired>,
    /// The public key of a node's checkpoints or of an aggregator's cosignatures: base64 of 32 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signing_key: Option<String>,
    /// The public key of an aggregator's manifests.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub export_key: Option<String>,
    /// The newest epoch of a node's sealing secret; there is a secret for each from 0 on.
    #[serde(default)]
    pub epoch: u32,
    /// Keys of a node that take over from each other.
    #[serde(default)]
    pub keys: KeyHistory,
}

/// What became of a node's checkpoint keys besides the present one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHistory {
    /// Made, and not yet alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
    /// How many were made after the first, for the names of their files.
    #[serde(default)]
    pub made: u32,
    /// Which sizes of which log a key may sign, for every log in which it changed.
    #[serde(default)]
    pub spans: Vec<KeyUse>,
}

/// A key's part in one generation's log.
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
            signing_key: None,
            export_key: None,
            epoch: 0,
            keys: KeyHistory::default(),
        }
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
}

impl Members {
    pub(crate) fn new(cluster: ClusterName) -> Self {
        Self { cluster, list: Vec::new(), issued: Vec::new(), revoked: Vec::new(), crl_number: 0 }
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

    /// Revokes every certificate issued so far to an id; one issued by a later `renew` is good again.
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
