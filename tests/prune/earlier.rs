//! Removal of archived logs when the first rows of the log that replaced them are pruned.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use piperoll_format::ids::Generation;
use piperoll_format::statement::{Hold, HoldRelease, Pruned};
use piperoll_node::store::{AdminError, OfflineAdmin, PruneTarget, begin_generation};
use piperoll_protocol::node::PrunePlan;

use super::*;

/// A log and the two archived logs that it replaced, the oldest first.
struct Three {
    _dir: tempfile::TempDir,
    data: PathBuf,
    asides: Vec<(Generation, PathBuf)>,
    log: Log,
}

impl Three {
    async fn made() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut asides = Vec::new();
        for rows in [300, 700] {
            let log = Log::open(&data);
            log.append(rows).await;
            log.store.close().await;
            let generation = log.store.generation();
            drop(log);
            let begun = begin_generation(&LogDir::new(&data), &keys(1), clock_at(1), "a test", "uid=0").unwrap();
            asides.push((generation, begun.old));
        }
        let log = Log::open(&data);
        log.append(600).await;
        log.witnessed().await;
        Self { _dir: dir, data, asides, log }
    }

    async fn plan(&self, wish: PruneTarget) -> PrunePlan {
        self.log.store.plan_prune(wish).await.unwrap()
    }

    async fn state(&self, wish: PruneTarget) -> Result<Pruned, AdminError> {
        let plan = self.plan(wish).await;
        self.log.store.state_prune(wish, plan, "a test".to_owned(), None).await
    }

    async fn finish(&self) {
        self.log.witnessed().await;
        while !self.log.store.drop_batch().await.unwrap() {}
        self.log.store.finish_prune(0).await.unwrap().unwrap();
    }

    /// Returns which of the two archived logs exist, the oldest first.
    fn there(&self) -> [bool; 2] {
        [self.asides[0].1.is_dir(), self.asides[1].1.is_dir()]
    }

    fn offline_admin(&self, aside: usize, day: i64) -> OfflineAdmin {
        OfflineAdmin::open(&LogDir::new(&self.asides[aside].1), &keys(1), clock_at(day)).unwrap()
    }

    fn database(&self, aside: usize) -> rusqlite::Connection {
        let conn = rusqlite::Connection::open(self.asides[aside].1.join("log.db")).unwrap();
        let sql = "SELECT 'DROP TRIGGER ' || name FROM sqlite_schema WHERE type = 'trigger'";
        let drops: Vec<String> =
            conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        conn.execute_batch(&drops.join(";")).unwrap();
        conn
    }
}

/// Replaces a log with a new generation of about 300 rows.
async fn replaced(log: Log) -> Log {
    log.store.close().await;
    let data = log.dir.clone();
    drop(log);
    begin_generation(&LogDir::new(&data), &keys(1), clock_at(1), "a test", "uid=0").unwrap();
    let log = Log::open(&data);
    log.append(300).await;
    log.witnessed().await;
    log
}

fn clock_at(day: i64) -> Arc<Still> {
    let clock = Arc::new(Still::default());
    clock.0.store(day * DAY_MICROS, Ordering::Relaxed);
    clock
}

/// Returns a target that prunes the rows below `to_max`, and archived logs to which nothing was added on or after day `day`.
fn wish(to_max: u64, day: i64) -> PruneTarget {
    PruneTarget { before: Timestamp::MAX, to_max, earlier_before: Timestamp::from_micros(day * DAY_MICROS) }
}

fn hold(name: &str, from: i64, to: i64) -> Hold {
    let at = |day: i64| Timestamp::from_micros(day * DAY_MICROS);
    Hold { name: name.to_owned(), from: at(from), to: at(to), reason: "r".to_owned(), by: "uid=0".to_owned() }
}

