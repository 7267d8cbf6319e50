//! State of one node between queries: reachable or down, last contact, clock offset.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use piperoll_format::time::Timestamp;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::aggregator::Status;
use piperoll_protocol::node::{ClockReading, peer_path};
use piperoll_query::filter::FILTER_VERSION;

use crate::cluster::connection::{Failure, NodeConnection};
use crate::cluster::witness::watch::NodeWitness;
use crate::config::RosterNode;

/// Number of consecutive failed TCP connects after which a node counts as down.
const DOWN_AFTER_FAILURES: u32 = 2;
/// Interval at which a healthy node's clock is measured.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// Delay between two probes of a node that is down, give or take a quarter, so that its return is noticed within a second.
const PROBE_DELAY: Duration = Duration::from_millis(700);
/// Interval between handshake attempts with a frozen node.
const FROZEN_PROBE_EVERY: Duration = Duration::from_secs(1);
/// Maximum age of a sample. The node's clock may have changed since an older sample was taken.
const SAMPLE_LIFE: Duration = Duration::from_secs(300);
const SAMPLES_MAX: usize = 30;
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runtime state of one roster entry.
pub(crate) struct NodeHandle {
    pub(crate) node: RosterNode,
    pub(crate) link: NodeConnection,
    /// Reason why the log in a departed node's folder cannot be read, if this aggregator was given that folder.
    pub(crate) unreadable: Option<String>,
    pub(crate) witness: NodeWitness,
    state: Mutex<ConnectionState>,
    /// Notified by `failed` when a query finds the node down or frozen, so that `watch` starts probing for its return immediately.
    refused: tokio::sync::Notify,
}

#[derive(Default)]
struct ConnectionState {
    failures: u32,
    last_failure: Option<String>,
    /// Reason why the node counts as frozen, until it completes a handshake.
    frozen: Option<String>,
    last_seen: Option<Timestamp>,
    samples: VecDeque<Sample>,
    /// Filter version that the node reported, and the number of the connection on which the report arrived.
    filter_version: Option<(u32, u64)>,
}

#[derive(Clone, Copy)]
struct Sample {
    taken: Instant,
    offset_micros: i64,
    uncertainty_micros: i64,
}

/// Difference between a node's clock and ours: offset ± uncertainty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockOffset {
    pub(crate) offset_micros: i64,
    pub(crate) uncertainty_micros: i64,
}

impl NodeHandle {
    pub(crate) fn new(
        node: RosterNode,
        link: NodeConnection,
        unreadable: Option<String>,
        witness: NodeWitness,
    ) -> Self {
        let (state, refused) = (Mutex::default(), tokio::sync::Notify::new());
        Self { node, link, unreadable, witness, state, refused }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the reason why the node must not be dialed now: TCP connects to it have failed or it is frozen, and a
    /// probe is watching for its return.
    pub(crate) fn circuit_open(&self) -> Option<(Status, String)> {
        let state = self.state();
        if let Some(reason) = &state.frozen {
            return Some((Status::Timeout, format!("does not respond; probed every second ({reason})")));
        }
        (state.failures >= DOWN_AFTER_FAILURES).then(|| {
            let failure = state.last_failure.clone().unwrap_or_default();
            (Status::Unreachable, format!("known to be down; probed until it responds ({failure})"))
        })
    }

    pub(crate) fn last_seen(&self) -> Option<Timestamp> {
        self.state().last_seen
    }

    pub(crate) fn seen(&self) {
        let mut state = self.state();
        state.failures = 0;
        state.last_failure = None;
        state.frozen = None;
        state.last_seen = Some(SystemClock.now());
    }

    /// Whether the node is no longer a member of the cluster. Its log may still be read in this process; see `is_out_of_reach`.
    pub(crate) fn has_left(&self) -> bool {
        self.node.life.has_ended_by(SystemClock.now())
    }

    /// Whether the node has left and its log is not available in this process, so that it is not queried.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        self.has_left() && !self.link.is_local()
    }

    /// Returns the witness's alarm if this node's log is not the one that was witnessed.
    pub(crate) fn alarm(&self) -> Option<String> {
        let standing = self.witness.standing();
        standing.is_alarm().then(|| format!("{}: {}", standing.verdict, standing.reason.unwrap_or_default()))
    }

