//! Changes a node's keys, during operation and after a compromise.
//!
//! A sealing secret is rotated by creating the next one, which the node uses from its next start on. A checkpoint key is rotated
//! in two steps: the node signs with both keys for a while, and the old key ends at a checkpoint that both keys signed and a
//! witness cosigned. After a compromise nothing is carried over: the old log is frozen at a witnessed checkpoint.

use std::path::PathBuf;

use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::ids::NodeId;
use piperoll_format::merkle::decode_hash;
use piperoll_format::note::{KeyKind, Note, VerifyingKey};
use piperoll_format::time::Timestamp;
use toml_edit::{ArrayOfTables, Item, Table, value};

use super::authority::Authority;
use super::error::{CertsError, Result};
use super::files::{edit_toml, write_private};
use super::members::{FormerKey, KeyUse, Member, MemberKind};
use super::random::{make_signing_key, random_secret};

/// Result of a key change: the files to copy to the machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysChanged {
    /// The node's folder, updated in place.
    pub folder: PathBuf,
    /// The new file in the folder: a secret of a new epoch, or a new checkpoint key.
    pub file: String,
    /// After [`Authority::rotate_mac`], the newest epoch. After `finish_key` and `new_generation`, the size at which a key takes
    /// over or the old log is frozen. After `rotate_key`, 0.
    pub number: u64,
}

impl Authority {
    /// Creates the secret of a node's next epoch.
    pub fn rotate_mac(&mut self, id: &NodeId) -> Result<KeysChanged> {
        let (at, folder) = self.node_here(id)?;
        let epoch = self.members.list[at].epoch + 1;
        let file = self.make_secret(id, epoch, &folder)?;
        // A crash before this line leaves a secret that is not listed in the members and that the next call replaces.
        self.members.list[at].epoch = epoch;
        self.save()?;
        Ok(KeysChanged { folder, file, number: u64::from(epoch) })
    }

    /// Creates a node's next checkpoint key. The node signs with both keys until [`Authority::finish_key`].
    pub fn rotate_key(&mut self, id: &NodeId) -> Result<KeysChanged> {
        let (at, folder) = self.node_here(id)?;
        let keys = &self.members.list[at].keys;
        if keys.next.is_some() {
            let message = format!("{id} already has a next key; finish that rotation with --finish first");
            return Err(CertsError::Keys(message));
        }
        let made = keys.made + 1;
        let file = key_file(made);
        let _ = std::fs::remove_file(folder.join(&file));
        let public = make_signing_key(&folder.join(&file))?;
        edit_toml(&folder.join("node.toml"), |config| config["next_checkpoint_key"] = value(&file))?;
        let keys = &mut self.members.list[at].keys;
        (keys.next, keys.made) = (Some(public), made);
        self.save()?;
        Ok(KeysChanged { folder, file, number: 0 })
    }

    /// Ends a rotation: from the size of this checkpoint on, only the new key is valid. The note must carry the signatures of
    /// both keys and a cosignature of one of the cluster's witnesses.
    pub fn finish_key(&mut self, id: &NodeId, note: &str) -> Result<KeysChanged> {
        let (at, folder) = self.node_here(id)?;
        let node = self.members.list[at].clone();
        let Some(next) = node.keys.next.clone() else {
            return Err(CertsError::Keys(format!("{id} has no next key; run `rotate-key` without --finish first")));
        };
        let old = node.signing_key.clone().unwrap_or_default();
        let (checkpoint, cosigned) = self.witnessed(id, note, &[&old, &next])?;
        let generation = generation_of(&checkpoint);
        let file = key_file(node.keys.made);
        edit_toml(&folder.join("node.toml"), |config| {
            config["checkpoint_key"] = value(&file);
            config.remove("next_checkpoint_key");
        })?;
        let node = &mut self.members.list[at];
        end_span(node, &old, &generation, checkpoint.size, cosigned);
        let from_size = checkpoint.size;
        node.keys.spans.push(KeyUse { key: next.clone(), generation, from_size, to_size: None });
        (node.signing_key, node.keys.next) = (Some(next), None);
        self.save()?;
        Ok(KeysChanged { folder, file, number: from_size })
    }

    /// Creates a new secret and a new checkpoint key for a new generation, after a compromise or a restore. For all verifiers
    /// that trust this cluster, the old log ends at the checkpoint `frozen`, which a witness has cosigned.
    pub fn new_generation(&mut self, id: &NodeId, frozen: &str) -> Result<KeysChanged> {
        let (at, folder) = self.node_here(id)?;
        let node = self.members.list[at].clone();
        let old = node.signing_key.clone().unwrap_or_default();
        let (checkpoint, cosigned) = self.witnessed(id, frozen, &[&old])?;
        let (made, epoch) = (node.keys.made + 1, node.epoch + 1);
        let file = key_file(made);
        let _ = std::fs::remove_file(folder.join(&file));
        let public = make_signing_key(&folder.join(&file))?;
        self.make_secret(id, epoch, &folder)?;
        edit_toml(&folder.join("node.toml"), |config| {
            config["checkpoint_key"] = value(&file);
            config.remove("next_checkpoint_key");
        })?;
        let node = &mut self.members.list[at];
        end_span(node, &old, &generation_of(&checkpoint), checkpoint.size, cosigned);
        (node.epoch, node.signing_key, node.keys.next, node.keys.made) = (epoch, Some(public), None, made);
        self.save()?;
        Ok(KeysChanged { folder, file, number: checkpoint.size })
    }

