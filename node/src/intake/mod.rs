//! Ways in besides the socket, for what cannot speak to it: a syslog listener on loopback, the journal, files.
//!
//! What comes in here is somebody's claim: nobody asks for a receipt, and nothing says who wrote it. `via` says so in every entry. Records
//! of a journal or a file are read from a place that is kept, with ids made of where they stand, so that a crash neither loses nor doubles
//! one. What cannot be mapped becomes an entry all the same, that holds the record.

mod attempt;
mod config;
mod files;
mod join;
mod journal;
mod mapping;
mod mark;
pub mod parsers;
mod pipeline;
mod safe;
mod syslog;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use piperoll_shared::api::node::IntakeStatus;
use piperoll_shared::log::redact::Redactor;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::store::Store;

pub(crate) use config::TypedIntake;
pub use config::{IntakeConfig, Source};
pub use files::unpacked;
pub use join::{Joined, Joiner};
pub use mapping::{BuiltIn, Join, MapError, Mapped, Mapping, Outcome, Pairs};
use mark::{Known, MarkFile};
use pipeline::Pipeline;
use syslog::Listeners;

/// Folder of the marks, in the node's data directory.
const FOLDER: &str = "intake";

/// All ways in, with their listeners bound.
pub(crate) struct Intake {
    ways: Vec<Way>,
    counts: IntakeCounts,
    own: Vec<PathBuf>,
    ids: pipeline::Ids,
}

struct Way {
    config: IntakeConfig,
    mapping: Mapping,
    listeners: Option<Listeners>,
    mark: Option<mark::Mark>,
}

/// What came in, by name and by what became of it.
#[derive(Clone, Default)]
pub(crate) struct IntakeCounts(Family<Vec<(&'static str, String)>, Counter>, pub(crate) Problems);

impl IntakeCounts {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Records of other systems, by what became of them: recorded, unmapped (recorded as they are), passed_over, dropped, conflict (recorded under a fresh id)";
        registry.register("intake_records", help, self.0.clone());
    }

    fn add(&self, name: &str, result: &str, count: u64) {
        if count > 0 {
            self.0.get_or_create(&vec![("name", name.to_owned()), ("result", result.to_owned())]).inc_by(count);
        }
    }
}

/// What keeps a source from being read, by its name; shown in health.
#[derive(Clone, Default)]
pub(crate) struct Problems(Shared<BTreeMap<String, String>>);

impl Problems {
    fn set(&self, name: &str, problem: Option<String>) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => drop(problems.insert(name.to_owned(), problem)),
            None => drop(problems.remove(name)),
        }
    }

    /// Names and words.
    pub(crate) fn all(&self) -> Vec<IntakeStatus> {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        problems.iter().map(|(name, problem)| IntakeStatus { name: name.clone(), problem: problem.clone() }).collect()
    }
}

/// A way in that cannot be opened, in words.
#[derive(Debug, thiserror::Error)]
#[error("intake {name:?}: {problem}")]
pub struct IntakeError {
    name: String,
    problem: String,
}

impl Intake {
    /// Reads the mappings and binds the listeners, so that a wrong one is an error and not a surprise.
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
            ways.push(Way { config, mapping, listeners, mark });
        }
        Ok(Self { ways, counts, own, ids })
    }

    /// One task per way; they end when `stop` says so, with what had come in recorded.
    pub(crate) fn start(self, store: &Store, redactor: &Redactor, stop: &CancellationToken) -> TaskTracker {
        let tasks = TaskTracker::new();
        for Way { config, mapping, listeners, mark } in self.ways {
            // A series that begins with its first loss would never be seen to grow.
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

/// What a source hands over.
struct Record {
    /// JSON, or whatever was found.
    text: Vec<u8>,
    /// Of a record that is longer than one may be, `text` is the beginning.
    cut: Option<Cut>,
    /// Where it stands, so that the same record gets the same id; none for what comes only once.
    place: Option<String>,
    /// The same, as an earlier version of Piperoll wrote it: what was recorded under it is the same record.
    earlier_place: Option<String>,
    /// What is kept once it is recorded.
    mark: Option<mark::Mark>,
}

/// Length and hash of a record that was too long to be kept whole.
#[derive(Debug, Clone)]
struct Cut {
    bytes: u64,
    sha256: String,
}

/// What goes from a source to the pipeline.
enum Heard {
    Record(Record),
    /// Where reading begins, before anything was read.
    Place(mark::Mark),
    /// Records that are known to be lost; none when nobody can say how many.
    Lost {
        count: Option<u64>,
        cause: String,
    },
}

type Heards = tokio::sync::mpsc::Sender<Heard>;
type Shared<T> = Arc<std::sync::Mutex<T>>;
