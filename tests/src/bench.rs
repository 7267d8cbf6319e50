//! What the benchmarks share.

/// An entry as a mail gateway would record it; about 620 bytes when the node has sealed it.
pub fn caller_entry(n: usize) -> String {
    format!(
        "{{\"category\":\"data\",\"action\":\"quarantine.release\",\"outcome\":\"success\",\"user\":\"user-{}\",\"user_type\":\"admin\",\"entity_type\":\"mail\",\"entity_id\":\"{n:016x}\",\"target\":\"office@example.org\",\"domain\":\"example.org\",\"ip_address\":\"198.51.100.{}\",\"description\":\"released message {n:08x} to its recipient\"}}",
        n % 97,
        n % 250
    )
}

/// The value in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
