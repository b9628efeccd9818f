//! What a script acts on: a store in memory with a keyspace of each engine, and a model.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use hedgerow::fs::SimFs;
use hedgerow::{
    Batch, Compression, Db, Durability, EngineKind, InspectDetail, Inspection, Keyspace,
    KeyspaceOptions, KvRead, Model, ModelSnapshot, Options, Result, Snapshot, Value,
};
use support::sizes::single_threaded;

use crate::command::{Command, End, Read, Setup, Write};

/// Where the store lies.
const PATH: &str = "/store";

/// Bytes of a value that are printed.
const PRINTED_VALUE_LEN: usize = 16;

/// What a script acts on. Nothing before `open`.
#[derive(Default)]
pub struct World {
    open: Option<Open>,
    snapshots: BTreeMap<String, Moment>,
}

struct Open {
    setup: Setup,
    fs: SimFs,
    db: Db,
    keyspaces: Vec<Keyspace>,
    model: Option<Model>,
}

/// A snapshot of everything.
struct Moment {
    store: Snapshot,
    model: Option<ModelSnapshot>,
}

impl World {
    /// Runs a command at `place` of a script and appends what it prints to `out`. Panics where the
    /// engines or the model disagree.
    pub fn run(&mut self, command: &Command, place: &str, out: &mut String) {
        let outcome = match command {
            Command::Open(setup) => {
                assert!(self.open.is_none(), "{place}: a script opens once");
                Open::new(setup.clone(), SimFs::new()).map(|open| self.open = Some(open))
            }
            Command::Reopen(end) => self.reopen(*end),
            Command::Snapshot(name) => {
                let moment = self.open(place).snapshot();
                self.snapshots.insert(name.clone(), moment);
                Ok(())
            }
            Command::Drop(name) => {
                let moment = self.snapshots.remove(name);
                assert!(moment.is_some(), "{place}: there is no snapshot {name}");
                Ok(())
            }
            Command::Read(read, None) => self.open(place).read(read, place, out),
            Command::Read(read, Some(name)) => {
                let moment = self.snapshots.get(name);
                let moment = moment.unwrap_or_else(|| panic!("{place}: no snapshot {name}"));
                self.open(place).read_at(moment, read, place, out)
            }
            other => self.open(place).run(other, out),
        };
        if let Err(error) = outcome {
            writeln!(out, "error: {error}").unwrap();
        }
    }

    fn open(&self, place: &str) -> &Open {
        let open = self.open.as_ref();
        open.unwrap_or_else(|| panic!("{place}: the first command is `open`"))
    }

    fn reopen(&mut self, end: End) -> Result<()> {
        let open = self.open.take().expect("the first command is `open`");
        self.snapshots.clear();
        let fs = match end {
            End::Closed => {
                open.db.close()?;
                open.fs.clone()
            }
            End::Killed => open.fs.killed(),
            End::WithoutPower => open.fs.crash(),
        };
        let reopened = Open::new(open.setup.clone(), fs)?;
        // The model loses nothing: of `lose_power_and_open`, only what was synced may be asked.
        let model = open.model;
        self.open = Some(Open { model, ..reopened });
        Ok(())
    }
}

impl Open {
    fn new(setup: Setup, fs: SimFs) -> Result<Self> {
        let options: Options = single_threaded(Arc::new(fs.clone()))
            .durability(Durability::Buffered)
            .write_buffer_bytes(setup.write_buffer_bytes)
            .log_segment_bytes(setup.log_segment_bytes);
        let db = options.open(PATH)?;
        let mut keyspaces = Vec::new();
        for (is_wanted, name, engine) in [
            (setup.has_lsm, "lsm", EngineKind::Lsm),
            (setup.has_btree, "btree", EngineKind::BTree),
        ] {
            let compression = match setup.has_compression {
                true => Compression::Lz4,
                false => Compression::None,
            };
            let options = KeyspaceOptions::new(engine)
                .write_buffer_bytes(setup.write_buffer_bytes)
                .value_threshold_bytes(setup.value_threshold_bytes);
            let options = match engine {
                EngineKind::Lsm => options
                    .block_size_bytes(setup.block_size_bytes)
                    .table_size_bytes(setup.table_size_bytes)
                    .compression(compression),
                EngineKind::BTree => options.page_size_bytes(setup.page_size_bytes),
            };
            if is_wanted {
                keyspaces.push(db.keyspace_with(name, options)?);
            }
        }
        Ok(Self {
            model: setup.has_model.then(Model::new),
            setup,
            fs,
            db,
            keyspaces,
        })
    }

