//! The fuzz targets' entry points over their seeds and mutations of them.

use crate::seeds::run;

#[path = "../../fuzz/src/entry.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports them")]
pub(crate) mod entry;

#[test]
fn deaggregation_keeps_its_laws_on_seeds_and_mutations() {
    run("deaggregate", 500, entry::deaggregate);
}

#[test]
fn round_trips_keep_their_laws_on_seeds_and_mutations() {
    run("round_trip", 500, entry::round_trip);
}
