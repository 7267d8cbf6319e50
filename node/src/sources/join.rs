//! Joins the lines of one record, such as an event of the audit daemon; lines of other records may come in between.

use std::collections::VecDeque;

use super::mapping::Join;
use super::mark::Mark;
use super::record::{RECORD_BYTES_MAX, Record};

/// Maximum number of incomplete records at one time.
const OPEN_MAX: usize = 64;
/// Maximum lines of one record; further lines begin another record.
const LINES_MAX: usize = 512;

/// Holds lines until the other lines of their record have arrived.
pub struct Joiner {
    join: Join,
    open: VecDeque<Group>,
}

struct Group {
    key: String,
    /// Number of the group's first line.
    first: u64,
    lines: usize,
    text: String,
}

/// A complete record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Number of the record's first line, as passed to `push`.
    pub first: u64,
    /// Number of lines in the record.
    pub lines: usize,
    /// The lines of the record, separated by line ends.
    pub text: String,
}

impl Joiner {
    /// Creates an empty joiner.
    pub fn new(join: Join) -> Self {
        Self { join, open: VecDeque::new() }
    }

    /// Adds a line, whose number must be greater than that of the previous line, and returns the records that are now complete.
    pub fn push(&mut self, number: u64, line: &str) -> Vec<Joined> {
        let line = line.trim_end_matches(['\n', '\r']);
        if let Some(continues) = self.join.continues(line) {
            return self.push_continued(number, line, continues);
        }
        let Some(key) = self.join.key(line) else {
            return vec![Joined { first: number, lines: 1, text: line.to_owned() }];
        };
        let is_end = self.join.is_end(line);
        let mut done = Vec::new();
        let at = self.open.iter().position(|group| group.key == key);
        let has_room = |group: &Group| group.lines < LINES_MAX && group.text.len() + line.len() < RECORD_BYTES_MAX;
        let at = match at {
            Some(at) if has_room(&self.open[at]) => {
                self.open[at].text.push('\n');
                self.open[at].text.push_str(line);
                self.open[at].lines += 1;
                at
            }
            full => {
                done.extend(full.and_then(|at| self.open.remove(at)).map(Group::done));
                self.open.push_back(Group { key, first: number, lines: 1, text: line.to_owned() });
                self.open.len() - 1
            }
        };
        if is_end {
            done.extend(self.open.remove(at).map(Group::done));
        } else if self.open.len() > OPEN_MAX {
            done.extend(self.open.pop_front().map(Group::done));
        }
        done
    }

    /// Adds a line. If it does not continue the previous record, that record is complete and is returned. Whether the added
    /// line is itself continued is known only when the next line arrives.
    fn push_continued(&mut self, number: u64, line: &str, continues: bool) -> Vec<Joined> {
        let open = self.open.back_mut();
        let has_room = |group: &Group| group.lines < LINES_MAX && group.text.len() + line.len() < RECORD_BYTES_MAX;
        if let Some(group) = open.filter(|group| continues && has_room(group)) {
            group.text.push('\n');
            group.text.push_str(line);
            group.lines += 1;
            return Vec::new();
        }
        let done = self.open.drain(..).map(Group::done).collect();
        self.open.push_back(Group { key: String::new(), first: number, lines: 1, text: line.to_owned() });
        done
    }

    /// Returns all remaining records, complete or not. Called when no line has arrived for a while.
    pub fn flush(&mut self) -> Vec<Joined> {
        self.open.drain(..).map(Group::done).collect()
    }

    /// Returns the number of the first line that belongs to an incomplete record.
    pub fn first_open(&self) -> Option<u64> {
        self.open.iter().map(|group| group.first).min()
    }
}

impl Group {
    fn done(self) -> Joined {
        Joined { first: self.first, lines: self.lines, text: self.text }
    }
}

/// Passes the records of a source through a joiner, with their positions and marks.
pub(super) struct JoinedRecords {
    joiner: Joiner,
    /// Number and record of each line that is not in a complete record yet.
    waiting: VecDeque<(u64, Record)>,
    /// Positions of the source that may be stored, each with the number of the line that it follows.
    marks: VecDeque<(u64, Mark)>,
    /// Number of the next line.
    next: u64,
}

