//! An open cluster directory: adds, renews and revokes members.

use std::path::{Path, PathBuf};

use piperoll_evidence::bundle::{Instant, KeepPolicy, Membership, Moved};
use piperoll_format::ids::{ClusterName, NodeId};
use piperoll_format::limits::RETENTION_DAYS_MIN;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_net::identity::{Identity, Kind};
use piperoll_protocol::access::Role;

use super::error::{CertsError, Result, io};
use super::files::{
    make_new_machine_dir, make_new_private_dir, make_private_dir, write_new_private, write_private, write_public,
};
use super::folder::{self, NodePaths};
use super::issue::{CertificateAuthority, Issued};
use super::members::{Member, MemberKind, Members};
use super::place::{AggregatorPlace, NodePlace};
use super::random::{make_signing_key, random_secret};

/// Age beyond which an end of membership counts as set retroactively.
const AFTERWARDS_MICROS: i64 = 5 * 60 * 1_000_000;

/// Changes to a node's membership; fields that are `None` stay as they are.
#[derive(Debug, Clone, Default)]
pub struct LifeChange {
    pub from: Option<Timestamp>,
    /// End of the membership; [`Timestamp::MAX`] makes the node a member again.
    pub until: Option<Timestamp>,
    pub last_seq: Option<u64>,
    /// Reason for the change; required for every change except setting an open end.
    pub reason: Option<String>,
}

/// An open cluster directory of the administrator.
pub struct Authority {
    pub(crate) dir: PathBuf,
    pub(crate) members: Members,
    ca: CertificateAuthority,
    /// Members' folders that are missing from the cluster directory and therefore could not be updated.
    absent: Vec<PathBuf>,
    /// New paths of the folders that were left over from interrupted commands and were moved aside.
    set_aside: Vec<PathBuf>,
}

