//! The options of the keyspace that a migration converts rows into.

use hedgerow::KeyspaceOptions;

/// The options of the keyspace of the rows of a later version: those that are asked for, and for
/// the rest those of the keyspace before, as far as they concern the engine and go together.
/// `unset` are those of a keyspace for which nothing was asked.
pub(crate) fn options_of_copy(
    asked: Option<&KeyspaceOptions>,
    mut had: KeyspaceOptions,
    unset: &KeyspaceOptions,
) -> KeyspaceOptions {
    // The values in use: where they are those of the store, they were not asked for.
    if had.write_buffer_bytes == unset.write_buffer_bytes {
        had.write_buffer_bytes = None;
    }
    let Some(mut options) = asked.cloned() else {
        return had;
    };
    options.write_buffer_bytes = options.write_buffer_bytes.or(had.write_buffer_bytes);
    options.expiry = options.expiry.or(had.expiry);
    options.merge_operator = options.merge_operator.or(had.merge_operator.clone());
    options.compaction_filter = options.compaction_filter.or(had.compaction_filter);
    if options.expiry == Some(true) {
        options.default_ttl = options.default_ttl.or(had.default_ttl);
    }
    // Where they are kept depends on these.
    let keeps = |expiry, operator: &Option<String>| expiry == Some(true) || operator.is_some();
    if keeps(options.expiry, &options.merge_operator) == keeps(had.expiry, &had.merge_operator) {
        options.value_threshold_bytes = options.value_threshold_bytes.or(had.value_threshold_bytes);
    }
    if options.engine == had.engine {
        options.memtable = options.memtable.or(had.memtable);
        options.block_size_bytes = options.block_size_bytes.or(had.block_size_bytes);
        options.table_size_bytes = options.table_size_bytes.or(had.table_size_bytes);
        options.compression = options.compression.or(had.compression);
        options.last_level_compression = options
            .last_level_compression
            .or(had.last_level_compression);
        options.filter_bits_per_key = options.filter_bits_per_key.or(had.filter_bits_per_key);
        options.last_level_filter_bits_per_key = options
            .last_level_filter_bits_per_key
            .or(had.last_level_filter_bits_per_key);
        options.page_size_bytes = options.page_size_bytes.or(had.page_size_bytes);
    }
    options
}
