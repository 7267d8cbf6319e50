//! Stores each person's saved searches in a small file in the state directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use piperoll_net::atomic_file::replace;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::access::SavedSearch;
use piperoll_query::filter::{FILTER_VERSION, Filter};
use serde::{Deserialize, Serialize};

/// Maximum number of searches of one person.
const SEARCHES_MAX: usize = 100;
/// Maximum number of people with saved searches.
const PEOPLE_MAX: usize = 10_000;
const NAME_CHARACTERS_MAX: usize = 64;
const PARAMETERS_BYTES_MAX: usize = 4_096;

/// Reasons why a search cannot be saved or returned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the name of a search must have 1 to {NAME_CHARACTERS_MAX} characters and no line breaks")]
    Name,
    #[error("the parameters of a search must not exceed {PARAMETERS_BYTES_MAX} bytes")]
    TooLong,
    #[error("you have {SEARCHES_MAX} saved searches, which is the limit; delete one first")]
    Full,
    #[error("cannot save the search: {PEOPLE_MAX} users already have saved searches, which is the limit")]
    TooManyPeople,
    #[error("cannot save the change: {0}")]
    Failed(String),
    #[error("no saved search named {0:?}")]
    NotFound(String),
}

type People = BTreeMap<String, BTreeMap<String, StoredSearches>>;

/// Parameters of one saved search, and the version of the filter language in which the search's filter was typed. A search saved
/// before version 2 of the language has only the parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "KeptForm", into = "KeptForm")]
struct StoredSearches {
    parameters: String,
    filter_version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KeptForm {
    Version1(String),
    Later { parameters: String, filter_version: u32 },
}

impl From<KeptForm> for StoredSearches {
    fn from(form: KeptForm) -> Self {
        match form {
            KeptForm::Version1(parameters) => Self { parameters, filter_version: 1 },
            KeptForm::Later { parameters, filter_version } => Self { parameters, filter_version },
        }
    }
}

impl From<StoredSearches> for KeptForm {
    fn from(kept: StoredSearches) -> Self {
        let StoredSearches { parameters, filter_version } = kept;
        if filter_version == 1 { Self::Version1(parameters) } else { Self::Later { parameters, filter_version } }
    }
}

impl StoredSearches {
    /// Returns the parameters with the filter rewritten in the current version of the filter language.
    fn today(&self) -> String {
        if self.filter_version >= FILTER_VERSION {
            return self.parameters.clone();
        }
        let pairs = url_pairs(&self.parameters).into_iter().map(|(name, value)| {
            let value = if name == "filter" { Filter::retyped(&value, SystemClock.now()) } else { value };
            (name, value)
        });
        serde_urlencoded::to_string(pairs.collect::<Vec<_>>()).unwrap_or_else(|_| self.parameters.clone())
    }
}

fn url_pairs(parameters: &str) -> Vec<(String, String)> {
    serde_urlencoded::from_str(parameters).unwrap_or_default()
}

/// The saved searches and their file. Only this process writes the file, one thread at a time. Reading never waits for the disk.
pub(crate) struct Searches {
    path: PathBuf,
    people: Mutex<Arc<People>>,
    writing: Mutex<()>,
}

impl Searches {
    pub(crate) fn open(state_dir: &Path) -> Result<Self, SearchError> {
        let path = state_dir.join("searches.json");
        let people = match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(people) => people,
                // Saved searches are a convenience: a damaged file must not prevent reading the log.
                Err(error) => {
                    let aside = path.with_extension("json.damaged");
                    std::fs::rename(&path, &aside).map_err(|source| SearchError::Io { path: path.clone(), source })?;
                    tracing::error!(file = %path.display(), aside = %aside.display(), %error, "the saved searches are damaged; the file was set aside");
                    People::new()
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => People::new(),
            Err(source) => return Err(SearchError::Io { path, source }),
        };
        Ok(Self { path, people: Mutex::new(Arc::new(people)), writing: Mutex::default() })
    }

    pub(crate) fn of(&self, person: &str) -> Vec<SavedSearch> {
        let people = self.snapshot();
        let kept = people.get(person).into_iter().flatten();
        kept.map(|(name, parameters)| SavedSearch { name: name.clone(), parameters: parameters.today() }).collect()
    }

    fn snapshot(&self) -> Arc<People> {
        Arc::clone(&self.people.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Saves a search, replacing one of the same name. Returns once the file is on disk.
    pub(crate) fn keep(&self, person: &str, search: SavedSearch) -> Result<(), SearchError> {
        let characters = search.name.chars().count();
        if characters == 0 || characters > NAME_CHARACTERS_MAX || search.name.chars().any(char::is_control) {
            return Err(SearchError::Name);
        }
        if search.parameters.len() > PARAMETERS_BYTES_MAX {
            return Err(SearchError::TooLong);
        }
        self.change(|people| {
            if people.len() >= PEOPLE_MAX && !people.contains_key(person) {
                return Err(SearchError::TooManyPeople);
            }
            let kept = people.entry(person.to_owned()).or_default();
            if kept.len() >= SEARCHES_MAX && !kept.contains_key(&search.name) {
                return Err(SearchError::Full);
            }
            kept.insert(search.name, StoredSearches { parameters: search.parameters, filter_version: FILTER_VERSION });
            Ok(())
        })
    }

    pub(crate) fn remove(&self, person: &str, name: &str) -> Result<(), SearchError> {
        self.change(|people| {
            let kept = people.get_mut(person).and_then(|kept| kept.remove(name).map(|_| kept.is_empty()));
            match kept {
                None => return Err(SearchError::NotFound(name.chars().take(NAME_CHARACTERS_MAX).collect())),
                Some(true) => drop(people.remove(person)),
                Some(false) => {}
            }
            Ok(())
        })
    }

    /// Applies a change. If it cannot be written, it is not kept in memory either. A crash leaves the file as it was before or after the
    /// change.
    fn change(&self, change: impl FnOnce(&mut People) -> Result<(), SearchError>) -> Result<(), SearchError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = (*self.snapshot()).clone();
        change(&mut changed)?;
        let bytes = serde_json::to_vec_pretty(&changed).unwrap_or_default();
        replace(&self.path, &bytes).map_err(|source| SearchError::Io { path: self.path.clone(), source })?;
        *self.people.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(changed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_keeps_the_meaning_that_it_was_saved_with() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("searches.json");
        std::fs::write(
            &file,
            r#"{"cert kim":{"old":"filter=user%3Ak*+is%3Afailed&from=7d","plain":"filter=user%3Akim"}}"#,
        )?;
        let searches = Searches::open(dir.path())?;
        let new = SavedSearch { name: "new".to_owned(), parameters: "filter=user%3Ak*".to_owned() };
        searches.keep("cert kim", new)?;
        for _ in 0..2 {
            let again = Searches::open(dir.path())?;
            let of = |name: &str| {
                again.of("cert kim").into_iter().find(|search| search.name == name).map(|search| search.parameters)
            };
            let old = of("old").ok_or("it is kept")?;
            let pairs = url_pairs(&old);
            assert_eq!(
                pairs,
                [("filter".to_owned(), "v1: user:k* is:failed".to_owned()), ("from".to_owned(), "7d".to_owned())]
            );
            assert_eq!(of("plain").as_deref(), Some("filter=user%3Akim"));
            assert_eq!(of("new").as_deref(), Some("filter=user%3Ak*"));
        }
        Ok(())
    }
}
