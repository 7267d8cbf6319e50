//! `piperoll cluster`: manages the cluster directory and the machines' folders.

use std::path::Path;

use anyhow::Context as _;
use piperoll_aggregator::access::scope::{Scope, Written};
use piperoll_archive::store::{Address, AddressError};
use piperoll_certs::{AggregatorPlace, Authority, Layout, LifeChange, MemberKind, NodePlace};
use piperoll_evidence::bundle::{KeepPolicy, Membership};
use piperoll_format::ids::NodeId;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::access::Role;
use piperoll_query::human_time;

use crate::args::ClusterCommand;
use crate::exit::{Exit, UsageError};
use crate::show::counted;

pub(crate) fn run(command: ClusterCommand) -> anyhow::Result<Exit> {
    match command {
        ClusterCommand::Init { dir, name } => {
            Authority::init(&dir, &name)?;
            outln!("cluster {name} created in {}", dir.display());
            outln!("The directory holds the CA's private key: keep it safe, off the nodes, and backed up.");
            outln!("Next: piperoll cluster add-node {} mx1 --address mx1.example.org:7443", dir.display());
        }
        ClusterCommand::AddNode { dir, id, address, listen, packaged } => {
            let mut authority = Authority::open(&dir)?;
            let folder = authority.add_node(&id, &NodePlace { address, listen, layout: layout(packaged) })?;
            warn_of_absent(&authority);
            made(&format!("node {id}"), &folder);
            outln!("{}", start_words(packaged, "node", "node.toml"));
        }
        ClusterCommand::AddAggregator { dir, id, address, listen, node_address, packaged } => {
            let place = AggregatorPlace { address, listen, node_address, layout: layout(packaged) };
            let mut authority = Authority::open(&dir)?;
            let folder = authority.add_aggregator(&id, &place)?;
            warn_of_absent(&authority);
            made(&format!("aggregator {id}"), &folder);
            outln!("{}", start_words(packaged, "aggregator", "aggregator.toml"));
        }
        ClusterCommand::AddArchive { dir, id, aggregator, url } => add_archive(&dir, &id, &aggregator, &url)?,
        ClusterCommand::AddUser { dir, name, role, scope } => {
            let role = Role::from(role);
            let limit = Scope::of(role, scope.as_deref(), Written::Now, SystemClock.now())?;
            let mut authority = Authority::open(&dir)?;
            let folder = authority.add_user(&name, role, limit.for_file().as_deref())?;
            warn_of_absent(&authority);
            made(&format!("user {name}"), &folder);
        }
        ClusterCommand::Renew { dir, id } => {
            let mut authority = Authority::open(&dir)?;
            for folder in authority.renew(&id)? {
                made(&format!("new certificate for {id}"), &folder);
            }
            warn_of_absent(&authority);
            outln!("A running daemon picks up the new files by itself, or immediately on SIGHUP.");
        }
        ClusterCommand::Revoke { dir, id } => {
            let mut authority = Authority::open(&dir)?;
            let count = authority.revoke(&id)?;
            warn_of_absent(&authority);
            outln!("{count} {} of {id} revoked; ca.crl was updated in every folder.", certificates(count));
            outln!(
                "Copy ca.crl to every machine: daemons then refuse new connections with a revoked certificate within seconds, and close open ones within a minute."
            );
        }
        command @ (ClusterCommand::RotateMac { .. }
        | ClusterCommand::RotateKey { .. }
        | ClusterCommand::NewGeneration { .. }) => change_keys(command)?,
        ClusterCommand::Trust { dir } => {
            let trust = Authority::open(&dir)?.trust()?.to_text();
            crate::out::write(&mut std::io::stdout(), format_args!("{trust}"));
        }
        ClusterCommand::Retire { dir, id, at, first_day, last_day, last_seq, reason } => {
            let day = |text: &Option<String>| {
                let range = |text: &String| {
                    human_time::day_range(text)
                        .ok_or_else(|| UsageError(format!("{text:?} is not a valid date; write YYYY-MM-DD")))
                };
                text.as_ref().map(range).transpose()
            };
            let until = match (at, day(&last_day)?) {
                (Some(at), _) => human_time::parse(&at, SystemClock.now())?,
                (None, Some((_, end))) => end,
                (None, None) => SystemClock.now(),
            };
            let from = day(&first_day)?.map(|(begin, _)| begin);
            let reason = reason.or_else(|| from.map(|_| "first day of membership, given at retirement".to_owned()));
            change_life(&dir, &id, &LifeChange { from, until: Some(until), last_seq, reason })?;
        }
        ClusterCommand::Membership { dir, id, from, until, reason } => {
            let time = |text: Option<String>| {
                text.map(|text| match text.as_str() {
                    "never" => Ok(Timestamp::MAX),
                    text => human_time::parse(text, SystemClock.now()),
                })
                .transpose()
            };
            let (from, until) = (time(from)?, time(until)?);
            change_life(&dir, &id, &LifeChange { from, until, last_seq: None, reason: Some(reason) })?;
        }
        ClusterCommand::Retention { dir, keep_days, from } => {
            let mut authority = Authority::open(&dir)?;
            if let Some(keep_days) = keep_days {
                let now = SystemClock.now();
                let from = from.map_or(Ok(now), |text| human_time::parse(&text, now))?;
                authority.set_retention(KeepPolicy { from, keep_days })?;
                warn_of_absent(&authority);
                copy_aggregators();
            }
            for policy in authority.retention() {
                outln!("from {} on: {} days", policy.from, policy.keep_days);
            }
        }
        ClusterCommand::List { dir } => list(&Authority::open(&dir)?)?,
    }
    Ok(Exit::Complete)
}

