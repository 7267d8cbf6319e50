//! Project rules that a test can check: which crate may import which, and leftovers that must not be committed.

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

/// Returns the source files, each with its path relative to the root and its text.
fn files() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    for room in ["shared", "node", "archive", "aggregator", "client", "certs", "verifier", "cli", "tests"] {
        sources(&root.join(room), &mut found);
    }
    assert!(found.len() > 50, "the rooms were not found");
    found
        .into_iter()
        .map(|path| (path.strip_prefix(&root).unwrap().display().to_string(), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

/// Folders, names that must not occur in them, and the reason. Rules that Cargo enforces are not repeated here: `the_manifests_agree`
/// checks which crate may depend on which.
const FORBIDDEN: [(&str, &[&str], &str); 6] = [
    (
        "shared/format/src/",
        &["std::fs", "std::net::Tcp", "SystemTime", "Utc::now", "Instant"],
        "the format is pure: no clock, file or socket",
    ),
    ("shared/query/src/", &["std::fs", "std::net::Tcp", "SystemTime", "Utc::now"], "a filter is a pure function"),
    ("node/src/store/", &["reqwest", "axum", "crate::sinks", "crate::http"], "the store knows no network"),
    ("node/src/http/", &["reqwest"], "only forwarding sends requests"),
    ("node/src/http/", &["rusqlite"], "SQLite stays in the store"),
    ("cli/src/", &["rcgen"], "certificates are made in certs"),
];

/// Crates that only some folders and files may name, each with these folders and files.
const ONLY_IN: [(&str, &[&str]); 2] =
    [("rusqlite", &["node/src/store/", "cli/src/demo/tamper.rs", "tests/"]), ("rcgen", &["certs/", "tests/"])];

#[test]
fn nobody_imports_whom_they_must_not() {
    let mut wrong = Vec::new();
    for (path, text) in files().iter().filter(|(path, _)| path != "tests/tidy.rs") {
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

/// Crates of the workspace, lowest layer first, each with the workspace crates that it may depend on.
const FLOORS: [(&str, &[&str]); 16] = [
    ("shared/format", &[]),
    ("shared/redact", &["format"]),
    ("shared/query", &["format"]),
    ("shared/detect", &["format"]),
    ("shared/siem", &["format"]),
    ("shared/evidence", &["format", "query"]),
    ("shared/protocol", &["format", "query"]),
    ("shared/net", &["format"]),
    ("client", &["format", "redact", "protocol"]),
    ("certs", &["format", "query", "evidence", "protocol", "net"]),
    ("verifier", &["evidence"]),
    ("node", &["format", "redact", "query", "detect", "siem", "evidence", "protocol", "net"]),
    ("archive", &["format", "query", "evidence", "net"]),
    ("aggregator", &["format", "query", "evidence", "protocol", "net", "client", "archive"]),
    (
        "cli",
        &[
            "format",
            "redact",
            "query",
            "evidence",
            "protocol",
            "net",
            "client",
            "certs",
            "verify",
            "node",
            "archive",
            "aggregator",
        ],
    ),
    ("tests", &["*"]),
];

#[test]
fn the_manifests_agree() {
    let workspace: toml::Table = toml::from_str(&std::fs::read_to_string(root().join("Cargo.toml")).unwrap()).unwrap();
    let ours = workspace["workspace"]["dependencies"].as_table().unwrap().keys();
    let ours: Vec<&str> = ours.filter_map(|name| name.strip_prefix("piperoll-")).collect();
    assert_eq!(ours.len(), FLOORS.len() - 2, "every crate but `cli` and `tests` is in the list: {ours:?}");
    for (room, allowed) in FLOORS {
        let manifest = std::fs::read_to_string(root().join(room).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&manifest).unwrap();
        for name in manifest["dependencies"].as_table().unwrap().keys() {
            let Some(name) = name.strip_prefix("piperoll-") else { continue };
            assert!(allowed.contains(&name) || allowed == ["*"], "{room} must not depend on {name}");
        }
        assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true), "{room} keeps the workspace's lints");
    }
}

/// The verifier for auditors is small: none of its dependencies can open a socket or a database.
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

/// Maximum number of crates compiled for an application that only records entries.
const CLIENT_CRATES_MAX: usize = 90;

#[test]
fn the_client_is_small() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-p", "piperoll-client", "--no-default-features", "-e", "normal"])
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: std::collections::BTreeSet<&str> = tree.lines().filter(|line| !line.is_empty()).collect();
    assert!(crates.iter().any(|name| name.starts_with("hyper ")), "{tree}");
    assert!(crates.len() < CLIENT_CRATES_MAX, "{} crates: {crates:?}", crates.len());
    for foreign in ["rustls ", "axum ", "askama ", "tar ", "utoipa ", "prometheus-client "] {
        assert!(!crates.iter().any(|name| name.starts_with(foreign)), "piperoll-client brings {foreign}along");
    }
}

/// Maximum number of lines of a file; a longer file rarely has a single purpose.
const FILE_LINES_MAX: usize = 600;

#[test]
fn nothing_is_left_lying_about() {
    let mut wrong = Vec::new();
    // Written in halves, so that this file does not match itself.
    let marks = [["FIX", "ME"], ["XX", "X"], ["HA", "CK"], ["#[ign", "ore"]].map(|halves| halves.concat());
    for (path, text) in files() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{path} has {lines} lines; a file is one room with one purpose"));
        }
        for (number, line) in text.lines().enumerate().filter(|_| path != "tests/tidy.rs") {
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

/// Phrases that this project no longer uses, as regular expressions over comments and documents, and what to write instead. This
/// file is excluded, because it contains them.
const PRIVATE_DIALECT: [(&str, &str); 14] = [
    (r"(?i)\bwhoever\b", "the actor: a client, a caller, an operator"),
    (r"\bin front of\b", "before"),
    (r"\banew\b", "again, or a new …"),
    (r"\b(he|his|him)\b", "it, or the name of the process"),
    (r"\bdear(er|est)\b", "expensive"),
    (r"\bhand(s|ed|ing)? on\b", "forward"),
    (r"\b(goes|gone|going) on\b", "continues"),
    (r"\bheld against\b", "compared with"),
    (r"\b(takes|takes it|brings|brings it) along\b", "includes, or exports"),
    (r"\bways? in\b", "route, or source"),
    (r"^\s*//[/!] (What|Who) [a-z]", "a noun phrase or a verb that says what the item is"),
    (r"^\s*/// It ", "a noun phrase or a verb that says what the item is"),
    (r"\b(nobody|somebody)\b", "no client, another process, …"),
    (r"\bstands (in|at|for it|behind|before|beside)\b", "is"),
];

/// Checks the comments of the code and of the pages, the documents, and the sentences in strings of the programs.
#[test]
fn comments_and_documents_use_the_words_of_the_field() {
    let patterns = PRIVATE_DIALECT.map(|(pattern, instead)| (regex::Regex::new(pattern).unwrap(), instead));
    let mut texts: Vec<(String, String)> = files();
    texts.retain(|(path, _)| path != "tests/tidy.rs");
    for folder in [
        "docs",
        "aggregator/ui/js/lib",
        "aggregator/ui/js/components",
        "aggregator/ui/js/pages",
        "aggregator/ui/css",
        "examples",
        ".",
    ] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let is_prose = path.extension().is_some_and(|e| ["md", "js", "css", "rs"].iter().any(|known| e == *known));
            // The history of changes quotes old names.
            if is_prose && !path.ends_with("CHANGELOG.md") {
                texts.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    // A literal without a space is a value, such as the user name "nobody".
    let sentence = regex::Regex::new(r#""(?:[^"\\]|\\.)* (?:[^"\\]|\\.)*""#).unwrap();
    let (mut wrong, mut read, mut sentences) = (Vec::new(), 0, 0);
    for (path, text) in &texts {
        let is_program = path.ends_with(".rs") && !path.starts_with("tests/") && !path.contains("/tests");
        let mut in_tests = false;
        for (number, line) in text.lines().enumerate() {
            in_tests |= line.starts_with("#[cfg(test)]");
            let is_comment = ["//", "/*", "* "].iter().any(|begin| line.trim_start().starts_with(begin));
            let found: Vec<&str> = if is_comment || path.ends_with(".md") {
                read += 1;
                vec![line]
            } else if is_program && !in_tests {
                let found: Vec<&str> = sentence.find_iter(line).map(|literal| literal.as_str()).collect();
                sentences += found.len();
                found
            } else {
                continue;
            };
            for (pattern, instead) in &patterns {
                if found.iter().any(|text| pattern.is_match(text)) {
                    wrong.push(format!("{path}:{}: {pattern}: write {instead}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    assert!(read > 5_000, "only {read} lines of comments and documents were found");
    assert!(sentences > 1_000, "only {sentences} sentences in strings were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Folders of the pages' JavaScript, lowest layer first: a module imports from its own folder and from those before it.
const PAGE_FLOORS: [&str; 3] = ["lib", "components", "pages"];

#[test]
fn pages_import_what_is_below_them() {
    let (mut wrong, mut imports) = (Vec::new(), 0);
    for (floor, folder) in PAGE_FLOORS.iter().enumerate() {
        let path = root().join("aggregator/ui/js").join(folder);
        for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
            let name = entry.path().display().to_string();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            if let Some(long) = text.lines().position(|line| line.chars().count() > PAGE_LINE_CHARS_MAX) {
                wrong.push(format!("{name}:{}: longer than {PAGE_LINE_CHARS_MAX} characters", long + 1));
            }
            for import in text.lines().filter_map(|line| line.rsplit_once(" from \"")?.1.split_once('"')) {
                imports += 1;
                let to = import.0.strip_prefix("../").and_then(|path| path.split_once('/')).map(|(folder, _)| folder);
                let to = to.map_or(Some(floor), |to| PAGE_FLOORS.iter().position(|folder| *folder == to));
                if to.is_none_or(|to| to > floor) {
                    wrong.push(format!("{name} imports {}, which is not below it", import.0));
                }
            }
        }
    }
    assert!(imports > 80, "only {imports} imports were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Maximum length of a line of the pages' JavaScript, in characters.
const PAGE_LINE_CHARS_MAX: usize = 120;

/// Every path in the code map exists, and every top-level folder has an entry in it.
#[test]
fn the_code_map_is_the_code() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for room in ["shared", "node", "archive", "aggregator", "client", "certs", "verifier", "cli", "tests"] {
        assert!(map.contains(&format!("`{room}/`")), "ARCHITECTURE.md has no caption for {room}/");
    }
    for word in map.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/') && !word.contains([' ', '<', '*', '{', ':', '→']) && !word.starts_with('/');
        if is_path && (word.ends_with('/') || word.ends_with(".rs") || word.ends_with(".md")) {
            assert!(root().join(word).exists(), "ARCHITECTURE.md names {word}, which does not exist");
        }
    }
}

/// Names that this project no longer uses for types, functions, modules and constants, and the name that replaced each. A name that is
/// stored or signed never changes, but none of those is the name of an item.
const FORMER_NAMES: [(&str, &str); 62] = [
    ("Door", "Route"),
    ("Floor", "LogStart"),
    ("Grower", "TreeIntegrator"),
    ("Growing", "Integration"),
    ("Draft", "NewEntry"),
    ("DirectLog", "OfflineLog"),
    ("DirectUpkeep", "OfflineAdmin"),
    ("Slice", "read_range"),
    ("Beside", "ScanContext"),
    ("Facts", "RuleInput"),
    ("Spoken", "CallerFields"),
    ("Stamp", "NodeFields"),
    ("FreshRows", "PendingRows"),
    ("CopyAside", "SnapshotCopy"),
    ("keep_time", "advance_clock"),
    ("teach", "load_epochs"),
    ("strays", "orphans"),
    ("PruneWish", "PruneRequest"),
    ("upkeep", "admin"),
    ("Standing", "WitnessStatus"),
    ("Look", "Lookup, or poll"),
    ("look", "poll"),
    ("looked", "polled"),
    ("Link", "NodeConnection"),
    ("Way", "Endpoint, or Route"),
    ("Lane", "Channel"),
    ("Asking", "StreamOptions"),
    ("Tally", "NodeCounters"),
    ("Proving", "ProofVerifier"),
    ("PlacedRow", "VerifiedRow"),
    ("Place", "ProvenRow, or Offset"),
    ("Gone", "what ended: the client, the session, the stream"),
    ("Feed", "Prefetch"),
    ("pump", "read_ahead"),
    ("known_down", "circuit_open"),
    ("Shown", "Coverage"),
    ("UNATTENDED", "BACKGROUND"),
    ("with_done", "audited"),
    ("Unrecorded", "RecordingFault"),
    ("Outlet", "Destination"),
    ("Wanted", "DesiredConfig"),
    ("PlaceFile", "OffsetFile"),
    ("Heard", "SourceMessage"),
    ("Landmark", "SeekAnchor"),
    ("Material", "TlsCredentials"),
    ("Life", "Membership"),
    ("Kept", "Spooled"),
    ("LossPolicy", "DeliveryPolicy"),
    ("is_passing", "is_transient"),
    ("capturing", "in_memory"),
    ("emit_under", "emit_with_policy"),
    ("turned_away", "reject"),
    ("unremarkable", "skip_on_success"),
    ("first_words", "initial_entry, or response_excerpt"),
    ("last_words", "final_entry"),
    ("Ledger", "LossCounters"),
    ("turn_over", "rotate"),
    ("Dice", "SeededRng"),
    ("greet", "probe"),
    ("judge", "check, detect, or verdict"),
    ("Judge", "Detector"),
    ("settle", "commit, or wait_until_settled"),
];
/// Beginnings of former names of types.
const FORMER_BEGINNINGS: [(&str, &str); 2] =
    [("Typed", "Raw, for parts of a configuration file"), ("judge_", "check_")];
/// Names that begin like former ones but mean something else, each with the file that defines it.
const OTHER_MEANINGS: [(&str, &str); 1] = [("TypedFilter", "shared/query/src/filter/expr.rs")];

/// Returns the former names among the items that a source text defines, each with its replacement.
fn former_names(path: &str, text: &str) -> Vec<String> {
    let item = regex::Regex::new(r"\b(?:struct|enum|union|trait|type|fn|mod|const|static)\s+([A-Za-z_]\w*)").unwrap();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = code.flat_map(|line| item.captures_iter(line).map(|found| found[1].to_owned()).collect::<Vec<_>>());
    let replaced = names.filter(|name| !OTHER_MEANINGS.contains(&(name.as_str(), path))).filter_map(|name| {
        let same = FORMER_NAMES.iter().find(|(former, _)| *former == name);
        let alike = FORMER_BEGINNINGS.iter().find(|(begin, _)| name.starts_with(begin));
        same.or(alike).map(|(_, instead)| format!("{path}: {name}: call it {instead}"))
    });
    replaced.collect()
}

#[test]
fn items_have_the_names_of_the_field() {
    let mut texts = files();
    texts.retain(|(path, _)| path != "tests/tidy.rs");
    let wrong: Vec<String> = texts.iter().flat_map(|(path, text)| former_names(path, text)).collect();
    assert!(texts.len() > 300, "only {} files were found", texts.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Each kind of definition is recognized.
    for text in [
        "pub(crate) struct Door {",
        "enum Gone {",
        "async fn look(",
        "mod upkeep;",
        "struct TypedNode {",
        "const UNATTENDED: u8",
    ] {
        assert_eq!(former_names("x.rs", text).len(), 1, "{text}");
    }
    assert!(former_names("x.rs", "// struct Door\nstruct Doorway;\nfn looked_up() {}").is_empty());
}
