//! The catalogue or the WAL manifest, by itself and in a store.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hedgerow_fuzz::files::catalog(input));
