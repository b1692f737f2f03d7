//! One hash of who sent what, and what follows from it: the partition on which all records of an
//! event lie, and a trace of its own. Both programs must agree on it for as long as topics live.

/// The BLAKE3 hash of an event's source and id, each with its length before it, so that no two
/// pairs run together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity([u8; 32]);

impl Identity {
    /// The identity of the event `id` of `source`.
    pub fn of(source: &str, id: &str) -> Self {
        Self(*length_prefixed(&[source, id]).finalize().as_bytes())
    }

    /// The partition, of `count`, on which the event, its retries, its dead letter and its state
    /// lie. We choose it ourselves: librdkafka's default differs from other clients'.
    pub fn partition(&self, count: i32) -> i32 {
        let count = u64::try_from(count).unwrap_or(1).max(1);
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        let spread = u64::from_le_bytes([a, b, c, d, e, f, g, h]) % count;
        i32::try_from(spread).unwrap_or(0)
    }

    /// The first half of the hash: enough to tell events apart.
    pub fn short(&self) -> [u8; 16] {
        std::array::from_fn(|at| self.0[at])
    }

    /// A W3C `traceparent` for an event whose sender gave none: the same for each copy of it.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", hex::encode(&self.0[8..24]), hex::encode(&self.0[24..32]))
    }
}

/// A hash over `parts`, each with its length before it.
pub fn length_prefixed(parts: &[&str]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_frozen_once_topics_exist() {
        let event = Identity::of("github", "72d3162e-cc78-11e3-81ab-4c9367dc0958");
        assert_eq!(event.partition(12), 2);
        assert_eq!(event.partition(1), 0);
    }

    #[test]
    fn source_and_id_never_run_together() {
        assert_ne!(Identity::of("ab", "c"), Identity::of("a", "bc"));
    }

    #[test]
    fn partitions_are_used_evenly() {
        let mut counts = [0u32; 12];
        for n in 0..12_000 {
            counts[Identity::of("stripe", &format!("evt_{n}")).partition(12) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_trace_has_the_w3c_form() {
        let trace = Identity::of("github", "1").traceparent();
        let parts: Vec<_> = trace.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2]);
    }
}