fn release(name: &str) -> HoldRelease {
    HoldRelease { name: name.to_owned(), reason: "r".to_owned(), by: "uid=0".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn they_go_with_the_first_rows() {
    let three = Three::made().await;
    assert!(three.plan(wish(255, 9)).await.earlier.is_empty(), "not before any row of the present one goes");
    let pruned = three.state(wish(256, 9)).await.unwrap();
    let named: Vec<Generation> = pruned.earlier.iter().map(|log| log.generation).collect();
    assert_eq!(named, [three.asides[1].0, three.asides[0].0], "the newest first");
    assert!(pruned.earlier[1].rows >= 300 && pruned.earlier[0].rows >= 700, "{pruned:?}");
    // No log is removed before a witness has seen the statement.
    three.log.store.remove_earlier().await.unwrap();
    assert_eq!(three.there(), [true, true]);
    three.log.witnessed().await;
    // Simulate a crash between renaming a folder and removing it.
    let going = three.data.with_file_name(format!("data.going-{}", three.asides[0].0));
    std::fs::rename(&three.asides[0].1, &going).unwrap();
    three.log.store.remove_earlier().await.unwrap();
    assert!(three.there() == [false, false] && !going.exists());
    three.finish().await;
    assert_eq!(three.log.findings().await, Vec::<String>::new());
    // A client that missed this statement finds the archived logs in the next one.
    let again = three.state(wish(512, 9)).await.unwrap();
    assert_eq!(again.earlier, pruned.earlier);
    three.finish().await;
    three.log.store.remove_earlier().await.unwrap();
    assert_eq!(three.log.findings().await, Vec::<String>::new());
    three.log.store.close().await;
}

/// The newest time in the statement covers the removed archived logs too, whatever their clocks.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_time_is_of_all_logs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let log = Log::open(&data);
    log.clock.0.store(40 * DAY_MICROS, Ordering::Relaxed);
    log.append(10).await;
    let log = replaced(log).await;
    // Pruning by time keeps the current log's rows until the rows of the archived log, too, have reached the age limit.
    let by_times = |day: i64| {
        let before = Timestamp::from_micros(day * DAY_MICROS);
        PruneTarget { before, to_max: u64::MAX, earlier_before: before }
    };
    let plan = log.store.plan_prune(by_times(30)).await.unwrap();
    assert!(plan.to_seq == 0 && plan.limits[0].contains("it has a row as recent as"), "{plan:?}");
    let wish = wish(256, 9);
    let plan = log.store.plan_prune(wish).await.unwrap();
    assert_eq!(plan.earlier.len(), 1, "an age that was witnessed needs no time: {plan:?}");
    let pruned = log.store.state_prune(wish, plan, "a test".to_owned(), None).await.unwrap();
    assert_eq!(pruned.newest.micros(), 40 * DAY_MICROS);
    log.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_and_later_records_keep_them_and_all_that_follows() {
    let three = Three::made().await;
    let kept = async |why: &str| {
        let plan = three.plan(wish(256, 9)).await;
        assert_eq!((plan.to_seq, plan.earlier.len()), (0, 0), "{why}: {plan:?}");
        assert!(plan.limits.iter().any(|words| words.contains(why)), "{why}: {plan:?}");
    };
    // A hold that was set in one of the archived logs keeps all rows and logs, whatever its time range.
    for aside in [0, 1] {
        three.offline_admin(aside, 1).add_hold(&hold("inside", 500, 501)).unwrap();
        kept("\"inside\" of that log (release it with --generation)").await;
        three.offline_admin(aside, 1).release_hold(&release("inside")).unwrap();
    }
    // A hold that was set in the current log and covers times of an archived log has the same effect, although the entry about
    // the hold is not among the rows to be pruned.
    three.log.store.add_hold(hold("over", 0, 2)).await.unwrap();
    kept("\"over\"").await;
    three.log.store.release_hold(release("over")).await.unwrap();
    three.log.store.add_hold(hold("elsewhere", 3, 4)).await.unwrap();
    assert_eq!(three.plan(wish(256, 9)).await.earlier.len(), 2, "a hold over other times keeps nothing here");
    // An erasure in an archived log is recorded there with the time of the erasure, and this newer entry keeps the log.
    three.offline_admin(0, 9).erase(5, "r", "uid=0", &[]).unwrap();
    kept("it has a row as recent as").await;
    assert_eq!(three.plan(wish(256, 10)).await.earlier.len(), 2);
    assert_eq!(three.there(), [true, true]);
    three.log.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_evidence_stays() {
    // If the older log has a changed row, only the newer one is removed.
    let three = Three::made().await;
    three
        .database(0)
        .execute("UPDATE entries SET body = replace(body, 'auth.login', 'auth.logon') WHERE seq = 7", [])
        .unwrap();
    let pruned = three.state(wish(256, 9)).await.unwrap();
    assert_eq!(pruned.earlier.iter().map(|log| log.generation).collect::<Vec<_>>(), [three.asides[1].0]);
    three.log.witnessed().await;
    three.log.store.remove_earlier().await.unwrap();
    assert_eq!(three.there(), [true, false]);
    three.log.store.close().await;
    // If the newer log lacks its last rows, both logs stay, because what the newer log states about the older one cannot be
    // trusted either.
    let three = Three::made().await;
    three.database(1).execute("DELETE FROM entries WHERE seq > 600", []).unwrap();
    let plan = three.plan(wish(256, 9)).await;
    assert!(plan.to_seq == 256 && plan.earlier.is_empty() && plan.limits[0].contains("are left"), "{plan:?}");
    let pruned = three.state(wish(256, 9)).await.unwrap();
    assert!(pruned.earlier.is_empty());
    three.finish().await;
    three.log.store.remove_earlier().await.unwrap();
    assert_eq!(three.there(), [true, true]);
    three.log.store.close().await;
    // A hold that was deleted from its table still keeps the log.
    let three = Three::made().await;
    three.offline_admin(1, 1).add_hold(&hold("hidden", 0, 2)).unwrap();
    three.database(1).execute("DELETE FROM holds", []).unwrap();
    assert!(three.state(wish(256, 9)).await.unwrap().earlier.is_empty());
    three.log.store.close().await;
}

/// An archived log is removed only if it is named by the first row of the log that replaced it. A planted log, and a copy of it
/// in place of an archived log, are kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_none_of_these_stays() {
    let three = Three::made().await;
    let other = tempfile::tempdir().unwrap();
    let log = Log::open(&other.path().join("data"));
    log.append(400).await;
    log.store.close().await;
    let generation = log.store.generation();
    drop(log);
    let planted = three.data.with_file_name(format!("data.{generation}"));
    std::fs::rename(other.path().join("data"), &planted).unwrap();
    // Also copy the planted log to the path of the oldest archived log.
    std::fs::remove_dir_all(&three.asides[0].1).unwrap();
    copy_folder(&planted, &three.asides[0].1);
    let pruned = three.state(wish(256, 9)).await.unwrap();
    assert_eq!(pruned.earlier.iter().map(|log| log.generation).collect::<Vec<_>>(), [three.asides[1].0]);
    three.finish().await;
    three.log.store.remove_earlier().await.unwrap();
    assert!(planted.is_dir() && three.there() == [true, false]);
    three.log.store.close().await;
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// An archived log that an operator changed between the statement and the removal is kept, and this is reported.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_used_since_stays_and_that_is_said() {
    let three = Three::made().await;
    three.state(wish(256, 9)).await.unwrap();
    three.offline_admin(0, 2).erase(5, "r", "uid=0", &[]).unwrap();
    three.log.witnessed().await;
    let left = three.log.store.remove_earlier().await.unwrap_err().to_string();
    assert!(left.contains("still exists") && left.contains("rows when it was recorded"), "{left}");
    assert_eq!(three.there(), [true, false]);
    // The rows of the current log are pruned nevertheless.
    three.finish().await;
    assert_eq!(three.log.findings().await, Vec::<String>::new());
    three.log.store.close().await;
}

/// An archived log that was tampered with between the statement and the removal is evidence, so it is kept.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_changed_since_stays() {
    let three = Three::made().await;
    three.state(wish(256, 9)).await.unwrap();
    let sql = "UPDATE entries SET body = replace(body, 'auth.login', 'auth.logon') WHERE seq = 7";
    three.database(0).execute(sql, []).unwrap();
    three.log.witnessed().await;
    assert!(three.log.store.remove_earlier().await.is_err());
    assert_eq!(three.there(), [true, false]);
    three.log.store.close().await;
}

/// Neither a damaged archived log nor one of unknown length prevents pruning of the current log.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_one_stays_and_the_rest_goes() {
    let three = Three::made().await;
    let path = three.asides[1].1.join("log.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 4;
    bytes[middle..].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let plan = three.plan(wish(256, 9)).await;
    assert!(plan.to_seq == 256, "{plan:?}");
    let pruned = three.state(wish(256, 9)).await.unwrap();
    assert!(pruned.earlier.is_empty(), "{pruned:?}");
    three.finish().await;
    three.log.store.remove_earlier().await.unwrap();
    assert_eq!(three.there(), [true, true]);
    three.log.store.close().await;

    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let log = Log::open(&data);
    log.append(300).await;
    log.store.close().await;
    drop(log);
    let sound = std::fs::read(data.join("log.db")).unwrap();
    std::fs::write(data.join("log.db"), b"no database any more").unwrap();
    let begun = begin_generation(&LogDir::new(&data), &keys(1), clock_at(1), "a test", "uid=0").unwrap();
    std::fs::write(begun.old.join("log.db"), sound).unwrap();
    let log = Log::open(&data);
    log.append(300).await;
    log.witnessed().await;
    let plan = log.store.plan_prune(wish(256, 9)).await.unwrap();
    assert!(plan.to_seq == 256 && plan.earlier.is_empty() && plan.limits[0].contains("unknown"), "{plan:?}");
    log.store.close().await;
}

/// An archived log is not removed if one of its entries was recorded while the clock was set back.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_under_a_clock_that_was_set_back_stays() {
    let three = Three::made().await;
    three.offline_admin(0, 0).erase(5, "r", "uid=0", &[]).unwrap();
    let plan = three.plan(wish(256, 9)).await;
    assert_eq!(plan.earlier.iter().map(|log| log.generation).collect::<Vec<_>>(), [three.asides[1].0], "{plan:?}");
    assert!(plan.to_seq == 256 && plan.limits[0].contains("set back"), "{plan:?}");
    three.log.store.close().await;
}

