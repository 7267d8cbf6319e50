//! Tests that a pause takes effect and stays in effect while rows are being delivered.

use std::time::Duration;

use piperoll_tests::{Cluster, caller_entry};

use super::{configure, status, wait_until_all_arrived};

const TURNS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_or_its_end_is_not_undone_by_rows_that_arrive() {
    let mut cluster = Cluster::made(&["mx1"], |_| None).await;
    let file = cluster.dir.path().join("out");
    configure(&cluster, 0, &format!("[[forward]]\nname = \"lines\"\nto = \"file://{}\"\n", file.display()));
    cluster.restart(0).await;
    let lines: Vec<String> = (0..400).map(caller_entry).collect();
    let busy = async {
        for turn in lines.chunks(4) {
            cluster.append(0, turn).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let pausing = async {
        for turn in 0..TURNS {
            for (how, is_paused) in [("pause", true), ("resume", false)] {
                let mut args = vec!["forward", how, "lines"];
                args.extend(is_paused.then_some(["--reason", "a test"]).into_iter().flatten());
                let run = tokio::task::block_in_place(|| cluster.on_node(0, &args));
                assert_eq!(run.code, 0, "{how} {turn}: {}", run.stderr);
                for _ in 0..3 {
                    let status = tokio::task::block_in_place(|| status(&cluster, 0, "lines"));
                    assert_eq!(!status["paused"].is_null(), is_paused, "{how} {turn}: {status}");
                    tokio::time::sleep(Duration::from_millis(15)).await;
                }
            }
        }
    };
    tokio::join!(busy, pausing);
    wait_until_all_arrived(&cluster, 0, "lines");
    cluster.stop(0);
    cluster.verify_all();
}
