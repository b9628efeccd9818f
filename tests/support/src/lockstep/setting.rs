//! Where and how a run happens.

use std::path::PathBuf;
use std::sync::Arc;

use hedgerow::fs::SimFs;
use hedgerow::internals::stage_batches_of;
use hedgerow::{
    Compression, Durability, EngineKind, KeyspaceOptions, MemtableKind, Model, Options,
};

use super::op::Target;
use crate::random::{Random, Source};

/// The compressions that there are in each build.
const COMPRESSIONS: [Compression; 2] = [Compression::Lz4, Compression::None];

/// Draws how the tables of the last level are written, where that is not as the others are.
fn draw_last_level(source: &mut impl Source, lsm: KeyspaceOptions) -> KeyspaceOptions {
    let zstd = *source.pick(&[1, 3, 7]);
    let zstd = Compression::Zstd { level: zstd };
    let lsm = match source.one_in(2) {
        true if zstd.is_available() => lsm.last_level_compression(zstd),
        true => lsm.last_level_compression(*source.pick(&COMPRESSIONS)),
        false => lsm,
    };
    let mut bits = || *source.pick(&[10, 10, 0, 3]);
    lsm.filter_bits_per_key(bits())
        .last_level_filter_bits_per_key(bits())
}

/// Where and how a run happens. Everything in it follows from the source it is drawn from.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Options of the store.
    pub options: Options,
    /// Options of the two keyspaces, in the order of [`EngineKind::ALL`].
    pub keyspaces: [KeyspaceOptions; 2],
    /// Where the store is.
    pub path: PathBuf,
    /// The file system, if it is one that can crash.
    pub mem: Option<SimFs>,
    /// Some of the puts are merges.
    pub merges: bool,
    /// Batches of so many operations for one keyspace are staged.
    pub stage_batches_of: usize,
}

impl Setting {
    /// Draws the sizes; the place is the caller's.
    pub fn draw(source: &mut impl Source, path: PathBuf, mem: Option<SimFs>) -> Self {
        let mut options = Options::new()
            .log_segment_bytes(*source.pick(&[64 << 10, 256 << 10]))
            .log_limit_bytes(*source.pick(&[128 << 10, 1 << 20]))
            .cache_bytes(*source.pick(&[0, 16 << 10, 1 << 20]))
            .mmap_reads(source.one_in(2))
            .mmap_log(source.one_in(2))
            .background_threads(*source.pick(&[0, 0, 1, 2]))
            .background_sync_ms(*source.pick(&[0, 1, 1000]))
            .durability(if source.one_in(4) {
                Durability::Sync
            } else {
                Durability::Buffered
            });
        if let Some(mem) = &mem {
            options = options.fs(Arc::new(mem.clone()));
        }
        let keyspaces = EngineKind::ALL.map(|engine| {
            let options = KeyspaceOptions::new(engine).write_buffer_bytes(*source.pick(&[
                16 << 10,
                16 << 10,
                64 << 10,
            ]));
            match engine {
                EngineKind::Lsm => options
                    .block_size_bytes(*source.pick(&[256, 512, 4096]))
                    .table_size_bytes(*source.pick(&[16 << 10, 64 << 10]))
                    .compression(*source.pick(&COMPRESSIONS))
                    .memtable(*source.pick(&[MemtableKind::BTree, MemtableKind::SkipList])),
                EngineKind::BTree => {
                    options.page_size_bytes(*source.pick(&[1024, 1024, 2048, 4096]))
                }
            }
        });
        let [lsm, btree] = keyspaces;
        let lsm = draw_last_level(source, lsm);
        let mut threshold = || *source.pick(&[0, 16, 40, 200]);
        let thresholds = [threshold(), threshold()];
        let merges = source.one_in(3);
        let apart = |options: KeyspaceOptions, threshold| match merges {
            true => options.merge_operator("append"),
            false => options.value_threshold_bytes(threshold),
        };
        let keyspaces = [apart(lsm, thresholds[0]), apart(btree, thresholds[1])];
        let ops = *source.pick(&[3, 6, 16 << 10]);
        Self {
            options: stage_batches_of(ops, options),
            keyspaces,
            path,
            mem,
            merges,
            stage_batches_of: ops,
        }
    }

    /// What asks for another value of an option of a keyspace, and is what later openings ask for.
    pub(super) fn change_option(&mut self, target: Target, seed: u64) -> KeyspaceOptions {
        let merges = self.merges;
        let change = |options: KeyspaceOptions| {
            let mut random = Random::new(seed);
            let is_lsm = options.engine == EngineKind::Lsm;
            match random.below(if is_lsm { 6 } else { 2 }) {
                0 if !merges => options.value_threshold_bytes(*random.pick(&[0, 16, 40, 200])),
                0 | 1 => options.write_buffer_bytes(*random.pick(&[16 << 10, 64 << 10])),
                2 => options.table_size_bytes(*random.pick(&[16 << 10, 64 << 10])),
                3 => options.compression(*random.pick(&COMPRESSIONS)),
                4 => options.filter_bits_per_key(*random.pick(&[10, 0, 3])),
                _ => options.memtable(*random.pick(&[MemtableKind::BTree, MemtableKind::SkipList])),
            }
        };
        let of = &mut self.keyspaces[target];
        *of = change(of.clone());
        change(KeyspaceOptions::new(of.engine))
    }

    /// Empty models of the keyspaces.
    pub(super) fn models(&self) -> [Model; 2] {
        let model = |options| Model::with_options(&self.options, options);
        let [first, second] = &self.keyspaces;
        [first, second].map(|options| model(options).expect("the options of a keyspace"))
    }

    /// Opens will be on this file system from now on.
    pub(super) fn boot(&mut self, mem: SimFs) {
        self.options.fs = Arc::new(mem.clone());
        self.mem = Some(mem);
    }
}
