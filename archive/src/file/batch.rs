//! Columns of some rows, derived from their bodies.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, FixedSizeBinaryBuilder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;
use piperoll_format::limits::MAC_BYTES;
use piperoll_format::view::EntryView;

use super::schema::{COLUMNS, schema};
use super::traits::Traits;
use crate::row::{ArchivedRow, Content, LogId};

/// Number of text columns that are derived from the body.
pub(super) const DERIVED: usize = 29;
/// Position of the first derived column.
pub(super) const FIRST_DERIVED: usize = 6;

/// Rows that are turned into columns.
pub(super) struct BatchBuilder {
    node_id: StringBuilder,
    generation: StringBuilder,
    seq: Int64Builder,
    era: Int64Builder,
    epoch: Int64Builder,
    timestamp: TimestampMicrosecondBuilder,
    derived: Vec<StringBuilder>,
    mac: FixedSizeBinaryBuilder,
    leaf: FixedSizeBinaryBuilder,
    body: BinaryBuilder,
    rows: usize,
    bytes: usize,
}

impl BatchBuilder {
    pub(super) fn new() -> Self {
        let width = i32::try_from(MAC_BYTES).unwrap_or(i32::MAX);
        Self {
            node_id: StringBuilder::new(),
            generation: StringBuilder::new(),
            seq: Int64Builder::new(),
            era: Int64Builder::new(),
            epoch: Int64Builder::new(),
            timestamp: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            derived: COLUMNS[FIRST_DERIVED..FIRST_DERIVED + DERIVED].iter().map(|_| StringBuilder::new()).collect(),
            mac: FixedSizeBinaryBuilder::new(width),
            leaf: FixedSizeBinaryBuilder::new(width),
            body: BinaryBuilder::new(),
            rows: 0,
            bytes: 0,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Size of the rows' bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row, and returns its traits.
    pub(super) fn push(&mut self, log: &LogId, row: &ArchivedRow) -> Result<Traits, ArrowError> {
        let mut traits = Traits::default();
        self.rows += 1;
        self.bytes += row.bytes();
        self.node_id.append_value(log.node_id.as_str());
        self.generation.append_value(log.generation.to_string());
        // Numbers of rows are below 2^62, so they fit into the signed type that all engines have.
        self.seq.append_value(i64::try_from(row.seq).unwrap_or(i64::MAX));
        self.era.append_value(i64::from(row.era));
        self.timestamp.append_value(row.timestamp.micros());
        match &row.content {
            Content::Entry { epoch, body, mac } => {
                self.epoch.append_value(i64::from(*epoch));
                traits = self.derive(body);
                self.mac.append_value(mac)?;
                self.leaf.append_null();
                self.body.append_value(body);
            }
            Content::Erased { leaf } => {
                self.epoch.append_null();
                self.derived.iter_mut().for_each(StringBuilder::append_null);
                self.mac.append_null();
                self.leaf.append_value(leaf)?;
                self.body.append_null();
            }
        }
        Ok(traits)
    }

    fn derive(&mut self, body: &[u8]) -> Traits {
        let view = EntryView::parse(body).unwrap_or_default();
        for (builder, value) in self.derived.iter_mut().zip(derived_values(&view)) {
            builder.append_option(value);
        }
        Traits::of(&view)
    }

    /// Returns the columns, and removes the rows.
    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        (self.rows, self.bytes) = (0, 0);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.node_id.finish()),
            Arc::new(self.generation.finish()),
            Arc::new(self.seq.finish()),
            Arc::new(self.era.finish()),
            Arc::new(self.epoch.finish()),
            Arc::new(self.timestamp.finish()),
        ];
        columns.extend(self.derived.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        columns.push(Arc::new(self.mac.finish()));
        columns.push(Arc::new(self.leaf.finish()));
        columns.push(Arc::new(self.body.finish()));
        RecordBatch::try_new(schema(), columns)
    }
}

/// Values of the columns that are derived from a body, in their order.
pub(super) fn derived_values<'a>(view: &'a EntryView<'_>) -> [Option<&'a str>; DERIVED] {
    let id = (!view.id.is_empty()).then_some(view.id.as_ref());
    let via = (!view.via.is_empty()).then_some(view.via.as_ref());
    [
        view.occurred_at.as_deref(),
        id,
        view.user.as_deref(),
        view.user_type.as_deref(),
        view.impersonator.as_deref(),
        view.session.as_deref(),
        view.auth_method.as_deref(),
        view.credential.as_deref(),
        view.category.as_deref(),
        view.action.as_deref(),
        view.outcome.as_deref(),
        view.reason.as_deref(),
        view.entity_type.as_deref(),
        view.entity_id.as_deref(),
        view.entity_name.as_deref(),
        view.target.as_deref(),
        view.domain.as_deref(),
        view.ip_address.as_deref(),
        view.peer_address.as_deref(),
        view.user_agent.as_deref(),
        view.method.as_deref(),
        view.path.as_deref(),
        view.request_id.as_deref(),
        via,
        view.flags.map(|raw| raw.get()),
        view.redacted.map(|raw| raw.get()),
        view.description.as_deref(),
        view.changes.map(|raw| raw.get()),
        view.details.map(|raw| raw.get()),
    ]
}
