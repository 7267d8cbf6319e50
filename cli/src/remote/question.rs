//! Parses the filter, the range and the time zone before a request is sent.

use anyhow::Context as _;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_query::filter::Filter;
use piperoll_query::human_time;
use piperoll_query::zone::{Now, Zone};

use crate::args::{OutputArgs, QueryArgs, ZoneArgs};
use crate::exit::UsageError;

/// Default filter, which omits entries about reads of the log, as the web UI does.
pub(super) const WITHOUT_AUDIT: &str = "-category:audit";
pub(super) const WITHOUT_AUDIT_WORDS: &str =
    "entries of category audit, such as your own reads, are omitted; use --all to include them";

/// Whether to leave out entries of the category `audit`, as in a table without a filter and without `--all`.
pub(super) fn leaves_out_audit(filter: &[String], all: bool, output: OutputArgs) -> bool {
    filter.iter().all(|word| word.trim().is_empty()) && !all && !output.as_json()
}

impl ZoneArgs {
    /// Returns the zone that the user named, or UTC by default; `local` is this machine's zone.
    pub(crate) fn zone(&self) -> anyhow::Result<Zone> {
        match self.tz.as_deref() {
            None => Ok(Zone::Utc),
            Some("local") => {
                let name = iana_time_zone::get_timezone()
                    .context("cannot determine this machine's time zone; specify one with --tz")?;
                Ok(Zone::parse(&name)?)
            }
            Some(name) => Zone::parse(name).map_err(|error| UsageError(format!("--tz: {error}")).into()),
        }
    }

    /// Returns the current time, and the zone that applies to dates without one.
    pub(crate) fn now(&self) -> anyhow::Result<Now> {
        Ok(Now { at: SystemClock.now(), zone: self.zone()? })
    }
}

/// Joins the arguments of a filter into one text that all versions of the aggregator interpret in the same way. A parse error
/// shows the position of the problem.
pub(crate) fn filter_text(words: &[String], now: Now) -> anyhow::Result<String> {
    let text = words.join(" ");
    Filter::parse(&text, now)?;
    Ok(Filter::portable(&text, now))
}

/// Returns the filter and the range as request parameters.
pub(super) fn pairs(query: &QueryArgs) -> anyhow::Result<Vec<(&'static str, String)>> {
    let now = query.zone.now()?;
    let mut pairs =
        vec![("filter", filter_text(&query.filter, now)?), ("from", query.from.clone()), ("to", query.to.clone())];
    pairs.extend(zone_pair(&query.zone)?);
    Ok(pairs)
}

/// Returns the zone parameter if a zone was named. Otherwise it is omitted, so that aggregators that do not know the parameter
/// accept the request.
pub(super) fn zone_pair(zone: &ZoneArgs) -> anyhow::Result<Option<(&'static str, String)>> {
    let named = zone.tz.as_ref().map(|_| zone.zone()).transpose()?;
    Ok(named.map(|zone| ("tz", zone.to_string())))
}

/// Converts a time in the user's zone to absolute time, for a request without a zone parameter.
pub(super) fn time(text: &str, zone: &ZoneArgs) -> anyhow::Result<String> {
    if zone.tz.is_none() || text == "now" {
        return Ok(text.to_owned());
    }
    Ok(human_time::parse(text, zone.now()?)?.to_text())
}

/// Resolves the dates of a filter in the user's zone, for a request without a zone parameter; `None` if the filter selects every
/// entry.
pub(super) fn filter_without_zone(query: &QueryArgs) -> anyhow::Result<Option<String>> {
    let now = query.zone.now()?;
    let text = filter_text(&query.filter, now)?;
    if now.zone != Zone::Utc {
        let resolved = Filter::parse(&text, now)?.typed();
        return Ok(Some(Filter::portable(&resolved, now.at)).filter(|text| !text.is_empty()));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Returns the URL path of a row, or of a resource below it such as `/proof`.
pub(crate) fn row_path(node: &str, seq: u64, generation: Option<&str>, below: &str) -> String {
    let log = generation.map(|generation| format!("?generation={generation}")).unwrap_or_default();
    format!("/api/v1/audit-log/{node}/{seq}{below}{log}")
}
