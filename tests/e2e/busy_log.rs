//! Verifies a log while it is written. The test takes two minutes. Tests start in alphabetical order, and the name of this module
//! comes early in the alphabet, so that the test run does not have to wait for this test at the end.

use std::time::{Duration, Instant};

use piperoll_tests::entry;

use crate::witness::{cluster_of, witnessed};

/// Verifies for two minutes, on the node and through the aggregator, while rows are appended and erased: there is no false alarm.
#[tokio::test(flavor = "multi_thread")]
async fn verifying_a_log_in_use_gives_no_false_alarm() {
    let cluster = cluster_of(50).await;
    let until = Instant::now() + Duration::from_secs(120);
    let writing = async {
        let mut number = 0;
        while Instant::now() < until {
            let lines: Vec<String> = (0..37).map(|n| entry(&format!("u{n}"), &format!("step.{number}"))).collect();
            cluster.append(0, &lines).await;
            number += 1;
            if number % 50 == 0 {
                let seq = number.to_string();
                let erase = ["erase", "--seq", &seq, "--reason", "a test"];
                let run = tokio::task::block_in_place(|| cluster.on_node(0, &erase));
                assert_eq!(run.code, 0, "{}", run.stderr);
            }
            // Append as often as a busy node would, but not more often, so that a verification can finish.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let checking = async {
        while Instant::now() < until {
            let run = tokio::task::block_in_place(|| cluster.on_node(0, &["verify"]));
            assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
            let run = tokio::task::block_in_place(|| cluster.run(&["verify"]));
            assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(writing, checking);
    assert_eq!(witnessed(&cluster, "mx1").await["verdict"], "ok");
    let entries = cluster.page("filter=node:agg%20action:audit.witness_verdict%20outcome:failure").await.json();
    assert_eq!(entries["count"], 0, "{entries}");
}
