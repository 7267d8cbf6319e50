//! Records changes of the cluster: what has changed in the roster and the revocation list since the last run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use piperoll_client::{Category, Entry};
use piperoll_format::ids::NodeId;
use piperoll_format::merkle::encode_hash;
use piperoll_format::time::Timestamp;
use piperoll_net::checked_json;
use piperoll_net::clock::{Clock as _, SystemClock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::config::{AggregatorConfig, RosterNode};
use crate::state::App;

const FILE: &str = "roster.json";
/// Interval between attempts to record a change, and between checks of the revocation list.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Last recorded state of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    nodes: BTreeMap<String, KnownNode>,
    /// Retention policies: start time, and number of days.
    retention: Vec<(Timestamp, u32)>,
    /// SHA-256 of the revocation list.
    revocations: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KnownNode {
    address: String,
    member_from: Option<Timestamp>,
    member_until: Option<Timestamp>,
    /// Whether the node had left when this was written.
    left: bool,
    /// Newest epoch of the node's sealing secrets.
    epoch: Option<u32>,
    checkpoint_key: Option<String>,
    next_checkpoint_key: Option<String>,
    /// Whether the node's log was pinned when this was written. A change of this field is not a change of the cluster, so it is
    /// not recorded.
    #[serde(default)]
    witnessed: bool,
}

impl KnownNode {
    fn of(node: &RosterNode, witnessed: bool, now: Timestamp) -> Self {
        let open = |time: Timestamp, open: Timestamp| Some(time).filter(|time| *time != open);
        Self {
            address: node.address.clone(),
            member_from: open(node.life.from, Timestamp::MIN),
            member_until: open(node.life.until, Timestamp::MAX),
            left: node.life.has_ended_by(now),
            epoch: node.ring.newest_epoch(),
            checkpoint_key: node.checkpoint_key.as_ref().map(encode_hash),
            next_checkpoint_key: node.next_checkpoint_key.as_ref().map(encode_hash),
            witnessed,
        }
    }
}

/// One change, as recorded in an entry.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    action: &'static str,
    node: Option<String>,
    message: String,
    details: Value,
}

impl Change {
    fn of(
        action: &'static str,
        node: &str,
        message: String,
        before: Option<&KnownNode>,
        after: Option<&KnownNode>,
    ) -> Self {
        Self { action, node: Some(node.to_owned()), message, details: json!({ "before": before, "after": after }) }
    }

    fn entry(&self) -> Entry {
        let entry = Entry::new(Category::Cluster, self.action).description(self.message.clone());
        let entry = match &self.node {
            Some(node) => entry.entity("node", node.clone()),
            None => entry,
        };
        entry.detail("before", &self.details["before"]).detail("after", &self.details["after"])
    }
}

/// Returns the differences, in the order of the nodes.
fn changes(before: &Known, after: &Known) -> Vec<Change> {
    let mut all = Vec::new();
    let ids: std::collections::BTreeSet<&String> = before.nodes.keys().chain(after.nodes.keys()).collect();
    for id in ids {
        match (before.nodes.get(id), after.nodes.get(id)) {
            (None, Some(new)) => {
                all.push(Change::of(
                    "cluster.node_joined",
                    id,
                    format!("{id} is a member of the cluster"),
                    None,
                    Some(new),
                ));
            }
            (Some(old), None) => {
                let message = format!("{id} is no longer in the roster; the reason is unknown");
                all.push(Change::of("cluster.node_removed", id, message, Some(old), None));
            }
            (Some(old), Some(new)) => node_changes(id, old, new, &mut all),
            (None, None) => {}
        }
    }
    if before.retention != after.retention {
        all.push(Change {
            action: "cluster.retention_changed",
            node: None,
            message: "the cluster's retention policy was changed".to_owned(),
            details: json!({ "before": before.retention, "after": after.retention }),
        });
    }
    if before.revocations != after.revocations && !before.revocations.is_empty() {
        all.push(Change {
            action: "cluster.revocations_changed",
            node: None,
            message: "certificates were revoked, or the revocation list was renewed".to_owned(),
            details: json!({ "before": before.revocations, "after": after.revocations }),
        });
    }
    all
}

fn node_changes(id: &str, old: &KnownNode, new: &KnownNode, all: &mut Vec<Change>) {
    let mut push = |action, message: String| all.push(Change::of(action, id, message, Some(old), Some(new)));
    if new.left && !old.left {
        let at = new.member_until.map(Timestamp::to_text).unwrap_or_default();
        push("cluster.node_retired", format!("{id} left the cluster at {at}"));
    } else if (old.member_from, old.member_until) != (new.member_from, new.member_until) {
        push("cluster.membership_changed", format!("the membership period of {id} was changed"));
    }
    if old.address != new.address {
        push("cluster.address_changed", format!("the address of {id} is now {}", new.address));
    }
    if old.epoch != new.epoch {
        push("cluster.mac_rotated", format!("{id} has a new MAC key"));
    }
    if (&old.checkpoint_key, &old.next_checkpoint_key) != (&new.checkpoint_key, &new.next_checkpoint_key) {
        push("cluster.key_rotated", format!("the checkpoint keys of {id} were changed"));
    }
}

