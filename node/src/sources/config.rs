//! `[[intake]]` in `node.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::start_at::RawFrom;

const NAME_BYTES_MAX: usize = 32;

/// Configuration of one source.
#[derive(Debug, Clone)]
pub struct IntakeConfig {
    /// Name of the source, written to `via` of its entries.
    pub name: String,
    pub source: Source,
    /// Name of a built-in mapping, or path of a mapping file.
    pub map: String,
    /// Whether to read only new records and skip those that already exist.
    pub from_now: bool,
}

/// Origin of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Syslog over UDP and TCP, at one loopback address of this machine.
    Syslog(SocketAddr),
    /// Journal entries of one unit, or of all units if `None`. `directory` is for journals other than this machine's own.
    Journal { unit: Option<String>, directory: Option<PathBuf> },
    /// A file of JSON lines. It may be owned by root, the daemon's user or one of `owners`; links are resolved only inside
    /// `links_in`.
    File { path: PathBuf, owners: Vec<u32>, links_in: Option<PathBuf> },
}

impl Source {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Syslog(_) => "syslog",
            Self::Journal { .. } => "journald",
            Self::File { .. } => "file",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawIntake {
    name: String,
    syslog: Option<SocketAddr>,
    journald: Option<String>,
    journal_directory: Option<PathBuf>,
    file: Option<PathBuf>,
    #[serde(default)]
    owners: Vec<u32>,
    links_in: Option<PathBuf>,
    map: Option<String>,
    #[serde(default)]
    from: RawFrom,
}

impl RawIntake {
    /// Checks all sources; the error says which one is wrong.
    pub(crate) fn check_all(typed: Vec<Self>, base: &Path) -> Result<Vec<IntakeConfig>, String> {
        let mut configs: Vec<IntakeConfig> = Vec::new();
        for intake in typed {
            let name = intake.name.clone();
            let config = intake.check(base).map_err(|problem| format!("intake {name:?}: {problem}"))?;
            if configs.iter().any(|other| other.name == config.name) {
                return Err(format!("intake {name:?}: duplicate source name"));
            }
            configs.push(config);
        }
        Ok(configs)
    }

    fn check(self, base: &Path) -> Result<IntakeConfig, String> {
        let is_name = (1..=NAME_BYTES_MAX).contains(&self.name.len())
            && self.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !is_name {
            return Err(format!("a name must have 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.'"));
        }
        if self.journal_directory.is_some() && self.journald.is_none() {
            return Err("`journal_directory` requires `journald`".to_owned());
        }
        if self.file.is_none() && (!self.owners.is_empty() || self.links_in.is_some()) {
            return Err("`owners` and `links_in` require `file`".to_owned());
        }
        let source = match (self.syslog, self.journald, self.file) {
            (Some(address), None, None) if address.ip().is_loopback() => Source::Syslog(address),
            (Some(address), None, None) => {
                return Err(format!(
                    "syslog = {address} is an address that other machines can reach, and syslog does not authenticate senders; use 127.0.0.1 or [::1]"
                ));
            }
            (None, Some(unit), None) => {
                let directory = self.journal_directory.map(|directory| base.join(directory));
                // The unit's name is passed to journalctl as an argument.
                if unit.starts_with('-') || unit.chars().any(|c| c.is_control() || c.is_whitespace()) {
                    return Err(format!("journald = {unit:?} is not a valid unit name"));
                }
                Source::Journal { unit: (unit != "*").then_some(unit), directory }
            }
            (None, None, Some(path)) => Source::File {
                path: base.join(path),
                owners: self.owners.clone(),
                links_in: self.links_in.as_ref().map(|folder| base.join(folder)),
            },
            _ => return Err("set exactly one of syslog, journald, file".to_owned()),
        };
        let map = match (self.map, &source) {
            // A file next to the configuration, or a built-in mapping.
            (Some(map), _) if map.ends_with(".toml") => base.join(map).display().to_string(),
            (Some(map), _) => map,
            (None, Source::Syslog(_)) => "syslog".to_owned(),
            (None, _) => return Err("`map` is missing; set it to a built-in mapping or a mapping file".to_owned()),
        };
        Ok(IntakeConfig { name: self.name, source, map, from_now: self.from == RawFrom::Now })
    }
}