    /// Records a failure. Only a failed TCP connect counts towards "down"; a slow or busy node is not down.
    pub(crate) fn failed(&self, failure: &Failure) {
        let mut state = self.state();
        if let Failure::Unreachable { reason, tcp: true } = failure {
            state.failures = state.failures.saturating_add(1);
            state.last_failure = Some(reason.clone());
            self.refused.notify_one();
        }
        if let Failure::Frozen(reason) = failure {
            state.frozen = Some(reason.clone());
            self.refused.notify_one();
        }
    }

    /// Returns the newest filter version that the node supports. Asks the node if it has reported none on this connection.
    pub(crate) async fn filter_version(&self) -> Result<u32, Failure> {
        if self.link.is_local() {
            return Ok(FILTER_VERSION);
        }
        // The node may have been restarted with another version of the program, so a filter version that was reported on a closed
        // connection is not used.
        let known = || {
            let (version, number) = self.state().filter_version?;
            (self.link.connection_number() == Some(number)).then_some(version)
        };
        if let Some(version) = known() {
            return Ok(version);
        }
        self.sample().await?;
        Ok(known().unwrap_or(1))
    }

    /// Waits until a frozen node completes a handshake or turns out to be gone.
    async fn wait_for_thaw(&self) {
        while self.state().frozen.is_some() {
            let begun = Instant::now();
            match self.link.probe().await {
                Ok(()) => self.state().frozen = None,
                Err(Failure::Frozen(_)) => tokio::time::sleep_until((begun + FROZEN_PROBE_EVERY).into()).await,
                Err(failure) => {
                    // The node is no longer counted as frozen, because it is gone.
                    self.state().frozen = None;
                    self.failed(&failure);
                }
            }
        }
    }

    /// Returns the best recent sample: the one with the smallest uncertainty.
    pub(crate) fn clock(&self) -> Option<ClockOffset> {
        let state = self.state();
        state
            .samples
            .iter()
            .filter(|sample| sample.taken.elapsed() < SAMPLE_LIFE)
            .min_by_key(|sample| sample.uncertainty_micros)
            .map(|sample| ClockOffset {
                offset_micros: sample.offset_micros,
                uncertainty_micros: sample.uncertainty_micros,
            })
    }

    /// Measures the clock with one tiny request. The node read its clock at some point during the round trip, so the offset is
    /// known to within half of the round-trip time.
    async fn sample(&self) -> Result<(), Failure> {
        let (before, started) = (SystemClock.now().micros(), Instant::now());
        let reading: ClockReading = self.link.get_json(peer_path::CLOCK, SAMPLE_TIMEOUT).await?;
        let round_trip = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
        let half = round_trip / 2;
        let number = self.link.connection_number();
        self.seen();
        let sample = Sample {
            taken: started,
            offset_micros: reading.now_micros - (before + half),
            uncertainty_micros: half.max(1),
        };
        let mut state = self.state();
        state.filter_version = number.map(|number| (reading.filter_version, number));
        if state.samples.len() == SAMPLES_MAX {
            state.samples.pop_front();
        }
        state.samples.push_back(sample);
        Ok(())
    }

    /// Samples the clock while the node answers, and probes for its return while it does not. Never returns.
    pub(crate) async fn watch(&self) {
        let mut warm = false;
        loop {
            if self.is_out_of_reach() {
                tokio::time::sleep(SAMPLE_INTERVAL).await;
                continue;
            }
            self.wait_for_thaw().await;
            match self.sample().await {
                Ok(()) => {
                    // The first sample includes the handshake; the second one measures the clock.
                    let pause = if warm { SAMPLE_INTERVAL } else { Duration::from_millis(20) };
                    let _ = tokio::time::timeout(pause, self.refused.notified()).await;
                    warm = true;
                }
                Err(failure) => {
                    warm = false;
                    self.failed(&failure);
                    tokio::time::sleep(jittered(PROBE_DELAY)).await;
                }
            }
        }
    }
}

/// Adds jitter, so that a hundred probes do not happen at the same moment.
fn jittered(delay: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_bytes()[0];
    delay.mul_f64(0.75 + f64::from(random) / 512.0)
}
