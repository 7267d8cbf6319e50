//! The searches that people keep: a small file in the state directory, by the name of the person.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use piperoll_shared::api::access::SavedSearch;
use piperoll_shared::net::replaced::replace;

/// Searches of one person.
const SEARCHES_MAX: usize = 100;
/// People who keep any.
const PEOPLE_MAX: usize = 10_000;
const NAME_CHARACTERS_MAX: usize = 64;
const PARAMETERS_BYTES_MAX: usize = 4_096;

/// Why a search was not kept or not given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("a search has a name of 1 to {NAME_CHARACTERS_MAX} characters without line breaks")]
    Name,
    #[error("the parameters of a search have at most {PARAMETERS_BYTES_MAX} bytes")]
    TooLong,
    #[error("you keep {SEARCHES_MAX} searches already; remove one first")]
    Full,
    #[error("{PEOPLE_MAX} people keep searches already")]
    TooManyPeople,
    #[error("the change was not made: {0}")]
    Failed(String),
    #[error("you keep no search named {0:?}")]
    NotFound(String),
}

type People = BTreeMap<String, BTreeMap<String, String>>;

/// The file. One process writes it, and one thread at a time; nobody who reads waits for the disk.
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
                // Saved searches are a convenience: reading the log does not wait for them.
                Err(error) => {
                    let aside = path.with_extension("json.damaged");
                    std::fs::rename(&path, &aside).map_err(|source| SearchError::Io { path: path.clone(), source })?;
                    tracing::error!(file = %path.display(), aside = %aside.display(), %error, "the saved searches are damaged and set aside");
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
        kept.map(|(name, parameters)| SavedSearch { name: name.clone(), parameters: parameters.clone() }).collect()
    }

    fn snapshot(&self) -> Arc<People> {
        Arc::clone(&self.people.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps a search; one of the same name is replaced. Waits for the disk.
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
            kept.insert(search.name, search.parameters);
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

    /// What cannot be written is not kept in memory either. A crash leaves the file as it was before or as it is now.
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
