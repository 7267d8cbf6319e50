//! What the nodes acknowledged, and which of it is gone on purpose.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use piperoll_client::Receipt;
use serde_json::Value;

/// One acknowledged entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) node: String,
    /// The log it was recorded in: 0 for the first, one more after every new generation.
    pub(crate) generation: usize,
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) signature: String,
    pub(crate) micros: i64,
    /// A text that the writer made up; it stands in the entry's details.
    pub(crate) text: String,
}

/// A row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) node: String,
    pub(crate) seq: u64,
    pub(crate) id: String,
    pub(crate) signature: String,
    /// `ok`, `erased`, or what is wrong with it.
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

/// Shared by the writers, which add to it, and the checks.
#[derive(Clone, Default)]
pub(crate) struct Model(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    known: Vec<Known>,
    /// Node, generation and seq of rows that were erased, or may have been.
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

    /// Everything acknowledged so far that `wanted` selects.
    pub(crate) fn known(&self, wanted: impl Fn(&Known) -> bool) -> Vec<Known> {
        self.0.lock().unwrap().known.iter().filter(|known| wanted(known)).cloned().collect()
    }

    /// The same of one log of one node.
    pub(crate) fn of(&self, node: &str, generation: usize) -> Vec<Known> {
        self.known(|known| known.node == node && known.generation == generation)
    }
}
