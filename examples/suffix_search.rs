//! Names that contain a string, wherever in the name: every suffix of every name is a key.
//! docs/recipes.md explains the layout.
//!
//! `cargo run --example suffix_search`

use std::collections::BTreeSet;

use hedgerow::{Db, Durability, EngineKind, KeyBuilder, KeyReader, Keyspace, Options, Result};

/// Bytes of a suffix that are stored, at most. Longer strings are looked for in the names that the
/// beginning leads to.
const SUFFIX_LEN_MAX: usize = 12;

struct Names {
    db: Db,
    /// id -> name
    names: Keyspace,
    /// (beginning of a suffix, id) -> nothing
    suffixes: Keyspace,
}

/// The beginning of `text`, of so many bytes at most, in whole characters.
fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(SUFFIX_LEN_MAX)]
}

/// The suffixes of a name as they are stored, without those that are equal.
fn suffixes(name: &str) -> BTreeSet<String> {
    let name = name.to_lowercase();
    let starts = name.char_indices().map(|(at, _)| at);
    starts.map(|at| beginning(&name[at..]).to_owned()).collect()
}

impl Names {
    fn open(db: Db, engine: EngineKind) -> Result<Self> {
        Ok(Self {
            names: db.keyspace("names", engine)?,
            suffixes: db.keyspace("suffixes", engine)?,
            db,
        })
    }

    /// Adds names, each under an id that is not taken.
    fn add(&self, names: &[(u64, &str)]) -> Result<()> {
        let mut batch = self.db.batch();
        for (id, name) in names {
            batch.put(&self.names, id.to_be_bytes(), name);
            for suffix in suffixes(name) {
                batch.put(&self.suffixes, KeyBuilder::new().str(&suffix).u64(*id), "");
            }
        }
        self.db.write(batch, Durability::Buffered)?;
        Ok(())
    }

    fn remove(&self, id: u64) -> Result<()> {
        self.db.transact(|tx| {
            let Some(name) = tx.get(&self.names, id.to_be_bytes())? else {
                return Ok(());
            };
            for suffix in suffixes(&String::from_utf8_lossy(&name)) {
                tx.delete(&self.suffixes, KeyBuilder::new().str(&suffix).u64(id))?;
            }
            tx.delete(&self.names, id.to_be_bytes())
        })
    }

    /// The names that contain `part`, upper case or lower, by their ids.
    fn containing(&self, part: &str) -> Result<Vec<(u64, String)>> {
        let part = part.to_lowercase();
        let snapshot = self.db.snapshot();
        let mut ids = BTreeSet::new();
        // As bytes, and not as a part of the key, which would end there.
        for entry in snapshot.prefix(&self.suffixes, beginning(&part)) {
            let (key, _) = entry?;
            let mut parts = KeyReader::new(&key);
            let (_, id) = (parts.str()?, parts.u64()?);
            ids.insert(id);
        }
        let keys: Vec<_> = ids.iter().map(|id| id.to_be_bytes()).collect();
        let names = snapshot.keyspace(&self.names).multi_get(&keys)?;
        let mut found = Vec::new();
        for (id, name) in ids.into_iter().zip(names) {
            let name = name.map(|name| String::from_utf8_lossy(&name).into_owned());
            if let Some(name) = name.filter(|name| name.to_lowercase().contains(&part)) {
                found.push((id, name));
            }
        }
        Ok(found)
    }
}

fn main() -> Result<()> {
    // The cities of Iceland, Slovenia and Japan, by their numbers at GeoNames.
    let table = hedgerow_bench::cities::table();
    let cities: Vec<(u64, &str)> = table
        .lines()
        .filter(|line| {
            ["IS\t", "SI\t", "JP\t"]
                .iter()
                .any(|country| line.starts_with(country))
        })
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            (columns[3].parse().expect("a number"), columns[2])
        })
        .collect();
    for engine in EngineKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new().durability(Durability::Buffered);
        let names = Names::open(options.open(dir.path().join("my.db"))?, engine)?;
        for batch in cities.chunks(100) {
            names.add(batch)?;
        }

        for part in [
            "vík",
            "jaVÍK",
            "o",
            "hama",
            "-",
            "reykjavík",
            "zzz",
            "ravne na koroškem",
        ] {
            let mut expected: Vec<_> = cities
                .iter()
                .filter(|(_, name)| name.to_lowercase().contains(&part.to_lowercase()))
                .map(|(id, name)| (*id, (*name).to_owned()))
                .collect();
            expected.sort_unstable();
            assert_eq!(names.containing(part)?, expected, "{part}");
        }
        let found = names.containing("reykjav")?;
        assert!(!found.is_empty());
        for (id, _) in found {
            names.remove(id)?;
        }
        assert!(names.containing("reykjav")?.is_empty());
        println!(
            "{engine}: {} names, {} suffixes, {} with \"hama\"",
            names.names.len()?,
            names.suffixes.len()?,
            names.containing("hama")?.len()
        );
        names.db.close()?;
    }
    Ok(())
}
