//! Framed records of the log and of the manifest.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hedgerow_fuzz::decoders::log_record(input));