/// Records changes at startup and whenever the revocation list changes.
pub(crate) struct Membership {
    path: PathBuf,
    known: Known,
    nodes: Vec<RosterNode>,
    retention: Vec<(Timestamp, u32)>,
    crl: PathBuf,
}

impl Membership {
    /// Loads the last recorded state. A damaged file counts as missing: everything is then recorded as if it were new.
    pub(crate) fn open(config: &AggregatorConfig) -> Self {
        let path = config.state_dir.join(FILE);
        let known = std::fs::read(&path).ok().and_then(|bytes| match checked_json::from_bytes(&bytes) {
            Ok(known) => Some(known),
            Err(error) => {
                let aside = path.with_extension("json.damaged");
                let moved = std::fs::rename(&path, &aside).is_ok();
                tracing::error!(file = %path.display(), %error, moved, "the stored state of the cluster is damaged; recording all of it again");
                None
            }
        });
        Self {
            path,
            known: known.unwrap_or_default(),
            nodes: config.roster.clone(),
            retention: config.retention.iter().map(|policy| (policy.from, policy.keep_days)).collect(),
            crl: config.files.crl.clone(),
        }
    }

    /// Whether a node's log was witnessed in an earlier run of this aggregator.
    pub(crate) fn had_witnessed(&self, node: &NodeId) -> bool {
        self.known.nodes.get(node.as_str()).is_some_and(|known| known.witnessed)
    }

    fn now(&self, app: &App) -> Known {
        let now = SystemClock.now();
        let pinned = |node: &RosterNode| {
            let member = app.cluster.members.iter().find(|member| member.node.id == node.id);
            member.is_some_and(|member| member.witness.pinned().is_some()) || self.had_witnessed(&node.id)
        };
        Known {
            nodes: self
                .nodes
                .iter()
                .map(|node| (node.id.to_string(), KnownNode::of(node, pinned(node), now)))
                .collect(),
            retention: self.retention.clone(),
            revocations: digest(&self.crl).unwrap_or_else(|| self.known.revocations.clone()),
        }
    }

    /// Records changes; never returns. Recording is retried until it succeeds, and a change is stored as recorded only
    /// once its entry is on disk.
    pub(crate) async fn watch(mut self, app: Arc<App>) {
        loop {
            let now = self.now(&app);
            if now != self.known && self.record(&app, &now).await {
                if let Err(error) = checked_json::write(&self.path, &now) {
                    tracing::warn!(%error, file = %self.path.display(), "cannot store the state of the cluster");
                }
                self.known = now;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn record(&self, app: &App, now: &Known) -> bool {
        for change in changes(&self.known, now) {
            if let Err(error) = app.audit.note(change.entry()).await {
                tracing::warn!(%error, action = change.action, "cannot record a change to the cluster yet");
                return false;
            }
        }
        true
    }
}

fn digest(path: &Path) -> Option<String> {
    std::fs::read(path).ok().map(|bytes| hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(address: &str) -> KnownNode {
        KnownNode {
            address: address.to_owned(),
            epoch: Some(0),
            checkpoint_key: Some("k".to_owned()),
            ..KnownNode::default()
        }
    }

    #[test]
    fn every_change_of_the_cluster_has_a_word() {
        let known = |nodes: &[(&str, KnownNode)]| Known {
            nodes: nodes.iter().map(|(id, node)| ((*id).to_owned(), node.clone())).collect(),
            ..Known::default()
        };
        let actions = |before: &Known, after: &Known| -> Vec<&str> {
            changes(before, after).into_iter().map(|change| change.action).collect()
        };
        let one = known(&[("mx1", node("a"))]);
        assert_eq!(actions(&Known::default(), &one), ["cluster.node_joined"]);
        assert_eq!(actions(&one, &Known::default()), ["cluster.node_removed"]);
        assert_eq!(actions(&one, &one), Vec::<&str>::new());
        for (action, change) in [
            ("cluster.address_changed", KnownNode { address: "b".to_owned(), ..node("a") }),
            ("cluster.mac_rotated", KnownNode { epoch: Some(1), ..node("a") }),
            ("cluster.key_rotated", KnownNode { next_checkpoint_key: Some("n".to_owned()), ..node("a") }),
            ("cluster.membership_changed", KnownNode { member_from: Some(Timestamp::MIN), ..node("a") }),
            ("cluster.node_retired", KnownNode { member_until: Some(Timestamp::MIN), left: true, ..node("a") }),
        ] {
            assert_eq!(actions(&one, &known(&[("mx1", change)])), [action]);
        }
        let one = Known { revocations: "w".to_owned(), ..one };
        let revoked = Known { revocations: "x".to_owned(), ..one.clone() };
        assert_eq!(actions(&one, &revoked), ["cluster.revocations_changed"]);
        let kept = Known { retention: vec![(Timestamp::MIN, 365)], ..one.clone() };
        assert_eq!(actions(&one, &kept), ["cluster.retention_changed"]);
    }
}
