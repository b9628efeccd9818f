//! Users with two indexes: found by their address, which is theirs alone, and by the words of what
//! they say about themselves. Then the table gets a second version.
//!
//! `cargo run --package hedgerow-typed --example users`

use hedgerow::Db;
use hedgerow_typed::{Error, Index, Result, StartsWith, TableDefinition};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct User {
    email: String,
    about: String,
}

/// The same, with what was asked for later.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct UserWithYear {
    email: String,
    about: String,
    year: Option<u16>,
}

/// At first there were no indexes.
const FIRST: TableDefinition<u64, User> = TableDefinition::new("users");

fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path().join("users.db"))?;

    let users = FIRST.open(&db)?;
    let all = [
        ("ada@example.org", "wrote a program for an engine"),
        ("bob@example.org", "keeps bees and a hedge"),
        ("eve@example.org", "reads what others write"),
    ];
    let rows = all.map(|(email, about)| User {
        email: email.into(),
        about: about.into(),
    });
    users.extend((1..).zip(&rows))?;

    // The indexes are built of the rows that are there when the table is opened with them.
    let by_email = Index::unique("by email", |_: &u64, user: &User| [user.email.clone()]);
    let by_word = Index::new("by word", |_: &u64, user: &User| {
        let words = user.about.split(' ').map(str::to_owned);
        words.collect::<Vec<_>>()
    });
    let with_indexes = FIRST.index(&by_email).index(&by_word);
    let users = with_indexes.open(&db)?;
    let (id, bob) = users.by(&by_email)?.get("bob@example.org")?.expect("Bob");
    println!("{id}: {bob:?}");
    for row in users.by(&by_word)?.prefix(StartsWith("w")) {
        let (word, id, _) = row?;
        println!("{word:6} {id}");
    }

    // An address is taken once, whatever else is written at the same time.
    let imposter = users.put(4, &bob).unwrap_err();
    assert!(matches!(imposter, Error::NotUnique { .. }));
    println!("refused: {imposter}");

    // The second version converts every row, and has an index of its own.
    let by_year = Index::new("by year", |_: &u64, user: &UserWithYear| user.year);
    let users = TableDefinition::<u64, UserWithYear>::new("users")
        .version(2)
        .migrate_from(FIRST, |id, User { email, about }| {
            let year = (id == 1).then_some(1815);
            Ok(Some((id, UserWithYear { email, about, year })))
        })
        .index(&by_year)
        .open(&db)?;
    let before_1900: Vec<_> = users.by(&by_year)?.keys(..1900).collect::<Result<_>>()?;
    println!("born before 1900: {before_1900:?}");
    assert_eq!(before_1900, [(1815, 1)]);

    let report = users.verify()?;
    println!(
        "{} rows, {} entries in indexes",
        report.rows, report.index_entries
    );
    assert!(report.is_clean());
    Ok(db.close()?)
}
