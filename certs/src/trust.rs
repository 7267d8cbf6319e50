//! Creates the trust file: everything that an auditor needs to verify evidence, without secrets.

use piperoll_evidence::bundle::{ArchiveTrust, KeySpan, NodeTrust, Trust};
use piperoll_format::ids::ClusterName;
use piperoll_format::merkle::decode_hash;
use piperoll_format::note::{KeyKind, VerifyingKey};

use super::authority::Authority;
use super::error::{CertsError, Result};
use super::members::{Member, MemberKind};

impl Authority {
    /// Returns the cluster's nodes and public keys, to be given to auditors over a channel that they trust.
    pub fn trust(&self) -> Result<Trust> {
        let cluster = self.cluster().clone();
        let retention = self.members.retention.clone();
        let mut trust = Trust {
            cluster,
            nodes: Vec::new(),
            witnesses: Vec::new(),
            exporters: Vec::new(),
            retention,
            archives: Vec::new(),
        };
        for member in self.members() {
            match member.kind {
                MemberKind::Node => trust.nodes.push(self.node_trust(member)?),
                MemberKind::Aggregator => {
                    let name = format!("{}/aggregator/{}", self.cluster(), member.id);
                    trust.witnesses.push(self.key(member, member.signing_key.as_deref(), &name, KeyKind::Witness)?);
                    trust.exporters.push(self.key(member, member.export_key.as_deref(), &name, KeyKind::Log)?);
                }
                MemberKind::Archive => {
                    let name = format!("{}/archive/{}", self.cluster(), member.id);
                    trust.archives.push(ArchiveTrust {
                        id: member.id.clone(),
                        steps: self.key(member, member.export_key.as_deref(), &name, KeyKind::Log)?,
                        mirror: self.key(member, member.signing_key.as_deref(), &name, KeyKind::Witness)?,
                    });
                }
                MemberKind::User => {}
            }
        }
        trust.nodes.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(trust)
    }

    fn node_trust(&self, node: &Member) -> Result<NodeTrust> {
        let name = node_name(self.cluster(), node);
        let key = self.key(node, node.signing_key.as_deref(), &name, KeyKind::Log)?;
        let any = |public| KeySpan { public, generation: None, from_size: 0, to_size: None, until: None };
        let mut keys = vec![any(key.public_bytes())];
        for used in &node.keys.spans {
            let key = self.key(node, Some(&used.key), &name, KeyKind::Log)?;
            let (generation, from_size, to_size) = (Some(used.generation.clone()), used.from_size, used.to_size);
            keys.push(KeySpan { generation, from_size, to_size, ..any(key.public_bytes()) });
        }
        for former in &node.keys.former {
            let key = self.key(node, Some(&former.key), &name, KeyKind::Log)?;
            keys.push(KeySpan { until: Some(former.until), ..any(key.public_bytes()) });
        }
        Ok(NodeTrust { id: node.id.clone(), life: node.life()?, moved: node.moved.clone(), keys })
    }

    fn key(&self, member: &Member, text: Option<&str>, name: &str, kind: KeyKind) -> Result<VerifyingKey> {
        let key = text.and_then(decode_hash).and_then(|public| VerifyingKey::new(name, kind, &public));
        key.ok_or_else(|| self.content(format!("{} {} has no valid public key", member.kind.as_str(), member.id)))
    }

    fn content(&self, problem: String) -> CertsError {
        CertsError::Content { path: self.dir.join("members.json"), problem }
    }
}

fn node_name(cluster: &ClusterName, node: &Member) -> String {
    format!("{cluster}/{}", node.id)
}
