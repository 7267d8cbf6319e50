//! Files of the cluster directory and of the machines' folders.

use piperoll_evidence::bundle::{KeepPolicy, Moved};
use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::note::VerifyingKey;
use piperoll_format::time::Timestamp;
use piperoll_protocol::access::Role;

use super::error::Result;
use super::members::{MemberKind, Members};
use super::place::Layout;

/// Paths of a node's log and its socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodePaths {
    data_dir: &'static str,
    socket: &'static str,
}

pub(crate) fn node_paths(layout: Layout) -> NodePaths {
    match layout {
        Layout::Folder => NodePaths { data_dir: "data", socket: "node.sock" },
        Layout::Packaged => NodePaths { data_dir: "/var/lib/piperoll/log", socket: "/run/piperoll/node.sock" },
    }
}

/// Returns the paths of the node inside an aggregator. They differ from those of `node_paths`, because another node may run on
/// the same machine.
pub(crate) fn embedded_paths(layout: Layout) -> NodePaths {
    match layout {
        Layout::Folder => node_paths(layout),
        Layout::Packaged => {
            NodePaths { data_dir: "/var/lib/piperoll-aggregator/log", socket: "/run/piperoll-aggregator/node.sock" }
        }
    }
}

pub(crate) fn node_toml(cluster: &ClusterName, id: &NodeId, listen: &str, paths: NodePaths) -> String {
    let NodePaths { data_dir, socket } = paths;
    format!(
        r#"# Configuration of a Piperoll node. Paths are relative to this file, so the directory can be moved.
cluster = "{cluster}"
node_id = "{id}"
data_dir = "{data_dir}"
log_format = "text"          # or "json"

checkpoint_key = "checkpoint.key"   # signs the log's checkpoints; mode 0600

# HMAC secrets by epoch; new rows use the newest one. Mode 0600.
[[secrets]]
epoch = 0
file = "secret.0"

# Applications and operators on this machine.
[socket]
path = "{socket}"
mode = "0660"
# group = "adm"              # who may connect besides the daemon's user
# readers = [1000]           # uids that may also read, besides root and the daemon's user

# Aggregators of this cluster, over mTLS.
[peer]
listen = "{listen}"
certificate = "node.crt"
key = "node.key"
ca = "ca.crt"
crl = "ca.crl"

# How long rows are kept. Rows are deleted only after a witness has seen the entry that records the deletion.
[retention]
keep = "365d"                # 90d to 36500d, or "forever"
# size_max_gib = 50          # deletes the oldest rows first, but none younger than 90 days

# [flags]                    # detection rules; see docs/flags.md
# outside_hours = {{ from = "22:00", to = "06:00", zone = "Europe/Berlin" }}
# many_operations = false

# [redact]
# keys = ["ssn", "card_*"]   # further names of secrets

# [http]
# listen = "127.0.0.1:7403"  # recording over HTTPS with a token, for clients that cannot reach the socket

# [[forward]]                # forward entries to a SIEM; see docs/forwarding.md
# name = "siem"
# to = "tls://siem.example.org:6514"
# ca = "siem-ca.pem"
# format = "ocsf"

# [[intake]]                 # other sources: syslog, the journal, files; see docs/intake.md
# name = "ssh"
# journald = "ssh.service"
# map = "sshd"

# [metrics]
# listen = "127.0.0.1:9464"  # plain HTTP for a scraper; the socket always serves /metrics
"#
    )
}

pub(crate) fn aggregator_toml(cluster: &ClusterName, id: &NodeId, listen: &str, layout: Layout) -> String {
    let (state_dir, audit_socket) = match layout {
        Layout::Folder => ("state", "node/node.sock"),
        Layout::Packaged => ("/var/lib/piperoll-aggregator/state", embedded_paths(layout).socket),
    };
    format!(
        r#"# Configuration of a Piperoll aggregator. Paths are relative to this file, so the directory can be moved.
cluster = "{cluster}"
id = "{id}"
listen = "{listen}"            # HTTPS for people and programs
log_format = "text"          # or "json"
state_dir = "{state_dir}"          # cursor key, tokens

certificate = "aggregator.crt"
key = "aggregator.key"
ca = "ca.crt"
crl = "ca.crl"
roster = "roster.toml"
users = "users.toml"
secrets_dir = "secrets"
witness_key = "witness.key"  # cosigns the nodes' checkpoints; mode 0600
export_key = "export.key"    # signs the manifests of evidence bundles; mode 0600

# Log of this aggregator's own entries: every request, allowed or denied, is recorded there.
# Without `embedded_node`, name the socket of a node on this machine in `audit_socket`.
embedded_node = "node/node.toml"
audit_socket = "{audit_socket}"

# [limits]
# connect_ms = 1000
# first_row_ms = 2000
# idle_ms = 2000
# page_ms = 5000
# search_ms = 20000
"#
    )
}

