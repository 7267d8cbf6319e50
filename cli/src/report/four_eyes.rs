//! Report: whether a second person confirmed every action that requires one.
//!
//! A rule names an action, the action that confirms it, and how long a confirmation may take. Both actions must be about the same
//! entity, and by different people; if a person acts as another user, the real person counts.

use std::path::Path;

use anyhow::{Context as _, ensure};
use piperoll_format::time::{Timestamp, span};
use piperoll_query::filter::matches_pattern;
use serde::Deserialize;

use super::asked::{BundleRequest, pattern};
use super::event::{Event, duration, when};
use super::render::{Grid, Report};
use crate::show::counted;

/// Maximum number of rules in one file.
const RULES_MAX: usize = 32;
/// Rules that apply if no file is named; also the example in docs/reports.md.
const BUILT_IN: &str = include_str!("four-eyes.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rule: Vec<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    /// Pattern of the action that needs a second person; a trailing `*` matches any suffix.
    action: String,
    /// Pattern of the confirming action. If it equals `action`, a second person must perform the same action.
    confirm: String,
    /// Longest time between the action and its confirmation.
    window: String,
    #[serde(default)]
    order: ConfirmationOrder,
}

/// Whether the action or its confirmation comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ConfirmationOrder {
    /// The action is performed first, then confirmed.
    #[default]
    ConfirmedAfter,
    /// The action is approved first, then performed.
    ConfirmedBefore,
}

struct Rule {
    name: String,
    action: String,
    confirm: String,
    window: i64,
    order: ConfirmationOrder,
}

pub(super) struct Rules {
    rules: Vec<Rule>,
}

/// Result of applying a rule to one action.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict<'a> {
    Confirmed(&'a Event),
    /// The only confirmation is by the person who performed the action.
    BySamePerson(&'a Event),
    /// There is no confirmation, and the time for it has passed.
    Missing,
    /// There is no confirmation yet, but there is still time for it.
    Open,
    /// The action has no entity or no person to compare.
    Unknown,
}

impl Rules {
    pub(super) fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        match path {
            None => Self::parse(BUILT_IN),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                Self::parse(&text).with_context(|| path.display().to_string())
            }
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: File = toml::from_str(text)?;
        ensure!(
            (1..=RULES_MAX).contains(&file.rule.len()),
            "a rules file must have 1 to {RULES_MAX} rules, each under [[rule]]"
        );
        let rules = file.rule.into_iter().map(|written| {
            let Written { name, action, confirm, window, order } = written;
            Ok(Rule {
                window: duration(&window).with_context(|| format!("rule {name:?}"))?,
                name,
                action,
                confirm,
                order,
            })
        });
        Ok(Self { rules: rules.collect::<anyhow::Result<_>>()? })
    }

    /// Returns a filter that selects the entries to which any of the rules applies.
    pub(super) fn filter(&self) -> String {
        let actions = self.rules.iter().flat_map(|rule| [&rule.action, &rule.confirm]);
        format!("action:{}", actions.map(|action| pattern(action)).collect::<Vec<_>>().join(","))
    }

    pub(super) fn longest_before(&self) -> i64 {
        self.longest(ConfirmationOrder::ConfirmedBefore)
    }

    pub(super) fn longest_after(&self) -> i64 {
        self.longest(ConfirmationOrder::ConfirmedAfter)
    }

    fn longest(&self, order: ConfirmationOrder) -> i64 {
        self.rules
            .iter()
            .filter(|rule| rule.order == order || rule.is_one_action())
            .map(|rule| rule.window)
            .max()
            .unwrap_or(0)
    }
}

impl Rule {
    /// Whether the rule requires two people to perform the same action, in either order.
    fn is_one_action(&self) -> bool {
        self.action == self.confirm
    }

    fn find_confirmation<'a>(&self, done: &Event, events: &'a [Event], now: i64) -> Verdict<'a> {
        let (Some((_, Some(_))), Some(person)) = (&done.entity, done.person()) else { return Verdict::Unknown };
        let (from, to) = match self.order {
            _ if self.is_one_action() => (done.time.saturating_sub(self.window), done.time.saturating_add(self.window)),
            ConfirmationOrder::ConfirmedAfter => (done.time, done.time.saturating_add(self.window)),
            ConfirmationOrder::ConfirmedBefore => (done.time.saturating_sub(self.window), done.time),
        };
        let confirming = events.iter().filter(|event| {
            fits(&self.confirm, &event.action)
                && succeeded(event)
                && event.entity == done.entity
                && !std::ptr::eq(*event, done)
                && (from..=to).contains(&event.time)
        });
        let mut same = None;
        for event in confirming {
            match event.person() {
                Some(other) if other != person => return Verdict::Confirmed(event),
                Some(_) => same = same.or(Some(event)),
                None => {}
            }
        }
        match same {
            Some(event) => Verdict::BySamePerson(event),
            None if (self.order == ConfirmationOrder::ConfirmedAfter || self.is_one_action()) && to > now => {
                Verdict::Open
            }
            None => Verdict::Missing,
        }
    }
}

