//! The suite of openraft for a log and a state machine, on either engine.

use hedgerow::EngineKind;
use hedgerow_adapters::open;
use hedgerow_adapters::raft::{LogStore, StateMachine, TypeConfig, parts};
use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

struct Builder(EngineKind);

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<u64>> {
        let dir = tempfile::tempdir().unwrap();
        let db = open(&dir.path().join("store")).unwrap();
        let (log, machine) = parts(&db, self.0).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn lsm() {
    Suite::test_all(Builder(EngineKind::Lsm)).unwrap();
}

#[test]
fn btree() {
    Suite::test_all(Builder(EngineKind::BTree)).unwrap();
}
