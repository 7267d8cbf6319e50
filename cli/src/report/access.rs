//! Report: everything that a user did, from which addresses, and through which accounts.

use std::collections::BTreeMap;

use super::event::{Event, when};
use super::render::{Grid, Report};
use crate::show::counted;

#[derive(Default)]
struct Seen {
    count: u64,
    failed: u64,
    first: i64,
    last: i64,
}

impl Seen {
    fn add(&mut self, event: &Event) {
        if self.count == 0 {
            self.first = event.time;
        }
        self.count += 1;
        self.failed += u64::from(event.outcome == "failure" || event.outcome == "denied");
        self.last = event.time;
    }

    fn cells(&self) -> [String; 4] {
        [self.count.to_string(), self.failed.to_string(), when(self.first), when(self.last)]
    }
}

pub(super) fn report(events: &[Event], person: &str) -> Report {
    let mut addresses: BTreeMap<&str, Seen> = BTreeMap::new();
    let mut actions: BTreeMap<&str, Seen> = BTreeMap::new();
    let mut others: BTreeMap<String, Seen> = BTreeMap::new();
    for event in events {
        addresses.entry(event.address.as_deref().unwrap_or("(no address)")).or_default().add(event);
        actions.entry(&event.action).or_default().add(event);
        let message = match (event.impersonator.as_deref(), event.user.as_deref()) {
            (Some(real), user) if real == person => Some(format!("acted as {}", user.unwrap_or("-"))),
            (Some(real), _) => Some(format!("impersonated by {real}")),
            (None, _) => None,
        };
        if let Some(message) = message {
            others.entry(message).or_default().add(event);
        }
    }
    let headline = format!(
        "{} from {}.",
        counted(events.len() as u64, "entry", "entries"),
        counted(addresses.len() as u64, "address", "addresses")
    );
    let mut report = Report::new("access", &format!("Activity of {person}"), headline, false);
    report.asked("Person", person.to_owned());
    report.grids.push(grid("By address", "address", &addresses));
    report.grids.push(grid("By action", "action", &actions));
    if !others.is_empty() {
        report.grids.push(grid("Impersonation", "who", &others));
    }
    let mut all = Grid::new("Every entry", &["time", "entry", "as", "action", "address", "what", "outcome"]);
    for event in events {
        let who = if event.impersonator.is_some() { event.user.as_deref().unwrap_or("-") } else { "" };
        all.push([
            event.when(),
            event.place(),
            who.to_owned(),
            event.action.clone(),
            event.address.clone().unwrap_or_default(),
            event.what(),
            event.outcome.clone(),
        ]);
    }
    report.grids.push(all);
    report
}

fn grid<K: AsRef<str>>(caption: &str, name: &'static str, seen: &BTreeMap<K, Seen>) -> Grid {
    let mut grid = Grid::new(caption, &[name, "entries", "failed", "first", "last"]);
    let mut rows: Vec<_> = seen.iter().collect();
    rows.sort_by_key(|(name, seen)| (std::cmp::Reverse(seen.count), name.as_ref().to_owned()));
    for (name, seen) in rows {
        let [count, failed, first, last] = seen.cells();
        grid.push([name.as_ref().to_owned(), count, failed, first, last]);
    }
    grid
}
