//! Operations with power losses, also during recovery.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hedgerow_fuzz::crashes(input));
