//! A commit pipeline without a store around it, over engines that do what a test says.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::engine::{
    Engine, EngineLoad, EngineStats, InspectDetail, Inspection, Pressure, ReadView,
    SnapshotTracker, VerifyReport, Work,
};
use crate::error::Result;
use crate::fs::{Fs, SimFs};
use crate::options::{EngineKind, KeyspaceOptions, KeyspaceSettings};
use crate::store::commit::Pipeline;
use crate::store::coordinator::Coordinator;
use crate::store::keyspaces::{KeyspaceFiles, LiveOptions, OpenKeyspace};
use crate::testing::no_values;
use crate::types::{KeyspaceId, SeqNo, SequencedOp, Value};
use crate::util::gate::Gate;
use crate::wal::{Log, Recovery, WalConfig};

/// What becomes of the operations of a commit.
pub(crate) type Apply = Box<dyn Fn(&[SequencedOp<'_>]) -> Result<()> + Send + Sync>;

/// An engine that keeps nothing.
pub(crate) struct FakeEngine {
    apply: Apply,
}

impl fmt::Debug for FakeEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeEngine")
    }
}

impl Engine for FakeEngine {
    fn prepare(&self, _: &[SequencedOp<'_>]) -> Result<()> {
        Ok(())
    }

    fn apply(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        (self.apply)(ops)
    }

    fn prepare_ordered(&self, ops: &[SequencedOp<'_>], _: &[u32]) -> Result<()> {
        self.prepare(ops)
    }

    fn apply_ordered(&self, ops: &[SequencedOp<'_>], _: &[u32]) -> Result<()> {
        self.apply(ops)
    }

    fn apply_staged(&self, ops: &[SequencedOp<'_>]) -> Result<()> {
        (self.apply)(ops)
    }

    fn begin_load(self: Arc<Self>) -> Result<Box<dyn EngineLoad>> {
        unimplemented!("no test loads")
    }

    fn apply_load(&self, _: &[u8], _: SeqNo, _: SeqNo) -> Result<()> {
        unimplemented!("no test loads")
    }

    fn persisted_seq(&self) -> SeqNo {
        SeqNo::ZERO
    }

    fn oldest_unpersisted(&self) -> Option<SeqNo> {
        None
    }

    fn get(&self, _: &[u8], _: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(false)
    }

    fn multi_get(&self, _: &[&[u8]]) -> Result<Vec<Option<Value>>> {
        Ok(Vec::new())
    }

    fn view(&self) -> Result<Arc<dyn ReadView>> {
        unimplemented!("no test reads")
    }

    fn snapshot_view(&self, _: SeqNo) -> Option<Arc<dyn ReadView>> {
        unimplemented!("no test reads")
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn work_due(&self) -> Option<Work> {
        None
    }

    fn run_once(&self, _: Work) -> Result<bool> {
        Ok(false)
    }

    fn compact(&self) -> Result<()> {
        Ok(())
    }

    fn pressure(&self) -> Pressure {
        Pressure::None
    }

    fn stats(&self) -> EngineStats {
        EngineStats::default()
    }

    fn inspect(&self, _detail: InspectDetail) -> Result<Vec<Inspection>> {
        Ok(Vec::new())
    }

    fn scrub(&self, _pace: &mut dyn FnMut(u64) -> Result<()>) -> Result<VerifyReport> {
        Ok(VerifyReport::default())
    }

    fn verify(&self) -> Result<VerifyReport> {
        Ok(VerifyReport::default())
    }
}

/// The parts of a store that commit.
pub(crate) struct PipelineRig {
    pub(crate) fs: SimFs,
    pub(crate) pipeline: Pipeline,
    pub(crate) log: Arc<Log>,
    pub(crate) snapshot_tracker: Arc<SnapshotTracker>,
    pub(crate) keyspaces: [Arc<OpenKeyspace>; 2],
}

/// A batch of so many operations is staged.
pub(crate) const LARGE_BATCH_OPS: usize = 5;
/// The directory of the log.
pub(crate) const DIR: &str = "/wal";
/// The number of the store.
pub(crate) const STORE: u64 = 1;

impl PipelineRig {
    /// An empty one, in memory; `apply` is made for its coordinator and each of its keyspaces.
    pub(crate) fn new(apply: impl Fn(&Arc<Coordinator>, KeyspaceId) -> Apply) -> Self {
        let fs = SimFs::new();
        fs.create_dir_all(Path::new(DIR)).unwrap();
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        let mut recovery = Recovery::open(Arc::clone(&shared), Path::new(DIR), STORE).unwrap();
        recovery
            .replay(SeqNo::ZERO, SeqNo::ZERO, &mut |_| Ok(()))
            .unwrap();
        let config = WalConfig {
            segment_bytes: 512,
            use_mmap: false,
        };
        let (writer, log) = recovery.into_log(config, SeqNo::ZERO).unwrap();
        let coordinator = Arc::new(Coordinator::default());
        coordinator.attach_log(Arc::clone(&log));
        let snapshot_tracker = Arc::new(SnapshotTracker::default());
        let keyspaces = [KeyspaceId(1), KeyspaceId(2)].map(|id| {
            let engine = FakeEngine {
                apply: apply(&coordinator, id),
            };
            Arc::new(keyspace_of(engine, id, &shared, &snapshot_tracker))
        });
        let pipeline = Pipeline::new(
            writer,
            Arc::clone(&log),
            SeqNo::ZERO,
            coordinator,
            Arc::clone(&snapshot_tracker),
            Arc::default(),
            no_values(&shared),
        );
        let pipeline = pipeline.staging_batches_of(LARGE_BATCH_OPS);
        Self {
            fs,
            pipeline,
            log,
            snapshot_tracker,
            keyspaces,
        }
    }
}

fn keyspace_of(
    engine: FakeEngine,
    id: KeyspaceId,
    fs: &Arc<dyn Fs>,
    snapshot_tracker: &Arc<SnapshotTracker>,
) -> OpenKeyspace {
    let options = KeyspaceOptions::new(EngineKind::Lsm).with_defaults();
    let settings = Arc::new(KeyspaceSettings::new(&options, 1 << 20));
    OpenKeyspace::new(
        id,
        &id.to_string(),
        LiveOptions::new(options, settings, 1 << 20),
        Arc::default(),
        Arc::new(engine),
        Arc::new(KeyspaceFiles::new(
            Arc::clone(fs),
            "/ks".into(),
            |_| false,
            Arc::new(Gate::new()),
        )),
        Arc::clone(snapshot_tracker),
    )
}
