//! Full-text search: an inverted index from words to the documents that have them. docs/recipes.md
//! explains the layout.
//!
//! `cargo run --example full_text`

use std::collections::{BTreeMap, BTreeSet};

use hedgerow::{
    Db, Durability, EngineKind, KeyBuilder, KeyReader, Keyspace, Options, Result, Snapshot,
};

struct Library {
    db: Db,
    /// id -> text
    documents: Keyspace,
    /// (word, id) -> how often the word stands in the document, 4 bytes
    postings: Keyspace,
}

/// The words of a text, in lower case, and how often each stands there.
fn words(text: &str) -> BTreeMap<String, u32> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    let mut counts = BTreeMap::new();
    for word in words.filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    counts
}

impl Library {
    fn open(db: Db, engine: EngineKind) -> Result<Self> {
        Ok(Self {
            documents: db.keyspace("documents", engine)?,
            postings: db.keyspace("postings", engine)?,
            db,
        })
    }

    /// Sets the text of a document, or removes it: `None`.
    fn set(&self, id: u64, text: Option<&str>) -> Result<()> {
        self.db.transact(|tx| {
            if let Some(old) = tx.get(&self.documents, id.to_be_bytes())? {
                for word in words(&String::from_utf8_lossy(&old)).keys() {
                    tx.delete(&self.postings, KeyBuilder::new().str(word).u64(id))?;
                }
                tx.delete(&self.documents, id.to_be_bytes())?;
            }
            let Some(text) = text else {
                return Ok(());
            };
            for (word, count) in words(text) {
                let key = KeyBuilder::new().str(&word).u64(id);
                tx.put(&self.postings, key, count.to_be_bytes())?;
            }
            tx.put(&self.documents, id.to_be_bytes(), text)
        })
    }

    /// The documents that have all words of `query`, those with the most of them first.
    fn search(&self, query: &str) -> Result<Vec<u64>> {
        let snapshot = self.db.snapshot();
        let words: Vec<String> = words(query).into_keys().collect();
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let mut found: Vec<(u32, u64)> = Vec::new();
        // The lists of all words are walked side by side. A list that is behind the others seeks
        // the document at which they are: what they do not share is skipped.
        let (mut at, mut agreed, mut score) = (0, 0, 0);
        for word in words.iter().cycle() {
            let Some((id, count)) = self.next(&snapshot, word, at)? else {
                break;
            };
            if id > at {
                (at, agreed, score) = (id, 0, 0);
            }
            (agreed, score) = (agreed + 1, score + count);
            if agreed == words.len() {
                found.push((score, at));
                (at, agreed, score) = (at + 1, 0, 0);
            }
        }
        found.sort_unstable_by_key(|&(score, id)| (std::cmp::Reverse(score), id));
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// The first document from `from` on that has `word`, and how often.
    fn next(&self, snapshot: &Snapshot, word: &str, from: u64) -> Result<Option<(u64, u32)>> {
        let of_word = KeyBuilder::new().str(word);
        let range = of_word.clone().u64(from)..=of_word.u64(u64::MAX);
        let Some((key, count)) = snapshot.range(&self.postings, range).next().transpose()? else {
            return Ok(None);
        };
        let mut parts = KeyReader::new(&key);
        let (_, id) = (parts.str()?, parts.u64()?);
        let count = count[..].try_into().expect("four bytes were put");
        Ok(Some((id, u32::from_be_bytes(count))))
    }

    /// Words that begin with `start`, in their order: for completion while a query is typed.
    fn words_from(&self, start: &str, most: usize) -> Result<Vec<String>> {
        let mut found = Vec::new();
        // As bytes, and not as a part of the key, which would end there.
        let mut from = start.as_bytes().to_vec();
        while found.len() < most {
            let Some((key, _)) = self.postings.range(&from..).next().transpose()? else {
                break;
            };
            let word = KeyReader::new(&key).str()?;
            if !word.starts_with(start) {
                break;
            }
            // On to the next word: the documents of this one are passed over.
            from = KeyBuilder::new().str(&word).u64(u64::MAX).into_vec();
            from.push(0);
            found.push(word);
        }
        Ok(found)
    }
}

/// A text of words that are drawn by `seed`: short ones often, as in a language.
fn text(mut seed: u64) -> String {
    let mut words = Vec::new();
    for _ in 0..40 {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let word = (seed >> 33) % 100 * ((seed >> 50) % 100) / 100;
        words.push(format!("w{word}"));
    }
    words.join(" ")
}

fn main() -> Result<()> {
    for engine in EngineKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new().durability(Durability::Buffered);
        let library = Library::open(options.open(dir.path().join("my.db"))?, engine)?;
        library.set(1, Some("A hedgerow is a row of shrubs, and of trees."))?;
        library.set(2, Some("Trees! Trees and hedges; a hedge is no hedgerow."))?;
        library.set(3, Some("Rows and rows of books."))?;
        assert_eq!(
            library.search("TREES hedgerow")?,
            [2, 1],
            "two trees before one"
        );
        assert_eq!(library.search("rows")?, [3]);
        assert_eq!(library.search("trees books")?, []);
        assert_eq!(library.search("?")?, []);
        assert_eq!(
            library.words_from("hedge", 9)?,
            ["hedge", "hedgerow", "hedges"]
        );
        assert_eq!(library.words_from("r", 1)?, ["row"]);
        library.set(2, Some("Nothing."))?;
        assert_eq!(library.search("trees")?, [1]);
        library.set(1, None)?;
        assert_eq!(library.search("trees")?, []);
        assert_eq!(library.words_from("hedge", 9)?, [""; 0]);

        // A thousand documents, and queries that a walk over all texts answers as well.
        let texts: BTreeMap<u64, String> = (10..1_010).map(|id| (id, text(id))).collect();
        for (id, text) in &texts {
            library.set(*id, Some(text))?;
        }
        let mut hits = 0;
        for query in [
            "w1",
            "w1 w2",
            "w7 w40 w1",
            "w50 w60",
            "w97 w80",
            "w3 unknown",
        ] {
            let wanted: BTreeSet<String> = words(query).into_keys().collect();
            let has_all = |text: &String| wanted.iter().all(|word| words(text).contains_key(word));
            let expected: BTreeSet<u64> = texts
                .iter()
                .filter(|(_, text)| has_all(text))
                .map(|(id, _)| *id)
                .collect();
            let found = library.search(query)?;
            assert_eq!(
                found.iter().copied().collect::<BTreeSet<_>>(),
                expected,
                "{query}"
            );
            assert_eq!(found.len(), expected.len(), "{query}: each once");
            hits += found.len();
        }
        println!(
            "{engine}: {hits} hits in {} documents with {} postings",
            library.documents.len()?,
            library.postings.len()?
        );
        library.db.close()?;
    }
    Ok(())
}
