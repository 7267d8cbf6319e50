//! Columns of a file.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use piperoll_format::limits::MAC_BYTES;

/// Form of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Number,
    Time,
    Text,
    /// 32 bytes.
    Hash,
    Bytes,
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub form: Form,
    pub nullable: bool,
    /// Whether row groups have a Bloom filter of the column.
    pub bloom: bool,
}

const fn required(name: &'static str, form: Form) -> Column {
    Column { name, form, nullable: false, bloom: false }
}

const fn text(name: &'static str) -> Column {
    Column { name, form: Form::Text, nullable: true, bloom: false }
}

const fn sought(name: &'static str) -> Column {
    Column { name, form: Form::Text, nullable: true, bloom: true }
}

const fn optional(name: &'static str, form: Form) -> Column {
    Column { name, form, nullable: true, bloom: false }
}

/// The columns in their order. The field id of a column is its position, counted from 1: table formats renumber the columns in
/// this way, and return NULL for a column whose id does not match. New columns are therefore only added at the end.
pub const COLUMNS: [Column; 38] = [
    required("node_id", Form::Text),
    required("generation", Form::Text),
    required("seq", Form::Number),
    required("era", Form::Number),
    optional("epoch", Form::Number),
    required("timestamp", Form::Time),
    text("occurred_at"),
    sought("id"),
    sought("user"),
    text("user_type"),
    text("impersonator"),
    sought("session"),
    text("auth_method"),
    text("credential"),
    text("category"),
    text("action"),
    text("outcome"),
    text("reason"),
    text("entity_type"),
    sought("entity_id"),
    text("entity_name"),
    text("target"),
    text("domain"),
    sought("ip_address"),
    text("peer_address"),
    text("user_agent"),
    text("method"),
    text("path"),
    text("request_id"),
    text("via"),
    text("flags"),
    text("redacted"),
    text("description"),
    text("changes"),
    text("details"),
    optional("mac", Form::Hash),
    optional("leaf", Form::Hash),
    optional("body", Form::Bytes),
];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let field = |(index, column): (usize, &Column)| {
        let data_type = match column.form {
            Form::Number => DataType::Int64,
            Form::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Form::Text => DataType::Utf8,
            Form::Hash => DataType::FixedSizeBinary(i32::try_from(MAC_BYTES).unwrap_or(i32::MAX)),
            Form::Bytes => DataType::Binary,
        };
        let id = HashMap::from([("PARQUET:field_id".to_owned(), (index + 1).to_string())]);
        Field::new(column.name, data_type, column.nullable).with_metadata(id)
    };
    Arc::new(Schema::new(COLUMNS.iter().enumerate().map(field).collect::<Vec<_>>()))
});

/// Arrow schema of a file.
pub fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}
