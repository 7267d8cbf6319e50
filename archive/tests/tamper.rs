//! Every change to the objects of an archive is found and named. Each case has a negative control: the archive without the change.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod common;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::logs::{Bench, Logs, archive_trust, keys};
use piperoll_archive::file::FileEncoder;
use piperoll_archive::file::decode::decode;
use piperoll_archive::history::Head;
use piperoll_archive::record::{Step, digest_of};
use piperoll_archive::row::{Content, Day};
use piperoll_archive::verify::{FindingKind, Report, Resume, Scope, verify, verify_resumed};
use piperoll_format::note::SigningSeed;

/// A minute, in microseconds.
const MINUTE: i64 = 60_000_000;

/// A tile above level 0 needs 65,536 rows.
const TILE_ROWS: u64 = 66_000;

/// An archive of four steps with rows of two days.
async fn archive() -> (Bench, Logs) {
    archive_with(TILE_ROWS).await
}

/// The same, with `rows` rows in the last step.
async fn archive_with(rows: u64) -> (Bench, Logs) {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let (a, b) = (logs.add("a", 1), logs.add("b", 2));
    for _ in 0..3 {
        logs.append(&a, 600, MINUTE / 8);
        logs.append(&b, 200, MINUTE / 4);
        bench.archive_all(&logs, 1_000_000).await;
    }
    logs.append(&a, rows, 1_000);
    bench.archive_all(&logs, 1_000_000).await;
    (bench, logs)
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.path().to_string_lossy().ends_with(suffix) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn kinds(report: &Report) -> Vec<FindingKind> {
    let mut kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// A change to an archive, and the kind of finding that it must cause.
type Case = (&'static str, FindingKind, fn(&Path));

fn data(dir: &Path) -> Vec<PathBuf> {
    files(&dir.join("data"), ".parquet")
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn new_encoder(day: Day) -> FileEncoder {
    let path = tempfile::NamedTempFile::new().unwrap().path().to_owned();
    FileEncoder::new(day, &path).unwrap()
}

/// Makes the file again with one of its rows changed, under the same name.
fn encode_again(path: &Path, change: impl Fn(usize, &mut Content)) {
    let bytes = Bytes::from(std::fs::read(path).unwrap());
    let mut encoder: Option<FileEncoder> = None;
    let mut at = 0;
    decode::<piperoll_archive::file::DecodeError>(&bytes, |mut decoded| {
        change(at, &mut decoded.row.content);
        at += 1;
        let day = Day::of(decoded.row.timestamp);
        let encoder = encoder.get_or_insert_with(|| new_encoder(day));
        encoder.push(&decoded.log, &decoded.row).unwrap();
        Ok(())
    })
    .unwrap();
    std::fs::write(path, encoder.unwrap().finish().unwrap().read().unwrap()).unwrap();
}

const CASES: &[Case] = &[
    ("a file is removed", FindingKind::File, |dir| std::fs::remove_file(&data(dir)[0]).unwrap()),
    ("a file is truncated", FindingKind::File, |dir| {
        edit(&data(dir)[0], |bytes| bytes.truncate(bytes.len() - 1));
    }),
    ("a bit of a file is flipped", FindingKind::File, |dir| {
        edit(&data(dir)[0], |bytes| {
            let middle = bytes.len() / 3;
            bytes[middle] ^= 1;
        });
    }),
    ("a bit of a tail is flipped", FindingKind::File, |dir| {
        edit(&data(dir)[0], |bytes| {
            let end = bytes.len() - 200;
            bytes[end] ^= 1;
        });
    }),
    ("two files are swapped", FindingKind::File, |dir| {
        let (one, two) = (&data(dir)[0], &data(dir)[1]);
        let (first, second) = (std::fs::read(one).unwrap(), std::fs::read(two).unwrap());
        std::fs::write(one, second).unwrap();
        std::fs::write(two, first).unwrap();
    }),
    ("a row's mac is changed and the file made again", FindingKind::File, |dir| {
        encode_again(&data(dir)[0], |at, content| {
            if let (5, Content::Entry { mac, .. }) = (at, content) {
                mac[0] ^= 1;
            }
        });
    }),
    ("a file is added", FindingKind::Extra, |dir| {
        std::fs::copy(&data(dir)[0], dir.join("data/day=2026-11-27/x-0-1-0000000000000000.parquet")).unwrap();
    }),
    ("an object is added at the top", FindingKind::Extra, |dir| {
        std::fs::write(dir.join("readme"), "x").unwrap();
    }),
    ("a folder of data is added", FindingKind::Extra, |dir| {
        std::fs::create_dir(dir.join("database")).unwrap();
        std::fs::copy(&data(dir)[0], dir.join("database/x.parquet")).unwrap();
    }),
    ("the newest step is removed", FindingKind::Rollback, |dir| {
        std::fs::remove_file(dir.join("steps/00000004")).unwrap();
    }),
    ("a step in the middle is removed", FindingKind::Step, |dir| {
        std::fs::remove_file(dir.join("steps/00000002")).unwrap();
    }),
    ("a step is changed", FindingKind::Step, |dir| {
        edit(&dir.join("steps/00000002"), |bytes| {
            let at = bytes.windows(7).position(|part| part == b"\"rows\":").unwrap();
            bytes[at + 7] ^= 1;
        });
    }),
    ("an earlier step is put in the place of a later one", FindingKind::Step, |dir| {
        std::fs::copy(dir.join("steps/00000002"), dir.join("steps/00000003")).unwrap();
    }),
    ("the newest step is signed again by another key", FindingKind::Step, |dir| {
        let path = dir.join("steps/00000004");
        let step = Step::read(4, &std::fs::read(&path).unwrap(), keys().steps.public()).unwrap();
        let stranger = SigningSeed::from_bytes([9; 32]);
        let stranger = stranger.named("test/archive/main", piperoll_format::note::KeyKind::Log).unwrap();
        std::fs::write(path, step.to_bytes(&stranger).unwrap()).unwrap();
    }),
    ("the writer itself signs another newest step", FindingKind::Rollback, |dir| {
        let path = dir.join("steps/00000004");
        let mut step = Step::read(4, &std::fs::read(&path).unwrap(), keys().steps.public()).unwrap();
        step.writer = "another".to_owned();
        std::fs::write(path, step.to_bytes(&keys().steps).unwrap()).unwrap();
    }),
    ("a step's hashes are removed", FindingKind::Step, |dir| {
        std::fs::remove_file(&files(&dir.join("steps"), ".tree")[1]).unwrap();
    }),
    ("a step's hashes are changed", FindingKind::Step, |dir| {
        edit(&files(&dir.join("steps"), ".tree")[1], |bytes| {
            let at = bytes.windows(8).position(|part| part == b"\"after\":").unwrap() + 12;
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        });
    }),
    ("the archive's identity is removed", FindingKind::Step, |dir| {
        std::fs::remove_file(dir.join("archive")).unwrap();
    }),
    ("a tile is removed", FindingKind::Tile, |dir| {
        std::fs::remove_file(&files(&dir.join("tile"), "000")[0]).unwrap();
    }),
    ("a tile is changed", FindingKind::Tile, |dir| {
        edit(&files(&dir.join("tile"), "000")[0], |bytes| bytes[100] ^= 1);
    }),
    ("a tile is added", FindingKind::Extra, |dir| {
        let path = files(&dir.join("tile"), "000")[0].with_file_name("001");
        std::fs::write(path, [0; 8_192]).unwrap();
    }),
    ("a checkpoint is removed", FindingKind::Checkpoint, |dir| {
        std::fs::remove_file(&files(&dir.join("checkpoints"), "00000002")[0]).unwrap();
    }),
    ("an earlier checkpoint is put back", FindingKind::Checkpoint, |dir| {
        let later = &files(&dir.join("checkpoints"), "00000002")[0];
        std::fs::copy(later.with_file_name("00000001"), later).unwrap();
    }),
    ("a witness's cosignature is removed from a checkpoint", FindingKind::Checkpoint, |dir| {
        let path = &files(&dir.join("checkpoints"), "00000002")[0];
        let text = std::fs::read_to_string(path).unwrap();
        let kept: Vec<&str> = text.lines().filter(|line| !line.contains("test/aggregator/agg")).collect();
        std::fs::write(path, kept.join("\n") + "\n").unwrap();
    }),
    ("a second signature is added to a step", FindingKind::Step, |dir| {
        edit(&dir.join("steps/00000002"), |bytes| {
            let line = bytes.iter().rposition(|byte| *byte == 0xe2).unwrap();
            let line =
                String::from_utf8(bytes[line..].to_vec()).unwrap().replace("test/archive/main", "test/archive/other");
            bytes.extend_from_slice(line.as_bytes());
        });
    }),
    ("a step of an absurd number is added", FindingKind::Step, |dir| {
        std::fs::copy(dir.join("steps/00000002"), dir.join("steps/18446744073709551615")).unwrap();
    }),
    ("a mirror's cosignature is changed", FindingKind::Checkpoint, |dir| {
        edit(&files(&dir.join("checkpoints"), "00000002")[0], |bytes| {
            let at = bytes.len() - 10;
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        });
    }),
    ("a checkpoint of a step that does not exist is added", FindingKind::Extra, |dir| {
        let known = &files(&dir.join("checkpoints"), "00000002")[0];
        std::fs::copy(known, known.with_file_name("00000009")).unwrap();
    }),
];

async fn check(bench: &Bench, logs: &Logs, seen: Option<Head>) -> Report {
    let scope = Scope { seen, ..Scope::default() };
    verify(&bench.store(), &logs.trust(), &archive_trust(), scope, |_, _| ()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_found_and_named() {
    // Only changes of tiles need many rows, which take time to verify.
    every_change(TILE_ROWS, |name| name.starts_with("a tile")).await;
    every_change(300, |name| !name.starts_with("a tile")).await;
}

async fn every_change(rows: u64, is_wanted: impl Fn(&str) -> bool) {
    let (bench, logs) = archive_with(rows).await;
    let untouched = check(&bench, &logs, None).await;
    assert_eq!(untouched.findings, []);
    let seen = untouched.head;
    assert_eq!(check(&bench, &logs, seen).await.findings, [], "the newest step is the one that was seen");
    for (name, expected, change) in CASES.iter().filter(|(name, ..)| is_wanted(name)) {
        let copy = Bench { objects: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap(), now: bench.now };
        copy_all(bench.objects.path(), copy.objects.path());
        change(copy.objects.path());
        let report = check(&copy, &logs, seen).await;
        assert!(kinds(&report).contains(expected), "{name}: {:?}", report.findings);
        assert!(report.is_violated(), "{name}");
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A holder of the archive's key can sign steps about changed files, but cannot forge the nodes' checkpoints.
#[tokio::test(flavor = "multi_thread")]
async fn the_archives_key_alone_cannot_change_a_row() {
    let (bench, logs) = archive().await;
    let dir = bench.objects.path();
    let path = dir.join("steps/00000004");
    let mut step = Step::read(4, &std::fs::read(&path).unwrap(), keys().steps.public()).unwrap();
    // Change a row, encode the file under its proper name, and sign a step that names it.
    let file = &mut step.files[0];
    let old = dir.join(&file.name);
    let bytes = Bytes::from(std::fs::read(&old).unwrap());
    let mut encoder: Option<FileEncoder> = None;
    decode::<piperoll_archive::file::DecodeError>(&bytes, |mut decoded| {
        if let (2_000, Content::Entry { mac, .. }) = (decoded.row.seq, &mut decoded.row.content) {
            mac[0] ^= 1;
        }
        let day = Day::of(decoded.row.timestamp);
        encoder.get_or_insert_with(|| new_encoder(day)).push(&decoded.log, &decoded.row).unwrap();
        Ok(())
    })
    .unwrap();
    let made = encoder.unwrap().finish().unwrap();
    std::fs::remove_file(old).unwrap();
    std::fs::write(dir.join(&made.planned.name), made.read().unwrap()).unwrap();
    (file.name, file.bytes, file.sha256) = (made.planned.name.clone(), made.planned.bytes, made.planned.sha256);
    (file.tail_offset, file.tail_sha256) = (made.planned.tail_offset, made.planned.tail_sha256);
    std::fs::write(&path, step.to_bytes(&keys().steps).unwrap()).unwrap();
    let report = check(&bench, &logs, None).await;
    assert_eq!(kinds(&report), [FindingKind::Rows], "{:?}", report.findings);

    // A checkpoint that no witness of the trust file has cosigned does not count.
    let mut trust = logs.trust();
    trust.witnesses.clear();
    let report = verify(&bench.store(), &trust, &archive_trust(), Scope::default(), |_, _| ()).await.unwrap();
    assert!(kinds(&report).contains(&FindingKind::Checkpoint), "{:?}", report.findings);
    let mut trust = logs.trust();
    trust.nodes.remove(0);
    let report = verify(&bench.store(), &trust, &archive_trust(), Scope::default(), |_, _| ()).await.unwrap();
    assert!(report.findings.iter().any(|finding| finding.detail.contains("the trust file does not name its node")));
}

/// A footer whose traits would let readers overlook a row is not accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_footer_cannot_hide_a_trait_of_a_row() {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let a = logs.add("a", 1);
    let entry = br#"{"category":"data","action":"message.read","details":{"affected":["message/7"]}}"#;
    logs.push(&a, &piperoll_format::entry::CallerEntry::parse(entry).unwrap(), "http", MINUTE, 0);
    bench.archive_all(&logs, 1_000_000).await;
    let file = std::fs::read(&data(bench.objects.path())[0]).unwrap();
    let read = |bytes: &[u8]| {
        let bytes = Bytes::copy_from_slice(bytes);
        decode::<piperoll_archive::file::DecodeError>(&bytes, |_| Ok(())).map_err(|error| error.to_string())
    };
    assert_eq!(read(&file), Ok(()));
    let (honest, lie) =
        (br#"{"affected":true,"other_addresses":false}"#, br#"{"affected":false,"other_addresses":true}"#);
    let at = file.windows(honest.len()).position(|part| part == honest).unwrap();
    let mut changed = file.clone();
    changed[at..at + lie.len()].copy_from_slice(lie);
    let error = read(&changed).unwrap_err();
    assert!(error.contains("row 0 of the file has the trait affected"), "{error}");
    // A file of an earlier development version has no traits.
    let mut older = file.clone();
    let key = older.windows(15).position(|part| part == b"piperoll.groups").unwrap();
    older[key] = b'q';
    assert_eq!(read(&older), Ok(()));
}

/// An erased row needs an entry that declares it.
#[tokio::test(flavor = "multi_thread")]
async fn an_erased_row_needs_a_declaration() {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let a = logs.add("a", 1);
    logs.append(&a, 300, MINUTE / 8);
    logs.erase(&a, 7);
    bench.archive_all(&logs, 1_000_000).await;
    let report = check(&bench, &logs, None).await;
    assert_eq!((report.findings.as_slice(), report.erased), (&[][..], 1));
    // Without the declaration: the row is empty, but nothing says so.
    let (bench, logs) = (Bench::new().await, Logs::new());
    let a = logs.add("a", 1);
    logs.append(&a, 300, MINUTE / 8);
    if let Some(log) = logs.0.lock().unwrap().get_mut(&a) {
        let leaf = log.rows[7].leaf();
        log.rows[7].content = Content::Erased { leaf };
    }
    bench.archive_all(&logs, 1_000_000).await;
    assert_eq!(kinds(&check(&bench, &logs, None).await), [FindingKind::Erased]);
}

/// An interrupted verification continues with the files that it has not read, and finds the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_verification_continues() {
    let (bench, logs) = (Bench::new().await, Logs::new());
    let (a, b) = (logs.add("a", 1), logs.add("b", 2));
    for _ in 0..3 {
        logs.append(&a, 300, MINUTE / 4);
        logs.append(&b, 50, MINUTE);
        bench.archive_all(&logs, 1_000_000).await;
    }
    logs.append(&a, 300, MINUTE);
    let erased = logs.rows(&a) - 5;
    logs.erase(&a, erased);
    bench.archive_all(&logs, 1_000_000).await;
    let whole = check(&bench, &logs, None).await;
    assert_eq!((whole.findings.as_slice(), whole.erased), (&[][..], 1));
    let path = bench.state.path().join("verification");
    let now = piperoll_format::time::Timestamp::from_micros(bench.now.micros());
    let open = |now| Resume::open(&path, &archive_trust(), now).map_err(|error| error.to_string());
    let continued = async |resume: &mut Resume| {
        let (trust, archive) = (logs.trust(), archive_trust());
        verify_resumed(&bench.store(), &trust, &archive, Scope::default(), Some(resume), |_, _| ()).await.unwrap()
    };
    // The state of a whole verification, of which an interruption leaves a part, perhaps within a line.
    let mut first = open(now).unwrap();
    assert_eq!(continued(&mut first).await.findings, whole.findings);
    let state = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<usize> = state.match_indices('\n').map(|(at, _)| at + 1).collect();
    assert_eq!(lines.len(), whole.files + 1);
    drop(first);
    for (kept, cut) in [(1, 0), (2, 0), (2, 40), (lines.len() - 1, 1), (lines.len(), 0)] {
        std::fs::write(&path, &state[..lines[kept - 1] + cut.min(state.len() - lines[kept - 1])]).unwrap();
        let mut resume = open(now).unwrap();
        let report = continued(&mut resume).await;
        assert_eq!((report.findings.as_slice(), report.files_resumed), (&[][..], kept - 1));
        assert_eq!((report.files_verified, report.rows_verified), (whole.files_verified, whole.rows_verified));
        assert_eq!((report.erased, report.last_day), (whole.erased, whole.last_day.clone()));
        drop(resume);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), lines.len(), "the rest was added");
    }
    // A file that was replaced since then is read, and one that is gone is missed.
    let kept = data(bench.objects.path());
    let bytes = std::fs::read(&kept[0]).unwrap();
    std::fs::remove_file(&kept[0]).unwrap();
    assert_eq!(kinds(&continued(&mut open(now).unwrap()).await), [FindingKind::File]);
    std::fs::write(&kept[0], bytes).unwrap();
    // Results that do not have all rows of the file are not used.
    let (at, end) = (state.find("\"covers\":").unwrap(), state.find(",\"erased\":").unwrap());
    std::fs::write(&path, format!("{}\"covers\":[]{}", &state[..at], &state[end..])).unwrap();
    let report = continued(&mut open(now).unwrap()).await;
    assert_eq!((report.findings.as_slice(), report.files_resumed), (&[][..], whole.files - 1));
    std::fs::write(&path, &state).unwrap();
    let first = open(now).unwrap();
    assert!(open(now).unwrap_err().contains("another verification uses it"));
    drop(first);
    // What a stranger changed in the state, or another archive's state, is refused or does not lead to the checkpoint.
    let at = state.find("\"covers\":[[0,").unwrap();
    let hash = state[at..].find('"').map(|_| at + state[at..].find(",[\"").unwrap() + 3).unwrap();
    let mut forged = state.clone().into_bytes();
    forged[hash] = if forged[hash] == b'0' { b'1' } else { b'0' };
    std::fs::write(&path, &forged).unwrap();
    assert!(kinds(&continued(&mut open(now).unwrap()).await).contains(&FindingKind::Rows));
    for (text, words) in [
        (state.replace("test/archive/main", "test/archive/other"), "another archive"),
        (state.replace("verification v1", "verification v9"), "another format"),
        (state.replace("\"rows\"", "\"row\""), "row"),
        ("{}".to_owned(), "its first line is not complete"),
        ("[]\n".to_owned(), "is not the state of a verification"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = open(now).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    std::fs::write(&path, &state).unwrap();
    let later = piperoll_format::time::Timestamp::from_micros(now.micros() + 31 * 86_400_000_000);
    assert!(open(later).unwrap_err().contains("the verification began at"));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(open(now).unwrap_err().contains("only its owner"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_verified_by_days() {
    let (bench, logs) = archive().await;
    let day = |text: &str| Some(Day::of(piperoll_format::time::Timestamp::parse_rfc3339(text).unwrap()));
    let scope = Scope { from: day("2026-11-28T00:00:00Z"), to: None, seen: None };
    let report = verify(&bench.store(), &logs.trust(), &archive_trust(), scope, |_, _| ()).await.unwrap();
    assert_eq!((report.findings.as_slice(), report.whole), (&[][..], false));
    assert!(0 < report.rows_verified && report.rows_verified < report.rows);
    // The size of a file is compared even if its rows are not requested.
    edit(&data(bench.objects.path())[0], |bytes| bytes.push(0));
    let report = verify(&bench.store(), &logs.trust(), &archive_trust(), scope, |_, _| ()).await.unwrap();
    assert_eq!(kinds(&report), [FindingKind::File]);
}

/// Bytes of a step, its hashes and a plan are fixed.
#[test]
fn the_form_of_records_is_fixed() {
    let about = piperoll_archive::record::About {
        cluster: "test".parse().unwrap(),
        archive: "main".parse().unwrap(),
        created: piperoll_format::time::Timestamp::parse_rfc3339("2026-11-28T02:00:00Z").unwrap(),
    };
    let bytes = about.to_bytes(&keys().steps).unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(
        text.starts_with(
            "piperoll archive v2\n{\"cluster\":\"test\",\"archive\":\"main\",\"created\":\"2026-11-28T02:00:00.000000Z\"}\n\n\u{2014} test/archive/main "
        ),
        "{text}"
    );
    assert_eq!(digest_of(&bytes).to_string(), "e6120d63b9f6432bc2eed9bf2f66ecb8be698e73ab8c2e2f2c697945dd0d59a0");
}
