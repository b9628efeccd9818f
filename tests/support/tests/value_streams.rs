//! How much memory it takes to stream a long value in and out: a binary of its own, since the
//! allocations of the whole process are counted.

use std::io::{self, Read};

use hedgerow::{EngineKind, Error, MAX_VALUE_LEN_BYTES, Options};
use hedgerow_test_support::alloc::{Counting, Watched, measure};

#[global_allocator]
static ALLOCATOR: Watched<Counting> = Watched(Counting);

const LEN: u64 = 64 << 20;
/// The buffer of a writer, a piece of the source, and what else a commit takes.
const IN_BYTES: usize = 512 << 10;
/// The chunk of a value of that length, and what else a reader takes.
const OUT_BYTES: usize = (1 << 20) + (64 << 10);

/// Bytes that are a function of their place.
struct Source {
    at: u64,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in &mut *buffer {
            *byte = (self.at % 251) as u8;
            self.at += 1;
        }
        Ok(buffer.len())
    }
}

/// One test: only one measurement may run at a time.
#[test]
fn long_values_are_streamed_in_and_out_in_bounded_memory() {
    a_long_value_is_never_in_memory_as_a_whole();
    the_longest_value_can_be_streamed_and_a_longer_one_is_refused();
}

fn a_long_value_is_never_in_memory_as_a_whole() {
    for engine in EngineKind::ALL {
        for use_mmap in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let options = Options::new().mmap_reads(use_mmap).background_threads(0);
            let db = options.open(dir.path().join("store")).unwrap();
            let files = db.keyspace("files", engine).unwrap();
            files.put("warm", "up").unwrap();
            let source = Source { at: 0 };
            let (put, taken) = measure(|| files.put_from("k", source.take(LEN)));
            put.unwrap();
            assert!(taken.peak <= IN_BYTES, "{engine}: in {taken:?}");

            let (read, taken) = measure(|| {
                let mut reader = files.reader("k").unwrap().unwrap();
                let mut buffer = [0; 4096];
                let (mut at, mut is_right) = (0_u64, true);
                loop {
                    let len = reader.read(&mut buffer).unwrap();
                    if len == 0 {
                        return (at, is_right);
                    }
                    for byte in &buffer[..len] {
                        is_right &= *byte == (at % 251) as u8;
                        at += 1;
                    }
                }
            });
            assert_eq!(read, (LEN, true));
            let limit = if use_mmap { 64 << 10 } else { OUT_BYTES };
            assert!(taken.peak <= limit, "{engine}: out {taken:?}");

            let (verified, taken) = measure(|| {
                files.flush().unwrap();
                files.verify().unwrap()
            });
            assert!(verified.is_clean());
            assert!(taken.peak <= LEN as usize / 4, "{engine}: verify {taken:?}");
        }
    }
}

fn the_longest_value_can_be_streamed_and_a_longer_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new().open(dir.path().join("store")).unwrap();
    let files = db.keyspace("files", EngineKind::Lsm).unwrap();
    let longest = MAX_VALUE_LEN_BYTES as u64;
    let error = files
        .put_from("k", io::repeat(7).take(longest + 1))
        .unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    assert!(files.is_empty().unwrap());
    files.put_from("k", io::repeat(7).take(longest)).unwrap();
    let mut reader = files.reader("k").unwrap().unwrap();
    assert_eq!(reader.len(), longest);
    assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), longest);
}
