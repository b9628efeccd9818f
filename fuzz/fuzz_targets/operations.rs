//! Random operations on both engines and the model in lockstep.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hedgerow_fuzz::operations(input));