/// The `[archive]` table of `aggregator.toml`.
pub(crate) fn archive_table(id: &NodeId, url: &str) -> String {
    // A TOML basic string; the caller has checked that the address has no other special characters.
    let url = url.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        r#"
# Archive of the cluster's rows (docs/archive.md). Create it with `piperoll archive init` before the next start.
[archive]
id = "{id}"
url = "{url}"
steps_key = "archive.key"    # signs the archive's steps; mode 0600
mirror_key = "mirror.key"    # cosigns the checkpoints whose rows are archived; mode 0600
# credentials = "archive.credentials"   # of an S3 bucket, if they are not in the environment; mode 0600
"#
    )
}

pub(crate) fn roster_toml(members: &Members, witnesses: &[VerifyingKey]) -> Result<String> {
    let mut text = String::from(
        "format = \"piperoll roster v2\"\n\
         # The nodes that are expected to answer. DNS may resolve addresses; it never decides who is expected.\n\
         # Generated and rewritten by `piperoll cluster`; `cluster retire` marks a node that left the cluster.\n",
    );
    let keys: Vec<String> = witnesses.iter().map(|key| format!("\"{key}\"")).collect();
    text.push_str(&format!("witnesses = [{}]\n", keys.join(", ")));
    for node in members.list.iter().filter(|m| m.kind == MemberKind::Node) {
        let address = node.address.as_deref().unwrap_or_default();
        text.push_str(&format!("\n[[node]]\nid = \"{}\"\naddress = \"{address}\"\n", node.id));
        if let Some(key) = &node.signing_key {
            text.push_str(&format!("checkpoint_key = \"{key}\"\n"));
        }
        if let Some(key) = &node.keys.next {
            text.push_str(&format!("next_checkpoint_key = \"{key}\"\n"));
        }
        let former = node.keys.spans.iter().map(|used| &used.key).filter(|key| Some(*key) != node.signing_key.as_ref());
        let former: Vec<String> = former.map(|key| format!("\"{key}\"")).collect();
        if !former.is_empty() {
            text.push_str(&format!("former_checkpoint_keys = [{}]\n", former.join(", ")));
        }
        let life = node.life()?;
        if life.from != Timestamp::MIN {
            text.push_str(&format!("member_from = \"{}\"\n", life.from));
        }
        if life.until != Timestamp::MAX {
            text.push_str(&format!("member_until = \"{}\"\n", life.until));
        }
        if let Some(last) = node.last_seq.or(node.retired.as_ref().map(|retired| retired.last_seq)) {
            text.push_str(&format!("last_seq = {last}\n"));
        }
        for Moved { instant, was, at, reason } in &node.moved {
            let was = was.map(|was| format!("was = \"{was}\"\n")).unwrap_or_default();
            text.push_str(&format!(
                "[[node.moved]]\ninstant = \"{}\"\n{was}at = \"{at}\"\nreason = {}\n",
                instant.as_str(),
                toml_edit::value(reason.as_str())
            ));
        }
    }
    for KeepPolicy { from, keep_days } in &members.retention {
        text.push_str(&format!("\n[[retention]]\nfrom = \"{from}\"\nkeep_days = {keep_days}\n"));
    }
    Ok(text)
}

pub(crate) fn users_toml(members: &Members) -> String {
    let mut text = String::from("# People with a certificate of this cluster, and what they may do.\n");
    for user in members.list.iter().filter(|m| m.kind == MemberKind::User) {
        let role = user.role.map_or("viewer", Role::word);
        text.push_str(&format!("\n[[user]]\nname = \"{}\"\nrole = \"{role}\"\n", user.id));
        if let Some(scope) = &user.scope {
            // The filter may contain quotes, so let `toml_edit` escape it.
            text.push_str(&format!("scope = {}\n", toml_edit::value(scope.as_str())));
        }
    }
    text
}