impl JoinedRecords {
    pub(super) fn new(join: Join) -> Self {
        Self { joiner: Joiner::new(join), waiting: VecDeque::new(), marks: VecDeque::new(), next: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.joiner.first_open().is_none() && self.marks.is_empty()
    }

    /// Adds a record that consists of one line, and returns the records that are now complete.
    pub(super) fn push(&mut self, mut record: Record) -> Vec<Record> {
        let number = self.next;
        self.next += 1;
        if let Some(mark) = record.mark.take() {
            self.marks.push_back((number, mark));
        }
        // A line that is too long is never joined with others.
        if record.cut.is_some() {
            return vec![record];
        }
        let text = String::from_utf8_lossy(&record.text).into_owned();
        record.text = Vec::new();
        self.waiting.push_back((number, record));
        let done = self.joiner.push(number, &text);
        self.records_of(done)
    }

    pub(super) fn place(&mut self, mark: Mark) {
        self.marks.push_back((self.next.saturating_sub(1), mark));
    }

    pub(super) fn flush(&mut self) -> Vec<Record> {
        let done = self.joiner.flush();
        self.records_of(done)
    }

    fn records_of(&mut self, done: Vec<Joined>) -> Vec<Record> {
        let mut records = Vec::new();
        for Joined { first, lines, text } in done {
            if let Some(at) = self.waiting.iter().position(|(number, _)| *number == first)
                && let Some((_, record)) = self.waiting.remove(at)
            {
                // If a stop cut a record short, the partial record must not have the same position as the complete record.
                let place = record.place.map(|place| if lines > 1 { format!("{place}+{lines}") } else { place });
                records.push(Record { text: text.into_bytes(), place, ..record });
            }
        }
        // Drop lines whose record was returned under the number of an earlier line.
        let open: Vec<u64> = self.joiner.open.iter().map(|group| group.first).collect();
        self.waiting.retain(|(number, _)| open.contains(number));
        records
    }

    /// Returns the newest mark such that all lines before it belong to complete records.
    pub(super) fn mark(&mut self) -> Option<Mark> {
        let first_open = self.joiner.first_open().unwrap_or(u64::MAX);
        let mut newest = None;
        while self.marks.front().is_some_and(|(number, _)| *number < first_open) {
            newest = self.marks.pop_front().map(|(_, mark)| mark);
        }
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::mapping::Mapping;
    use crate::sources::record::Cut;

    fn line(kind: &str, serial: u32) -> String {
        format!("type={kind} msg=audit(1793697246.117:{serial}): a=b")
    }

    #[test]
    fn lines_of_one_record_come_together_whatever_comes_between() {
        let join = Mapping::load("auditd").expect("built in").join().expect("it joins").clone();
        let mut joiner = Joiner::new(join);
        let lines = [
            line("SYSCALL", 1),
            line("SYSCALL", 2),
            line("PATH", 1),
            line("EOE", 1),
            line("USER_LOGIN", 3),
            "no line of the kind".to_owned(),
            line("PATH", 2),
        ];
        let mut done = Vec::new();
        for (number, line) in lines.iter().enumerate() {
            done.extend(joiner.push(number as u64, line));
        }
        assert_eq!(joiner.first_open(), Some(1));
        done.extend(joiner.flush());
        let of = |first: u64, text: String| Joined { first, lines: text.lines().count(), text };
        assert_eq!(
            done,
            [
                of(0, format!("{}\n{}\n{}", lines[0], lines[2], lines[3])),
                of(4, lines[4].clone()),
                of(5, lines[5].clone()),
                of(1, format!("{}\n{}", lines[1], lines[6])),
            ]
        );
        assert_eq!(joiner.first_open(), None);
    }

    #[test]
    fn a_mark_waits_for_every_line_before_it() {
        let join = Mapping::load("auditd").expect("built in").join().expect("it joins").clone();
        let mut records = JoinedRecords::new(join);
        let mark = |offset: u64| Mark::File { life: String::new(), offset };
        let record = |text: String, offset: u64| Record {
            text: text.into_bytes(),
            cut: None,
            place: Some(offset.to_string()),
            earlier_place: None,
            mark: Some(mark(offset)),
        };
        assert!(records.push(record(line("SYSCALL", 1), 1)).is_empty());
        let single = records.push(record(line("USER_LOGIN", 2), 2));
        assert_eq!((single.len(), single[0].place.as_deref(), records.mark()), (1, Some("2"), None));
        let whole = records.push(record(line("EOE", 1), 3));
        assert_eq!((whole.len(), whole[0].place.as_deref()), (1, Some("1+2")));
        assert_eq!(records.mark(), Some(mark(3)));
        // A line that is too long is returned on its own, and its mark is held back until the lines before it are complete.
        assert!(records.push(record(line("SYSCALL", 4), 4)).is_empty());
        let cut = Cut { bytes: 9, sha256: String::new() };
        assert_eq!(records.push(Record { cut: Some(cut), ..record("x".to_owned(), 5) }).len(), 1);
        assert_eq!(records.mark(), None);
        assert_eq!(records.flush().len(), 1);
        assert_eq!(records.mark(), Some(mark(5)));
        assert!(records.is_empty());
    }
}