/// The newest time also covers rows that were pruned from an archived log earlier: they come before its other rows, but may have
/// newer timestamps.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_time_is_of_what_went_before_too() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let log = Log::open(&data);
    log.clock.0.store(40 * DAY_MICROS, Ordering::Relaxed);
    log.append(300).await;
    log.clock.0.store(DAY_MICROS, Ordering::Relaxed);
    log.append(300).await;
    log.prune(512).await;
    let log = replaced(log).await;
    let wish = wish(256, 9);
    let plan = log.store.plan_prune(wish).await.unwrap();
    let pruned = log.store.state_prune(wish, plan, "a test".to_owned(), None).await.unwrap();
    assert_eq!((pruned.earlier.len(), pruned.newest.micros()), (1, 40 * DAY_MICROS));
    log.store.close().await;
}

/// If the creation of a new generation is interrupted between its two steps, the old log has a temporary name, and the next start
/// renames it.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_generation_that_was_interrupted_is_finished() {
    let three = Three::made().await;
    three.log.store.close().await;
    let begun = |name: &str| three.data.with_file_name(format!("data.begun-{name}"));
    std::fs::rename(&three.asides[1].1, begun("1")).unwrap();
    // The remains of a new generation that never replaced a log are left alone.
    copy_folder(&three.asides[0].1, &begun("0"));
    let log = Log::open(&three.data);
    assert!(three.there() == [true, true] && !begun("1").exists() && begun("0").exists());
    assert_eq!(log.store.plan_prune(wish(256, 9)).await.unwrap().earlier.len(), 2, "both are known again");
    log.store.close().await;
    drop(log);
    // Running the command again also renames the old log.
    std::fs::rename(&three.asides[1].1, begun("1")).unwrap();
    begin_generation(&LogDir::new(&three.data), &keys(1), clock_at(1), "a test", "uid=0").unwrap();
    assert_eq!(three.there(), [true, true]);
}
