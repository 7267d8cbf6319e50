//! Tests a malicious node in place of the real one: it has all keys of the node and speaks the protocol, but omits witnessed
//! rows. The aggregator must not report any answer that contains its rows as proven.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use piperoll_format::ids::Generation;
use piperoll_format::merkle::{Hash, RangeProof, TreeReader, leaf_hash, range_proof};
use piperoll_format::time::Timestamp;
use piperoll_net::serve::serve_tls;
use piperoll_net::tls::{ClientAuth, TlsStore};
use piperoll_node::config::NodeConfig;
use piperoll_protocol::frame::{EntryParts, write_border, write_end, write_entry, write_head, write_proof};
use piperoll_protocol::node::{StreamEnd, StreamHead, peer_path};
use piperoll_tests::{Cluster, Leaves, entry};
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use crate::witness::witnessed;

/// Function that writes the frames of an answer.
type Lie<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;

/// Log of the real node before it was replaced.
struct Truth {
    rows: Vec<(i64, Vec<u8>, String)>,
    generation: Generation,
}

impl Truth {
    fn of(database: &std::path::Path) -> Self {
        let conn = Connection::open(database).unwrap();
        let mut statement = conn.prepare("SELECT ts, mac, body FROM entries ORDER BY seq").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        let rows: Vec<(i64, Vec<u8>, String)> = rows.map(Result::unwrap).collect();
        let generation: String =
            conn.query_row("SELECT value FROM meta WHERE key = 'generation'", [], |row| row.get(0)).unwrap();
        Self { rows, generation: generation.parse().unwrap() }
    }

    fn head(&self, out: &mut Vec<u8>, head_seq: Option<u64>, generation: Generation) {
        let (cluster, node_id) = ("test".parse().unwrap(), "mx1".parse().unwrap());
        let (oldest_seq, pruned, epochs, fault) = (Some(0), None, Vec::new(), None);
        write_head(
            out,
            &StreamHead { cluster, node_id, generation, head_seq, oldest_seq, pruned, epochs, fault, erased: 0 },
        );
    }

    fn row(&self, seq: usize) -> EntryParts<'_> {
        let (ts, mac, body) = &self.rows[seq];
        let timestamp = Timestamp::from_micros(*ts);
        EntryParts { seq: seq as u64, place: timestamp, timestamp, epoch: 0, mac, body: body.as_bytes() }
    }

    fn proof(&self, out: &mut Vec<u8>, seq: u64, size: u64) {
        let leaves = self.rows.iter().map(|(_, mac, body)| leaf_hash(body.as_bytes(), mac));
        let leaves: Vec<Hash> = leaves.take(usize::try_from(size).unwrap()).collect();
        let runs = [(seq, seq + 1)].map(|(begin, end)| begin..end).to_vec();
        let hashes = range_proof(&mut TreeReader::new(Leaves(leaves), size), &runs, size).unwrap();
        write_proof(out, &RangeProof { runs, hashes });
    }
}

fn end(out: &mut Vec<u8>, rows: u64, more: bool) {
    write_end(out, &StreamEnd { rows, scanned: rows, more, faults: Vec::new() });
}

