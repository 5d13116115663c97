#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kcl_core_fuzz::entry::settings(bytes));
