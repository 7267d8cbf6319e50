//! Report: failed logins per address over all nodes, and whether a login succeeded after them.

use std::collections::{BTreeMap, BTreeSet};

use piperoll_format::time::span;

use super::asked::pattern;
use super::event::{Event, when};
use super::render::{Grid, Report};

/// Threshold from which an address is considered to be guessing passwords.
pub(super) struct Rule {
    /// Number of failed logins from one address.
    pub(super) failures: usize,
    /// Time within which these failures must occur, in microseconds.
    pub(super) window: i64,
}

pub(super) fn filter(action: &str) -> String {
    format!("action:{}", pattern(action))
}

#[derive(Default)]
struct Address<'a> {
    failures: Vec<i64>,
    users: BTreeSet<&'a str>,
    nodes: BTreeSet<&'a str>,
    /// Sign-ins that succeeded after enough failures.
    entered: Vec<&'a Event>,
}

impl Address<'_> {
    /// Counts the failures within `window` before `time`.
    fn recent(&self, window: i64, time: i64) -> usize {
        self.failures.iter().rev().take_while(|failure| time - **failure <= window).count()
    }
}

pub(super) fn report(events: &[Event], rule: &Rule) -> Report {
    let mut addresses: BTreeMap<&str, (Address<'_>, usize)> = BTreeMap::new();
    for event in events {
        let (address, densest) = addresses.entry(event.address.as_deref().unwrap_or("(no address)")).or_default();
        if event.outcome == "failure" || event.outcome == "denied" {
            address.failures.push(event.time);
            address.users.extend(event.user.as_deref());
            address.nodes.insert(&event.node);
            *densest = (*densest).max(address.recent(rule.window, event.time));
        } else if event.outcome == "success" && *densest >= rule.failures {
            address.entered.push(event);
        }
    }
    let mut guessing: Vec<_> = addresses.into_iter().filter(|(_, (_, densest))| *densest >= rule.failures).collect();
    guessing.sort_by_key(|(name, (address, _))| (std::cmp::Reverse(address.failures.len()), *name));

    let inside = guessing.iter().filter(|(_, (address, _))| !address.entered.is_empty()).count();
    let headline = match (guessing.len(), inside) {
        (0, _) => "No address reached the failure threshold.".to_owned(),
        (1, 0) => "Brute-force attempts from 1 address; it did not get in.".to_owned(),
        (n, 0) => format!("Brute-force attempts from {n} addresses; none of them got in."),
        (1, _) => "Brute-force attempts from 1 address; it GOT IN afterwards.".to_owned(),
        (n, inside) => format!("Brute-force attempts from {n} addresses; {inside} of them GOT IN afterwards."),
    };
    let mut report = Report::new("brute-force", "Brute-force attempts by address", headline, inside > 0);
    let window = std::time::Duration::from_micros(rule.window.unsigned_abs());
    report.asked("Rule", format!("{} failures within {}", rule.failures, span(window)));
    let mut grid =
        Grid::new("Addresses", &["address", "failures", "densest", "users", "nodes", "first", "last", "got in"]);
    for (name, (address, densest)) in &guessing {
        grid.push([
            (*name).to_owned(),
            address.failures.len().to_string(),
            densest.to_string(),
            some(&address.users),
            some(&address.nodes),
            address.failures.first().map_or_else(String::new, |time| when(*time)),
            address.failures.last().map_or_else(String::new, |time| when(*time)),
            address.entered.first().map_or_else(
                || "no".to_owned(),
                |event| {
                    format!("YES: {} at {} ({})", event.user.as_deref().unwrap_or("-"), event.when(), event.place())
                },
            ),
        ]);
    }
    report.grids.push(grid);
    report
}

/// Lists the first few names, and counts the others.
fn some(names: &BTreeSet<&str>) -> String {
    const NAMED_MAX: usize = 5;
    let mut message = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED_MAX {
        message.push_str(&format!(" and {} more", names.len() - NAMED_MAX));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign_in(address: &str, minute: i64, outcome: &str) -> Event {
        Event {
            address: Some(address.to_owned()),
            time: minute * 60_000_000,
            outcome: outcome.to_owned(),
            user: Some("alice".to_owned()),
            ..Event::default()
        }
    }

    #[test]
    fn an_address_counts_when_it_fails_often_enough_soon_enough() {
        let mut events = Vec::new();
        for minute in 0..4 {
            events.push(sign_in("fast", minute, "failure"));
            events.push(sign_in("slow", minute * 20, "failure"));
            events.push(sign_in("lucky", minute, "failure"));
        }
        // A successful login before the failures is not suspicious.
        events.insert(0, sign_in("fast", -5, "success"));
        events.push(sign_in("lucky", 9, "success"));
        let report = report(&events, &Rule { failures: 4, window: 5 * 60_000_000 });
        let rows = &report.grids[0].rows;
        assert_eq!(rows.iter().map(|row| row[0].as_str()).collect::<Vec<_>>(), ["fast", "lucky"]);
        assert_eq!((rows[0][7].as_str(), rows[1][7].starts_with("YES: alice")), ("no", true));
        assert!(report.alarming && report.headline.contains("1 of them GOT IN"), "{}", report.headline);
    }
}
