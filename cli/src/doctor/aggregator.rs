//! Checks an aggregator: its files, its certificate, whether it answers, and the identity of each node of its roster.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use piperoll_aggregator::config::{AggregatorConfig, ArchiveConfig};
use piperoll_archive::history::History;
use piperoll_archive::store::Store;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_net::identity::{Identity, Kind};
use piperoll_net::tls::TlsCredentials;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::finding::{Finding, Findings};
use super::node::certificate;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit for reading the archive's steps.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(60);
const REFUSAL_WAIT: Duration = Duration::from_millis(300);

pub(super) async fn check(path: &Path) -> Vec<Finding> {
    let mut findings = Findings::new("aggregator");
    let config = match AggregatorConfig::load(path) {
        Ok(config) => config,
        Err(error) => {
            findings.bad("configuration", error.to_string(), "fix this; the daemon does not start otherwise");
            return findings.all;
        }
    };
    findings.about = format!("aggregator {}", config.id);
    findings.ok("configuration", format!("{}; only the owner can read its secrets", path.display()));
    certificate(&mut findings, &config.files, &Identity::new(&config.cluster, Kind::Aggregator, &config.id));
    match crate::serve::health(path).await {
        Ok(_) => findings.ok("daemon", format!("answers on {}, and records every request", config.listen)),
        Err(error) => findings.bad(
            "daemon",
            format!("{error:#}"),
            "start it (systemctl start piperoll-aggregator), or check its log (journalctl -u piperoll-aggregator)",
        ),
    }
    if let Some(archive) = &config.archive {
        check_archive(&mut findings, archive).await;
    }
    let Ok(material) = TlsCredentials::load(&config.files) else { return findings.all };
    for node in config.roster.iter().filter(|node| !node.life.has_ended_by(SystemClock.now())) {
        let expected = Identity::new(&config.cluster, Kind::Node, &node.id);
        let tried = tokio::time::timeout(CONNECT_TIMEOUT, probe(&material, &expected, &node.address)).await;
        let message = format!("{} at {}", node.id, node.address);
        match tried {
            Ok(Ok(())) => findings.ok("reaches", message),
            Ok(Err(problem)) => findings.bad(
                "reaches",
                format!("{message}: {problem}"),
                "run `piperoll doctor` on that machine; if the node left for good, run `piperoll cluster retire`",
            ),
            Err(_) => findings.bad(
                "reaches",
                format!("{message}: no answer within {} s", CONNECT_TIMEOUT.as_secs()),
                "check for a firewall in between, or a machine that is down",
            ),
        }
    }
    findings.all
}

/// Reads the archive's chain of steps, as the writer does at every round.
async fn check_archive(findings: &mut Findings, archive: &ArchiveConfig) {
    let read = async {
        let store = Store::open(&archive.address, archive.credentials.as_ref()).map_err(|error| error.to_string())?;
        let key = archive.keys.steps.public();
        let history = History::load(&store, key, &archive.cluster, &archive.id, |_, _| ()).await;
        history.map_err(|error| error.to_string())
    };
    match tokio::time::timeout(ARCHIVE_TIMEOUT, read).await {
        Ok(Ok(history)) => {
            findings.ok("archive", format!("{} at {} has {} steps", archive.id, archive.address, history.head.number));
        }
        Ok(Err(problem)) => findings.bad(
            "archive",
            problem,
            "if it does not exist yet, run `piperoll archive init`; else check the address, the credentials and `piperoll archive verify`",
        ),
        Err(_) => findings.unknown(
            "archive",
            format!("{} was not read within {} s", archive.address, ARCHIVE_TIMEOUT.as_secs()),
        ),
    }
}

/// Connects to a node as the aggregator does, and checks by the node's certificate that it is the expected node.
async fn probe(material: &TlsCredentials, expected: &Identity, address: &str) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
    let config = material.client_config(expected).map_err(|e| e.to_string())?;
    // Members of a cluster do not check the server name; the verifier checks the URI in the certificate.
    let name = rustls::pki_types::ServerName::try_from("node").map_err(|e| e.to_string())?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|e| e.to_string())?;
    // On this side, the handshake ends before the node has checked our certificate; a refusal arrives immediately afterwards.
    match tokio::time::timeout(REFUSAL_WAIT, stream.read(&mut [0; 1])).await {
        Ok(Ok(0)) => Err("the node closed the connection".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}
