//! Which pieces go together into a call.

use std::collections::BTreeSet;

use crate::metrics::aggregate::{Piece, Series};

/// The most data of a call (API reference of `PutMetricData`).
const MAX_DATA: usize = 1_000;
/// The most bytes of a call before it is compressed; the service takes 1 MB, and the estimate leaves a margin.
const MAX_BYTES: usize = 900_000;

/// What a piece takes in a request: in CBOR a float takes nine bytes, and texts come with names of a few bytes.
fn footprint(piece: &Piece) -> usize {
    let dimensions = piece.series.dimensions.iter();
    let dimensions: usize = dimensions.map(|(name, value)| 24 + name.name().len() + value.len()).sum();
    128 + piece.series.metric.descriptor().name.len() + dimensions + piece.values.len() * 18
}

#[derive(Default)]
struct Call {
    pieces: Vec<Piece>,
    bytes: usize,
    series: BTreeSet<Series>,
}

/// Packs pieces into calls. A call has a series once: 150 values of a metric is all it may hold.
pub(super) fn pack(pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    let mut calls: Vec<Call> = Vec::new();
    for piece in pieces {
        let bytes = footprint(&piece);
        let fits = |call: &Call| {
            call.pieces.len() < MAX_DATA
                && call.bytes + bytes <= MAX_BYTES
                && !call.series.contains(&piece.series)
        };
        let index = calls.iter().position(fits).unwrap_or(calls.len());
        if index == calls.len() {
            calls.push(Call::default());
        }
        if let Some(call) = calls.get_mut(index) {
            call.bytes += bytes;
            call.series.insert(piece.series.clone());
            call.pieces.push(piece);
        }
    }
    calls.into_iter().map(|call| call.pieces).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::{Dimension, Metric};

    proptest! {
        #[test]
        fn every_piece_goes_into_one_call_within_the_limits(
            pieces in proptest::collection::vec((0_u32..1_500, 1_usize..150), 0..2_500),
        ) {
            let pieces: Vec<Piece> = pieces
                .into_iter()
                .map(|(series, values)| Piece {
                    series: Series {
                        metric: Metric::ProcessTime,
                        dimensions: vec![(Dimension::ShardId, series.to_string().into())],
                    },
                    values: (0..values).map(|value| (value as f64, 1)).collect(),
                })
                .collect();
            let calls = pack(pieces.clone());
            for call in &calls {
                prop_assert!(!call.is_empty() && call.len() <= MAX_DATA);
                prop_assert!(call.iter().map(footprint).sum::<usize>() <= MAX_BYTES);
                let series: BTreeSet<_> = call.iter().map(|piece| &piece.series).collect();
                prop_assert_eq!(series.len(), call.len());
            }
            let sorted = |mut pieces: Vec<Piece>| {
                pieces.sort_by(|one, other| {
                    (&one.series, one.values.len()).cmp(&(&other.series, other.values.len()))
                });
                pieces
            };
            prop_assert_eq!(sorted(calls.into_iter().flatten().collect()), sorted(pieces));
        }
    }
}
