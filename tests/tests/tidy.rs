//! The house rules that a machine can keep: who may import whom, and what must not be left lying about.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Source files with their path below the root and their text.
fn files() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    for room in ["shared", "node", "aggregator", "client", "certs", "verifier", "cli", "tests"] {
        sources(&root.join(room), &mut found);
    }
    assert!(found.len() > 50, "the rooms were not found");
    found
        .into_iter()
        .map(|path| (path.strip_prefix(&root).unwrap().display().to_string(), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

/// Room, words it must not name, and why.
const FORBIDDEN: [(&str, &[&str], &str); 12] = [
    (
        "shared/src/log/",
        &[
            "tokio",
            "axum",
            "hyper",
            "rusqlite",
            "reqwest",
            "std::fs",
            "std::net::Tcp",
            "SystemTime",
            "Utc::now",
            "crate::api",
            "crate::net",
        ],
        "the model is pure",
    ),
    ("shared/src/api/", &["crate::net", "tokio", "rusqlite", "axum"], "wire types know no plumbing"),
    (
        "shared/",
        &["piperoll_node", "piperoll_aggregator", "piperoll_client", "piperoll_certs"],
        "shared imports nothing of ours",
    ),
    ("node/", &["piperoll_aggregator", "piperoll_client", "piperoll_certs"], "node imports shared only"),
    ("node/src/store/", &["reqwest", "axum", "crate::forward::", "crate::api"], "the store knows no network"),
    ("node/src/api/", &["reqwest"], "only what hands entries on asks others"),
    ("aggregator/", &["piperoll_node", "piperoll_certs", "rusqlite"], "aggregator imports shared and client only"),
    ("client/", &["piperoll_node", "piperoll_aggregator", "piperoll_certs", "rusqlite"], "client imports shared only"),
    ("certs/", &["piperoll_node", "piperoll_aggregator", "piperoll_client", "tokio"], "certs imports shared only"),
    (
        "verifier/",
        &["piperoll_node", "piperoll_aggregator", "piperoll_client", "piperoll_certs", "tokio", "rusqlite"],
        "the verifier imports the model only",
    ),
    ("node/src/api/", &["rusqlite"], "SQLite stays in the store"),
    ("cli/src/", &["rcgen"], "certificates are made in certs"),
];

/// The only places that may name a crate.
const ONLY_IN: [(&str, &[&str]); 2] =
    [("rusqlite", &["node/src/store/", "cli/src/demo/tamper.rs", "tests/"]), ("rcgen", &["certs/", "tests/"])];

#[test]
fn nobody_imports_whom_they_must_not() {
    let mut wrong = Vec::new();
    for (path, text) in files().iter().filter(|(path, _)| path != "tests/tests/tidy.rs") {
        let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for (room, words, why) in FORBIDDEN {
            for word in words.iter().filter(|_| path.starts_with(room)) {
                if code.iter().any(|line| line.contains(word)) {
                    wrong.push(format!("{path} names {word}: {why}"));
                }
            }
        }
        for (word, places) in ONLY_IN {
            if code.iter().any(|line| line.contains(&format!("{word}::")))
                && !places.iter().any(|place| path.starts_with(place))
            {
                wrong.push(format!("{path} names {word}, which belongs in {}", places.join(" or ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_manifests_agree() {
    for (room, allowed) in [
        ("shared", &[][..]),
        ("node", &["piperoll-shared"][..]),
        ("aggregator", &["piperoll-client", "piperoll-shared"]),
        ("client", &["piperoll-shared"]),
        ("certs", &["piperoll-shared"]),
        ("verifier", &["piperoll-shared"]),
    ] {
        let manifest = std::fs::read_to_string(root().join(room).join("Cargo.toml")).unwrap();
        let ours = manifest
            .lines()
            .filter(|line| line.starts_with("piperoll-"))
            .map(|line| line.split(['.', ' ']).next().unwrap());
        for name in ours {
            assert!(allowed.contains(&name), "{room} must not depend on {name}");
        }
        assert!(manifest.contains("[lints]\nworkspace = true"), "{room} keeps the workspace's lints");
    }
}

/// What an auditor runs is small: nothing in it can open a socket or a database.
#[test]
fn the_verifier_brings_nothing_along() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-p", "piperoll-verify", "-e", "normal", "--prefix", "none"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains(&"ed25519-dalek"), "{tree}");
    for foreign in ["tokio", "hyper", "axum", "reqwest", "rustls", "aws-lc-rs", "ring", "rusqlite", "libsqlite3-sys"] {
        assert!(!crates.contains(&foreign), "piperoll-verify brings {foreign} along");
    }
}

/// A purpose decides where code lives; beyond so many lines a file rarely has one.
const FILE_LINES_MAX: usize = 600;

#[test]
fn nothing_is_left_lying_about() {
    let mut wrong = Vec::new();
    // Written apart, so that this file does not find itself.
    let marks = [["FIX", "ME"], ["XX", "X"], ["HA", "CK"], ["#[ign", "ore"]].map(|halves| halves.concat());
    for (path, text) in files() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{path} has {lines} lines; a file is one room with one purpose"));
        }
        for (number, line) in text.lines().enumerate().filter(|_| path != "tests/tests/tidy.rs") {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                wrong.push(format!("{path}:{}: a left-over marker", number + 1));
            }
        }
        if !text.starts_with("//!") && !path.ends_with("main.rs") && !path.contains("benches") {
            wrong.push(format!("{path} does not begin by saying what it is for"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every room of the code map exists, and every room has its caption.
#[test]
fn the_code_map_is_the_code() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for room in ["shared", "node", "aggregator", "client", "certs", "verifier", "cli", "tests"] {
        assert!(map.contains(&format!("`{room}/`")), "ARCHITECTURE.md has no caption for {room}/");
    }
    for word in map.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/') && !word.contains([' ', '<', '*', '{', ':', '→']) && !word.starts_with('/');
        if is_path && (word.ends_with('/') || word.ends_with(".rs") || word.ends_with(".md")) {
            assert!(root().join(word).exists(), "ARCHITECTURE.md names {word}, which does not exist");
        }
    }
}
