//! Tests expired, revoked, foreign and renewed certificates.

use std::time::Duration;

use piperoll_certs::{Authority, Layout, NodePlace};
use piperoll_tests::{Cluster, Fault, entry};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SanType};

/// Time within which a revocation takes effect on open connections. In this test the files are checked every few seconds.
const REVOCATION_LIMIT: Duration = Duration::from_secs(60);

/// Creates a certificate for `mx1` that expired yesterday, signed by the cluster's real authority.
fn expired(cluster: &Cluster) -> (String, String) {
    let dir = cluster.authority_dir();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://test/node/mx1".try_into().unwrap()));
    params.distinguished_name.push(DnType::CommonName, "expired");
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(30);
    params.not_after = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_must_not_count_do_not() {
    let mut cluster = Cluster::start(&["mx1", "mx2"]).await;
    cluster.append(0, &[entry("alice", "auth.login")]).await;
    cluster.wait_until_complete().await;
    let folder = cluster.nodes[0].folder.clone();
    let good = (std::fs::read(folder.join("node.crt")).unwrap(), std::fs::read(folder.join("node.key")).unwrap());

    // If the new certificate file is broken, the node keeps using the old certificate and logs this.
    std::fs::write(folder.join("node.crt"), "not a certificate").unwrap();
    wait_for(|| cluster.log_text("mx1").contains("keeping the old one")).await;
    assert_eq!(cluster.page("").await.status_of("mx1"), "ok");

    // A node may start with an expired certificate, but the aggregator does not trust the certificate.
    let (certificate, key) = expired(&cluster);
    std::fs::write(folder.join("node.crt"), certificate).unwrap();
    std::fs::write(folder.join("node.key"), key).unwrap();
    cluster.kill(0);
    cluster.restart(0).await;
    let answer = cluster.page("").await;
    assert_eq!(answer.status_of("mx1"), "unreachable");
    assert!(answer.node("mx1")["reason"].as_str().unwrap().contains("expired"), "{}", answer.node("mx1"));
    assert_eq!(answer.status_of("mx2"), "ok");

    std::fs::write(folder.join("node.crt"), good.0).unwrap();
    std::fs::write(folder.join("node.key"), good.1).unwrap();
    cluster.wait_until_complete().await;

    // Use a certificate with the same name from another authority.
    let mut foreign = Authority::init(&cluster.dir.path().join("foreign"), &"test".parse().unwrap()).unwrap();
    let place = NodePlace {
        address: cluster.nodes[0].listen.clone(),
        listen: Some(piperoll_tests::free_address()),
        layout: Layout::Folder,
    };
    let other = foreign.add_node(&"mx1".parse().unwrap(), &place).unwrap();
    let process = std::process::Command::new(piperoll_tests::piperoll())
        .args(["node", "serve", "--config"])
        .arg(other.join("node.toml"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let process = piperoll_tests::Guard(process);
    cluster.nodes[0].proxy.set(Fault::Other(place.listen.unwrap()));
    cluster.nodes[0].proxy.cut();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let reason = cluster.page("").await.node("mx1")["reason"].as_str().unwrap_or_default().to_owned();
        if reason.contains("not signed by this cluster's authority") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{reason}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(process);
    cluster.nodes[0].proxy.heal();
    cluster.wait_until_complete().await;
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn renewal_without_a_gap_and_revocation_within_a_minute() {
    let cluster = Cluster::start(&["mx1", "mx2"]).await;
    cluster.wait_until_complete().await;
    let mx1 = "mx1".parse().unwrap();
    let before = std::fs::read(cluster.nodes[0].folder.join("node.crt")).unwrap();
    cluster.authority().renew(&mx1).unwrap();
    assert_ne!(before, std::fs::read(cluster.nodes[0].folder.join("node.crt")).unwrap());
    wait_for(|| cluster.log_text("mx1").contains("certificate material reloaded")).await;
    for _ in 0..20 {
        assert_eq!(cluster.page("").await.json()["complete"], true, "a renewal must not be noticed");
    }

    // The aggregator holds open connections to the node when the revocation arrives.
    assert!(cluster.authority().revoke(&mx1).unwrap() >= 2, "old and new certificate");
    let revoked = std::time::Instant::now();
    loop {
        let answer = cluster.page("").await;
        if answer.status_of("mx1") == "unreachable" {
            assert!(answer.node("mx1")["reason"].as_str().unwrap().contains("revoked"), "{}", answer.node("mx1"));
            assert_eq!(answer.status_of("mx2"), "ok");
            break;
        }
        assert!(revoked.elapsed() < REVOCATION_LIMIT, "the revoked node still answers");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    // A revoked aggregator can no longer read any node.
    cluster.authority().renew(&mx1).unwrap();
    cluster.authority().revoke(&"agg".parse().unwrap()).unwrap();
    let revoked = std::time::Instant::now();
    loop {
        let answer = cluster.page("").await;
        if answer.json()["answered"] == 0 {
            let reason = answer.node("mx2")["reason"].as_str().unwrap().to_owned();
            assert!(
                reason.contains("refused our certificate") || reason.contains("broke") || reason.contains("revoked"),
                "{reason}"
            );
            break;
        }
        assert!(revoked.elapsed() < REVOCATION_LIMIT, "the revoked aggregator still reads: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    cluster.verify_all();
}

/// A node refuses a client with another node's certificate, and a client without a certificate.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_may_not_read_nodes() {
    let cluster = Cluster::start(&["mx1", "mx2"]).await;
    let status = |folder: Option<std::path::PathBuf>| {
        let mut builder =
            reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).http2_prior_knowledge();
        if let Some(folder) = folder {
            let mut pem = std::fs::read(folder.join("node.crt")).unwrap();
            pem.extend(std::fs::read(folder.join("node.key")).unwrap());
            builder = builder.identity(reqwest::Identity::from_pem(&pem).unwrap());
        }
        let url = format!("https://{}/v1/peer/status", cluster.nodes[0].listen);
        let client = builder.build().unwrap();
        async move { client.get(url).send().await.map(|response| response.status().as_u16()) }
    };
    assert!(status(None).await.is_err(), "no certificate");
    // A node's certificate is for serving only, so it is not accepted as a client certificate.
    assert!(status(Some(cluster.nodes[1].folder.clone())).await.is_err(), "another node's certificate");
}

async fn wait_for(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "it did not happen");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Changes to a cluster directory persist even if a member's folder was moved to its machine or a member could not be created.
#[test]
fn a_cluster_directory_survives_missing_folders() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = dir.path().join("c");
    let run = |args: &[&str]| {
        let output = std::process::Command::new(piperoll_tests::piperoll()).arg("cluster").args(args).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let at = cluster.to_str().unwrap();
    assert_eq!(run(&["init", at, "--name", "test"]).0, 0);
    for name in ["alice", "bob"] {
        assert_eq!(run(&["add-user", at, name, "--role", "viewer"]).0, 0);
    }
    std::fs::rename(cluster.join("machines/user-alice"), dir.path().join("usb")).unwrap();
    let revoked = || std::fs::read_to_string(cluster.join("members.json")).unwrap();
    for name in ["bob", "alice"] {
        let (code, stderr) = run(&["revoke", at, name]);
        assert!(code == 0 && stderr.contains("user-alice not found"), "{stderr}");
    }
    let list: serde_json::Value = serde_json::from_str(&revoked()).unwrap();
    assert_eq!(list["revoked"].as_array().unwrap().len(), 2, "{list}");
    assert_eq!(run(&["renew", at, "alice"]).0, 1);
    let (code, stderr) = run(&["add-node", at, "mx2", "--address", "müller.example:7443"]);
    assert!(code == 1 && stderr.contains("not an address"), "{stderr}");
    assert_eq!(run(&["add-node", at, "mx2", "--address", "mx2.example:7443"]).0, 0, "nothing was left behind");
    let retire = ["retire", at, "mx2", "--first-day", "2026-04-15", "--last-day", "2025-01-01", "--last-seq", "7"];
    assert_eq!(run(&retire).0, 1);
}
