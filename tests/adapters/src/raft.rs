//! openraft on hedgerow: the log of a node and its state machine in one store.
//!
//! The log is a keyspace of entries by index, whose appends are durable before they are
//! acknowledged. The state machine is another keyspace; what a batch of entries changes, and that
//! they are applied, is one commit. It need not be durable at once: what a power loss takes is
//! applied again from the log.

use std::fmt::Debug;
use std::io::Cursor;
use std::ops::{Bound, RangeBounds};

use hedgerow::{Db, Durability, EngineKind, Keyspace, WriteBatch};
use openraft::storage::{LogFlushed, LogState, RaftLogStorage, RaftStateMachine, Snapshot};
use openraft::{
    AnyError, Entry, EntryPayload, LogId, RaftLogReader, RaftSnapshotBuilder, SnapshotMeta,
    StorageError, StorageIOError, StoredMembership, Vote,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// Requests set a key.
    pub TypeConfig:
        D = Set,
        R = Option<String>,
);

/// Sets a key; the answer is the value before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Set {
    /// The key.
    pub key: String,
    /// Its new value.
    pub value: String,
}

type NodeId = u64;
type Outcome<T> = Result<T, StorageError<NodeId>>;
type Membership = StoredMembership<NodeId, openraft::BasicNode>;
type Meta = SnapshotMeta<NodeId, openraft::BasicNode>;

/// The log, which can be read from several places.
#[derive(Debug, Clone)]
pub struct LogStore {
    db: Db,
    entries: Keyspace,
    facts: Keyspace,
}

/// The state machine.
#[derive(Debug, Clone)]
pub struct StateMachine {
    db: Db,
    values: Keyspace,
    facts: Keyspace,
}

fn reading(error: impl std::error::Error + 'static) -> StorageError<NodeId> {
    StorageIOError::read(AnyError::new(&error)).into()
}

fn writing(error: impl std::error::Error + 'static) -> StorageError<NodeId> {
    StorageIOError::write(AnyError::new(&error)).into()
}

fn fact<T: DeserializeOwned>(facts: &Keyspace, name: &str) -> Outcome<Option<T>> {
    let found = facts.get(name).map_err(reading)?;
    let decoded = found.map(|bytes| serde_json::from_slice(&bytes));
    decoded.transpose().map_err(reading)
}

fn set_fact(
    batch: &mut WriteBatch,
    facts: &Keyspace,
    name: &str,
    value: &impl Serialize,
) -> Outcome<()> {
    batch.put(facts, name, serde_json::to_vec(value).map_err(writing)?);
    Ok(())
}

/// Both parts of a node, in one store.
pub fn parts(db: &Db, engine: EngineKind) -> hedgerow::Result<(LogStore, StateMachine)> {
    let log = LogStore {
        db: db.clone(),
        entries: db.keyspace("log entries", engine)?,
        facts: db.keyspace("log facts", engine)?,
    };
    let machine = StateMachine {
        db: db.clone(),
        values: db.keyspace("values", engine)?,
        facts: db.keyspace("machine facts", engine)?,
    };
    Ok((log, machine))
}

fn index_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