/// Serves a node that answers every scan with the same frames.
async fn serve(cluster: &Cluster, frames: Vec<u8>) -> CancellationToken {
    let config = NodeConfig::load(&cluster.nodes[0].folder.join("node.toml")).unwrap();
    let tls = TlsStore::load(config.peer.files).unwrap();
    let listener = tokio::net::TcpListener::bind(&cluster.nodes[0].listen).await.unwrap();
    let answer = async |State(frames): State<Arc<Vec<u8>>>| frames.to_vec();
    let router = Router::new().route(peer_path::SCAN, post(answer)).with_state(Arc::new(frames));
    let stop = CancellationToken::new();
    tokio::spawn(serve_tls(listener, tls, ClientAuth::Required, router, stop.clone()));
    stop
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_witnessed_cannot_be_left_out() {
    let mut cluster = Cluster::witnessed(&["mx1"], 200).await;
    let lines: Vec<String> = (0..40).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    let truth = Truth::of(&cluster.database(0));
    let size = witnessed_rows(&cluster);
    let last = truth.rows.len() as u64 - 1;
    let lies: [(&str, &str, Lie<'_>); 4] = [
        (
            "one row, and more to come that nobody asked to hold back",
            "although no limit was reached",
            Box::new(|out| {
                truth.head(out, Some(last), truth.generation);
                write_entry(out, &truth.row(0));
                truth.proof(out, 0, size);
                write_border(out, &truth.row(usize::try_from(size - 1).unwrap()));
                truth.proof(out, size - 1, size);
                end(out, 1, true);
            }),
        ),
        (
            "an empty log",
            "but the node reports only 0",
            Box::new(|out| {
                truth.head(out, None, truth.generation);
                end(out, 0, false);
            }),
        ),
        (
            "more rows than there are numbers",
            "",
            Box::new(|out| {
                truth.head(out, Some(u64::MAX), truth.generation);
                end(out, 0, false);
            }),
        ),
        (
            "another log",
            "the node answers from the log of generation",
            Box::new(|out| {
                truth.head(out, None, Generation::from_bytes([9; 16]));
                end(out, 0, false);
            }),
        ),
    ];
    for (what, words, lie) in &lies {
        let mut frames = Vec::new();
        lie(&mut frames);
        let stop = serve(&cluster, frames).await;
        cluster.nodes[0].proxy.cut();
        let last = final_record(&cluster).await;
        let node = last["final"]["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap();
        assert_eq!((&last["final"]["proven"], &node["proven"]), (&false.into(), &false.into()), "{what}: {node}");
        assert!(node["reason"].as_str().unwrap_or_default().contains(words), "{what}: {node}");
        if !words.is_empty() {
            assert_eq!(node["status"], "invalid", "{what}: {node}");
        }
        stop.cancel();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
}

/// A count contains no rows that a client could check. Therefore the aggregator does not trust the node to return only matching
/// rows, and counts no row twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_count_is_of_what_was_asked_for() {
    let mut cluster = Cluster::witnessed(&["mx1"], 200).await;
    let lines: Vec<String> = (0..40).map(|n| entry(&format!("u{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    let truth = Truth::of(&cluster.database(0));
    let size = witnessed_rows(&cluster);
    let mut frames = Vec::new();
    truth.head(&mut frames, Some(truth.rows.len() as u64 - 1), truth.generation);
    for seq in (1..=40).chain([5]) {
        write_entry(&mut frames, &truth.row(seq));
        truth.proof(&mut frames, seq as u64, size);
    }
    end(&mut frames, 41, false);
    let _stop = serve(&cluster, frames).await;
    cluster.nodes[0].proxy.cut();
    final_record(&cluster).await;
    for (filter, entries) in [("user:nobody", 0), ("user:u4", 1), ("user:u1,u2,u3", 3)] {
        let path = format!("/api/v1/stats?verify=true&from=1d&filter=node:mx1%20{filter}");
        let answer = cluster.get(&path, Some(&cluster.token)).await;
        assert_eq!(answer.json()["stats"]["entries"], entries, "{filter}: {}", answer.text);
        assert_eq!(answer.status_of("mx1"), "invalid", "{}", answer.text);
    }
    let path = "/api/v1/stats?verify=true&from=1d&to=12h&filter=node:mx1";
    let earlier = cluster.get(path, Some(&cluster.token)).await;
    assert_eq!(earlier.json()["stats"]["entries"], 0, "{}", earlier.text);
}

fn witnessed_rows(cluster: &Cluster) -> u64 {
    let state = std::fs::read_to_string(cluster.aggregator_folder().join("state/witness/mx1.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    state["pin"]["size"].as_u64().unwrap()
}

/// Rows sent without their proofs do not fill the aggregator's memory.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_proofs_are_cut_off() {
    let mut cluster = Cluster::witnessed(&["mx1"], 200).await;
    witnessed(&cluster, "mx1").await;
    cluster.stop(0);
    let truth = Truth::of(&cluster.database(0));
    let mut frames = Vec::new();
    truth.head(&mut frames, Some(1), truth.generation);
    for _ in 0..2_000 {
        write_border(&mut frames, &truth.row(0));
        write_entry(&mut frames, &truth.row(0));
    }
    let _stop = serve(&cluster, frames).await;
    cluster.nodes[0].proxy.cut();
    let last = final_record(&cluster).await;
    let node = last["final"]["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == "mx1").unwrap();
    assert!(node["reason"].as_str().unwrap().contains("without their proofs"), "{node}");
    assert!(node["rows"].as_u64().unwrap() < 2_000, "{node}");
}

/// Returns the final record of a stream over all rows. Retries while a node is unreachable, which is possible in the first
/// answers.
async fn final_record(cluster: &Cluster) -> serde_json::Value {
    loop {
        let path = "/api/v1/audit-log?format=ndjson&from=0001-01-01&order=asc";
        let stream = cluster.get(path, Some(&cluster.token)).await;
        if !stream.text.contains("\"status\":\"unreachable\"") {
            return serde_json::from_str(stream.text.lines().last().unwrap()).unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