fn add_archive(dir: &Path, id: &NodeId, aggregator: &NodeId, url: &str) -> anyhow::Result<()> {
    let address: Address = url.parse().map_err(|error: AddressError| UsageError(error.to_string()))?;
    let mut authority = Authority::open(dir)?;
    let folder = authority.add_archive(id, aggregator, &address.to_string())?;
    warn_of_absent(&authority);
    outln!("archive {id}: its keys and an [archive] table were added to {}", folder.display());
    outln!(
        "Copy the folder to the aggregator's machine, run `piperoll archive init` there, and restart the aggregator."
    );
    if let Some(archive) = authority.trust()?.archives.iter().find(|archive| &archive.id == id) {
        outln!("To let a node prune only rows that are in this archive, add to [retention] of its node.toml:");
        outln!("archive_key = \"{}\"", archive.mirror);
    }
    outln!("Give auditors the new trust file: piperoll cluster trust {}", dir.display());
    Ok(())
}

fn change_life(dir: &Path, id: &NodeId, change: &LifeChange) -> anyhow::Result<()> {
    let mut authority = Authority::open(dir)?;
    authority.set_life(id, change)?;
    warn_of_absent(&authority);
    let member = authority.members().iter().find(|member| &member.id == id && member.kind == MemberKind::Node);
    if let Some(member) = member {
        outln!("{id} {}", life_words(member.life()?));
    }
    copy_aggregators();
    outln!("Give auditors the new trust file: piperoll cluster trust {}", dir.display());
    Ok(())
}

fn life_words(life: Membership) -> String {
    let from = if life.from == Timestamp::MIN { String::new() } else { format!("member from {}", life.from) };
    let until = if life.until == Timestamp::MAX { String::new() } else { format!("member until {}", life.until) };
    match (from.is_empty(), until.is_empty()) {
        (true, true) => "always a member".to_owned(),
        (false, true) => from,
        (true, false) => until,
        (false, false) => format!("{from} until {}", life.until),
    }
}

fn list(authority: &Authority) -> anyhow::Result<()> {
    outln!("cluster {}", authority.cluster());
    for member in authority.members() {
        let kind = format!("{:?}", member.kind).to_lowercase();
        let mut message = vec![life_words(member.life()?)];
        message.extend(member.role.map(|role| format!("role {}", role.word())));
        let revoked = authority.revoked(&member.id);
        message.extend((revoked > 0).then(|| format!("{revoked} {} revoked", certificates(revoked))));
        outln!("{kind:<11} {:<24} {:<28} {}", member.id, member.address.as_deref().unwrap_or("-"), message.join(", "));
    }
    Ok(())
}

fn certificates(count: usize) -> &'static str {
    if count == 1 { "certificate" } else { "certificates" }
}

