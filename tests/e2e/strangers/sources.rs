//! Tests files and connections that other programs write to.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use piperoll_tests::{Cluster, free_address};
use serde_json::json;

use super::{configure, entries, on_socket, until};

async fn following(extra: &str) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let logs = cluster.dir.path().canonicalize().unwrap().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let log = logs.join("app.log");
    std::fs::write(&log, "").unwrap();
    let mapping = cluster.nodes[0].folder.join("app.toml");
    std::fs::write(
        &mapping,
        "description = \"test\"\n[field.category]\nconstant = \"data\"\n[field.action]\nconstant = \"app.said\"\n",
    )
    .unwrap();
    configure(
        &cluster,
        &format!("[[intake]]\nname = \"app\"\nfile = \"{}\"\nmap = \"app.toml\"\n{extra}", log.display()),
    );
    cluster.run_all().await;
    (cluster, log)
}

fn say(log: &PathBuf, number: u32) {
    let mut file = std::fs::OpenOptions::new().append(true).open(log).unwrap();
    writeln!(file, "{}", json!({ "number": number })).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_place_of_a_followed_file_is_not_read() {
    let (mut cluster, log) = following("").await;
    say(&log, 1);
    until("the first line", async || (!entries(&cluster, "action:app.said").is_empty()).then_some(())).await;
    // The application, which owns its log file, replaces it with a link to the node's secret.
    let secret = cluster.nodes[0].folder.join("secret.0");
    std::fs::rename(&log, log.with_extension("log.1")).unwrap();
    symlink(&secret, &log).unwrap();
    let health = until("health names it", async || {
        let (_, health) = on_socket(&cluster, 0, "/healthz", None);
        health.contains("source app").then_some(health)
    })
    .await;
    assert!(
        health.starts_with("ok\n") && health.contains("is a symbolic link") && health.contains("links_in"),
        "{health}"
    );
    let (_, status) = on_socket(&cluster, 0, "/v1/status", None);
    assert!(status.contains("is a symbolic link"), "{status}");
    // After a restart the offset is kept, and the link is still not read.
    cluster.stop(0);
    cluster.restart(0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    std::fs::remove_file(&log).unwrap();
    std::fs::write(&log, "").unwrap();
    say(&log, 2);
    until("the line behind it", async || (entries(&cluster, "action:app.said").len() == 2).then_some(())).await;
    let text = std::fs::read_to_string(&secret).unwrap();
    let bytes = std::fs::read(cluster.database(0)).unwrap();
    let words = text.trim().as_bytes();
    assert!(!bytes.windows(words.len()).any(|window| window == words), "the key is in the log");
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_records_cannot_be_worked_out_and_old_ones_are_duplicates() {
    use sha2::{Digest as _, Sha256};

    let (mut cluster, log) = following("").await;
    // Another client has taken the id that an earlier version would have given to the second line.
    let (first, second) = (format!("{}\n", json!({ "number": 1 })), format!("{}\n", json!({ "number": 2 })));
    let digest = |text: &str| hex::encode(Sha256::digest(text));
    let place = format!("{}:{}:{}", digest(&first), first.len(), digest(&second));
    let id = Sha256::new().chain_update("app").chain_update([0]).chain_update(&place).finalize();
    let id = uuid::Builder::from_custom_bytes(id[..16].try_into().unwrap()).into_uuid().to_string();
    let junk = json!({ "id": id, "category": "data", "action": "cache.warmed" }).to_string();
    assert_eq!(on_socket(&cluster, 0, "/v1/entries", Some(&junk)).0, 201);
    say(&log, 1);
    say(&log, 2);
    let found = until("both lines", async || {
        let found = entries(&cluster, "action:app.said");
        (found.len() == 2).then_some(found)
    })
    .await;
    assert!(found.iter().all(|entry| entry["id"] != json!(id)), "{found:?}");
    // When the file is read again from the beginning, its lines are duplicates.
    cluster.stop(0);
    std::fs::remove_file(cluster.nodes[0].folder.join("data/intake/app.json")).unwrap();
    cluster.restart(0).await;
    say(&log, 3);
    until("the third line", async || (entries(&cluster, "action:app.said").len() >= 3).then_some(())).await;
    assert_eq!(entries(&cluster, "action:app.said").len(), 3);
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_unclean_end_a_record_that_kills_is_passed() {
    let (mut cluster, log) = following("").await;
    cluster.kill(0);
    say(&log, 1);
    say(&log, 2);
    // Write the state that is left if the node was killed twice while it processed the first line.
    let line = format!("{}\n", json!({ "number": 1 }));
    use sha2::{Digest as _, Sha256};
    let digest = hex::encode(Sha256::digest(&line));
    let place = hex::encode(Sha256::digest(format!("{digest}:0:{digest}")));
    let attempt = json!({ "batch": null, "alone": { place: 2 } }).to_string();
    std::fs::create_dir_all(cluster.nodes[0].folder.join("data/intake")).unwrap();
    std::fs::write(cluster.nodes[0].folder.join("data/intake/app.attempt"), attempt).unwrap();
    cluster.restart(0).await;
    let passed = until("it is named", async || entries(&cluster, "action:intake.unmapped").into_iter().next()).await;
    assert_eq!(passed["details"]["bytes"], json!({ "number": 1 }).to_string().len());
    assert!(passed["details"]["sha256"].is_string() && passed["details"].get("record").is_none(), "{passed}");
    until("the next one is read", async || (entries(&cluster, "action:app.said").len() == 1).then_some(())).await;
    until("nothing is begun", async || {
        (!cluster.nodes[0].folder.join("data/intake/app.attempt").exists()).then_some(())
    })
    .await;
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn syslog_connections_that_are_held_keep_nobody_out_and_what_is_lost_is_said() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let address = free_address();
    configure(&cluster, &format!("[[intake]]\nname = \"legacy\"\nsyslog = \"{address}\"\n"));
    cluster.run_all().await;
    let mut held: Vec<TcpStream> = (0..256).map(|_| TcpStream::connect(&address).unwrap()).collect();
    // As far as the node can tell, these connections are in use.
    held.iter_mut().for_each(|stream| stream.write_all(b"\n").unwrap());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut honest = TcpStream::connect(&address).unwrap();
    honest.write_all(b"<34>1 2026-10-11T22:14:15.003Z host app 812 ID47 - honest words\n").unwrap();
    until("an honest sender is recorded", async || (!entries(&cluster, "action:syslog.app").is_empty()).then_some(()))
        .await;
    assert!(entries(&cluster, "action:log.gap").is_empty());
    // If a message is too long, the node records its length and hash instead; the next message is recorded in full.
    let long = format!("<34>1 2026-10-11T22:14:15.003Z host long 1 - - {}", "x".repeat(70_000));
    honest.write_all(format!("{} {long}", long.len()).as_bytes()).unwrap();
    let next = "<34>1 2026-10-11T22:14:15.003Z host next 1 - - words";
    honest.write_all(format!("{} {next}2026-10-11 begins with a digit\n", next.len()).as_bytes()).unwrap();
    until("the message behind it is recorded", async || {
        entries(&cluster, "").iter().any(|entry| entry.to_string().contains("begins with a digit")).then_some(())
    })
    .await;
    assert_eq!(entries(&cluster, "action:syslog.next").len(), 1);
    assert!(entries(&cluster, "action:log.gap").is_empty());
    let found = entries(&cluster, "action:syslog.long");
    assert!(found.len() == 1 && found[0]["details"]["message_sha256"].is_string(), "{found:?}");
    drop(held);
    cluster.verify_all();
}
