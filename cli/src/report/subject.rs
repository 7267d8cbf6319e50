//! Report: everything about a data subject, for requests under articles 15 and 17 of the GDPR.

use std::collections::BTreeMap;

use super::event::Event;
use super::render::{Grid, Report};
use crate::show::counted;

pub(super) fn report(events: &[Event], subject: &str) -> Report {
    let mut named: BTreeMap<&str, u64> = BTreeMap::new();
    let mut all = Grid::new("Every entry", &["time", "entry", "named as", "by", "action", "what", "outcome"]);
    for event in events {
        let places = places(event, subject);
        for place in &places {
            *named.entry(place).or_default() += 1;
        }
        all.push([
            event.when(),
            event.place(),
            places.join(", "),
            event.person().unwrap_or("-").to_owned(),
            event.action.clone(),
            event.what(),
            event.outcome.clone(),
        ]);
    }
    let headline = format!("{} {subject}.", counted(events.len() as u64, "entry names", "entries name"));
    let mut report = Report::new("subject", &format!("Entries about {subject}"), headline, false);
    report.asked("Subject", subject.to_owned());
    let mut grid = Grid::new("Where the name occurs", &["named as", "entries"]);
    named.iter().for_each(|(place, count)| grid.push([(*place).to_owned(), count.to_string()]));
    report.grids.push(grid);
    report.grids.push(all);
    report.note(
        "Matches the exact name in user, impersonator, target and entity ID, and any part of description, changes and details. Run a separate report for each other name of the same person. `piperoll node erase` erases individual entries on their node."
            .to_owned(),
    );
    report
}

/// Returns the fields that name the subject, by the same rule as the filter `subject:`.
fn places<'a>(event: &Event, subject: &str) -> Vec<&'a str> {
    let is = |text: Option<&str>| text == Some(subject);
    let lower = subject.to_lowercase();
    let within = |text: &str| text.to_lowercase().contains(&lower);
    let entity = event.entity.as_ref().and_then(|(_, id)| id.as_deref());
    [
        ("user", is(event.user.as_deref())),
        ("impersonator", is(event.impersonator.as_deref())),
        ("target", is(event.target.as_deref())),
        ("entity", is(entity)),
        ("description", event.description.as_deref().is_some_and(within)),
        ("details", within(&event.details)),
    ]
    .into_iter()
    .filter_map(|(name, holds)| holds.then_some(name))
    .collect()
}
