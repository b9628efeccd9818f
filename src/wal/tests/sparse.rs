//! Segments that are not allocated before they are used: what goes into them by stores, and what by
//! calls.

use super::*;

const SEGMENT_LEN_BYTES: u64 = 1 << 20;
const VALUE_LEN_BYTES: usize = 4000;

/// Calls that wrote to segments of the log, and stores into them.
#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    stores: AtomicU64,
}

impl Counts {
    fn of(fs: &SimFs) -> Arc<Self> {
        let counts = Arc::new(Self::default());
        let counted = Arc::clone(&counts);
        fs.on_change(move |_, operation| {
            let counter = match operation.op {
                "write" => &counted.calls,
                "store" => &counted.stores,
                _ => return,
            };
            if operation.path.extension().is_some_and(|ext| ext == "log") {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        counts
    }

    fn take(&self) -> (u64, u64) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        (take(&self.calls), take(&self.stores))
    }
}

/// A log of values.
struct Values {
    fs: SimFs,
    writer: Writer,
    log: Arc<Log>,
    last: u64,
}

impl Values {
    fn new() -> Self {
        let fs = SimFs::with_maps();
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        let (writer, log) = open(&shared, DIR.as_ref(), config(SEGMENT_LEN_BYTES));
        Self {
            fs,
            writer,
            log,
            last: 0,
        }
    }

    fn put_long(&mut self, len: usize) -> Result<()> {
        let seq = SeqNo(self.last + 1);
        let value = value(seq, len);
        let parts = [&b"key"[..], &value];
        self.writer.append(seq, seq, &parts, len as u64)?;
        self.last += 1;
        Ok(())
    }

    /// Puts `count` values, so that nothing has to be made for them.
    fn put(&mut self, count: u64) {
        for _ in 0..count {
            self.put_long(VALUE_LEN_BYTES).unwrap();
            self.log.prepare().unwrap();
        }
    }

    /// Writes so much without a sync that zeros are written ahead.
    fn run(&mut self) {
        self.put(3 * SEGMENT_LEN_BYTES / VALUE_LEN_BYTES as u64);
    }

    /// Ends the process, and finds everything that was put.
    fn check(self) {
        drop((self.writer, self.log));
        let fs: Arc<dyn Fs> = Arc::new(self.fs.killed());
        let (_, found, last) = recover(&fs, DIR.as_ref()).unwrap();
        assert_eq!((last, found.len() as u64), (SeqNo(self.last), self.last));
        for entry in found {
            let len = entry.payload.len() - 3;
            assert_eq!(entry.payload[..3], *b"key");
            assert_eq!(entry.payload[3..], value(entry.first, len));
        }
    }
}

fn value(seq: SeqNo, len: usize) -> Vec<u8> {
    (seq.0..).take(len).map(|n| (n % 251) as u8 + 1).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn values_between_distant_syncs_are_stored_over_zeros() {
    let mut values = Values::new();
    let counts = Counts::of(&values.fs);
    values.run();
    counts.take();
    values.put(1000);
    let (calls, stores) = counts.take();
    // A record is a header, a key and a value.
    assert!(stores >= 3 * 990, "{stores}");
    assert!(calls <= 1000 / 12, "{calls}");
    values.check();
}

#[test]
fn no_zeros_are_written_between_syncs_that_are_close() {
    let mut values = Values::new();
    values.run();
    let counts = Counts::of(&values.fs);
    for round in 0..600 {
        values.put(1);
        values.log.sync().unwrap();
        if round == 40 {
            // What was written ahead before is used up.
            counts.take();
        }
    }
    let (calls, stores) = counts.take();
    assert_eq!(stores, 0);
    // A call for each, and one for the activation of each segment.
    assert!((559..=563).contains(&calls), "{calls}");
    values.check();
}

#[test]
fn space_that_is_too_little_for_zeros_is_used_for_records() {
    let mut values = Values::new();
    values.run();
    for _ in 0..200 {
        // The first call of a put fails, if it makes one.
        values.fs.fail_once_after(0, ErrorKind::StorageFull);
        values.put_long(VALUE_LEN_BYTES).unwrap();
        values.fs.heal();
        values.log.prepare().unwrap();
    }
    values.fs.fail_after(0, ErrorKind::StorageFull);
    let failed = (0..100).find_map(|_| values.put_long(VALUE_LEN_BYTES).err());
    assert_eq!(
        failed.expect("the disk is full").io_kind(),
        Some(ErrorKind::StorageFull)
    );
    values.fs.heal();
    values.put(300);
    values.check();
}

#[test]
fn a_long_value_of_which_only_the_beginning_was_written_is_not_there() {
    let mut values = Values::new();
    values.run();
    // What was written ahead is used up, and nothing more is.
    values.log.sync().unwrap();
    values.put(20);
    for len in [16 << 10, 20_000, 100_000] {
        for succeed in 0..2 {
            // Header and key are written, the value is not, and nothing else.
            values.fs.fail_after(succeed, ErrorKind::StorageFull);
            assert!(values.put_long(len).is_err());
            values.fs.heal();
            let fs: Arc<dyn Fs> = Arc::new(values.fs.killed());
            let (_, _, last) = recover(&fs, DIR.as_ref()).unwrap();
            assert_eq!(last, SeqNo(values.last), "{len}, {succeed}");
        }
        values.put_long(len).unwrap();
        values.put(10);
    }
    values.check();
}
