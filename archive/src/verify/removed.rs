//! Applies the steps that replaced or removed files.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::check::{Chain, Checker};
use super::report::FindingKind;
use crate::record::names::DATA;
use crate::record::{Plan, Replacement, STEP_BYTES_MAX, Step, names};

/// Plans of committed steps that are read if there are files that no step names.
const PLANS_READ_MAX: usize = 4_096;

/// Index of the step that added a file, and its index among the step's files.
type FileAt = (usize, usize);

impl Checker<'_> {
    /// Lets every step that added rows name the files that have them now.
    pub(super) fn resolve(&mut self, chain: &mut Chain) {
        let mut files: HashMap<String, FileAt> = HashMap::new();
        for index in 0..chain.steps.len() {
            let step = chain.steps[index].clone();
            files.extend(step.files.iter().enumerate().map(|(at, file)| (file.name.clone(), (index, at))));
            for replaced in &step.replaced {
                match files.remove(&replaced.name) {
                    Some(at) => {
                        self.replace(chain, &step, replaced, at);
                        files.insert(replaced.file.name.clone(), at);
                    }
                    None => self.unknown(&step, &replaced.name),
                }
            }
            self.expire(chain, index, &step, &mut files);
        }
        let removed = &chain.removed;
        chain.steps.iter_mut().for_each(|step| step.files.retain(|file| !removed.contains_key(&file.name)));
        // In the end, every run of a log begins at its start or later.
        for (index, step) in chain.steps.iter().enumerate() {
            for file in &step.files {
                let is_below = |run: &crate::record::Run| {
                    let log = chain.steps[index].logs.get(run.log).map(|range| &range.log);
                    log.and_then(|log| chain.starts.get(log)).is_some_and(|(first, _)| run.from_seq < *first)
                };
                if file.runs.iter().any(is_below) {
                    let detail = "a step removed its first rows, but not the file";
                    self.report.find(FindingKind::Step, &file.name, detail);
                }
            }
        }
        self.report.expired =
            chain.starts.iter().map(|(log, (first, _))| format!("{log}: rows below {first}")).collect();
    }

    /// Files that attempts of committed steps created and that no step uses. A store may keep them, for example because of an object lock.
    pub(super) async fn abandoned(
        &mut self,
        chain: &Chain,
        newest: u64,
        listed: &BTreeMap<String, u64>,
        open: &HashSet<String>,
    ) -> HashSet<String> {
        let is_unknown = |name: &&String| {
            let is_known = self.named.contains(*name) || open.contains(*name) || chain.removed.contains_key(*name);
            name.starts_with(&format!("{DATA}/")) && !is_known
        };
        if !listed.keys().any(|name| is_unknown(&name)) {
            return HashSet::new();
        }
        let unknown: HashSet<String> = listed.keys().filter(is_unknown).cloned().collect();
        let is_earlier = |name: &&String| names::number_of_plan(name).is_some_and(|number| number <= newest);
        let mut found = HashSet::new();
        for name in listed.keys().rev().filter(is_earlier).take(PLANS_READ_MAX) {
            let Ok(bytes) = self.store.read(name, STEP_BYTES_MAX as u64).await else { continue };
            if let Ok(plan) = Plan::read(name, &bytes, &self.archive.steps) {
                found.extend(plan.files.into_iter().map(|file| file.name).filter(|name| unknown.contains(name)));
            }
        }
        found
    }

    fn unknown(&mut self, step: &Step, name: &str) {
        let detail = format!("it replaces or removes {name}, which is not part of the archive");
        self.find(FindingKind::Step, names::step(step.number), detail);
    }

    fn replace(&mut self, chain: &mut Chain, step: &Step, replaced: &Replacement, (index, at): FileAt) {
        let origin = &mut chain.steps[index];
        let mut file = replaced.file.clone();
        let mut is_same = true;
        for run in &mut file.runs {
            let log = replaced.logs.get(run.log);
            match log.and_then(|log| origin.logs.iter().position(|range| range.log == *log)) {
                Some(log) => run.log = log,
                None => is_same = false,
            }
        }
        let old = &mut origin.files[at];
        if !is_same || !file.has_rows_of(old) {
            let detail = format!("{} does not have the rows of {}", file.name, old.name);
            self.find(FindingKind::Step, names::step(step.number), detail);
            return;
        }
        self.named.remove(&old.name);
        chain.removed.insert(old.name.clone(), step.number);
        *old = file;
    }

    fn expire(&mut self, chain: &mut Chain, index: usize, step: &Step, files: &mut HashMap<String, FileAt>) {
        for (start, tree) in step.starts.iter().zip(&chain.trees[index].logs) {
            chain.starts.insert(start.log.clone(), (start.first_seq, tree.before()));
        }
        for name in &step.expired {
            let Some((origin, at)) = files.remove(name) else {
                self.unknown(step, name);
                continue;
            };
            self.named.remove(name);
            chain.removed.insert(name.clone(), step.number);
            let (logs, runs) = (&chain.steps[origin].logs, &chain.steps[origin].files[at].runs);
            let is_kept = runs.iter().any(|run| {
                let log = logs.get(run.log).map(|range| &range.log);
                let start = log.and_then(|log| chain.starts.get(log)).map_or(0, |(first, _)| *first);
                run.to_seq > start
            });
            if is_kept {
                let detail = format!("it removes {name}, which has rows that the archive still should have");
                self.find(FindingKind::Step, names::step(step.number), detail);
            }
        }
    }
}
