//! Finds the archive and the keys that a command works with.

use std::path::Path;

use anyhow::Context as _;
use piperoll_aggregator::config::{AggregatorConfig, ArchiveConfig};
use piperoll_archive::history::Head;
use piperoll_archive::row::Day;
use piperoll_archive::store::{Address, AddressError, Credentials, Store};
use piperoll_archive::write::newest_seen;
use piperoll_evidence::bundle::{ArchiveTrust, TRUST_BYTES_MAX, Trust};
use piperoll_format::ids::ClusterName;
use piperoll_query::human_time;

use crate::args::{ArchivePlaceArgs, DayArgs};
use crate::exit::UsageError;

/// An archive and its public keys.
pub(super) struct ArchiveLocation {
    pub(super) store: Store,
    pub(super) address: Address,
    pub(super) cluster: ClusterName,
    pub(super) keys: ArchiveTrust,
    pub(super) trust: Option<Trust>,
    /// Newest step that the writer on this machine has seen.
    pub(super) seen: Option<Head>,
}

/// Reads the configuration of the archive that an aggregator writes, and returns it with the directory of the writer's state.
pub(super) fn configured(path: &Path) -> anyhow::Result<(ArchiveConfig, std::path::PathBuf)> {
    let config = AggregatorConfig::load(path)?;
    let archive = config.archive.with_context(|| {
        format!("{} has no [archive] table; add one with `piperoll cluster add-archive`", path.display())
    })?;
    Ok((archive, config.state_dir.join("archive")))
}

/// Opens the archive that the arguments name: by address and trust file, or by the aggregator's configuration.
pub(super) fn open(args: &ArchivePlaceArgs) -> anyhow::Result<ArchiveLocation> {
    let trust = args.trust.as_deref().map(read_trust).transpose()?;
    let credentials = args.credentials.as_deref().map(Credentials::read).transpose()?;
    let Some(url) = &args.url else {
        let (config, dir) = configured(&args.config)
            .context("without --url, the archive is the one that the aggregator's configuration names")?;
        let keys = match &trust {
            Some(trust) => pick(trust, Some(&config.id))?,
            None => ArchiveTrust {
                id: config.id.clone(),
                steps: config.keys.steps.public().clone(),
                mirror: config.keys.mirror.public().clone(),
            },
        };
        let store = Store::open(&config.address, credentials.as_ref().or(config.credentials.as_ref()))?;
        let seen = newest_seen(&dir)?;
        return Ok(ArchiveLocation { store, address: config.address, cluster: config.cluster, keys, trust, seen });
    };
    let address: Address = url.parse().map_err(|error: AddressError| UsageError(error.to_string()))?;
    let trust = trust.ok_or_else(|| UsageError("--url also needs --trust, which has the archive's keys".to_owned()))?;
    let keys = pick(&trust, args.archive.as_ref())?;
    let store = Store::open(&address, credentials.as_ref())?;
    Ok(ArchiveLocation { store, address, cluster: trust.cluster.clone(), keys, trust: Some(trust), seen: None })
}

fn read_trust(path: &Path) -> anyhow::Result<Trust> {
    let bytes = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    anyhow::ensure!(
        bytes <= TRUST_BYTES_MAX as u64,
        "{}: {bytes} bytes, more than the limit of {TRUST_BYTES_MAX}",
        path.display()
    );
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Trust::parse(&text).with_context(|| path.display().to_string())
}

/// Returns the keys of the named archive, or of the only one.
fn pick(trust: &Trust, id: Option<&piperoll_format::ids::NodeId>) -> anyhow::Result<ArchiveTrust> {
    let known = || trust.archives.iter().map(|archive| archive.id.to_string()).collect::<Vec<_>>().join(", ");
    let found = match id {
        Some(id) => trust.archives.iter().find(|archive| &archive.id == id),
        None if trust.archives.len() > 1 => {
            return Err(UsageError(format!(
                "the trust file lists several archives; name one with --archive: {}",
                known()
            ))
            .into());
        }
        None => trust.archives.first(),
    };
    found.cloned().with_context(|| match id {
        Some(id) => format!("the trust file does not list the archive {id} (it lists: {})", known()),
        None => "the trust file lists no archive; get a new one from the cluster's administrators".to_owned(),
    })
}

/// Parses a range of days.
pub(super) fn days(args: &DayArgs) -> Result<(Option<Day>, Option<Day>), UsageError> {
    let day = |text: &String| {
        let range = human_time::day_range(text);
        let range = range.ok_or_else(|| UsageError(format!("{text:?} is not a valid date; write YYYY-MM-DD")));
        range.map(|(begin, _)| Day::of(begin))
    };
    let (from, to) = (args.from.as_ref().map(day).transpose()?, args.to.as_ref().map(day).transpose()?);
    match (from, to) {
        (Some(from), Some(to)) if to < from => Err(UsageError(format!("--to {to} is before --from {from}"))),
        days => Ok(days),
    }
}
