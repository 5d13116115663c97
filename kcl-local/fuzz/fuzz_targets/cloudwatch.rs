#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kcl_local_fuzz::cloudwatch::requests(bytes));
