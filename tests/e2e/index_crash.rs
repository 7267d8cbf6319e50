//! Tests a node that is killed while it builds an index block: queries afterwards still find all entries.

use std::time::{Duration, Instant};

use piperoll_tests::{Cluster, until};
use serde_json::Value;

/// One full block of 65,536 rows, and some more rows.
const ROWS: usize = 66_000;
const BLOCK: &str = "000000000000.block";

fn line(n: usize) -> String {
    format!(
        "{{\"category\":\"data\",\"action\":\"mail.read\",\"user\":\"u{}\",\"ip_address\":\"10.{}.0.7\",\"description\":\"ticket {n:06} of a night\"}}",
        n % 500,
        n % 200
    )
}

async fn answers_are_right(cluster: &Cluster, when: &str) {
    for (filter, expected) in [
        ("user:u123", ROWS / 500),
        ("user:u123%20ip:10.23.0.0/16", ROWS / 1_000),
        ("%22ticket%20004711%22", 1),
        ("user:nobody", 0),
    ] {
        let page = cluster.page(&format!("limit=1000&from=1h&filter={filter}")).await;
        assert_eq!((page.status, page.places().len()), (200, expected), "{when}: {filter}: {}", page.text);
        assert_eq!(page.status_of("mx1"), "ok", "{when}");
        let stats = cluster.get(&format!("/api/v1/stats?from=1h&filter={filter}"), Some(&cluster.token)).await.json();
        assert_eq!(stats["stats"]["entries"], expected, "{when}: {filter}");
    }
}

async fn status(cluster: &Cluster) -> Value {
    serde_json::from_str(&cluster.on_node(0, &["status", "--json"]).stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_a_block_is_made_costs_nothing_but_time() {
    let mut cluster = Cluster::start(&["mx1"]).await;
    let lines: Vec<String> = (0..ROWS).map(line).collect();
    cluster.append(0, &lines).await;
    cluster.wait_until_complete().await;
    let index = cluster.database(0).with_file_name("index");
    answers_are_right(&cluster, "while it may still be made").await;
    for (round, pause) in [0, 40, 150, 400, 900].into_iter().enumerate() {
        let socket = cluster.nodes[0].folder.join("node.sock");
        let client = piperoll_client::NodeClient::new(&socket).unwrap();
        let _: Value = client.admin_post("/v1/reindex", &serde_json::json!({})).await.unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        cluster.kill(0);
        match round {
            // State that a crash can leave: part of a block in a temporary file.
            1 => std::fs::write(index.join("000000000000.new"), b"PRindex1 and no more").unwrap(),
            // State that a crash cannot leave: part of a block under its final name.
            2 => std::fs::write(index.join(BLOCK), b"PRindex1 and no more").unwrap(),
            _ => {}
        }
        cluster.restart(0).await;
        cluster.wait_until_complete().await;
        answers_are_right(&cluster, &format!("after a kill at {pause} ms")).await;
    }
    let started = Instant::now();
    while status(&cluster).await["index"]["blocks"] != 1 {
        assert!(started.elapsed() < Duration::from_secs(60), "the block was not made: {}", status(&cluster).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    answers_are_right(&cluster, "with the block").await;
    assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
    let made = std::fs::read(index.join(BLOCK)).unwrap();

    // After bits of the block were flipped on disk, the node reads the rows instead, and rebuilds the block.
    cluster.stop(0);
    let mut rotten = made.clone();
    (8_192..rotten.len()).step_by(1_021).for_each(|at| rotten[at] ^= 4);
    std::fs::write(index.join(BLOCK), &rotten).unwrap();
    cluster.restart(0).await;
    cluster.wait_until_complete().await;
    answers_are_right(&cluster, "with flipped bits").await;
    until("the block is made again", async || {
        (std::fs::read(index.join(BLOCK)).ok().as_ref() == Some(&made)).then_some(())
    })
    .await;
    answers_are_right(&cluster, "with the block again").await;

    // If bits are flipped while the daemon is down, `verify` reports the damage, and `reindex` rebuilds the block with the same
    // bytes.
    cluster.stop(0);
    let mut edited = made.clone();
    *edited.last_mut().unwrap() ^= 1;
    std::fs::write(index.join(BLOCK), &edited).unwrap();
    let verify = cluster.on_node(0, &["verify", "--table"]);
    assert!(verify.code == 4 && verify.stdout.contains("does not match rows 0 to 65535"), "{}", verify.stdout);
    let repaired = cluster.on_node(0, &["reindex"]);
    assert!(
        repaired.code == 0 && repaired.stdout.contains("1 full block stored"),
        "{}{}",
        repaired.stdout,
        repaired.stderr
    );
    assert_eq!(std::fs::read(index.join(BLOCK)).unwrap(), made);
    assert_eq!(cluster.on_node(0, &["verify"]).code, 0);
    std::fs::remove_dir_all(&index).unwrap();
    let without = cluster.on_node(0, &["verify", "--table"]);
    assert!(without.code == 0 && without.stderr.contains("65,536 rows in no index block"), "{}", without.stderr);
    let found = cluster.on_node(0, &["query", "--json", "user:u123", "--limit", "1000"]);
    assert_eq!(found.stdout.lines().count(), ROWS / 500 + 1, "and the final line");
}