/// Runs the commands that change a node's keys, and prints which files to copy where.
fn change_keys(command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::RotateMac { dir, id } => {
            let mut authority = Authority::open(&dir)?;
            let changed = authority.rotate_mac(&id)?;
            warn_of_absent(&authority);
            outln!("new secret for epoch {} of {id}: {}/{}", changed.number, changed.folder.display(), changed.file);
            outln!(
                "1. Copy the aggregators' folders to their machines (they contain the new secret too) and restart the aggregators."
            );
            outln!(
                "2. Copy {} and node.toml to {id}, keep the older secrets there, and restart the node.",
                changed.file
            );
            outln!("   It records log.key_rotated and seals with the new secret from then on.");
        }
        ClusterCommand::RotateKey { dir, id, finish: None } => {
            let mut authority = Authority::open(&dir)?;
            let changed = authority.rotate_key(&id)?;
            warn_of_absent(&authority);
            outln!("next checkpoint key of {id}: {}/{}", changed.folder.display(), changed.file);
            outln!("1. Copy the aggregators' folders to their machines and restart the aggregators.");
            outln!("2. Copy {} and node.toml to {id} and restart the node: it signs with both keys.", changed.file);
            outln!(
                "3. When `piperoll nodes` shows ok, run on the node: piperoll node checkpoint --witnessed > both.note"
            );
            outln!("4. piperoll cluster rotate-key {} {id} --finish both.note", dir.display());
        }
        ClusterCommand::RotateKey { dir, id, finish: Some(note) } => {
            let mut authority = Authority::open(&dir)?;
            let changed = authority.finish_key(&id, &read_note(&note)?)?;
            warn_of_absent(&authority);
            outln!(
                "from a log size of {} on, only the new key of {id} is valid",
                counted(changed.number, "row", "rows")
            );
            outln!("1. Copy node.toml to {id} and restart the node; delete its old checkpoint key.");
            outln!("2. Copy the aggregators' folders to their machines and restart the aggregators.");
            outln!("3. Give auditors the new trust file: piperoll cluster trust {}", dir.display());
        }
        ClusterCommand::NewGeneration { dir, id, frozen } => {
            let mut authority = Authority::open(&dir)?;
            let changed = authority.new_generation(&id, &read_note(&frozen)?)?;
            warn_of_absent(&authority);
            outln!(
                "{id} has new keys; its old log is no longer valid beyond {}",
                counted(changed.number, "row", "rows")
            );
            outln!(
                "1. On {id}: stop the node, copy its new folder there, run piperoll node new-generation --reason \"…\", and start the node."
            );
            outln!("2. Copy the aggregators' folders to their machines and restart the aggregators.");
            outln!("3. piperoll nodes accept {id} --new-generation …, with the generation that the node printed.");
            outln!("4. Give auditors the new trust file: piperoll cluster trust {}", dir.display());
        }
        _ => {}
    }
    Ok(())
}

fn read_note(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn made(what: &str, folder: &Path) {
    outln!("{what}: copy {} to its machine (private files have mode 0600; preserve it)", folder.display());
    copy_aggregators();
}

/// Warns about folders that were set aside, and about folders that are missing here, because they were moved to their machines.
fn warn_of_absent(authority: &Authority) {
    for folder in authority.set_aside() {
        errln!("moved aside a folder that an interrupted command had left: {}", folder.display());
    }
    for folder in authority.absent_folders() {
        errln!(
            "{} not found, so the copy of ca.crl there was not updated; copy the cluster's new ca.crl to that machine by hand",
            folder.display()
        );
    }
}

fn copy_aggregators() {
    outln!("The aggregators' folders were updated too (roster, secrets, users): copy them to their machines again.");
}

fn layout(packaged: bool) -> Layout {
    if packaged { Layout::Packaged } else { Layout::Folder }
}

fn start_words(packaged: bool, what: &str, config: &str) -> String {
    match packaged {
        true => format!(
            "On that machine, install the folder as /etc/piperoll, owned by piperoll. Start the daemon with: systemctl enable --now piperoll-{what}"
        ),
        false => format!("On that machine, start the daemon with: piperoll {what} serve --config {config}"),
    }
}
