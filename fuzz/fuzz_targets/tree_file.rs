//! The file of a B-tree, opened and used in a store.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hedgerow_fuzz::files::tree_file(input));
