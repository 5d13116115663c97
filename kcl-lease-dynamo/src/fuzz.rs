//! The fuzz target's entry point over its seeds and mutations of them.

#[path = "../fuzz/src/entry.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports it")]
mod entry;
#[path = "../../kpl-aggregation/tests/it/seeds.rs"]
mod seeds;

#[test]
fn any_item_is_a_lease_that_survives_or_a_foreign_row_or_says_why_it_is_neither() {
    seeds::run("item", 500, entry::item);
}
