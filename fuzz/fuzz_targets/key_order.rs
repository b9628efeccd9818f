//! Orders of keys: heads, separators, memtables, merges.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hedgerow_fuzz::keys::key_order(input));
