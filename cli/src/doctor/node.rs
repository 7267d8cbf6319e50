//! Checks a node: its files, disk, certificate, and the daemon's status.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use piperoll_client::NodeClient;
use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_net::identity::Identity;
use piperoll_net::tls::{TlsCredentials, TlsFiles};
use piperoll_node::config::NodeConfig;
use piperoll_protocol::node::NodeStatus;

use super::finding::{Finding, Findings};
use crate::show::{counted, group_digits};

/// Remaining validity of a certificate, in days, below which it should be renewed.
const CERTIFICATE_DAYS_LOW: i64 = 21;
const DISK_LOW_BYTES: u64 = 2 * 1024 * 1024 * 1024;
const DISK_LOW_PERCENT: u64 = 10;
/// Number of unwitnessed rows above which it is likely that no aggregator reads this node.
const UNWITNESSED_ROWS_HIGH: u64 = 100_000;
/// Prefix of a setting that names a systemd credential instead of a file.
const CREDENTIAL: &str = "credential:";
const DAY_MICROS: i64 = 86_400_000_000;
const DAEMON_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn check(path: &Path) -> Vec<Finding> {
    let mut findings = Findings::new("node");
    let config = match NodeConfig::load(path) {
        Ok(config) => config,
        Err(error) if error.to_string().contains(CREDENTIAL) && std::env::var_os("CREDENTIALS_DIRECTORY").is_none() => {
            let message =
                "its keys come from systemd, which passes them only to the daemon; try `piperoll node status --socket`";
            findings.unknown("configuration", message);
            return findings.all;
        }
        Err(error) => {
            findings.bad("configuration", error.to_string(), "fix this; the daemon does not start otherwise");
            return findings.all;
        }
    };
    findings.about = format!("node {}", config.node_id);
    findings.ok("configuration", format!("{}; only the owner can read its secrets", path.display()));
    certificate(&mut findings, &config.peer.files, &config.identity());
    directory(&mut findings, &config);
    daemon(&mut findings, &config).await;
    findings.all
}

/// Checks chain, key, dates and name of a machine's certificate.
pub(super) fn certificate(findings: &mut Findings, files: &TlsFiles, expected: &Identity) {
    let material = match TlsCredentials::load(files) {
        Ok(material) => material,
        Err(error) => {
            return findings.bad(
                "certificate",
                error.to_string(),
                "copy the machine's folder again, or run `piperoll cluster renew`",
            );
        }
    };
    let days = (material.not_after.micros() - SystemClock.now().micros()) / DAY_MICROS;
    if material.identity != *expected {
        let message = format!("issued to {}, but this is {expected}", material.identity);
        findings.bad("certificate", message, "copy the folder that was created for this machine");
    } else if material.not_after <= SystemClock.now() {
        findings.bad(
            "certificate",
            format!("expired {} days ago by this machine's clock", -days),
            "set the clock if it is wrong; otherwise run `piperoll cluster renew` and copy the folder again",
        );
    } else if days < CERTIFICATE_DAYS_LOW {
        findings.warn(
            "certificate",
            format!("expires in {days} days"),
            "run `piperoll cluster renew` and copy the folder again",
        );
    } else {
        findings.ok("certificate", format!("valid for {days} days"));
    }
}

fn directory(findings: &mut Findings, config: &NodeConfig) {
    let directory = &config.data_dir;
    let Ok(meta) = std::fs::metadata(directory) else {
        return findings
            .unknown("log", format!("{} does not exist yet; the first start creates it", directory.display()));
    };
    let mode = meta.permissions().mode() & 0o777;
    match mode & 0o077 {
        0 => findings.ok("log", format!("only its owner can access {} (uid {})", directory.display(), meta.uid())),
        _ => findings.bad(
            "log",
            format!("other users can access {} (mode {mode:o})", directory.display()),
            &format!("chmod 700 {}", directory.display()),
        ),
    }
    let Ok(disk) = nix::sys::statvfs::statvfs(directory) else { return };
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    let all = disk.blocks().saturating_mul(disk.fragment_size()).max(1);
    let message = format!("{} MB of {} MB free", group_digits(free / 1_000_000), group_digits(all / 1_000_000));
    let advice =
        "free up space, or set [retention] size_max_gib; a node with a full disk refuses entries until there is space";
    match free {
        0 => findings.bad("disk", message, advice),
        _ if free < DISK_LOW_BYTES || free / (all / 100).max(1) < DISK_LOW_PERCENT => {
            findings.warn("disk", message, advice)
        }
        _ => findings.ok("disk", message),
    }
}

