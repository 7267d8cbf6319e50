//! Builds a block of the index in memory. The block can be queried like a finished one while it is being built.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use piperoll_format::time::Timestamp;
use piperoll_format::verify::Integrity;
use piperoll_format::view::EntryView;
use piperoll_query::column::{COLUMNS, Column, columns_suffice};
use piperoll_query::filter::{net_has, unescaped};

use super::block::{Block, Codes, Text};
use super::set::Set;
use super::text::{Groups, Texts};
use crate::store::table::rows::StoredRow;

/// One column of an unfinished block. Codes are assigned in order of first appearance.
#[derive(Default)]
pub(super) struct Values {
    by_value: HashMap<Box<str>, u32>,
    pub(super) values: Vec<Box<str>>,
    pub(super) codes: Vec<u32>,
}

/// A block that grows row by row, in order.
pub(super) struct Builder {
    /// Seq of the first row.
    first: u64,
    pruned: usize,
    rows_max: usize,
    rows: usize,
    odd: Vec<usize>,
    pub(super) columns: Vec<Values>,
    /// Values of the address column that parse as addresses, with their codes.
    addresses: Vec<(u32, IpAddr)>,
    times: Vec<i64>,
    earlier: Vec<i64>,
    description: Texts,
    details: Texts,
}

impl Builder {
    /// Creates a builder for the block at `first`, of which the rows below `floor` were pruned.
    pub(super) fn new(first: u64, rows_max: usize, floor: u64) -> Self {
        let pruned = usize::try_from(floor.saturating_sub(first)).unwrap_or(usize::MAX).min(rows_max);
        let mut builder = Self {
            first,
            pruned,
            rows_max,
            rows: 0,
            odd: Vec::new(),
            columns: COLUMNS.iter().map(|_| Values::default()).collect(),
            addresses: Vec::new(),
            times: Vec::new(),
            earlier: Vec::new(),
            description: Texts::new(rows_max),
            details: Texts::new(rows_max),
        };
        for _ in 0..pruned {
            builder.add_nothing();
        }
        builder
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Seq of the next row.
    pub(super) fn next(&self) -> u64 {
        self.first + self.rows as u64
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows == self.rows_max
    }

    /// Adds the next row. If its seq is higher than expected, the rows in between are added as missing.
    pub(super) fn push(&mut self, row: &StoredRow) {
        while self.next() < row.seq && !self.is_full() {
            self.push_missing();
        }
        if self.is_full() {
            return;
        }
        if row.checked.integrity == Integrity::Ok {
            self.push_sound(row.timestamp, &row.body);
        } else {
            self.push_missing();
        }
    }

    /// Adds a row that has already been verified.
    pub(super) fn push_sound(&mut self, timestamp: Timestamp, body: &[u8]) {
        let view = EntryView::parse(body);
        let Some((view, earlier)) = view.and_then(|view| earlier(&view, timestamp).map(|earlier| (view, earlier)))
        else {
            return self.push_missing();
        };
        for (column, values) in COLUMNS.iter().zip(&mut self.columns) {
            let value = column.value(&view);
            let known = values.values.len();
            values.push(value.as_deref());
            if *column == Column::Ip && values.values.len() > known {
                let address = value.and_then(|value| value.parse().ok());
                self.addresses.extend(address.map(|address| (values.values.len() as u32, address)));
            }
        }
        if let Some(text) = &view.description {
            self.description.add(self.rows, text);
        }
        for raw in [view.changes, view.details].into_iter().flatten() {
            self.details.add(self.rows, raw.get());
            // Index the text both as it is escaped in the entry and unescaped, so that a search finds either form.
            if let Cow::Owned(plain) = unescaped(raw.get()) {
                self.details.add(self.rows, &plain);
            }
        }
        self.times.push(timestamp.micros());
        self.earlier.push(earlier);
        self.rows += 1;
    }

    /// Adds a position whose row is missing or not sound; scans read that row from the database.
    pub(super) fn push_missing(&mut self) {
        self.odd.push(self.rows);
        self.add_nothing();
    }

    fn add_nothing(&mut self) {
        self.columns.iter_mut().for_each(|values| values.push(None));
        self.times.push(self.times.last().copied().unwrap_or_default());
        self.earlier.push(0);
        self.rows += 1;
    }

    fn of(&self, column: Column) -> &Values {
        &self.columns[column as usize]
    }

    pub(super) fn text(&self, text: Text) -> &Texts {
        match text {
            Text::Description => &self.description,
            Text::Details => &self.details,
        }
    }
}

/// Returns the time between an event and its recording. `None` if the columns cannot represent the entry.
fn earlier(view: &EntryView<'_>, recorded: Timestamp) -> Option<i64> {
    let happened = match &view.occurred_at {
        Some(text) => Timestamp::parse_rfc3339(text).ok()?,
        None => recorded,
    };
    let micros = recorded.micros().checked_sub(happened.micros())?;
    columns_suffice(view).then_some(micros)
}

impl Values {
    fn push(&mut self, value: Option<&str>) {
        let code = match value {
            None => 0,
            Some(value) => match self.by_value.get(value) {
                Some(code) => *code,
                None => {
                    self.values.push(value.into());
                    let code = self.values.len() as u32;
                    self.by_value.insert(value.into(), code);
                    code
                }
            },
        };
        self.codes.push(code);
    }
}

impl Block for Builder {
    fn rows(&self) -> usize {
        self.rows
    }

    fn pruned(&self) -> usize {
        self.pruned
    }

    fn odd(&self) -> io::Result<Set> {
        let mut set = Set::none(self.rows);
        self.odd.iter().for_each(|row| set.insert(*row));
        Ok(set)
    }

    fn is_hashed(&self, _: Column) -> bool {
        false
    }

    fn code_of(&self, column: Column, value: &str) -> io::Result<Option<u32>> {
        Ok(self.of(column).by_value.get(value).copied())
    }

    fn values(&self, column: Column) -> io::Result<super::block::Values<'_>> {
        Ok(super::block::Values::Borrowed(&self.of(column).values))
    }

    fn codes_in(&self, net: &IpNet) -> io::Result<Vec<u32>> {
        let inside = self.addresses.iter().filter(|(_, address)| net_has(net, *address));
        Ok(inside.map(|(code, _)| *code).collect())
    }

    fn codes(&self, column: Column) -> io::Result<Codes<'_>> {
        Ok(Codes::Four(Cow::Borrowed(&self.of(column).codes)))
    }

    fn groups_bytes(&self, text: Text, bucket: u16) -> io::Result<usize> {
        Ok(self.text(text).groups(bucket).bytes())
    }

    fn span(&self) -> (i64, i64) {
        let first = self.times.iter().min().copied().unwrap_or_default();
        (first, self.times.iter().max().copied().unwrap_or_default())
    }

    fn groups(&self, text: Text, bucket: u16) -> io::Result<Cow<'_, Groups>> {
        Ok(Cow::Borrowed(self.text(text).groups(bucket)))
    }

    fn times(&self) -> io::Result<Cow<'_, [i64]>> {
        Ok(Cow::Borrowed(&self.times))
    }

    fn earlier(&self) -> io::Result<Cow<'_, [i64]>> {
        Ok(Cow::Borrowed(&self.earlier))
    }
}
