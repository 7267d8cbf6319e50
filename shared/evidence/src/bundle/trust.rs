//! The trust file: the nodes of a cluster and their public keys, which a verifier trusts before opening a bundle. The file comes
//! from the cluster's administrators, never from the bundle.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::membership::{KeepPolicy, Membership, Moved};
use super::names::{AGGREGATORS_MAX, NODES_MAX};
use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::merkle::{decode_hash, encode_hash};
use piperoll_format::note::{KeyKind, NoteError, VerifyingKey};
use piperoll_format::time::Timestamp;
use piperoll_query::human_time;

const FORMAT: &str = "piperoll trust v1";
/// Format of a trust file with membership instants, retention policies or replaced keys. A program that knows only the first
/// version would expect the wrong nodes, so it must not accept such a file.
const FORMAT_2: &str = "piperoll trust v2";
/// Format of a trust file that names archives.
const FORMAT_3: &str = "piperoll trust v3";
/// Maximum number of policies of one cluster, and of changed membership instants of one node.
const POLICIES_MAX: usize = 1_024;
const MOVES_MAX: usize = 1_024;

/// Reason why a trust file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error("not a valid trust file: {0}")]
    Form(String),
    #[error("unsupported trust file format {0:?}; this program reads {FORMAT:?}, {FORMAT_2:?} and {FORMAT_3:?}")]
    Format(String),
    #[error("the key of {0} is not a base64-encoded Ed25519 public key")]
    Key(String),
    #[error("the key of aggregator {id}: {source}")]
    Aggregator { id: String, source: NoteError },
    #[error("{0} is listed twice")]
    Twice(String),
    #[error("the trust file lists {count} {of}, more than the limit of {most}")]
    TooMany { count: usize, of: &'static str, most: usize },
    #[error("{0}: first_day and last_day must have the form YYYY-MM-DD")]
    Day(String),
    #[error("{0}: member_from is after member_until")]
    Backwards(String),
    #[error("{0} requires the format {FORMAT_2:?}")]
    Newer(&'static str),
    #[error("archives require the format {FORMAT_3:?}")]
    Archives,
    #[error("the keys of archive {id}: {source}")]
    Archive { id: String, source: NoteError },
}

/// Public keys of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveTrust {
    pub id: NodeId,
    /// Signs the archive's steps.
    pub steps: VerifyingKey,
    /// Cosigns the checkpoints whose rows the archive holds.
    pub mirror: VerifyingKey,
}

/// Public key of a node, and the log sizes for which the key may sign checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpan {
    pub public: [u8; 32],
    /// Generation that the key is for; `None` for every generation without a key of its own.
    pub generation: Option<String>,
    /// First and last log size for which the key may sign checkpoints, both inclusive.
    pub from_size: u64,
    pub to_size: Option<u64>,
    /// Set for a former key: it is valid for checkpoints that a witness cosigned at or before this time, and therefore for logs
    /// that ended before the key was replaced.
    pub until: Option<Timestamp>,
}

