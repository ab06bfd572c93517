//! Trace and span ids from a seeded generator.

use crate::model::{SpanId, TraceId};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// Source of ids. They need to be unique, not secret, so a small fast generator will do.
#[derive(Debug)]
pub(crate) struct Ids(Xoshiro256PlusPlus);

impl Ids {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(Xoshiro256PlusPlus::from_seed(seed))
    }

    pub(crate) fn trace_id(&mut self) -> TraceId {
        TraceId(self.non_zero())
    }

    pub(crate) fn span_id(&mut self) -> SpanId {
        SpanId(self.non_zero())
    }

    fn non_zero<const N: usize>(&mut self) -> [u8; N] {
        loop {
            let mut bytes = [0; N];
            self.0.fill_bytes(&mut bytes);
            if bytes != [0; N] {
                return bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ids;
    use std::collections::HashSet;

    #[test]
    fn ids_follow_the_seed_and_do_not_repeat() {
        let (mut one, mut same, mut other) =
            (Ids::new([7; 32]), Ids::new([7; 32]), Ids::new([8; 32]));
        assert_eq!(one.trace_id(), same.trace_id());
        assert_ne!(one.span_id(), other.span_id());
        let spans: HashSet<_> = (0..1000).map(|_| one.span_id()).collect();
        assert_eq!(spans.len(), 1000);
        assert!(!spans.contains(&crate::SpanId([0; 8])));
    }

    #[test]
    fn the_zero_seed_still_gives_ids() {
        assert_ne!(Ids::new([0; 32]).trace_id(), crate::TraceId([0; 16]));
    }
}
