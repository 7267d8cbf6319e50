//! All sources of a node, with their listeners bound.

use std::path::{Path, PathBuf};

use piperoll_redact::Redactor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::store::Store;

use super::config::{IntakeConfig, Source};
use super::counts::IntakeCounts;
use super::mapping::Mapping;
use super::mark::{self, Known, MarkFile};
use super::pipeline::{self, Pipeline};
use super::syslog::Listeners;

/// Directory of the position files, in the node's data directory.
const FOLDER: &str = "intake";

/// All sources, with their listeners bound.
pub(crate) struct Intake {
    ways: Vec<PathRules>,
    counts: IntakeCounts,
    own: Vec<PathBuf>,
    ids: pipeline::Ids,
}

struct PathRules {
    config: IntakeConfig,
    mapping: Mapping,
    listeners: Option<Listeners>,
    mark: Option<mark::Mark>,
}

/// Reason why a source cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("intake {name:?}: {problem}")]
pub struct IntakeError {
    name: String,
    problem: String,
}

impl Intake {
    /// Reads the mappings and binds the listeners, so that an invalid source fails at startup.
    pub(crate) async fn open(
        configs: &[IntakeConfig],
        data_dir: &Path,
        own: Vec<PathBuf>,
        counts: IntakeCounts,
    ) -> Result<Self, IntakeError> {
        let mut ways = Vec::new();
        let ids = match configs.first() {
            None => pipeline::Ids::none(),
            Some(first) => pipeline::Ids::load(&data_dir.join(FOLDER))
                .map_err(|problem| IntakeError { name: first.name.clone(), problem })?,
        };
        for config in configs {
            let bad = |problem: String| IntakeError { name: config.name.clone(), problem };
            let mapping = Mapping::load(&config.map).map_err(|e| bad(e.to_string()))?;
            let listeners = match &config.source {
                Source::Syslog(address) => {
                    Some(Listeners::bind(*address).await.map_err(|e| bad(format!("{address}: {e}")))?)
                }
                Source::Journal { .. } | Source::File { .. } => None,
            };
            let mut config = config.clone();
            let mark = match MarkFile::new(&data_dir.join(FOLDER), &config.name).read().map_err(bad)? {
                Known::Nothing => None,
                Known::Mark(mark) => Some(mark),
                Known::Lost => {
                    config.from_now = false;
                    None
                }
            };
            ways.push(PathRules { config, mapping, listeners, mark });
        }
        Ok(Self { ways, counts, own, ids })
    }

    /// Starts one task per source. When `stop` is cancelled, the tasks record what was received and end.
    pub(crate) fn start(self, store: &Store, redactor: &Redactor, stop: &CancellationToken) -> TaskTracker {
        let tasks = TaskTracker::new();
        for PathRules { config, mapping, listeners, mark } in self.ways {
            // Create all counters at startup: if a series first appeared with its first loss, monitoring would never see it
            // increase.
            for result in ["recorded", "unmapped", "passed_over", "dropped", "conflict"] {
                drop(self.counts.0.get_or_create(&vec![("name", config.name.clone()), ("result", result.to_owned())]));
            }
            let folder = store.dir().path().join(FOLDER);
            let pipeline = Pipeline::new(
                store.clone(),
                redactor.clone(),
                config,
                mapping,
                self.counts.clone(),
                self.ids.clone(),
                &folder,
            );
            let listeners = listeners.map_or(pipeline::Opened::Read(self.own.clone()), pipeline::Opened::Listening);
            tasks.spawn(pipeline.run(listeners, mark, stop.clone()));
        }
        tasks.close();
        tasks
    }
}