/// Whether an action matches a pattern, as in the filter `action:`.
fn fits(pattern: &str, action: &str) -> bool {
    matches_pattern(pattern, action)
}

/// Whether the action may have changed something; an action that was denied or failed has not.
fn succeeded(event: &Event) -> bool {
    matches!(event.outcome.as_str(), "success" | "unknown")
}

pub(super) fn report(events: &[Event], rules: &Rules, asked: BundleRequest, now: Timestamp) -> Report {
    let mut grid = Grid::new(
        "Actions that need a second person",
        &["verdict", "rule", "time", "entry", "who", "action", "entity", "second person"],
    );
    let (mut broken, mut open, mut confirmed) = (0, 0, 0);
    let mut rows = Vec::new();
    for rule in &rules.rules {
        let within = |event: &&Event| (asked.from.micros()..asked.to.micros()).contains(&event.recorded);
        for done in events.iter().filter(within).filter(|event| fits(&rule.action, &event.action) && succeeded(event)) {
            let (word, second) = match rule.find_confirmation(done, events, now.micros()) {
                Verdict::Confirmed(event) => {
                    confirmed += 1;
                    ("confirmed", format!("{} at {} ({})", event.person().unwrap_or("-"), event.when(), event.place()))
                }
                Verdict::BySamePerson(event) => {
                    broken += 1;
                    (
                        "SAME PERSON",
                        format!("{} again, at {} ({})", event.person().unwrap_or("-"), event.when(), event.place()),
                    )
                }
                Verdict::Missing => {
                    broken += 1;
                    ("MISSING", "no second person".to_owned())
                }
                Verdict::Open => {
                    open += 1;
                    ("open", format!("not yet; due by {}", when(done.time.saturating_add(rule.window))))
                }
                Verdict::Unknown => {
                    broken += 1;
                    ("UNKNOWN", "the entry lacks a person or an entity with an id".to_owned())
                }
            };
            let who = done.person().unwrap_or("-").to_owned();
            let row = [
                word.to_owned(),
                rule.name.clone(),
                done.when(),
                done.place(),
                who,
                done.action.clone(),
                done.entity_text(),
                second,
            ];
            rows.push((done.time, row));
        }
    }
    rows.sort_by_key(|(time, _)| *time);
    rows.into_iter().for_each(|(_, row)| grid.push(row));
    let broken_actions = counted(broken, "action", "actions");
    let headline = format!("{broken_actions} WITHOUT a second person, {open} still open, {confirmed} confirmed.");
    let mut report = Report::new("four-eyes", "Four-eyes check of actions", headline, broken > 0);
    for rule in &rules.rules {
        let window = span(std::time::Duration::from_micros(rule.window.unsigned_abs()));
        let message = match rule.order {
            _ if rule.is_one_action() => format!("{} needs two different people within {window}", rule.action),
            ConfirmationOrder::ConfirmedAfter => {
                format!("{} needs {} by another person within {window} after it", rule.action, rule.confirm)
            }
            ConfirmationOrder::ConfirmedBefore => {
                format!("{} needs {} by another person within {window} before it", rule.action, rule.confirm)
            }
        };
        report.asked(&format!("Rule {}", rule.name), message);
    }
    report.grids.push(grid);
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, minute: i64, who: (&str, Option<&str>), entity: Option<&str>) -> Event {
        Event {
            action: action.to_owned(),
            time: minute * 60_000_000,
            recorded: minute * 60_000_000,
            user: Some(who.0.to_owned()),
            impersonator: who.1.map(str::to_owned),
            outcome: "success".to_owned(),
            entity: entity.map(|id| ("mailbox".to_owned(), Some(id.to_owned()))),
            ..Event::default()
        }
    }

    fn verdicts(events: &[Event], order: &str, now: i64) -> anyhow::Result<Vec<String>> {
        let rules = Rules::parse(&format!(
            "[[rule]]\nname = 'r'\naction = 'rule.create'\nconfirm = 'rule.approve'\nwindow = '1h'\norder = '{order}'"
        ))?;
        let asked = BundleRequest { from: Timestamp::from_micros(0), to: Timestamp::from_micros(1_000 * 60_000_000) };
        let report = report(events, &rules, asked, Timestamp::from_micros(now * 60_000_000));
        Ok(report.grids[0].rows.iter().map(|row| row[0].clone()).collect())
    }

    #[test]
    fn a_second_person_is_another_person_in_time_for_the_same_thing() -> anyhow::Result<()> {
        let create = |minute| event("rule.create", minute, ("alice", None), Some("m1"));
        let approve = |minute, who, entity| event("rule.approve", minute, who, Some(entity));
        for (confirming, word) in [
            (approve(30, ("bob", None), "m1"), "confirmed"),
            (approve(60, ("bob", None), "m1"), "confirmed"),
            (approve(61, ("bob", None), "m1"), "MISSING"),
            (approve(-1, ("bob", None), "m1"), "MISSING"),
            (approve(30, ("bob", None), "m2"), "MISSING"),
            (approve(30, ("alice", None), "m1"), "SAME PERSON"),
            // With impersonation, the real person counts: one person who acts as two users does not count as two people, but two
            // people who act as one user do.
            (approve(30, ("bob", Some("alice")), "m1"), "SAME PERSON"),
            (approve(30, ("alice", Some("bob")), "m1"), "confirmed"),
            (Event { outcome: "denied".to_owned(), ..approve(30, ("bob", None), "m1") }, "MISSING"),
        ] {
            let mut events = vec![create(0), confirming];
            events.sort_by_key(|event| event.time);
            assert_eq!(verdicts(&events, "confirmed_after", 500)?, [word], "{events:?}");
        }
        assert_eq!(verdicts(&[create(0)], "confirmed_after", 59)?, ["open"]);
        let before = [approve(10, ("bob", None), "m1"), create(20)];
        assert_eq!(verdicts(&before, "confirmed_before", 500)?, ["confirmed"]);
        assert_eq!(verdicts(&before, "confirmed_after", 500)?, ["MISSING"]);
        assert_eq!(verdicts(&[event("rule.create", 0, ("alice", None), None)], "confirmed_after", 500)?, ["UNKNOWN"]);
        let refused = Event { outcome: "failure".to_owned(), ..create(0) };
        assert!(verdicts(&[refused], "confirmed_after", 500)?.is_empty());
        Ok(())
    }

    #[test]
    fn one_action_may_need_two_people_who_do_it() -> anyhow::Result<()> {
        let rotate = |minute, who| event("dkim.rotate", minute, (who, None), Some("example.org"));
        let of = |events: &[Event], now: i64| -> anyhow::Result<Vec<String>> {
            let rules =
                Rules::parse("[[rule]]\nname = 'r'\naction = 'dkim.rotate'\nconfirm = 'dkim.rotate'\nwindow = '1h'")?;
            let asked =
                BundleRequest { from: Timestamp::from_micros(0), to: Timestamp::from_micros(1_000 * 60_000_000) };
            let report = report(events, &rules, asked, Timestamp::from_micros(now * 60_000_000));
            Ok(report.grids[0].rows.iter().map(|row| row[0].clone()).collect())
        };
        assert_eq!(of(&[rotate(0, "alice"), rotate(30, "bob")], 500)?, ["confirmed", "confirmed"]);
        assert_eq!(of(&[rotate(0, "alice"), rotate(61, "bob")], 500)?, ["MISSING", "MISSING"]);
        assert_eq!(of(&[rotate(0, "alice"), rotate(30, "alice")], 500)?, ["SAME PERSON", "SAME PERSON"]);
        assert_eq!(of(&[rotate(0, "alice")], 59)?, ["open"]);
        assert_eq!(of(&[rotate(0, "alice")], 61)?, ["MISSING"]);
        Ok(())
    }

    #[test]
    fn bad_rules_are_refused_with_the_reason() {
        let refused = |text: &str| Rules::parse(text).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(refused("").contains("rule"));
        let rule = |window: &str, confirm: &str| {
            format!("[[rule]]\nname = 'r'\naction = 'a.b'\nconfirm = '{confirm}'\nwindow = '{window}'")
        };
        assert!(refused(&rule("soon", "a.c")).contains("not a duration"), "{}", refused(&rule("soon", "a.c")));
        assert!(refused(&(rule("1h", "a.c") + "\nwhen = 'x'")).contains("unknown field"));
        assert!(Rules::parse(BUILT_IN).is_ok());
    }
}
