//! Automatic retention: runs at the configured interval, once a day by default, and on request.
//!
//! A recorded prune is always carried out, even if the node stops in between: a prune that waits for a witness, or was carried
//! out in part, continues at the next start.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use piperoll_format::limits::RETENTION_DAYS_MIN;
use piperoll_format::statement::{ArchiveDigest, Pruned};
use piperoll_format::time::Timestamp;
use piperoll_net::clock::Clock;
use piperoll_protocol::node::{PrunePlan, RetentionStatus};
use tokio::sync::Notify;

use crate::config::RetentionConfig;
use crate::store::{AdminError, PruneTarget, Store};

/// Interval for checking whether a witness has seen the prune statement.
const WITNESS_PAUSE: Duration = Duration::from_millis(200);
/// Interval for checking whether any witness has cosigned a checkpoint of this log.
const WITNESS_LOOK: Duration = Duration::from_secs(2);
const NO_WITNESSES: &str = "nothing is pruned, because no witness is known: copy the file `witnesses` from this node's directory in the cluster directory to the directory of its \
                            `node.toml`, and restart the node";
const UNKNOWN_WITNESS: &str = "a witness that is not in the file `witnesses` cosigned this log: copy that file from this node's directory in the cluster directory, and restart the node";
const EARLIER_LATE: &str =
    "an archived log can be removed only as a whole, together with the first 256 rows of the current log";
const DAY: Duration = Duration::from_hours(24);
const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;

/// Selects all rows and all archived logs that are older than `before`.
fn all_before(before: Timestamp) -> PruneTarget {
    PruneTarget { before, to_max: u64::MAX, earlier_before: before }
}

/// Runs the retention policy. Clones share their state.
#[derive(Clone)]
pub(crate) struct Retention {
    store: Store,
    clock: Arc<dyn Clock>,
    config: RetentionConfig,
    status: Arc<Mutex<RetentionStatus>>,
    /// Allows one prune at a time; held by `begin` while it records the prune, and by `carry_out` until the last row is deleted.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Wakes `pause`.
    changed: Arc<Notify>,
}

