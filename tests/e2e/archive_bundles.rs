//! Evidence bundles over live and archived rows: a verifier with the trust file alone finds them as complete as the export says.

use piperoll_tests::{Cluster, entry};
use serde_json::Value;

use crate::archive::{directory, on_aggregator, unstarted_cluster, until_archive_is_read, witnessed_after};
use crate::archive_reading::{OLD, aged_cluster, everything, lose_disk, prune};
use crate::archived_log_evidence::users;
use crate::keys::trust;
use crate::witness::{now, witnessed};

/// A bundle and what the commands say about it.
struct Made {
    code: i32,
    checked: i32,
    verdict: Value,
    users: Vec<String>,
    output: String,
}

impl Made {
    fn node(&self, id: &str) -> &Value {
        self.verdict["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == id).unwrap()
    }
}

/// Exports and verifies. What the export claims is what the verifier finds.
fn bundle(cluster: &Cluster, name: &str, arguments: &[&str]) -> Made {
    let path = cluster.dir.path().join(name).to_str().unwrap().to_owned();
    let args = ["export", "--bundle", &path, "--reason", "a test", "--incomplete", "partial"];
    let run = cluster.run(&[&args[..], arguments].concat());
    let made = if run.code == 0 { path } else { path.replace(".tar", "_PARTIAL.tar") };
    let checked = cluster.run(&["verify-bundle", &made, "--trust", &trust(cluster, "trust.toml"), "--json"]);
    let verdict: Value =
        serde_json::from_str(&checked.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", run.stderr, checked.stderr));
    assert_eq!(verdict["findings_count"], 0, "{verdict:#}");
    assert_eq!(verdict["complete"], verdict["manifest"]["complete"], "{}\n{verdict:#}", run.stderr);
    let users = users(cluster, std::path::Path::new(&made).file_name().unwrap().to_str().unwrap());
    Made { code: run.code, checked: checked.code, verdict, users, output: run.stderr }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_has_rows_that_a_node_pruned() {
    let cluster = aged_cluster().await;
    assert_eq!(cluster.on_node(0, &["erase", "--seq", "58", "--reason", "art. 17"]).code, 0);
    witnessed(&cluster, "mx1").await;
    let filters: [&[&str]; 6] =
        [&[], &["user:old7"], &["-user:old7"], &["is:erased"], &["seq:500..650"], &["user:nobody"]];
    let before: Vec<Made> = filters
        .iter()
        .enumerate()
        .map(|(at, filter)| bundle(&cluster, &format!("before{at}.tar"), &[&["--from", "600d"], *filter].concat()))
        .collect();
    prune(&cluster, 0);
    witnessed(&cluster, "mx1").await;
    for (at, (filter, before)) in filters.iter().zip(&before).enumerate() {
        let after = bundle(&cluster, &format!("after{at}.tar"), &[&["--from", "600d"], *filter].concat());
        assert_eq!((after.code, after.checked), (0, 0), "{filter:?} {} {:#}", after.output, after.verdict);
        assert_eq!(after.verdict["proven"], before.verdict["proven"], "{filter:?}");
        assert_eq!(after.users, before.users, "{filter:?}");
        let node = after.node("mx1");
        assert_eq!(node["erased"], before.node("mx1")["erased"], "{filter:?} {node}");
    }
    // Earlier bundles stay valid.
    let file = trust(&cluster, "trust.toml");
    let again = cluster.dir.path().join("before0.tar").to_str().unwrap().to_owned();
    assert_eq!(cluster.run(&["verify-bundle", &again, "--trust", &file]).code, 0);
    // Without the archive, the bundle has what the node has, and says so.
    let folder = directory(&cluster);
    let aside = folder.with_extension("aside");
    std::fs::rename(&folder, &aside).unwrap();
    let without = bundle(&cluster, "without.tar", &["--from", "600d"]);
    assert_eq!(
        (without.verdict["complete"].as_bool(), without.node("mx1")["status"].as_str()),
        (Some(false), Some("pruned"))
    );
    assert!(without.users.len() > OLD && without.output.contains("archive:main"), "{}", without.output);
    std::fs::rename(&aside, &folder).unwrap();
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_has_the_rows_of_a_machine_that_is_gone() {
    let cluster = aged_cluster().await;
    prune(&cluster, 1);
    witnessed(&cluster, "mx2").await;
    let (rows, _) = everything(&cluster, "user=old49&order=desc&filter=node:mx2").await;
    let last = rows[0]["entry"]["timestamp"].as_str().unwrap().to_owned();
    let range = ["--from", "600d", "--to", &last];
    let before = bundle(&cluster, "before.tar", &range);
    assert_eq!((before.code, before.checked), (0, 0), "{:#}", before.verdict);
    let mut cluster = cluster;
    cluster.kill(1);
    for restarted in [false, true] {
        if restarted {
            cluster.kill_aggregator();
            cluster.spawn_aggregator();
            cluster.wait_for_aggregator().await;
            until_archive_is_read(&cluster).await;
            witnessed(&cluster, "mx1").await;
        }
        let after = bundle(&cluster, &format!("after{restarted}.tar"), &range);
        assert_eq!((after.code, after.checked), (0, 0), "{} {:#}", after.output, after.verdict);
        assert_eq!((&after.verdict["proven"], &after.users), (&true.into(), &before.users), "{:#}", after.verdict);
        assert_eq!(after.node("mx2")["status"], "archived");
        assert!(after.output.contains("answered from archive:main, as of "), "{}", after.output);
        let some = bundle(&cluster, &format!("some{restarted}.tar"), &[&range[..], &["user:old7"]].concat());
        assert_eq!((some.code, some.users.len()), (0, 2 * OLD / 50), "{}", some.output);
        // Rows up to now are not archived: those that are can be in the bundle, which is not complete.
        let open = bundle(&cluster, &format!("open{restarted}.tar"), &["--from", "600d"]);
        assert_ne!((open.code, open.checked), (0, 0), "{}", open.output);
        assert_eq!(open.node("mx2")["status"], "unreachable", "{}", open.output);
        assert!(open.users.len() > 2 * OLD - 2, "{}", open.users.len());
    }
    cluster.restart(1).await;
    cluster.wait_until_complete().await;
    cluster.verify_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_has_the_log_of_a_lost_disk() {
    let mut cluster = unstarted_cluster(None, false).await;
    cluster.run_all().await;
    let lines: Vec<String> = (0..300).map(|n| entry(&format!("lost{n}"), "auth.login")).collect();
    cluster.append(0, &lines).await;
    witnessed(&cluster, "mx1").await;
    assert_eq!(on_aggregator(&cluster, &["init"]).code, 0);
    assert_eq!(cluster.run(&["archive", "run", "--now"]).code, 0);
    let mark = now();
    witnessed_after(&cluster, "mx1").await;
    lose_disk(&mut cluster).await;
    witnessed(&cluster, "mx2").await;
    let made = bundle(&cluster, "lost.tar", &["--from", "600d", "action:auth.login"]);
    assert_eq!(made.users.len(), 301, "{} {:#}", made.output, made.verdict);
    let earlier = &made.node("mx1")["earlier"];
    assert_eq!((earlier.as_array().unwrap().len(), &earlier[0]["rows"]), (1, &300.into()), "{earlier}");
    let upto = bundle(&cluster, "upto.tar", &["--from", "600d", "--to", &mark]);
    assert_eq!((upto.code, upto.checked), (0, 0), "{} {:#}", upto.output, upto.verdict);
    cluster.verify_all();
}
