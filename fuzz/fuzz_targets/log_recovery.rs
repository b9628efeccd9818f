//! A directory of log segments.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hedgerow_fuzz::files::log_recovery(input));