    fn run(&self, command: &Command, out: &mut String) -> Result<()> {
        match command {
            Command::Write(write) => self.write(std::slice::from_ref(write))?,
            Command::Batch(writes) => self.write(writes)?,
            Command::Fill {
                prefix,
                numbers,
                value_len_bytes,
            } => {
                for number in numbers.clone() {
                    let value = format!("{number:04}-").repeat(value_len_bytes / 5 + 1);
                    let value = value[..*value_len_bytes].to_owned();
                    self.write(&[Write::Put(format!("{prefix}{number:04}"), value)])?;
                }
            }
            Command::Sync => self.db.sync()?,
            Command::Flush => self.db.flush()?,
            Command::Compact => self.db.compact()?,
            Command::Step => {
                let is_done = self.db.run_background_once()?;
                let what = if is_done { "worked" } else { "nothing to do" };
                writeln!(out, "{what}").unwrap();
            }
            Command::Settle => while self.db.run_background_once()? {},
            Command::Verify => {
                let report = self.db.verify()?;
                for problem in &report.problems {
                    writeln!(out, "{problem}").unwrap();
                }
                if report.is_clean() {
                    writeln!(out, "clean: {} entries", report.entries).unwrap();
                }
            }
            Command::Inspect(detail) => {
                for keyspace in &self.keyspaces {
                    writeln!(out, "{}", keyspace.inspect(*detail)?).unwrap();
                }
            }
            Command::InspectStore(detail) => {
                writeln!(out, "{}", self.inspect_store(*detail)?).unwrap();
            }
            Command::Open(_)
            | Command::Reopen(_)
            | Command::Snapshot(_)
            | Command::Drop(_)
            | Command::Read(..) => unreachable!("`World::run` does it"),
        }
        Ok(())
    }

    /// The store without its keyspaces.
    fn inspect_store(&self, detail: InspectDetail) -> Result<Inspection> {
        let mut store = self.db.inspect(detail)?;
        store.parts.retain(|part| part.kind != "keyspace");
        Ok(store)
    }

    /// One commit, in all keyspaces.
    fn write(&self, writes: &[Write]) -> Result<()> {
        let mut batch = self.db.batch();
        let mut model_batch = Batch::new();
        for write in writes {
            for keyspace in &self.keyspaces {
                match write {
                    Write::Put(key, value) => batch.put(keyspace, key, value),
                    Write::Delete(key) => batch.delete(keyspace, key),
                    Write::DeleteRange(range) => batch.delete_range(keyspace, range.clone()),
                }
            }
            match write {
                Write::Put(key, value) => model_batch.put(key, value),
                Write::Delete(key) => model_batch.delete(key),
                Write::DeleteRange(range) => model_batch.delete_range(range.clone()),
            };
        }
        self.db.write(batch, Durability::Buffered)?;
        if let Some(model) = &self.model {
            model.write(model_batch)?;
        }
        Ok(())
    }

    fn snapshot(&self) -> Moment {
        Moment {
            store: self.db.snapshot(),
            model: self.model.as_ref().map(Model::snapshot),
        }
    }

    fn read(&self, read: &Read, place: &str, out: &mut String) -> Result<()> {
        let mut answers = Answers::default();
        for keyspace in &self.keyspaces {
            answers.add(&keyspace.name(), answer(keyspace, read)?);
        }
        if let Some(model) = &self.model {
            answers.add("model", answer(model, read)?);
        }
        out.push_str(&answers.agreed(place));
        Ok(())
    }

    fn read_at(&self, moment: &Moment, read: &Read, place: &str, out: &mut String) -> Result<()> {
        let mut answers = Answers::default();
        for keyspace in &self.keyspaces {
            let snapshot = moment.store.keyspace(keyspace);
            answers.add(&keyspace.name(), answer(&snapshot, read)?);
        }
        if let Some(model) = &moment.model {
            answers.add("model", answer(model, read)?);
        }
        out.push_str(&answers.agreed(place));
        Ok(())
    }
}

/// What each of several says to a question.
#[derive(Default)]
struct Answers(Vec<(String, String)>);

impl Answers {
    fn add(&mut self, who: &str, answer: String) {
        self.0.push((who.to_owned(), answer));
    }

    /// The answer, which must be the same for all.
    fn agreed(self, place: &str) -> String {
        let (first, answer) = &self.0[0];
        for (other, different) in &self.0[1..] {
            assert_eq!(
                answer, different,
                "{place}: {first} (left) and {other} (right) disagree"
            );
        }
        answer.clone()
    }
}

fn answer(store: &impl KvRead, read: &Read) -> Result<String> {
    let mut out = String::new();
    match read {
        Read::Get(key) => match store.get(key)? {
            Some(value) => write_entry(&mut out, key.as_bytes(), &value),
            None => writeln!(out, "{key}: none").unwrap(),
        },
        Read::Scan { range, is_reverse } => {
            let scan = store.range(range.clone());
            let scan: Box<dyn Iterator<Item = _>> = match is_reverse {
                true => Box::new(scan.rev()),
                false => Box::new(scan),
            };
            for entry in scan {
                let (key, value) = entry?;
                write_entry(&mut out, &key, &value);
            }
            if out.is_empty() {
                out.push_str("no entries\n");
            }
        }
        Read::Count(range) => {
            let mut count = 0;
            for entry in store.range(range.clone()) {
                entry?;
                count += 1;
            }
            writeln!(out, "{count} entries").unwrap();
        }
    }
    Ok(out)
}

fn write_entry(out: &mut String, key: &[u8], value: &Value) {
    let (key, text) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
    match text.get(..PRINTED_VALUE_LEN) {
        Some(start) if text.len() > PRINTED_VALUE_LEN => {
            writeln!(out, "{key} = {start}... ({} bytes)", value.len()).unwrap();
        }
        _ => writeln!(out, "{key} = {text}").unwrap(),
    }
}
