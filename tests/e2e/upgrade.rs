//! Tests that a log written by an earlier build in format version 1 (`tests/golden/log-v1`: 305 rows, one erased, one hold,
//! secrets masked, one entry flagged) can be read, verified, appended to, and verified again.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use piperoll_tests::{Cluster, entry};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const OLD_LOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/log-v1");
const ROWS: u64 = 305;

/// Derives a key of the old log from a phrase, because keys are never stored in git.
fn key_of(words: &str) -> String {
    hex::encode(Sha256::digest(words.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_an_earlier_build_goes_on() {
    let cluster = Cluster::made(&["mx1"], |_| None).await;
    let folder = cluster.nodes[0].folder.clone();
    let write = |name: &str, text: &[u8], mode: u32| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("secret.0", key_of("piperoll upgrade test: secret of epoch 0").as_bytes(), 0o600);
    write("checkpoint.key", key_of("piperoll upgrade test: checkpoint key").as_bytes(), 0o600);
    // The old log belongs to the cluster `upgrade`, so use a configuration with this name. The node's certificate belongs to the
    // cluster `test`; only a daemon would check it, and this test starts none.
    let config = std::fs::read_to_string(folder.join("node.toml")).unwrap();
    write("old.toml", config.replace("cluster = \"test\"", "cluster = \"upgrade\"").as_bytes(), 0o644);
    std::fs::create_dir(folder.join("data")).unwrap();
    std::fs::set_permissions(folder.join("data"), std::fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["log.db", "log.json", "log.checkpoint"] {
        write(&format!("data/{name}"), &std::fs::read(Path::new(OLD_LOG).join(name)).unwrap(), 0o600);
    }
    let old = |args: &[&str]| {
        let config = folder.join("old.toml");
        let mut all = vec!["node"];
        all.extend(args);
        all.extend(["--config", config.to_str().unwrap()]);
        cluster.run(&all)
    };
    let verified = old(&["verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    assert!(verified.stderr.contains("305 checked") && verified.stderr.contains("1 erased"), "{}", verified.stderr);
    let flagged = old(&["query", "is:flagged", "--from", "2026-01-01", "--json"]);
    assert!(
        flagged.stdout.contains("\"impersonator\":\"root\"") && flagged.stdout.contains("\"password\":\"***\""),
        "{}",
        flagged.stdout
    );

    // The current program appends to the old log, and old and new rows form one log.
    let lines = cluster.dir.path().join("lines");
    std::fs::write(&lines, (0..300).map(|n| entry(&format!("new-{n}"), "auth.login") + "\n").collect::<String>())
        .unwrap();
    let appended = old(&["append", lines.to_str().unwrap()]);
    assert_eq!(appended.code, 0, "{}", appended.stderr);
    let verified = old(&["verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    let newest = old(&["query", "user:new-299", "--json"]);
    let newest: Value = serde_json::from_str(newest.stdout.lines().next().unwrap()).unwrap();
    assert!(newest["entry"]["seq"].as_u64().unwrap() >= ROWS + 299, "{newest}");
    let released = old(&["hold", "release", "case", "--reason", "upgraded"]);
    assert_eq!(released.code, 0, "{}", released.stderr);
    // A format newer than this program supports is refused, and the file is not changed.
    let database = cluster.database(0);
    rusqlite::Connection::open(&database).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = old(&["verify"]);
    assert!(refused.code == 1 && refused.stderr.contains("upgrade Piperoll"), "{}", refused.stderr);
}
