#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kcl_lease_dynamo_fuzz::entry::item(bytes));
