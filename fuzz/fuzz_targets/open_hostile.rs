//! A store one of whose files holds the fuzzer's bytes: it may refuse, it must not panic.
//! What it does is in tests/store/fuzzing.rs, shared with the replay of the seeds on stable.
#![no_main]
// Of the shared modules a target uses a part.
#![allow(dead_code)]

#[path = "../../tests/store/fuzzing.rs"]
mod fuzzing;
#[path = "../../tests/store/image.rs"]
mod image;
#[path = "../../tests/store/lockstep.rs"]
mod lockstep;
#[path = "../../tests/store/random.rs"]
mod random;
#[path = "../../tests/store/sizes.rs"]
mod sizes;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::open_hostile(input));