impl NodeTrust {
    /// Returns whether the key of `span` may sign a checkpoint of this size for the log of this generation. `cosigned` is the
    /// time at which a trusted witness first cosigned the checkpoint.
    pub fn allows(&self, span: &KeySpan, generation: &str, size: u64, cosigned: Option<Timestamp>) -> bool {
        let own = |named: &KeySpan| named.generation.as_deref() == Some(generation);
        let for_it = own(span) || (span.generation.is_none() && !self.keys.iter().any(own));
        let in_time = span.until.is_none_or(|until| cosigned.is_some_and(|cosigned| cosigned <= until));
        for_it && in_time && span.from_size <= size && span.to_size.is_none_or(|to| size <= to)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTrust {
    pub id: NodeId,
    pub life: Membership,
    /// Changes of the node's membership instants.
    pub moved: Vec<Moved>,
    pub keys: Vec<KeySpan>,
}

/// A parsed trust file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    pub cluster: ClusterName,
    pub nodes: Vec<NodeTrust>,
    pub witnesses: Vec<VerifyingKey>,
    /// Keys that sign manifests.
    pub exporters: Vec<VerifyingKey>,
    /// Retention policies, in ascending order of time.
    pub retention: Vec<KeepPolicy>,
    pub archives: Vec<ArchiveTrust>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTrust {
    format: String,
    cluster: ClusterName,
    #[serde(default, rename = "node")]
    nodes: Vec<RawNode>,
    #[serde(default, rename = "aggregator")]
    aggregators: Vec<RawAggregator>,
    #[serde(default, rename = "archive", skip_serializing_if = "Vec::is_empty")]
    archives: Vec<RawArchive>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retention: Vec<KeepPolicy>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArchive {
    id: NodeId,
    /// C2SP verification keys.
    steps: String,
    mirror: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    id: NodeId,
    /// First day of membership, such as 2026-04-15; only for a node that has left.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    first_day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    last_day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    member_from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    member_until: Option<Timestamp>,
    #[serde(rename = "key", default)]
    keys: Vec<RawKey>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    moved: Vec<Moved>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    /// Base64 of 32 bytes.
    public: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    generation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    from_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    to_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    until: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAggregator {
    id: NodeId,
    /// C2SP verification keys.
    witness: String,
    exporter: String,
}

impl Trust {
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        let typed: RawTrust = toml::from_str(text).map_err(|error| TrustError::Form(error.message().to_owned()))?;
        let first = typed.format == FORMAT;
        if !first && typed.format != FORMAT_2 && typed.format != FORMAT_3 {
            return Err(TrustError::Format(typed.format));
        }
        let instants =
            |node: &RawNode| node.member_from.is_some() || node.member_until.is_some() || !node.moved.is_empty();
        if first && typed.nodes.iter().any(instants) {
            return Err(TrustError::Newer("member_from or member_until"));
        }
        if first && typed.nodes.iter().flat_map(|node| &node.keys).any(|key| key.until.is_some()) {
            return Err(TrustError::Newer("the `until` of a key"));
        }
        if !typed.archives.is_empty() && typed.format != FORMAT_3 {
            return Err(TrustError::Archives);
        }
        if first && !typed.retention.is_empty() {
            return Err(TrustError::Newer("retention"));
        }
        // Without a trust file from the administrators, the trust file in the bundle is used, so the bundle's author decides how
        // long these lists are.
        for (count, of, most) in [
            (typed.nodes.len(), "nodes", NODES_MAX),
            (typed.aggregators.len(), "aggregators", AGGREGATORS_MAX),
            (typed.archives.len(), "archives", AGGREGATORS_MAX),
            (typed.retention.len(), "retention policies", POLICIES_MAX),
            (typed.nodes.iter().map(|node| node.moved.len()).max().unwrap_or(0), "moved instants", MOVES_MAX),
        ] {
            if count > most {
                return Err(TrustError::TooMany { count, of, most });
            }
        }
        let mut trust = Self {
            cluster: typed.cluster,
            nodes: Vec::new(),
            witnesses: Vec::new(),
            exporters: Vec::new(),
            retention: typed.retention,
            archives: Vec::new(),
        };
        trust.retention.sort_by_key(|policy| policy.from);
        let mut ids = HashSet::new();
        for node in typed.nodes {
            if !ids.insert(node.id.clone()) {
                return Err(TrustError::Twice(node.id.to_string()));
            }
            trust.nodes.push(node.open()?);
        }
        trust.nodes.sort_by(|a, b| a.id.cmp(&b.id));
        for aggregator in typed.aggregators {
            let open = |text: &str, kind: KeyKind| {
                let bad = |source| TrustError::Aggregator { id: aggregator.id.to_string(), source };
                let key = VerifyingKey::parse(text).map_err(bad)?;
                if key.kind() == kind { Ok(key) } else { Err(bad(NoteError::Key)) }
            };
            let (witness, exporter) =
                (open(&aggregator.witness, KeyKind::Witness)?, open(&aggregator.exporter, KeyKind::Log)?);
            // A duplicate key would make the verifier check the same signatures twice.
            if trust.witnesses.contains(&witness) || trust.exporters.contains(&exporter) {
                return Err(TrustError::Twice(aggregator.id.to_string()));
            }
            trust.witnesses.push(witness);
            trust.exporters.push(exporter);
        }
        for archive in typed.archives {
            let archive = archive.open(&trust.cluster)?;
            if trust.archives.iter().any(|known| known.id == archive.id) {
                return Err(TrustError::Twice(archive.id.to_string()));
            }
            trust.archives.push(archive);
        }
        Ok(trust)
    }

    /// Returns the text of the file.
    pub fn to_text(&self) -> String {
        let plain = |node: &NodeTrust| {
            node.life == Membership::ALWAYS && node.moved.is_empty() && node.keys.iter().all(|key| key.until.is_none())
        };
        let format = match self.retention.is_empty() && self.nodes.iter().all(plain) {
            _ if !self.archives.is_empty() => FORMAT_3,
            true => FORMAT,
            false => FORMAT_2,
        };
        let nodes = self.nodes.iter().map(|node| {
            let Membership { from, until } = node.life;
            let keys = node.keys.iter().map(|key| RawKey {
                public: encode_hash(&key.public),
                generation: key.generation.clone(),
                from_size: (key.from_size > 0).then_some(key.from_size),
                to_size: key.to_size,
                until: key.until,
            });
            RawNode {
                id: node.id.clone(),
                first_day: None,
                last_day: None,
                member_from: Some(from).filter(|from| *from != Timestamp::MIN),
                member_until: Some(until).filter(|until| *until != Timestamp::MAX),
                keys: keys.collect(),
                moved: node.moved.clone(),
            }
        });
        let aggregators = self.witnesses.iter().zip(&self.exporters).filter_map(|(witness, exporter)| {
            let id = witness.name().rsplit('/').next()?.parse().ok()?;
            Some(RawAggregator { id, witness: witness.to_string(), exporter: exporter.to_string() })
        });
        let typed = RawTrust {
            format: format.to_owned(),
            cluster: self.cluster.clone(),
            nodes: nodes.collect(),
            aggregators: aggregators.collect(),
            archives: self.archives.iter().map(RawArchive::of).collect(),
            retention: self.retention.clone(),
        };
        toml::to_string(&typed).unwrap_or_default()
    }

    /// Returns the nodes by id.
    pub fn by_id(&self) -> HashMap<&str, &NodeTrust> {
        self.nodes.iter().map(|node| (node.id.as_str(), node)).collect()
    }
}

impl RawArchive {
    fn of(archive: &ArchiveTrust) -> Self {
        Self { id: archive.id.clone(), steps: archive.steps.to_string(), mirror: archive.mirror.to_string() }
    }

    /// Both keys must have the name of the archive, so that no key of another role is accepted.
    fn open(self, cluster: &ClusterName) -> Result<ArchiveTrust, TrustError> {
        let name = format!("{cluster}/archive/{}", self.id);
        let open = |text: &str, kind: KeyKind| {
            let bad = |source| TrustError::Archive { id: self.id.to_string(), source };
            let key = VerifyingKey::parse(text).map_err(bad)?;
            if key.kind() == kind && key.name() == name { Ok(key) } else { Err(bad(NoteError::Key)) }
        };
        let (steps, mirror) = (open(&self.steps, KeyKind::Log)?, open(&self.mirror, KeyKind::Witness)?);
        Ok(ArchiveTrust { id: self.id, steps, mirror })
    }
}

impl RawNode {
    fn open(self) -> Result<NodeTrust, TrustError> {
        let bad_day = || TrustError::Day(self.id.to_string());
        let life = match (&self.first_day, &self.last_day) {
            (None, None) => Membership {
                from: self.member_from.unwrap_or(Timestamp::MIN),
                until: self.member_until.unwrap_or(Timestamp::MAX),
            },
            // Days of membership, as in files of the first version.
            (Some(first), Some(last)) if self.member_from.is_none() && self.member_until.is_none() => {
                let from = human_time::day_range(first).ok_or_else(bad_day)?.0;
                let until = human_time::day_range(last).ok_or_else(bad_day)?.1;
                Membership { from, until }
            }
            _ => return Err(bad_day()),
        };
        if life.until < life.from {
            return Err(TrustError::Backwards(self.id.to_string()));
        }
        let keys = self.keys.into_iter().map(|key| {
            let public = decode_hash(&key.public);
            let good = public.filter(|public| VerifyingKey::new("key", KeyKind::Log, public).is_some());
            Ok(KeySpan {
                public: good.ok_or_else(|| TrustError::Key(self.id.to_string()))?,
                generation: key.generation,
                from_size: key.from_size.unwrap_or(0),
                to_size: key.to_size,
                until: key.until,
            })
        });
        let keys = keys.collect::<Result<_, TrustError>>()?;
        Ok(NodeTrust { id: self.id, life, moved: self.moved, keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Instant;
    use piperoll_format::note::SigningSeed;

    #[test]
    fn a_trust_file_reads_as_it_was_written() {
        let seed = SigningSeed::from_bytes([7; 32]);
        let key = |name: &str, kind| seed.named(name, kind).expect("a key").public().clone();
        let span =
            |to_size| KeySpan { public: seed.public_bytes(), generation: None, from_size: 3, to_size, until: None };
        let day = |text| human_time::day_range(text).expect("a day");
        let retired = Membership { from: day("2026-01-01").0, until: day("2026-02-03").1 };
        let moved = Moved {
            instant: Instant::MemberUntil,
            was: Some(day("2026-03-01").0),
            at: day("2026-02-01").0,
            reason: "a month earlier".to_owned(),
        };
        let trust = Trust {
            cluster: "demo".parse().expect("a name"),
            nodes: vec![
                NodeTrust {
                    id: "mx1".parse().expect("an id"),
                    life: Membership::ALWAYS,
                    moved: Vec::new(),
                    keys: vec![span(Some(9)), span(None)],
                },
                NodeTrust {
                    id: "mx2".parse().expect("an id"),
                    life: retired,
                    moved: vec![moved],
                    keys: vec![span(None)],
                },
            ],
            witnesses: vec![key("demo/aggregator/agg", KeyKind::Witness)],
            exporters: vec![key("demo/aggregator/agg", KeyKind::Log)],
            retention: vec![KeepPolicy { from: day("2026-01-01").0, keep_days: 365 }],
            archives: Vec::new(),
        };
        assert_eq!(Trust::parse(&trust.to_text()), Ok(trust.clone()));
        let name = "demo/archive/main";
        let archive = ArchiveTrust {
            id: "main".parse().expect("an id"),
            steps: key(name, KeyKind::Log),
            mirror: key(name, KeyKind::Witness),
        };
        let archived = Trust { archives: vec![archive], ..trust.clone() };
        let text = archived.to_text();
        assert_eq!(Trust::parse(&text), Ok(archived));
        for bad in [
            text.replace("piperoll trust v3", "piperoll trust v2"),
            text.replace("steps = \"demo/archive/main", "steps = \"demo/archive/other"),
            text.replace("mirror = ", "steps = "),
        ] {
            assert!(Trust::parse(&bad).is_err(), "{bad}");
        }
        let text = trust.to_text();
        for bad in [
            text.replace("piperoll trust v2", "piperoll trust v4"),
            text.replace("piperoll trust v2", "piperoll trust v1"),
            text.replace("mx2", "mx1"),
            text.replace("2026-02-04", "yesterday"),
            text.replace("2026-02-04", "2025-02-04"),
            text.replace(&encode_hash(&seed.public_bytes()), "AAAA"),
            text.replace("exporter", "exporters"),
            text.replace("witness = \"demo", "witness = \"omed"),
        ] {
            assert!(Trust::parse(&bad).is_err(), "{bad}");
        }
        // A file that needs no feature of the second version is written in the first version, which every verifier can read.
        let mut plain = trust.clone();
        plain.retention.clear();
        plain.nodes.truncate(1);
        assert!(plain.to_text().contains("piperoll trust v1"));
        // Files of the first version contain days instead of instants.
        let days = plain
            .to_text()
            .replace("id = \"mx1\"", "id = \"mx1\"\nfirst_day = \"2026-01-01\"\nlast_day = \"2026-02-03\"");
        assert_eq!(Trust::parse(&days).expect("a trust file").nodes[0].life, retired);
        let node = &trust.nodes[0];
        let allows = |span: &KeySpan, size| node.allows(span, "g", size, None);
        assert!(allows(&span(Some(9)), 9) && !allows(&span(Some(9)), 10) && !allows(&span(None), 2));
        // A generation with a key of its own does not accept keys that name no generation.
        let own = KeySpan { generation: Some("g".to_owned()), ..span(None) };
        let node = NodeTrust { keys: vec![span(None), own.clone()], ..node.clone() };
        let allows = |span: &KeySpan, generation| node.allows(span, generation, 3, None);
        assert!(allows(&own, "g") && !allows(&span(None), "g") && allows(&span(None), "h"));
        // A former key is valid for checkpoints cosigned while it was in use, in generations without a key of their own.
        let former = KeySpan { until: Some(day("2026-05-01").0), ..span(None) };
        let node = NodeTrust { keys: vec![span(None), own, former.clone()], ..node };
        let at = |text| node.allows(&former, "h", 3, Some(day(text).0));
        assert!(at("2026-04-30") && at("2026-05-01") && !at("2026-05-02") && !node.allows(&former, "h", 3, None));
        assert!(!node.allows(&former, "g", 3, Some(day("2026-04-30").0)));
        let dated = Trust { nodes: vec![node], retention: Vec::new(), ..trust };
        assert!(dated.to_text().contains("piperoll trust v2"));
        assert_eq!(Trust::parse(&dated.to_text()), Ok(dated));
    }
}
