//! A table, opened and scanned in a store.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hedgerow_fuzz::files::table_file(input));
