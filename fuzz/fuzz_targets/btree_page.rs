//! Nodes of the B-tree, and changes of a leaf.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hedgerow_fuzz::pages::btree_page(input));