impl Retention {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>, config: RetentionConfig) -> Self {
        let idle = RetentionStatus {
            keep_days: config.keep_days,
            size_max: config.size_max,
            doing: "idle".to_owned(),
            ..RetentionStatus::default()
        };
        Self { store, clock, config, status: Arc::new(Mutex::new(idle)), turn: Arc::default(), changed: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, RetentionStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn status(&self) -> Result<RetentionStatus, AdminError> {
        let holds = self.store.holds().await?;
        let used_bytes = self.store.used_bytes().await?;
        let mut status = self.state().clone();
        status.used_bytes = used_bytes;
        status.confirmed_below = self.store.confirmed_below();
        if self.store.met_unknown_witness() {
            status.problem.get_or_insert_with(|| UNKNOWN_WITNESS.to_owned());
        }
        status.holds = holds.into_iter().map(|held| held.hold.name).collect();
        Ok(status)
    }

    fn doing(&self, what: &str) {
        what.clone_into(&mut self.state().doing);
    }

    /// Continues a prune that was begun, then applies the policy again and again.
    pub(crate) async fn keep(self) {
        loop {
            let outcome = match self.carry_out().await {
                Ok(()) => self.policy().await,
                Err(error) => Err(error),
            };
            if let Err(error) = &outcome {
                tracing::error!(%error, "retention run failed");
            }
            self.doing("idle");
            self.state().problem = outcome.err().map(|error| error.to_string());
            self.pause().await;
        }
    }

    /// Waits until the next run is due. Ends early when `look_again` is called, or, if no witness has cosigned yet, when one
    /// does.
    async fn pause(&self) {
        let again = tokio::time::Instant::now() + self.config.every;
        while tokio::time::Instant::now() < again {
            let unseen = matches!(self.store.witnessed_at().await, Ok(None));
            let waited_for = unseen && self.store.knows_witnesses() && self.has_policy();
            if !waited_for {
                let _ = tokio::time::timeout_at(again, self.changed.notified()).await;
                return;
            }
            self.doing("waiting for a witness");
            while tokio::time::Instant::now() < again && matches!(self.store.witnessed_at().await, Ok(None)) {
                tokio::time::sleep(WITNESS_LOOK).await;
            }
            if !matches!(self.store.witnessed_at().await, Ok(None)) {
                return;
            }
        }
    }

    fn has_policy(&self) -> bool {
        self.config.keep_days.is_some() || self.config.size_max.is_some()
    }

    /// Selects rows for automatic pruning that were witnessed at least `days` ago, regardless of their timestamps. Archived logs
    /// are compared with `sober_now`, but only by the timestamps of rows that were added after the log was archived.
    async fn witnessed_for(&self, days: u32) -> Result<PruneTarget, AdminError> {
        let earlier_before = self.sober_now().await?.minus(DAY * days);
        Ok(PruneTarget { before: Timestamp::MAX, to_max: self.store.rows_witnessed_for(DAY * days), earlier_before })
    }

    /// Selects rows for automatic pruning whose times an operator confirmed.
    async fn confirmed_for(&self, days: u32) -> Result<PruneTarget, AdminError> {
        let before = self.sober_now().await?.minus(DAY * days);
        Ok(PruneTarget { before, to_max: self.store.confirmed_below().unwrap_or(0), earlier_before: before })
    }

    /// Reports how far pruning is behind the policy, judging by the timestamps of the rows themselves.
    async fn say_late(&self, days: u32) -> Result<(), AdminError> {
        let extent = self.store.extent().await?;
        let oldest = self.store.time_of(extent.oldest_seq.unwrap_or_default()).await?;
        let earlier = self.store.oldest_of_earlier().await?;
        let over = |now: Timestamp, oldest: Option<Timestamp>| {
            let age = oldest.map_or(0, |oldest| now.micros().saturating_sub(oldest.micros())) / DAY_MICROS;
            u32::try_from(age.saturating_sub(i64::from(days)).max(0)).unwrap_or(u32::MAX)
        };
        let (late_days, because) = if self.store.knows_witnesses() {
            let now = self.sober_now().await?;
            let by_time = self.store.plan_prune(all_before(now.minus(DAY * days))).await;
            let by_age = self.store.plan_prune(self.witnessed_for(days).await?).await;
            let confirmed = self.store.plan_prune(self.confirmed_for(days).await?).await;
            let (Ok(by_time), Ok(by_age), Ok(confirmed)) = (by_time, by_age, confirmed) else { return Ok(()) };
            let by_age = by_age.to_seq.max(confirmed.to_seq);
            let seen = self.store.oldest_witnessed().as_secs() / DAY.as_secs();
            let message = format!(
                "rows expire once they have been witnessed for {days} days, and this node has counted {seen} days so far; \
                 if the clock was right when older rows were recorded, run `piperoll node confirm-times` to expire them by their own times"
            );
            let by_rows = (by_time.to_seq > by_age).then_some(message);
            let of_earlier = over(now, earlier);
            match by_rows {
                None if of_earlier > 0 => (of_earlier, Some(EARLIER_LATE.to_owned())),
                by_rows => (over(now, oldest).max(of_earlier).max(1), by_rows),
            }
        } else {
            (over(self.clock.now(), earlier.or(oldest)), Some(NO_WITNESSES.to_owned()))
        };
        let mut state = self.state();
        state.late_days = if because.is_some() { late_days } else { 0 };
        state.late_because = because;
        Ok(())
    }

    async fn policy(&self) -> Result<(), AdminError> {
        if let Some(days) = self.config.keep_days {
            self.prune_if_any(self.witnessed_for(days).await?, &format!("{days} days")).await?;
            let message = format!("{days} days, based on operator-confirmed times");
            self.prune_if_any(self.confirmed_for(days).await?, &message).await?;
            self.say_late(days).await?;
        }
        let Some(size_max) = self.config.size_max else { return Ok(()) };
        let used = self.store.used_bytes().await?;
        if used <= size_max {
            return Ok(());
        }
        let extent = self.store.extent().await?;
        let (first, rows) = extent.oldest_seq.zip(extent.head_seq).map_or((0, 0), |(a, b)| (a, b + 1 - a));
        let share = u128::from(rows) * u128::from(used - size_max) / u128::from(used.max(1));
        let to_max = first.saturating_add(u64::try_from(share).unwrap_or(0)).saturating_add(256);
        // A flood of entries must not cause younger rows, which may be evidence, to be pruned.
        let old = self.witnessed_for(RETENTION_DAYS_MIN).await?;
        let wish = PruneTarget { to_max: to_max.min(old.to_max), ..old };
        self.prune_if_any(wish, &format!("at most {size_max} bytes")).await?;
        let confirmed = self.confirmed_for(RETENTION_DAYS_MIN).await?;
        let wish = PruneTarget { to_max: to_max.min(confirmed.to_max), ..confirmed };
        self.prune_if_any(wish, &format!("at most {size_max} bytes, by operator-confirmed times")).await?;
        let used = self.store.used_bytes().await?;
        if used > size_max {
            return Err(AdminError::Refused(format!(
                "the database uses {used} bytes, more than the {size_max} bytes that retention.size_max_gib allows, and nothing more can be pruned: \
                 rows are kept for at least {RETENTION_DAYS_MIN} days, until they are witnessed, and while they are under a hold"
            )));
        }
        Ok(())
    }

    /// Returns the local time or the last witnessed time, whichever is earlier: a clock that runs ahead must not cause young rows
    /// to be pruned.
    async fn sober_now(&self) -> Result<Timestamp, AdminError> {
        let witnessed = self.store.witnessed_at().await?.unwrap_or(Timestamp::MIN);
        Ok(self.clock.now().min(witnessed))
    }

    async fn prune_if_any(&self, wish: PruneTarget, policy: &str) -> Result<(), AdminError> {
        let plan = self.store.plan_prune(wish).await?;
        if plan.to_seq > plan.from_seq {
            self.begin(wish, plan, policy.to_owned(), None).await?;
            self.carry_out().await?;
        }
        Ok(())
    }

    /// Wakes `pause`, so that the policy is applied again after its inputs have changed.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Returns the plan for a prune that an operator requests.
    pub(crate) async fn plan(&self, before: Timestamp) -> Result<PrunePlan, AdminError> {
        let plan = self.store.plan_prune(self.wish(before).await?).await?;
        Ok(PrunePlan { unconfirmed_from: self.unconfirmed(plan.to_seq), ..plan })
    }

    /// Returns the first row below `to_seq` that was neither witnessed for the minimum retention time nor confirmed by an operator.
    fn unconfirmed(&self, to_seq: u64) -> Option<u64> {
        let witnessed = self.store.rows_witnessed_for(DAY * RETENTION_DAYS_MIN);
        let sure = witnessed.max(self.store.confirmed_below().unwrap_or(0));
        (to_seq > sure).then_some(sure)
    }

    async fn wish(&self, before: Timestamp) -> Result<PruneTarget, AdminError> {
        if !self.store.knows_witnesses() {
            return Err(AdminError::Refused(NO_WITNESSES.to_owned()));
        }
        let youngest = self.sober_now().await?.minus(DAY * RETENTION_DAYS_MIN);
        if before > youngest {
            return Err(AdminError::Refused(format!(
                "rows are kept for at least {RETENTION_DAYS_MIN} days, counted from the last cosignature: rows recorded at {youngest} or later cannot be pruned"
            )));
        }
        Ok(all_before(before))
    }

    /// Records a prune that an operator requests; it is carried out in the background.
    pub(crate) async fn ask(
        &self,
        before: Timestamp,
        to_seq: u64,
        by: &str,
        archive: Option<ArchiveDigest>,
        confirm: bool,
    ) -> Result<Pruned, AdminError> {
        if let Some(first) = self.unconfirmed(to_seq).filter(|_| !confirm) {
            return Err(AdminError::Refused(format!(
                "cannot confirm that rows {first} and later were witnessed for {RETENTION_DAYS_MIN} days; only their own timestamps indicate \
                 that they are that old. If all clocks were right when they were recorded and are right now, add --confirm"
            )));
        }
        let wish = PruneTarget { to_max: to_seq, ..self.wish(before).await? };
        let plan = self.store.plan_prune(wish).await?;
        if let Some(log) = plan.earlier.first().filter(|_| archive.is_some()) {
            return Err(AdminError::Refused(format!(
                "the archived log {} would be pruned with these rows and is not in the archive: export it (`piperoll node export --generation {}`) and \
                 move its directory away, or prune without an archive",
                log.generation, log.generation
            )));
        }
        if plan.to_seq != to_seq {
            let message = format!(
                "the plan is out of date: now only rows below {} can be pruned, not below {to_seq}; try again",
                plan.to_seq
            );
            return Err(AdminError::Refused(message));
        }
        let pruned = self.begin(wish, plan, format!("rows before {before}, requested by {by}"), archive).await?;
        {
            // Set the state before the response is sent: a client that asks for the progress must not see the state of an earlier
            // prune.
            let mut state = self.state();
            (state.problem, state.rows_left) = (None, pruned.to_seq - pruned.from_seq);
            "waiting for a witness".clone_into(&mut state.doing);
        }
        let retention = self.clone();
        tokio::spawn(async move {
            let outcome = retention.carry_out().await;
            retention.doing("idle");
            if let Err(error) = &outcome {
                tracing::error!(%error, "prune failed");
            }
            retention.state().problem = outcome.err().map(|error| error.to_string());
        });
        Ok(pruned)
    }

    async fn begin(
        &self,
        wish: PruneTarget,
        plan: PrunePlan,
        policy: String,
        archive: Option<ArchiveDigest>,
    ) -> Result<Pruned, AdminError> {
        let busy = || AdminError::Refused("another prune is in progress; try again when it has finished".to_owned());
        let _turn = self.turn.try_lock().map_err(|_| busy())?;
        let pruned = self.store.state_prune(wish, plan, policy, archive).await?;
        tracing::info!(from = pruned.from_seq, to = pruned.to_seq, policy = pruned.policy, "prune declared");
        Ok(pruned)
    }

    /// Deletes the rows of a recorded prune, once a witness has seen the prune statement.
    async fn carry_out(&self) -> Result<(), AdminError> {
        let _turn = self.turn.lock().await;
        let Some(floor) = self.store.unfinished_prune().await? else { return Ok(()) };
        let rows = floor.pruned.to_seq - floor.pruned.from_seq;
        self.state().rows_left = rows;
        self.doing("waiting for a witness");
        while self.store.health().witnessed_size() <= floor.entry_seq {
            tokio::time::sleep(WITNESS_PAUSE).await;
        }
        let before = self.store.file_bytes().await?;
        self.doing("pruning");
        while !self.store.drop_batch().await? {
            let oldest = self.store.oldest_there().await?.unwrap_or(floor.pruned.to_seq);
            self.state().rows_left = floor.pruned.to_seq.saturating_sub(oldest);
        }
        // A failure to remove an archived log does not stop the pruning of the current one.
        let removed = self.store.remove_earlier().await;
        self.doing("shrinking the file");
        while !self.store.shrink().await? {}
        let bytes_freed = before.saturating_sub(self.store.file_bytes().await?);
        self.store.finish_prune(bytes_freed).await?;
        let mut state = self.state();
        (state.rows_left, state.bytes_freed) = (0, bytes_freed);
        drop(state);
        tracing::info!(rows, bytes_freed, "rows pruned");
        removed
    }
}
