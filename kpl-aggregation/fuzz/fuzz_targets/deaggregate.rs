#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kpl_aggregation_fuzz::entry::deaggregate(bytes));