impl Authority {
    /// Creates a new cluster directory. Refuses a directory that is not empty.
    pub fn init(dir: &Path, name: &ClusterName) -> Result<Self> {
        if dir.exists() && std::fs::read_dir(dir).map_err(|source| io(dir, source))?.next().is_some() {
            return Err(CertsError::Exists(dir.to_owned()));
        }
        make_private_dir(dir)?;
        let ca = CertificateAuthority::new(name)?;
        write_new_private(&dir.join("ca.key"), ca.key_pem().as_bytes())?;
        write_public(&dir.join("ca.crt"), ca.certificate_pem().as_bytes())?;
        make_private_dir(&dir.join("secrets"))?;
        make_private_dir(&dir.join("machines"))?;
        let mut authority = Self {
            dir: dir.to_owned(),
            members: Members::new(name.clone()),
            ca,
            absent: Vec::new(),
            set_aside: Vec::new(),
        };
        authority.save()?;
        Ok(authority)
    }

    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.join("members.json").exists() {
            return Err(CertsError::NotACluster(dir.to_owned()));
        }
        let members = Members::load(&dir.join("members.json"))?;
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|source| CertsError::Io { path, source })
        };
        let ca = CertificateAuthority::load(&read("ca.crt")?, &read("ca.key")?)?;
        Ok(Self { dir: dir.to_owned(), members, ca, absent: Vec::new(), set_aside: Vec::new() })
    }

    pub fn cluster(&self) -> &ClusterName {
        &self.members.cluster
    }

    pub fn members(&self) -> &[Member] {
        &self.members.list
    }

    /// Returns the new paths of the folders that were left over from interrupted commands and were moved aside.
    pub fn set_aside(&self) -> &[PathBuf] {
        &self.set_aside
    }

    /// Returns the folders that were moved elsewhere; changes have to be copied to those machines by hand.
    pub fn absent_folders(&self) -> &[PathBuf] {
        &self.absent
    }

    /// Returns the folder to copy to a member's machine.
    pub fn machine(&self, id: &NodeId) -> PathBuf {
        self.dir.join("machines").join(id.as_str())
    }

    /// Creates a node's folder and adds the node to the folder of every aggregator.
    pub fn add_node(&mut self, id: &NodeId, place: &NodePlace) -> Result<PathBuf> {
        check_address(&place.address)?;
        let folder = self.new_machine(id)?;
        let paths = folder::node_paths(place.layout);
        let node = self.make_node(&folder, id, place, paths).inspect_err(|_| self.unmake(id))?;
        self.add_members([node])?;
        Ok(folder)
    }

    /// Creates an aggregator's folder, and in it the folder of an embedded node for the aggregator's own entries.
    pub fn add_aggregator(&mut self, id: &NodeId, place: &AggregatorPlace) -> Result<PathBuf> {
        check_address(&place.address)?;
        check_address(&place.node_address)?;
        let folder = self.new_machine(id)?;
        let members = self.make_aggregator(&folder, id, place).inspect_err(|_| self.unmake(id))?;
        self.add_members(members)?;
        Ok(folder)
    }

    /// Creates the keys of an archive in the folder of the aggregator that writes it, and configures the aggregator.
    ///
    /// # Errors
    ///
    /// If the aggregator does not exist or writes an archive already, or if its folder is not in the cluster directory.
    pub fn add_archive(&mut self, id: &NodeId, aggregator: &NodeId, url: &str) -> Result<PathBuf> {
        self.refuse_known(id)?;
        let is_aggregator = |member: &Member| member.kind == MemberKind::Aggregator && &member.id == aggregator;
        if !self.members.list.iter().any(is_aggregator) {
            return Err(CertsError::NoMember(format!("aggregator {aggregator}")));
        }
        if let Some(known) = self.members.list.iter().find(|member| member.aggregator.as_ref() == Some(aggregator)) {
            return Err(CertsError::Keys(format!(
                "the aggregator {aggregator} writes the archive {} already",
                known.id
            )));
        }
        let folder = self.machine(aggregator);
        let config = folder.join("aggregator.toml");
        let mut text = std::fs::read_to_string(&config).map_err(|source| io(&config, source))?;
        if text.lines().any(|line| line.trim() == "[archive]") {
            return Err(CertsError::Keys(format!("{} has an [archive] table already", config.display())));
        }
        // Keys that an interrupted command left belong to no member. They are replaced.
        for name in ["archive.key", "mirror.key"] {
            let _ = std::fs::remove_file(folder.join(name));
        }
        let mut member = Member::new(MemberKind::Archive, id, None);
        member.aggregator = Some(aggregator.clone());
        member.export_key = Some(make_signing_key(&folder.join("archive.key"))?);
        member.signing_key = Some(make_signing_key(&folder.join("mirror.key"))?);
        text.push_str(&folder::archive_table(id, url));
        write_public(&config, text.as_bytes())?;
        self.add_members([member])?;
        Ok(folder)
    }

    /// Creates the aggregator and its embedded node.
    fn make_aggregator(&mut self, folder: &Path, id: &NodeId, place: &AggregatorPlace) -> Result<[Member; 2]> {
        let node_place = NodePlace {
            address: place.node_address.clone(),
            listen: Some(place.node_address.clone()),
            layout: place.layout,
        };
        let node_folder = folder.join("node");
        make_new_machine_dir(&node_folder)?;
        let paths = folder::embedded_paths(place.layout);
        let node = self.make_node(&node_folder, id, &node_place, paths)?;
        make_private_dir(&folder.join("secrets"))?;
        self.issue(folder, "aggregator", Kind::Aggregator, id, &place.address)?;
        let listen = place.listen.clone().unwrap_or_else(|| everywhere(&place.address));
        write_public(
            &folder.join("aggregator.toml"),
            folder::aggregator_toml(self.cluster(), id, &listen, place.layout).as_bytes(),
        )?;
        let mut aggregator = Member::new(MemberKind::Aggregator, id, Some(&place.address));
        aggregator.signing_key = Some(make_signing_key(&folder.join("witness.key"))?);
        aggregator.export_key = Some(make_signing_key(&folder.join("export.key"))?);
        Ok([node, aggregator])
    }

    /// Removes the remains of a member whose creation failed, so that the next attempt starts clean.
    fn unmake(&self, id: &NodeId) {
        let _ = std::fs::remove_dir_all(self.machine(id));
        let _ = std::fs::remove_file(self.secret_file(id, 0));
    }

    /// Creates a folder with a person's certificate. The role, and the filter that limits it, are written to the aggregators'
    /// `users.toml`.
    pub fn add_user(&mut self, id: &NodeId, role: Role, scope: Option<&str>) -> Result<PathBuf> {
        self.refuse_known(id)?;
        let folder = self.dir.join("machines").join(format!("user-{id}"));
        self.set_leftover_aside(&folder)?;
        make_new_private_dir(&folder)?;
        self.issue(&folder, "user", Kind::User, id, "")?;
        let mut member = Member::new(MemberKind::User, id, None);
        member.role = Some(role);
        member.scope = scope.map(str::to_owned);
        self.add_members([member])?;
        Ok(folder)
    }

    /// Issues new keys and certificates into the folders of one member id. The old certificates stay valid until they expire, so
    /// the new folder can be copied without an outage.
    pub fn renew(&mut self, id: &NodeId) -> Result<Vec<PathBuf>> {
        let members: Vec<Member> = self.members.list.iter().filter(|m| &m.id == id).cloned().collect();
        if members.is_empty() {
            return Err(CertsError::NoMember(id.to_string()));
        }
        let has_aggregator = members.iter().any(|m| m.kind == MemberKind::Aggregator);
        let mut folders = Vec::new();
        for member in &members {
            let (folder, stem, kind) = match member.kind {
                MemberKind::Node if has_aggregator => (self.machine(id).join("node"), "node", Kind::Node),
                MemberKind::Node => (self.machine(id), "node", Kind::Node),
                MemberKind::Aggregator => (self.machine(id), "aggregator", Kind::Aggregator),
                MemberKind::User => (self.dir.join("machines").join(format!("user-{id}")), "user", Kind::User),
                // An archive has no certificate.
                MemberKind::Archive => continue,
            };
            self.issue(&folder, stem, kind, id, member.address.as_deref().unwrap_or_default())?;
            folders.push(folder);
        }
        self.save()?;
        Ok(folders)
    }

    /// Adds every certificate of a member to the revocation list and writes the list into every folder.
    pub fn revoke(&mut self, id: &NodeId) -> Result<usize> {
        if !self.members.list.iter().any(|m| &m.id == id) {
            return Err(CertsError::NoMember(id.to_string()));
        }
        let count = self.members.revoke(id);
        self.save()?;
        Ok(count)
    }

    /// Sets the period in which a node is a member; after its end, the node is no longer queried. The change is kept on
    /// record with its reason and the previous value, because it alters which nodes were expected; only setting an open
    /// end to a time that is not in the past leaves no record.
    ///
    /// # Errors
    ///
    /// If the node does not exist, if the end is before the beginning, or if no reason is given for a change other than
    /// setting an open end.
    pub fn set_life(&mut self, id: &NodeId, wanted: &LifeChange) -> Result<()> {
        let node = self.members.list.iter_mut().find(|m| m.kind == MemberKind::Node && &m.id == id);
        let node = node.ok_or_else(|| CertsError::NoMember(id.to_string()))?;
        let before = node.life()?;
        let after =
            Membership { from: wanted.from.unwrap_or(before.from), until: wanted.until.unwrap_or(before.until) };
        if after.until < after.from {
            let message =
                format!("the membership of {id} would end at {} before it starts at {}", after.until, after.from);
            return Err(CertsError::Keys(message));
        }
        let now = SystemClock.now();
        for (instant, was, is, open) in [
            (Instant::MemberFrom, before.from, after.from, Timestamp::MIN),
            (Instant::MemberUntil, before.until, after.until, Timestamp::MAX),
        ] {
            if was == is {
                continue;
            }
            if instant == Instant::MemberUntil && was == open {
                // An end in the past means that the node has not been expected since then, so every verification shows that the
                // end was set retroactively.
                if is < now.plus_micros(-AFTERWARDS_MICROS) {
                    let reason = wanted
                        .reason
                        .clone()
                        .unwrap_or_else(|| "the node had left before this was recorded".to_owned());
                    node.moved.push(Moved { instant, was: None, at: now, reason });
                }
                continue;
            }
            let Some(reason) = wanted.reason.clone().filter(|reason| !reason.trim().is_empty()) else {
                let message = format!(
                    "{} of {id} is already {was}; give the reason for the change with --reason",
                    instant.as_str()
                );
                return Err(CertsError::Keys(message));
            };
            node.moved.push(Moved { instant, was: Some(was).filter(|was| *was != open), at: now, reason });
        }
        node.retired = None;
        node.member_from = Some(after.from).filter(|from| *from != Timestamp::MIN);
        node.member_until = Some(after.until).filter(|until| *until != Timestamp::MAX);
        node.last_seq = wanted.last_seq.or(node.last_seq);
        self.save()
    }

    /// Sets the minimum time for which every node keeps entries, from a given time on.
    ///
    /// # Errors
    ///
    /// If the time is not after the start of the latest policy, or if the number of days is lower than a node accepts.
    pub fn set_retention(&mut self, policy: KeepPolicy) -> Result<()> {
        if policy.keep_days < RETENTION_DAYS_MIN {
            return Err(CertsError::Keys(format!("rows must be kept for at least {RETENTION_DAYS_MIN} days")));
        }
        if let Some(last) = self.members.retention.last().filter(|last| last.from >= policy.from) {
            return Err(CertsError::Keys(format!(
                "the latest policy starts at {}; a new one must start after that",
                last.from
            )));
        }
        self.members.retention.push(policy);
        self.save()
    }

    /// Returns how many certificates of a member are revoked.
    pub fn revoked(&self, id: &NodeId) -> usize {
        self.members.revoked_of(id)
    }

    /// Returns the retention policies, in ascending order of time.
    pub fn retention(&self) -> &[KeepPolicy] {
        &self.members.retention
    }

    /// Returns an error if the id is taken. An id must name only one member, because `revoke` and `renew` select members by id.
    fn refuse_known(&self, id: &NodeId) -> Result<()> {
        match self.members.list.iter().find(|m| &m.id == id) {
            Some(known) => Err(CertsError::MemberExists(format!("{} {id}", known.kind.as_str()))),
            None => Ok(()),
        }
    }

    fn new_machine(&mut self, id: &NodeId) -> Result<PathBuf> {
        self.refuse_known(id)?;
        let folder = self.machine(id);
        self.set_leftover_aside(&folder)?;
        let secret = self.secret_file(id, 0);
        if let Err(source) = std::fs::remove_file(&secret)
            && source.kind() != std::io::ErrorKind::NotFound
        {
            return Err(CertsError::Io { path: secret, source });
        }
        make_new_machine_dir(&folder)?;
        Ok(folder)
    }

    /// Moves aside the folder that an interrupted command left over, so that the command can be repeated. No listed member uses
    /// the keys in the folder. The folder of a listed member is never moved, because callers check the id with `refuse_known`
    /// first.
    fn set_leftover_aside(&mut self, folder: &Path) -> Result<()> {
        if !folder.exists() {
            return Ok(());
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside =
            (1..u32::MAX).map(|n| folder.with_file_name(format!("{name}.interrupted-{n}"))).find(|path| !path.exists());
        let aside = aside.ok_or_else(|| CertsError::Exists(folder.to_owned()))?;
        std::fs::rename(folder, &aside).map_err(|source| CertsError::Io { path: folder.to_owned(), source })?;
        self.set_aside.push(aside);
        Ok(())
    }

    fn make_node(&mut self, folder: &Path, id: &NodeId, place: &NodePlace, paths: NodePaths) -> Result<Member> {
        let secret = random_secret()?;
        write_new_private(&self.secret_file(id, 0), secret.to_hex().as_bytes())?;
        write_new_private(&folder.join("secret.0"), secret.to_hex().as_bytes())?;
        self.issue(folder, "node", Kind::Node, id, &place.address)?;
        let listen = place.listen.clone().unwrap_or_else(|| everywhere(&place.address));
        write_public(&folder.join("node.toml"), folder::node_toml(self.cluster(), id, &listen, paths).as_bytes())?;
        let mut node = Member::new(MemberKind::Node, id, Some(&place.address));
        node.signing_key = Some(make_signing_key(&folder.join("checkpoint.key"))?);
        Ok(node)
    }

    fn issue(&mut self, folder: &Path, stem: &str, kind: Kind, id: &NodeId, address: &str) -> Result<()> {
        let identity = Identity::new(self.cluster(), kind, id);
        let host = address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        let Issued { certificate_pem, key_pem, serial } = self.ca.issue(&identity, host)?;
        // Store the serial before the certificate exists: a certificate with an unrecorded serial could never be revoked.
        self.members.issued(&identity, serial);
        self.members.store(&self.dir.join("members.json"))?;
        // Write the certificate first: a reload between the two writes sees a pair that does not match, and keeps the old pair.
        write_public(&folder.join(format!("{stem}.crt")), certificate_pem.as_bytes())?;
        write_private(&folder.join(format!("{stem}.key")), key_pem.as_bytes())?;
        write_public(&folder.join("ca.crt"), self.ca.certificate_pem().as_bytes())
    }

    fn add_members(&mut self, members: impl IntoIterator<Item = Member>) -> Result<()> {
        self.members.list.extend(members);
        self.save()
    }

    /// Stores the member list, then writes the files derived from it (revocation list, roster, secrets, users) into every folder
    /// that is present. A crash in between leaves some derived files out of date until the next call.
    pub(crate) fn save(&mut self) -> Result<()> {
        self.members.crl_number += 1;
        self.members.store(&self.dir.join("members.json"))?;
        let crl = self.ca.revocation_list(self.members.crl_number, &self.members.revoked)?;
        write_public(&self.dir.join("ca.crl"), crl.as_bytes())?;
        self.absent.clear();
        for member in self.members.list.clone() {
            let folder = match member.kind {
                MemberKind::User => self.dir.join("machines").join(format!("user-{}", member.id)),
                // An embedded node's folder is inside the aggregator's; `update_aggregator` writes it.
                MemberKind::Node if self.is_embedded(&member.id) => continue,
                // Its keys are in the folder of its aggregator.
                MemberKind::Archive => continue,
                MemberKind::Node | MemberKind::Aggregator => self.machine(&member.id),
            };
            if !folder.exists() {
                self.absent.push(folder);
                continue;
            }
            write_public(&folder.join("ca.crl"), crl.as_bytes())?;
            if member.kind == MemberKind::Node {
                write_public(&folder.join("witnesses"), self.witnesses()?.as_bytes())?;
            }
            if member.kind == MemberKind::Aggregator {
                self.update_aggregator(&folder, &crl)?;
            }
        }
        Ok(())
    }

    pub(crate) fn is_embedded(&self, id: &NodeId) -> bool {
        self.members.list.iter().any(|member| member.kind == MemberKind::Aggregator && &member.id == id)
    }

    /// Lists the witnesses whose cosignatures a node accepts, one C2SP verification key per line.
    fn witnesses(&self) -> Result<String> {
        let mut text =
            "# The cluster's witnesses. Retention deletes only rows that these have witnessed for the configured time.\n"
                .to_owned();
        for witness in &self.trust()?.witnesses {
            text.push_str(&format!("{witness}\n"));
        }
        Ok(text)
    }

    fn update_aggregator(&self, folder: &Path, crl: &str) -> Result<()> {
        write_public(&folder.join("node").join("witnesses"), self.witnesses()?.as_bytes())?;
        write_public(&folder.join("node").join("ca.crl"), crl.as_bytes())?;
        write_public(
            &folder.join("roster.toml"),
            folder::roster_toml(&self.members, &self.trust()?.witnesses)?.as_bytes(),
        )?;
        write_public(&folder.join("users.toml"), folder::users_toml(&self.members).as_bytes())?;
        for node in self.members.list.iter().filter(|m| m.kind == MemberKind::Node) {
            for epoch in 0..=node.epoch {
                let name = format!("{}.{epoch}", node.id);
                let secret = self.dir.join("secrets").join(&name);
                let bytes = zeroize::Zeroizing::new(std::fs::read(&secret).map_err(|source| io(&secret, source))?);
                write_private(&folder.join("secrets").join(&name), &bytes)?;
            }
        }
        Ok(())
    }
}

fn check_address(address: &str) -> Result<()> {
    let good = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && host.chars().all(fits_host) && port.parse::<u16>().is_ok());
    if good { Ok(()) } else { Err(CertsError::Address(address.to_owned())) }
}

/// Returns whether a character can occur in a DNS name in its ASCII form, or in an IP address.
fn fits_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".-_:[]".contains(c)
}

fn everywhere(address: &str) -> String {
    let port = address.rsplit_once(':').map_or("7443", |(_, port)| port);
    format!("0.0.0.0:{port}")
}
