//! `piperoll cluster`: the admin's directory and the folders made from it.

use std::path::Path;

use piperoll_certs::{AggregatorPlace, Authority, NodePlace, Retired, Role};
use piperoll_shared::log::time::Timestamp;

use crate::args::{ClusterCommand, RoleArg};
use crate::exit::Exit;

pub(crate) fn run(command: ClusterCommand) -> anyhow::Result<Exit> {
    match command {
        ClusterCommand::Init { dir, name } => {
            Authority::init(&dir, &name)?;
            println!("cluster {name} made in {}", dir.display());
            println!("It holds the authority's private key: keep it safe, off the nodes, and backed up.");
            println!("Next: piperoll cluster add-node {} mx1 --address mx1.example.org:7443", dir.display());
        }
        ClusterCommand::AddNode { dir, id, address, listen } => {
            let mut authority = Authority::open(&dir)?;
            let folder = authority.add_node(&id, &NodePlace { address, listen })?;
            warn_of_absent(&authority);
            made(&format!("node {id}"), &folder);
            println!("Start it there with: piperoll node serve --config node.toml");
        }
        ClusterCommand::AddAggregator { dir, id, address, listen, node_address } => {
            let place = AggregatorPlace { address, listen, node_address };
            let mut authority = Authority::open(&dir)?;
            let folder = authority.add_aggregator(&id, &place)?;
            warn_of_absent(&authority);
            made(&format!("aggregator {id}"), &folder);
            println!("Start it there with: piperoll aggregator serve --config aggregator.toml");
        }
        ClusterCommand::AddUser { dir, name, role } => {
            let role = match role {
                RoleArg::Viewer => Role::Viewer,
                RoleArg::Auditor => Role::Auditor,
                RoleArg::Admin => Role::Admin,
            };
            let mut authority = Authority::open(&dir)?;
            let folder = authority.add_user(&name, role)?;
            warn_of_absent(&authority);
            made(&format!("user {name}"), &folder);
        }
        ClusterCommand::Renew { dir, id } => {
            let mut authority = Authority::open(&dir)?;
            for folder in authority.renew(&id)? {
                made(&format!("new certificate for {id}"), &folder);
            }
            warn_of_absent(&authority);
            println!("A running daemon picks the new files up by itself, or at once on SIGHUP.");
        }
        ClusterCommand::Revoke { dir, id } => {
            let mut authority = Authority::open(&dir)?;
            let count = authority.revoke(&id)?;
            warn_of_absent(&authority);
            println!("{count} certificates of {id} revoked; ca.crl in every folder is new.");
            println!(
                "Copy ca.crl to every machine: daemons refuse new connections within seconds and close open ones within a minute."
            );
        }
        ClusterCommand::Trust { dir } => print!("{}", Authority::open(&dir)?.trust()?.to_text()),
        ClusterCommand::Retire { dir, id, first_day, last_day, last_seq } => {
            for day in [&first_day, &last_day] {
                anyhow::ensure!(Timestamp::day_range(day).is_some(), "{day:?} is not a day; write YYYY-MM-DD");
            }
            anyhow::ensure!(first_day <= last_day, "the first day {first_day} is behind the last day {last_day}");
            let mut authority = Authority::open(&dir)?;
            authority.retire(&id, Retired { first_day, last_day, last_seq })?;
            warn_of_absent(&authority);
            println!("{id} is retired");
            copy_aggregators();
        }
        ClusterCommand::List { dir } => {
            let authority = Authority::open(&dir)?;
            println!("cluster {}", authority.cluster());
            for member in authority.members() {
                let kind = format!("{:?}", member.kind).to_lowercase();
                println!("{kind:<11} {:<24} {}", member.id, member.address.as_deref().unwrap_or(""));
            }
        }
    }
    Ok(Exit::Complete)
}

fn made(what: &str, folder: &Path) {
    println!("{what}: copy {} to its machine (private files are mode 0600; keep them so)", folder.display());
    copy_aggregators();
}

/// A folder that was moved to its machine cannot be brought up to date from here.
fn warn_of_absent(authority: &Authority) {
    for folder in authority.absent_folders() {
        eprintln!("{} is not here; copy the cluster's new ca.crl to that machine by hand", folder.display());
    }
}

fn copy_aggregators() {
    println!("The aggregators' folders were updated too (roster, secrets, users): copy them again.");
}