    pub(super) fn secret_file(&self, id: &NodeId, epoch: u32) -> PathBuf {
        self.dir.join("secrets").join(format!("{id}.{epoch}"))
    }

    /// Creates a secret and adds it to the node's configuration after the existing ones.
    fn make_secret(&self, id: &NodeId, epoch: u32, folder: &std::path::Path) -> Result<String> {
        let secret = random_secret()?;
        let file = format!("secret.{epoch}");
        write_private(&self.secret_file(id, epoch), secret.to_hex().as_bytes())?;
        write_private(&folder.join(&file), secret.to_hex().as_bytes())?;
        edit_toml(&folder.join("node.toml"), |config| {
            let secrets = config.entry("secrets").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
            let Some(secrets) = secrets.as_array_of_tables_mut() else { return };
            secrets.retain(|known| known.get("epoch").and_then(Item::as_integer) != Some(i64::from(epoch)));
            let mut table = Table::new();
            table["epoch"] = value(i64::from(epoch));
            table["file"] = value(&file);
            secrets.push(table);
        })?;
        Ok(file)
    }

    /// Returns the node's index and its folder. The folder must be in the cluster directory, because new keys are created only in
    /// it.
    fn node_here(&self, id: &NodeId) -> Result<(usize, PathBuf)> {
        let at = self.members.list.iter().position(|m| m.kind == MemberKind::Node && &m.id == id);
        let at = at.ok_or_else(|| CertsError::NoMember(format!("node {id}")))?;
        let folder = if self.is_embedded(id) { self.machine(id).join("node") } else { self.machine(id) };
        if !folder.join("node.toml").exists() {
            return Err(CertsError::Keys(format!(
                "no node.toml in {}; copy the node's folder back (node.toml is enough) and try again",
                folder.display()
            )));
        }
        Ok((at, folder))
    }

    /// Opens a checkpoint of a node. All given keys must have signed it and a witness of the cluster must have cosigned it; also
    /// returns the time of the latest cosignature.
    fn witnessed(&self, id: &NodeId, note: &str, keys: &[&str]) -> Result<(Checkpoint, Timestamp)> {
        let bad = |problem: String| CertsError::Keys(format!("checkpoint rejected: {problem}"));
        let note = Note::parse(note).map_err(|e| bad(e.to_string()))?;
        let origin = note.text().lines().next().unwrap_or_default().to_owned();
        if !origin.starts_with(&format!("{}/{id}/", self.cluster())) {
            return Err(bad(format!("it belongs to {origin:?}, not to {id}")));
        }
        let mut opened = None;
        for key in keys {
            let key = decode_hash(key).and_then(|public| VerifyingKey::new(&origin, KeyKind::Log, &public));
            let key = key.ok_or_else(|| bad(format!("{id} has no valid public key")))?;
            opened = Some(Checkpoint::open(&note, &key).map_err(|e| bad(e.to_string()))?);
        }
        let cosigned = self.trust()?.witnesses.iter().filter_map(|witness| note.verify(witness).ok()).max();
        let cosigned = cosigned.and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1_000_000));
        let cosigned = cosigned.ok_or_else(|| bad("no witness of this cluster has cosigned it".to_owned()))?;
        let opened = opened.ok_or_else(|| bad("it is not signed".to_owned()))?;
        Ok((opened, Timestamp::from_micros(cosigned)))
    }
}

fn key_file(made: u32) -> String {
    format!("checkpoint.{made}.key")
}

fn generation_of(checkpoint: &Checkpoint) -> String {
    checkpoint.origin.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Ends the span of a key in one generation at this size; an earlier rotation may have begun that span. In other generations the
/// key stays valid for checkpoints cosigned up to `cosigned`, so that evidence from them still verifies.
fn end_span(node: &mut Member, key: &str, generation: &str, size: u64, cosigned: Timestamp) {
    node.keys.former.push(FormerKey { key: key.to_owned(), until: cosigned });
    let open = node.keys.spans.iter_mut().find(|used| used.key == key && used.generation == generation);
    match open {
        Some(used) => used.to_size = Some(size),
        None => node.keys.spans.push(KeyUse {
            key: key.to_owned(),
            generation: generation.to_owned(),
            from_size: 0,
            to_size: Some(size),
        }),
    }
}
