//! Measures how an archive of many nodes is planned: `cargo bench --bench scale -p piperoll-archive`. It makes the steps of a cluster, without
//! the files of rows, and measures how long an aggregator reads them after a start, how much memory they take, and how long it takes to decide
//! which files a question needs. `PIPEROLL_SCALE_NODES` and `PIPEROLL_SCALE_DAYS` set the size; the default is 1,000 nodes and 365 days.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot continue panics")]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use piperoll_archive::history::History;
use piperoll_archive::read::{Caches, Catalog, LogScan, Reader, ScanRange};
use piperoll_archive::record::{
    About, ArchiveKeys, FileRecord, LogRange, LogTree, ObjectRecord, Run, Step, StepKind, Trees, digest_of, names,
};
use piperoll_archive::row::{Day, LogId};
use piperoll_archive::store::{Address, Store};
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::ids::{ClusterName, Generation, NodeId};
use piperoll_format::merkle::{CompactRange, TILE_WIDTH};
use piperoll_format::note::{KeyKind, SigningSeed};
use piperoll_format::order::{Order, Position};
use piperoll_format::time::Timestamp;
use piperoll_format::verify::EpochSpan;
use piperoll_query::filter::Filter;

/// Full tiles that a node adds in a day: 1,024 rows.
const TILES_A_DAY: u64 = 4;
const ROWS_A_DAY: u64 = TILES_A_DAY * TILE_WIDTH;
/// Rows of a file of 80 MiB, at 160 bytes a row.
const ROWS_A_FILE: u64 = 512_000;
const BYTES_A_ROW: u64 = 160;
const DAY_MICROS: i64 = 86_400_000_000;
/// 2026-01-01T00:00:00Z.
const BEGIN_MICROS: i64 = 1_767_225_600_000_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::main]
async fn main() {
    let (nodes, days) = (number("PIPEROLL_SCALE_NODES", 1_000), number("PIPEROLL_SCALE_DAYS", 365));
    let (cluster, archive): (ClusterName, NodeId) = ("scale".parse().unwrap(), "main".parse().unwrap());
    let seed = |byte| SigningSeed::from_bytes([byte; 32]);
    let keys = ArchiveKeys::new(&cluster, &archive, &seed(1), &seed(2)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let address = Address::Directory(dir.path().to_owned());
    let store = Store::open_new(&address, None).unwrap();
    let about = About { cluster: cluster.clone(), archive: archive.clone(), created: Timestamp::from_micros(0) };
    let about = about.to_bytes(&keys.steps).unwrap();
    let mut previous = digest_of(&about);
    store.create(names::ARCHIVE, about.into()).await.unwrap();
    let log = |node: u64| LogId {
        node_id: format!("node-{node:04}").parse().unwrap(),
        generation: Generation::from_bytes([7; 16]),
    };
    let signers: Vec<_> =
        (0..nodes).map(|node| seed(3).named(&log(node).origin(cluster.as_str()), KeyKind::Log).unwrap()).collect();
    let mut ranges: Vec<CompactRange> = (0..nodes).map(|_| CompactRange::default()).collect();
    let (mut step_bytes, mut tree_bytes, mut files) = (0, 0, 0);
    for day in 0..days {
        let step = make_step(day, &cluster, &log, &signers, &mut ranges, previous);
        let (step, trees) = step;
        files += step.files.len();
        let bytes = step.to_bytes(&keys.steps).unwrap();
        previous = digest_of(&bytes);
        step_bytes += bytes.len();
        tree_bytes += trees.len();
        store.create(&step.tree.name, Bytes::from(trees)).await.unwrap();
        store.create(&names::step(step.number), bytes.into()).await.unwrap();
    }
    let rows = nodes * days * ROWS_A_DAY;
    println!("{nodes} nodes, {days} days: {rows} rows in {files} files");
    println!("steps: {:.1} MB, hashes: {:.1} MB", step_bytes as f64 / 1e6, tree_bytes as f64 / 1e6);

    let before = resident_bytes();
    let started = Instant::now();
    let catalog = Catalog::load(&store, keys.steps.public(), &cluster, &archive).await.unwrap();
    println!(
        "start: {:.1} s to read and check all steps, {:.0} MB of memory",
        started.elapsed().as_secs_f64(),
        (resident_bytes() - before) / 1e6
    );
    let reader = Reader::new(store.clone(), Arc::new(catalog), Arc::new(Caches::default()));
    for (words, first) in [("one day", days - 1), ("30 days", days.saturating_sub(30)), ("everything", 0)] {
        let begin = Timestamp::from_micros(BEGIN_MICROS + i64::try_from(first).unwrap() * DAY_MICROS);
        let started = Instant::now();
        let mut scans = 0;
        for node in 0..nodes {
            let touches = reader.catalog().log(&log(node)).is_some_and(|log| log.touches(begin, Timestamp::MAX));
            let range = ScanRange {
                log: log(node),
                begin: Position { timestamp: begin, seq: 0 },
                end: Position { timestamp: Timestamp::MAX, seq: 0 },
                order: Order::Desc,
                rows: 0..u64::MAX,
                filter: Arc::new(Filter::default()),
                erased: Arc::default(),
            };
            scans += u64::from(touches && LogScan::new(reader.clone(), range).is_some());
        }
        println!("plan of {words} over {scans} nodes: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    }
    let started = Instant::now();
    let mut history = History::load(&store, keys.steps.public(), &cluster, &archive, |_, _| ()).await.unwrap();
    let whole = started.elapsed();
    let started = Instant::now();
    history.advance(&store, keys.steps.public(), |_, _| ()).await.unwrap();
    println!(
        "writer: {:.1} s to read all steps, {:.0} ms when none is new",
        whole.as_secs_f64(),
        started.elapsed().as_secs_f64() * 1e3
    );
}

/// The step of one day: every log continues with full tiles of made-up hashes.
fn make_step(
    day: u64,
    cluster: &ClusterName,
    log: &impl Fn(u64) -> LogId,
    signers: &[piperoll_format::note::SigningKey],
    ranges: &mut [CompactRange],
    previous: piperoll_archive::record::Digest,
) -> (Step, Vec<u8>) {
    let first = Timestamp::from_micros(BEGIN_MICROS + i64::try_from(day).unwrap() * DAY_MICROS);
    let last = first.plus_micros(DAY_MICROS - 1);
    let (from_seq, to_seq) = (day * ROWS_A_DAY, (day + 1) * ROWS_A_DAY);
    let (mut logs, mut trees, mut files) = (Vec::new(), Trees::default(), Vec::new());
    let mut runs: Vec<Run> = Vec::new();
    for (index, (range, signer)) in ranges.iter_mut().zip(signers).enumerate() {
        let id = log(index as u64);
        let before = range.hashes().to_vec();
        let hash = |tile: u64| digest_of(format!("{id} {day} {tile}").as_bytes()).0;
        let tiles: Vec<_> = (0..TILES_A_DAY).map(hash).collect();
        tiles.iter().for_each(|tile| range.push_tile(*tile));
        let origin = id.origin(cluster.as_str());
        let checkpoint = Checkpoint { origin, size: to_seq, root: range.root() }.sign(signer).unwrap().to_string();
        logs.push(LogRange {
            log: id.clone(),
            from_seq,
            to_seq,
            oldest: first,
            newest: last,
            era: 0,
            epochs: vec![EpochSpan { epoch: 0, first_seq: 0 }],
            checkpoint,
        });
        let after = range.hashes().to_vec();
        trees.logs.push(LogTree { log: id, from_seq, to_seq, before, tiles, after, rest: Vec::new() });
        runs.push(Run { log: index, from_seq, to_seq, era: 0, first, last });
    }
    for (number, runs) in runs.chunks(usize::try_from(ROWS_A_FILE / ROWS_A_DAY).unwrap()).enumerate() {
        let rows = runs.len() as u64 * ROWS_A_DAY;
        let sum = digest_of(format!("{day} {number}").as_bytes());
        let name = names::data(Day::of(first), &logs[runs[0].log].log, from_seq, rows, &sum);
        let bytes = rows * BYTES_A_ROW;
        let tail_offset = bytes - rows * 3;
        let file = FileRecord { name, bytes, sha256: sum, tail_offset, tail_sha256: sum, rows, runs: runs.to_vec() };
        files.push(file);
    }
    let number = day + 1;
    let tree_bytes = trees.to_bytes();
    let sha256 = digest_of(&tree_bytes);
    let tree = ObjectRecord { name: names::tree(number, &sha256), bytes: tree_bytes.len() as u64, sha256 };
    let step = Step {
        number,
        previous,
        kind: StepKind::Add,
        created: last,
        writer: "scale/0".to_owned(),
        logs,
        files,
        tree,
        missing: Vec::new(),
        replaced: Vec::new(),
        expired: Vec::new(),
        starts: Vec::new(),
    };
    (step, tree_bytes)
}

/// Memory of this process.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}