fn entry_of(value: &[u8]) -> Outcome<Entry<TypeConfig>> {
    serde_json::from_slice(value).map_err(reading)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Outcome<Vec<Entry<TypeConfig>>> {
        let bound = |bound: Bound<&u64>| bound.map(|index| index_key(*index).to_vec());
        let keys = (bound(range.start_bound()), bound(range.end_bound()));
        let entries = self.entries.range(keys);
        entries
            .map(|item| entry_of(&item.map_err(reading)?.1))
            .collect()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Outcome<LogState<TypeConfig>> {
        let last_purged_log_id: Option<LogId<NodeId>> = fact(&self.facts, "purged")?;
        let last = self.entries.last().map_err(reading)?;
        let last_log_id = match last {
            Some((_, value)) => Some(entry_of(&value)?.log_id),
            None => last_purged_log_id,
        };
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<NodeId>) -> Outcome<()> {
        let mut batch = self.db.batch();
        set_fact(&mut batch, &self.facts, "vote", vote)?;
        let written = self.db.write(batch, Durability::Sync);
        written.map(drop).map_err(writing)
    }

    async fn read_vote(&mut self) -> Outcome<Option<Vote<NodeId>>> {
        fact(&self.facts, "vote")
    }

    async fn save_committed(&mut self, committed: Option<LogId<NodeId>>) -> Outcome<()> {
        let mut batch = self.db.batch();
        set_fact(&mut batch, &self.facts, "committed", &committed)?;
        let written = self.db.write(batch, Durability::Buffered);
        written.map(drop).map_err(writing)
    }

    async fn read_committed(&mut self) -> Outcome<Option<LogId<NodeId>>> {
        Ok(fact::<Option<_>>(&self.facts, "committed")?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Outcome<()>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + Send,
        I::IntoIter: Send,
    {
        let mut batch = self.db.batch();
        for entry in entries {
            let bytes = serde_json::to_vec(&entry).map_err(writing)?;
            batch.put(&self.entries, index_key(entry.log_id.index), bytes);
        }
        // Visible at once; the callback says when it is durable.
        let appended = self.db.write(batch, Durability::Buffered);
        let seq = appended.map_err(writing)?;
        let durable = self.db.durable(seq).await;
        callback.log_io_completed(durable.map_err(std::io::Error::other));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<NodeId>) -> Outcome<()> {
        let mut batch = self.db.batch();
        batch.delete_range(&self.entries, &index_key(log_id.index)[..]..);
        let written = self.db.write(batch, Durability::Sync);
        written.map(drop).map_err(writing)
    }

    async fn purge(&mut self, log_id: LogId<NodeId>) -> Outcome<()> {
        let mut batch = self.db.batch();
        batch.delete_range(&self.entries, ..=&index_key(log_id.index)[..]);
        set_fact(&mut batch, &self.facts, "purged", &log_id)?;
        let written = self.db.write(batch, Durability::Buffered);
        written.map(drop).map_err(writing)
    }
}

/// What a snapshot holds.
type Pairs = Vec<(String, String)>;

impl StateMachine {
    fn applied(&self) -> Outcome<(Option<LogId<NodeId>>, Membership)> {
        let applied = fact::<Option<_>>(&self.facts, "applied")?.flatten();
        let membership = fact(&self.facts, "membership")?;
        Ok((applied, membership.unwrap_or_default()))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Outcome<Snapshot<TypeConfig>> {
        // One moment of both keyspaces, while entries are applied.
        let snapshot = self.db.snapshot();
        let fact = |name| -> Outcome<Option<Vec<u8>>> {
            let found = snapshot.get(&self.facts, name).map_err(reading)?;
            Ok(found.map(|value| value.to_vec()))
        };
        let decode = |bytes: Option<Vec<u8>>| bytes.unwrap_or_else(|| b"null".to_vec());
        let last_log_id = serde_json::from_slice(&decode(fact("applied")?)).map_err(reading)?;
        let membership: Option<Membership> =
            serde_json::from_slice(&decode(fact("membership")?)).map_err(reading)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pairs = snapshot.iter(&self.values).map(|item| {
            let (key, value) = item.map_err(reading)?;
            Ok((text(&key), text(&value)))
        });
        let pairs: Pairs = pairs.collect::<Outcome<_>>()?;
        let last: Option<LogId<NodeId>> = last_log_id;
        let meta = Meta {
            last_log_id: last,
            last_membership: membership.unwrap_or_default(),
            snapshot_id: last.map_or("none".into(), |id| format!("up to {id}")),
        };
        let bytes = serde_json::to_vec(&pairs).map_err(reading)?;
        let mut batch = self.db.batch();
        set_fact(&mut batch, &self.facts, "snapshot", &(&meta, &pairs))?;
        self.db.write(batch, Durability::Sync).map_err(writing)?;
        Ok(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Outcome<(Option<LogId<NodeId>>, Membership)> {
        self.applied()
    }

    async fn apply<I>(&mut self, entries: I) -> Outcome<Vec<Option<String>>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + Send,
        I::IntoIter: Send,
    {
        let mut batch = self.db.batch();
        let mut answers = Vec::new();
        let mut set = std::collections::BTreeMap::new();
        for entry in entries {
            set_fact(&mut batch, &self.facts, "applied", &Some(entry.log_id))?;
            answers.push(match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(Set { key, value }) => {
                    let before = match set.get(&key) {
                        Some(value) => Some(String::clone(value)),
                        None => {
                            let found = self.values.get(&key).map_err(reading)?;
                            found.map(|value| String::from_utf8_lossy(&value).into_owned())
                        }
                    };
                    batch.put(&self.values, &key, &value);
                    set.insert(key, value);
                    before
                }
                EntryPayload::Membership(membership) => {
                    let stored = Membership::new(Some(entry.log_id), membership);
                    set_fact(&mut batch, &self.facts, "membership", &stored)?;
                    None
                }
            });
        }
        self.db
            .write(batch, Durability::Buffered)
            .map_err(writing)?;
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Outcome<Box<Cursor<Vec<u8>>>> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Outcome<()> {
        let pairs: Pairs = serde_json::from_slice(snapshot.get_ref()).map_err(reading)?;
        // All of it or nothing.
        let mut batch = self.db.batch();
        batch.delete_range(&self.values, ..);
        for (key, value) in &pairs {
            batch.put(&self.values, key, value);
        }
        set_fact(&mut batch, &self.facts, "applied", &meta.last_log_id)?;
        set_fact(&mut batch, &self.facts, "membership", &meta.last_membership)?;
        set_fact(&mut batch, &self.facts, "snapshot", &(meta, &pairs))?;
        let written = self.db.write(batch, Durability::Sync);
        written.map(drop).map_err(writing)
    }

    async fn get_current_snapshot(&mut self) -> Outcome<Option<Snapshot<TypeConfig>>> {
        let found: Option<(Meta, Pairs)> = fact(&self.facts, "snapshot")?;
        let Some((meta, pairs)) = found else {
            return Ok(None);
        };
        let bytes = serde_json::to_vec(&pairs).map_err(reading)?;
        Ok(Some(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        }))
    }
}