async fn daemon(findings: &mut Findings, config: &NodeConfig) {
    let socket = config.socket.path.display().to_string();
    let asked = async { NodeClient::new(&config.socket.path)?.status().await };
    let status = match tokio::time::timeout(DAEMON_TIMEOUT, asked).await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            let advice = "start it (systemctl start piperoll-node), or check its log (journalctl -u piperoll-node)";
            return findings.bad("daemon", error.to_string(), advice);
        }
        Err(_) => {
            return findings.bad(
                "daemon",
                format!("{socket} does not answer"),
                "check the disk; a node blocks only on disk I/O",
            );
        }
    };
    findings.ok("daemon", format!("answers on {socket}, version {}", status.version));
    match std::net::TcpStream::connect(reachable(&config.peer.listen)) {
        Ok(_) => findings.ok("peer port", format!("listening on {}", config.peer.listen)),
        Err(error) => findings.bad(
            "peer port",
            format!("{}: {error}", config.peer.listen),
            "aggregators connect to this address; check for a firewall, or another program that uses the port",
        ),
    }
    said(findings, &status);
}

/// Replaces an address that means all interfaces with the loopback address.
fn reachable(listen: &str) -> String {
    listen.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
}

fn said(findings: &mut Findings, status: &NodeStatus) {
    match (&status.read_fault, &status.write_fault) {
        (Some(fault), _) => findings.bad(
            "entries",
            fault.clone(),
            "keep the file as evidence; see docs/operations.md, \"Troubleshooting\"",
        ),
        (None, Some(fault)) => findings.bad("entries", fault.clone(), "see docs/operations.md, \"Troubleshooting\""),
        (None, None) => findings.ok("entries", "accepted"),
    }
    let behind = status.signed_size.saturating_sub(status.witnessed_size);
    let rows = status.head_seq.map_or(0, |head| head + 1);
    let advice = "no aggregator reads this node; `piperoll nodes` on an aggregator shows why. Rows that are not witnessed can be removed unnoticed";
    match (status.witnessed_size, behind) {
        (0, _) if rows > 0 => findings.warn("witness", "no witness has seen any row", advice),
        (_, behind) if behind > UNWITNESSED_ROWS_HIGH => {
            findings.warn("witness", format!("{} not witnessed yet", counted(behind, "row is", "rows are")), advice);
        }
        (size, _) => findings
            .ok("witness", format!("{} of {} witnessed", group_digits(size), counted(rows, "row is", "rows are"))),
    }
    if let Some(problem) = status.retention.as_ref().and_then(|retention| retention.problem.as_ref()) {
        findings.warn("retention", problem.clone(), "see docs/operations.md, \"Retention, holds, erasure\"");
    }
    for forward in &status.forward {
        let name = &forward.name;
        match (&forward.paused, &forward.problem) {
            (Some(paused), _) => findings.warn(
                "forwarding",
                format!("{name} has been paused since {paused}"),
                "run `piperoll node forward resume`",
            ),
            (None, Some(problem)) => {
                findings.bad(
                    "forwarding",
                    format!("{name}: {problem}"),
                    "fix the receiver or the network path to it; no rows are lost in the meantime",
                );
            }
            (None, None) => {
                findings.ok("forwarding", format!("{name}: {} not yet sent", counted(forward.lag_rows, "row", "rows")))
            }
        }
    }
    let skew = (SystemClock.now().micros() - status.now.micros()).abs();
    if skew > 5_000_000 {
        let now: Timestamp = status.now;
        findings.bad(
            "clock",
            format!("the daemon's clock shows {now}"),
            "restart the daemon; its clock differs from this machine's",
        );
    }
}
