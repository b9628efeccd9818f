//! In which form tables are written: compression and filters for each level.

use super::storage::{Live, in_memory, key_of};
use super::*;
use crate::lsm::table::TableForm;
use crate::lsm::version::LEVELS;

const ZSTD: Compression = Compression::Zstd { level: 3 };

fn form(compression: Compression, filter_bits_per_key: u32) -> TableForm {
    TableForm {
        compression,
        filter_bits_per_key,
    }
}

/// Level and form of each table.
fn forms(live: &Live) -> Vec<(usize, TableForm)> {
    let version = Arc::clone(&live.engine.superversion().version);
    let tables = version.tables();
    tables
        .map(|(level, table)| (level, table.table().properties().form))
        .collect()
}

/// LZ4 and ten bits above, zstd and no filters in the last level.
fn dense_at_the_bottom() -> World {
    let mut world = in_memory();
    world.options = world
        .options
        .last_level_compression(ZSTD)
        .last_level_filter_bits_per_key(0);
    world
}

/// What overlapped nothing was flushed uncompressed, and written once more on its way down.
#[test]
fn rising_keys_are_written_once() {
    let mut world = dense_at_the_bottom();
    world.options = world.options.table_size_bytes(64 << 10);
    let live = Live::new(&world);
    let mut random = Random::new(3);
    for number in 0..4000 {
        live.put(&key_of(number), &random.bytes(90));
        if number % 200 == 199 {
            live.flush();
            live.settle();
        }
    }
    let stats = live.engine.stats();
    assert!(stats.compactions >= 4, "{stats:?}");
    // What is too small to stay as it is gets joined, once or twice.
    let rewritten = stats.compaction_bytes_written as f64 / stats.flush_bytes_written as f64;
    assert!(rewritten < 2.0, "{rewritten}");
    let forms = forms(&live);
    assert!(forms.iter().any(|(level, _)| *level == LEVELS - 1));
    for (level, found) in forms {
        assert_eq!(found, form(ZSTD, 0), "level {level}");
    }
    assert_eq!(live.entries().len(), 4000);
    assert!(live.engine.verify().unwrap().is_clean());
}

/// Tables that are too large to be joined with their neighbours move down, and nothing else.
#[test]
fn large_tables_of_rising_keys_are_not_written_again() {
    let mut world = dense_at_the_bottom();
    world.options = world
        .options
        .write_buffer_bytes(1 << 20)
        .table_size_bytes(64 << 10);
    let live = Live::new(&world);
    let mut random = Random::new(4);
    for number in 0..10_000 {
        live.put(&key_of(number), &random.bytes(90));
        if number % 500 == 499 {
            live.flush();
            live.settle();
        }
    }
    let stats = live.engine.stats();
    assert!(stats.compactions >= 5, "{stats:?}");
    assert_eq!(stats.compaction_bytes_written, 0);
    assert!(
        forms(&live)
            .iter()
            .all(|(_, found)| *found == form(ZSTD, 0))
    );
    // A key before the first, and it is not so simple any more.
    live.put(&key_of(0), b"again");
    live.flush();
    assert!(forms(&live).contains(&(0, form(Compression::None, 10))));
    assert_eq!(live.entries().len(), 10_000);
}

#[test]
fn each_level_has_its_form() {
    let live = Live::new(&dense_at_the_bottom());
    let mut random = Random::new(5);
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..16_000 {
        let key = crate::format::checksum::mix64(random.below(1 << 40)).to_be_bytes();
        let value = crate::format::checksum::mix64(number)
            .to_be_bytes()
            .repeat(12);
        live.put(&key, &value);
        live.settle();
        if number % 200 != 0 {
            continue;
        }
        for (level, found) in forms(&live) {
            seen.insert(level);
            let wanted = match level {
                0 => form(Compression::None, 10),
                _ if level == LEVELS - 1 => form(ZSTD, 0),
                _ => form(Compression::Lz4, 10),
            };
            // But for the first, which overlapped nothing.
            assert!(
                found == wanted || (found == form(ZSTD, 0) && number < 2000),
                "{level}"
            );
        }
    }
    assert!(seen.len() >= 3 && seen.contains(&5), "{seen:?}");
    let entries = live.entries();
    for (key, value) in entries.iter().step_by(97) {
        assert_eq!(live.get(key).as_ref(), Some(value));
    }
    assert!(live.engine.verify().unwrap().is_clean());
}

/// Options are changed while the store is open: what is there stays readable, and goes when it is
/// written again.
#[test]
fn other_options_are_for_new_tables() {
    let world = in_memory();
    let live = Live::new(&world);
    let fill = |value: &[u8]| {
        for number in 0..1000 {
            live.put(&key_of(number * 7 % 1000), value);
        }
        live.engine.compact().unwrap();
    };
    let mut expected = Vec::new();
    for (compression, bits) in [
        (Compression::None, 10),
        (ZSTD, 0),
        (Compression::Lz4, 4),
        (Compression::Zstd { level: 19 }, 10),
    ] {
        let asked = world.options.clone().last_level_compression(compression);
        let asked = asked.last_level_filter_bits_per_key(bits);
        live.engine
            .ctx
            .options
            .change(&asked.with_defaults(), 64 << 20);
        let forms_of = |live: &Live| forms(live).into_iter().map(|(_, form)| form);
        assert!(
            forms_of(&live).all(|form| expected.contains(&form)),
            "what is there stays"
        );
        assert_eq!(
            live.entries().len(),
            if expected.is_empty() { 0 } else { 1000 }
        );
        fill(format!("value for {compression}").repeat(4).as_bytes());
        expected = vec![form(compression, bits)];
        assert!(
            forms_of(&live).all(|form| expected.contains(&form)),
            "{compression}"
        );
    }
    assert!(live.engine.verify().unwrap().is_clean());
}

/// Nothing had changed in the tree, and so it was left as it was.
#[test]
fn compacting_once_more_writes_what_changed_options_ask_for() {
    let world = in_memory();
    let live = Live::new(&world);
    for number in 0..1000 {
        live.put(&key_of(number), b"value");
    }
    live.engine.compact().unwrap();
    let asked = world.options.clone();
    let asked = asked.last_level_compression(Compression::None);
    let asked = asked.last_level_filter_bits_per_key(4);
    let options = &live.engine.ctx.options;
    options.change(&asked.with_defaults(), 64 << 20);
    live.engine.compact().unwrap();
    for (_, found) in forms(&live) {
        assert_eq!(found, form(Compression::None, 4));
    }
    assert_eq!(live.entries().len(), 1000);
    let written = live.engine.stats().compaction_bytes_written;
    live.engine.compact().unwrap();
    assert_eq!(live.engine.stats().compaction_bytes_written, written);
}
