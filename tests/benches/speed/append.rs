//! Compares durable append, including MACs, tree, checkpoints and index, with plain SQLite that inserts the same bytes in the
//! same batches, once without an index and once with five B-trees on the columns that are usually searched.

use std::path::Path;
use std::time::{Duration, Instant};

use piperoll_tests::{append_in_flight, caller_entry, median, new_store};
use rusqlite::{Connection, params};

const WRITERS: [usize; 4] = [1, 16, 128, 1_024];
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
/// Rows inserted into the table with B-trees before measuring, because inserts are slow only once the table is large.
const BTREE_ROWS: usize = 1_000_000;
/// Number of bytes that the node's own fields add to the caller's text in a body.
const NODE_FIELDS_BYTES: usize = 250;

pub(crate) async fn run() {
    println!("durable append, rows/s (median of {ROUNDS} rounds of {} s, alternating)", ROUND.as_secs());
    println!(
        "{:>8} {:>12} {:>14} {:>12} {:>12} {:>14}",
        "writers", "sqlite", "5 B-trees", "piperoll", "of sqlite", "of B-trees"
    );
    let dir = tempfile::tempdir().unwrap();
    let mut indexed = Indexed::fill(dir.path());
    let mut disk = String::new();
    for writers in WRITERS {
        let (mut plain, mut btrees, mut ours) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            plain.push(plain_sqlite(writers));
            btrees.push(indexed.insert(writers));
            let (rate, used) = our_store(writers).await;
            ours.push(rate);
            disk = used;
        }
        let (plain, btrees, ours) = (median(plain), median(btrees), median(ours));
        println!(
            "{writers:>8} {plain:>12.0} {btrees:>14.0} {ours:>12.0} {:>12.2} {:>14.1}",
            ours / plain,
            ours / btrees
        );
        if writers == 1 {
            println!("         {:.0} us a row against {:.0} us: {:.2} times", 1e6 / ours, 1e6 / plain, plain / ours);
        }
    }
    println!("{disk}");
}

fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(
        "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000",
    )
    .unwrap();
    conn
}

/// Calls `insert` in transactions of `batch` rows for the duration of one round, and returns rows per second.
fn in_batches(conn: &Connection, batch: usize, mut insert: impl FnMut()) -> f64 {
    let (started, mut rows) = (Instant::now(), 0);
    while started.elapsed() < ROUND {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..batch {
            insert();
        }
        conn.execute_batch("COMMIT").unwrap();
        rows += batch;
    }
    rows as f64 / started.elapsed().as_secs_f64()
}

fn body(n: usize) -> String {
    format!("{:NODE_FIELDS_BYTES$}{}", "", caller_entry(n))
}

/// Measures the baseline: inserts body and MAC into one table, with one commit per batch.
fn plain_sqlite(batch: usize) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let conn = open(&dir.path().join("plain.db"));
    conn.execute_batch("CREATE TABLE entries (seq INTEGER PRIMARY KEY, mac BLOB, body TEXT) STRICT").unwrap();
    let mut insert = conn.prepare("INSERT INTO entries (mac, body) VALUES (?1, ?2)").unwrap();
    let (body, mac) = (body(7), [7u8; 32]);
    in_batches(&conn, batch, || {
        insert.execute((&mac[..], &body)).unwrap();
    })
}

/// The table of `plain_sqlite` with columns for user, action, entity, address and id, and a B-tree on each.
struct Indexed {
    conn: Connection,
    next: usize,
}

const INSERT_INDEXED: &str =
    "INSERT INTO entries (mac, body, user, action, entity, ip, id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

impl Indexed {
    fn fill(dir: &Path) -> Self {
        let conn = open(&dir.join("indexed.db"));
        conn.execute_batch(
            "CREATE TABLE entries (seq INTEGER PRIMARY KEY, mac BLOB, body TEXT, user TEXT, action TEXT, entity TEXT, ip TEXT, id TEXT) STRICT",
        )
        .unwrap();
        let mut filled = Self { conn, next: 0 };
        filled.conn.execute_batch("BEGIN").unwrap();
        let mut insert = filled.conn.prepare(INSERT_INDEXED).unwrap();
        for n in 0..BTREE_ROWS {
            insert_indexed(&mut insert, n, &body(n));
        }
        drop(insert);
        filled.next = BTREE_ROWS;
        let indexes = ["user, seq", "action, seq", "entity, seq", "ip, seq", "id"];
        for (n, columns) in indexes.iter().enumerate() {
            filled.conn.execute_batch(&format!("CREATE INDEX by_{n} ON entries ({columns})")).unwrap();
        }
        filled.conn.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        filled
    }

    fn insert(&mut self, batch: usize) -> f64 {
        let Self { conn, next } = self;
        let mut insert = conn.prepare(INSERT_INDEXED).unwrap();
        let body = body(7);
        in_batches(conn, batch, || {
            insert_indexed(&mut insert, *next, &body);
            *next += 1;
        })
    }
}

/// Inserts a row with values distributed as in a log: few users and actions; many addresses, entities and ids, in random order.
fn insert_indexed(insert: &mut rusqlite::Statement<'_>, n: usize, body: &str) {
    let random = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5555;
    let (user, action) = (format!("user-{}", random % 2_003), format!("quarantine.release-{}", random % 61));
    let entity = format!("mail/{:016x}", random.rotate_left(21));
    let ip = format!("198.51.{}.{}", random % 251, (random >> 8) % 251);
    let id = format!("{random:016x}-{:016x}", random.rotate_left(32));
    insert.execute(params![&[7u8; 32][..], body, user, action, entity, ip, id]).unwrap();
}

/// Measures our store. Returns the number of rows per second, and a description of the disk space that the rows use.
async fn our_store(writers: usize) -> (f64, String) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = new_store(&data);
    let started = Instant::now();
    let rate = append_in_flight(&store, writers, ROUND).await;
    let stopped = Instant::now();
    while store.index().rows < store.index().of {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let behind = stopped.elapsed();
    let index = store.index();
    store.close().await;
    let conn = Connection::open(data.join("log.db")).unwrap();
    let (rows, entries): (u64, u64) = conn
        .query_row("SELECT count(*), sum(length(body) + length(mac)) FROM entries", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    let database = std::fs::metadata(data.join("log.db")).unwrap().len();
    let indexed = (index.blocks << 16) as f64;
    let (entry, database, index) =
        (entries as f64 / rows as f64, database as f64 / rows as f64, index.bytes as f64 / indexed.max(1.0));
    let used = format!(
        "bytes on disk: {database:.0} + {index:.0} of the index for an entry of {entry:.0} (with its mac): {:.2} times; {rows} rows, the index up to date {:.2} s after the last of {:.1} s",
        (database + index) / entry,
        behind.as_secs_f64(),
        (stopped - started).as_secs_f64(),
    );
    (rate, used)
}
