//! The acknowledged entries, and which of them were erased on purpose.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use piperoll_client::Receipt;
use serde_json::Value;

/// One acknowledged entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) node: String,
    /// Number of the log that holds the entry: 0 for the first log, incremented with every new generation.
    pub(crate) generation: usize,
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) signature: String,
    pub(crate) micros: i64,
    /// Value of `details.text`.
    pub(crate) text: String,
}

/// One row of an answer or an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) node: String,
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) signature: String,
    /// `ok`, `erased` or a violation, as stated in the answer.
    pub(crate) integrity: String,
    pub(crate) text: String,
}

impl Row {
    /// Reads one NDJSON line; `None` for the final record.
    pub(crate) fn parse(line: &str) -> Result<Option<Self>, String> {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("{e} in the line {line:?}"))?;
        if value.get("final").is_some() {
            return Ok(None);
        }
        let entry = &value["entry"];
        let place = value.get("found_at").filter(|place| place.is_object()).unwrap_or(entry);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let seq = place["seq"].as_u64().ok_or_else(|| format!("a row without a place: {line}"))?;
        Ok(Some(Self {
            node: text(&place["node_id"]),
            seq,
            id: text(&entry["id"]),
            signature: text(&value["signature"]),
            integrity: value["integrity"].as_str().unwrap_or("ok").to_owned(),
            text: text(&entry["details"]["text"]),
        }))
    }
}

/// All acknowledged entries: the writers add them, and the checks read them.
#[derive(Clone, Default)]
pub(crate) struct Model(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    known: Vec<Known>,
    /// Node, generation and seq of erased rows, including rows that the campaign only tried to erase.
    erased: HashSet<(String, usize, u64)>,
}

impl Model {
    pub(crate) fn acknowledged(&self, receipt: &Receipt, generation: usize, text: &str) {
        self.0.lock().unwrap().known.push(Known {
            node: receipt.node_id.to_string(),
            generation,
            seq: receipt.seq,
            id: receipt.id.to_string(),
            signature: receipt.signature.clone(),
            micros: receipt.timestamp.micros(),
            text: text.to_owned(),
        });
    }

    pub(crate) fn erased(&self, known: &Known) {
        self.0.lock().unwrap().erased.insert((known.node.clone(), known.generation, known.seq));
    }

    pub(crate) fn is_erased(&self, known: &Known) -> bool {
        self.0.lock().unwrap().erased.contains(&(known.node.clone(), known.generation, known.seq))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().known.len()
    }

    /// Returns the acknowledged entries that `wanted` selects.
    pub(crate) fn known(&self, wanted: impl Fn(&Known) -> bool) -> Vec<Known> {
        self.0.lock().unwrap().known.iter().filter(|known| wanted(known)).cloned().collect()
    }

    /// Returns the acknowledged entries of one log of one node.
    pub(crate) fn of(&self, node: &str, generation: usize) -> Vec<Known> {
        self.known(|known| known.node == node && known.generation == generation)
    }
}
