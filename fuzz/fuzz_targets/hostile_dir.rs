//! A store's directory in which anything lies under any name.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hedgerow_fuzz::hostile::hostile_dir(input));
