//! Programs of others on an archive: the check by hand in docs/archive.md, and DuckDB, which reads the same rows as Piperoll.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use piperoll_tests::{Cluster, Run, entry};
use serde_json::Value;

use crate::archive::{cluster_with_archive, directory, files, in_directory, on_aggregator, trust_file};
use crate::witness::witnessed;

/// Environment variable with the path of a Python that has the modules `pyarrow`, `cryptography` and `duckdb`.
const PYTHON_VARIABLE: &str = "PIPEROLL_ARCHIVE_PYTHON";

pub(crate) fn python(program: &Path, args: &[&str]) -> Option<Run> {
    let Some(python) = std::env::var_os(PYTHON_VARIABLE) else {
        eprintln!("SKIPPED: {PYTHON_VARIABLE} does not name a Python with pyarrow, cryptography and duckdb");
        return None;
    };
    let mut command = Command::new(python);
    Some(command.arg(program).args(args).stdin(Stdio::null()).output().unwrap().into())
}

/// The first code block of a language in docs/archive.md that contains some words.
pub(crate) fn code_block(language: &str, words: &str) -> String {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("docs/archive.md")).unwrap();
    let begin = format!("```{language}\n");
    let mut blocks = text.split(begin.as_str()).skip(1).filter_map(|part| part.split("\n```").next());
    blocks.find(|block| block.contains(words)).expect("the code block").to_owned()
}

async fn archived_cluster() -> Cluster {
    let cluster = cluster_with_archive(in_directory, None).await;
    assert_eq!(cluster.on_node(0, &["erase", "--seq", "9", "--reason", "art. 17"]).code, 0);
    assert_eq!(on_aggregator(&cluster, &["init"]).code, 0);
    for round in 0..3 {
        let lines: Vec<String> = (0..300).map(|n| entry(&format!("r{round}n{}", n % 7), "auth.login")).collect();
        cluster.append(round % 2, &lines).await;
        witnessed(&cluster, "mx1").await;
        witnessed(&cluster, "mx2").await;
        assert_eq!(cluster.run(&["archive", "run", "--now"]).code, 0);
    }
    // Erased after it was archived: one step adds the entry, and another one replaces the file.
    assert_eq!(cluster.on_node(1, &["erase", "--seq", "3", "--reason", "art. 17"]).code, 0);
    witnessed(&cluster, "mx2").await;
    assert_eq!(cluster.run(&["archive", "run", "--now"]).code, 0);
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_verified_by_hand() {
    let cluster = archived_cluster().await;
    let program = cluster.dir.path().join("verify_archive.py");
    std::fs::write(&program, code_block("python", "verify_archive.py")).unwrap();
    let (folder, trust) = (directory(&cluster).display().to_string(), trust_file(&cluster).display().to_string());
    let Some(good) = python(&program, &[&folder, &trust]) else { return };
    assert!(
        good.code == 0 && good.stdout.contains("rows of 5 steps lead to checkpoints"),
        "{}{}",
        good.stdout,
        good.stderr
    );
    // Every kind of object is covered: a file, the hashes of a step, a step, and the record of the archive.
    let steps = directory(&cluster).join("steps");
    let tree = files(&steps, "tree").remove(0);
    let parquet = files(&directory(&cluster), "parquet").remove(0);
    for path in [parquet, tree, steps.join("00000002"), directory(&cluster).join("archive")] {
        let kept = std::fs::read(&path).unwrap();
        let mut changed = kept.clone();
        let at = kept.len() / 2;
        changed[at] ^= 1;
        std::fs::write(&path, changed).unwrap();
        let bad = python(&program, &[&folder, &trust]).unwrap();
        assert_ne!(bad.code, 0, "{}: {}", path.display(), bad.stdout);
        std::fs::write(&path, kept).unwrap();
    }
    assert_eq!(python(&program, &[&folder, &trust]).unwrap().code, 0);
    cluster.verify_all();
}

/// DuckDB counts what Piperoll counts, and its SHA-256 of body and mac is the leaf of the tree.
#[tokio::test(flavor = "multi_thread")]
async fn duckdb_reads_the_same_rows() {
    let cluster = archived_cluster().await;
    let program = cluster.dir.path().join("ask.py");
    let leaf = code_block("sql", "sha256(");
    let leaf = leaf.lines().find(|line| line.contains("sha256(")).unwrap();
    let of_row = leaf.split("seq, ").nth(1).and_then(|rest| rest.split(" FROM").next()).unwrap();
    let ask = format!(
        r#"
import duckdb, json, sys
rows = f"read_parquet('{{sys.argv[1]}}/data/*/*.parquet')"
users = duckdb.sql(f"SELECT user, count(*) FROM {{rows}} WHERE action = 'auth.login' AND node_id IN ('mx1', 'mx2') GROUP BY user").fetchall()
leaves = duckdb.sql(rf"SELECT node_id, seq, {of_row} FROM {{rows}} WHERE seq < 5 ORDER BY 1, 2").fetchall()
total = duckdb.sql(f"SELECT count(*), count(DISTINCT (node_id, generation, seq)) FROM {{rows}}").fetchall()
print(json.dumps(dict(users=dict(users), leaves=leaves, total=total)))
"#
    );
    std::fs::write(&program, ask).unwrap();
    let Some(run) = python(&program, &[&directory(&cluster).display().to_string()]) else { return };
    assert_eq!(run.code, 0, "{}", run.stderr);
    let found: Value = serde_json::from_str(&run.stdout).unwrap();
    let stats = cluster
        .get("/api/v1/stats?from=7d&by=user&top=1000&node=mx1,mx2&action=auth.login&verify=true", Some(&cluster.token))
        .await
        .json();
    let own: BTreeMap<String, u64> = stats["stats"]["by"][0]["top"]
        .as_array()
        .unwrap_or_else(|| panic!("{stats}"))
        .iter()
        .map(|value| (value["value"].as_str().unwrap().to_owned(), value["count"].as_u64().unwrap()))
        .collect();
    let theirs: BTreeMap<String, u64> = serde_json::from_value(found["users"].clone()).unwrap();
    assert_eq!(theirs, own);
    assert_eq!(found["total"][0][0], found["total"][0][1], "a row occurs twice: {found}");
    for leaf in found["leaves"].as_array().unwrap() {
        let (node, seq) = (leaf[0].as_str().unwrap(), leaf[1].as_u64().unwrap());
        if (node, seq) == ("mx2", 3) {
            assert_eq!(leaf[2].as_str().map(str::len), Some(64), "an erased row keeps its leaf: {leaf}");
            continue;
        }
        let body = cluster.get(&format!("/api/v1/audit-log/{node}/{seq}/body"), Some(&cluster.token)).await;
        let row = cluster.get(&format!("/api/v1/audit-log/{node}/{seq}"), Some(&cluster.token)).await.json();
        let mac = hex::decode(row["entries"][0]["signature"].as_str().unwrap()).unwrap();
        let expected = piperoll_format::merkle::leaf_hash(body.text.as_bytes(), &mac);
        assert_eq!(leaf[2], hex::encode(expected), "{node}/{seq}");
    }
    cluster.verify_all();
}
