//! Users with two indexes: one by address, which is unique, and one by city, which is not. A record
//! and its index entries change in one transaction. docs/recipes.md explains the layout.
//!
//! `cargo run --example users_with_index`

use hedgerow::{
    Db, EngineKind, Error, KeyBuilder, KeyReader, Keyspace, Result, Transaction, Value,
};

#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    email: String,
    city: String,
}

impl User {
    fn new(email: &str, city: &str) -> Self {
        let (email, city) = (email.to_owned(), city.to_owned());
        Self { email, city }
    }

    /// The value of a record. Any format will do: nothing looks into it but this program.
    fn encode(&self) -> Vec<u8> {
        let fields = KeyBuilder::new().str(&self.email).str(&self.city);
        fields.into_vec()
    }

    fn decode(value: &[u8]) -> Result<Self> {
        let mut fields = KeyReader::new(value);
        let (email, city) = (fields.str()?, fields.str()?);
        Ok(Self { email, city })
    }
}

#[derive(Debug)]
enum UserError {
    /// Another user has this address.
    EmailTaken,
    Store(Error),
}

impl std::fmt::Display for UserError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EmailTaken => f.write_str("another user has this address"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UserError {}

impl From<Error> for UserError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

struct Users {
    db: Db,
    /// id -> record
    records: Keyspace,
    /// email -> id
    by_email: Keyspace,
    /// (city, id) -> nothing
    by_city: Keyspace,
}

impl Users {
    fn open(db: Db, engine: EngineKind) -> Result<Self> {
        Ok(Self {
            records: db.keyspace("users", engine)?,
            by_email: db.keyspace("users by email", engine)?,
            by_city: db.keyspace("users by city", engine)?,
            db,
        })
    }

    fn read(&self, tx: &Transaction, id: u64) -> Result<Option<User>> {
        let value = tx.get(&self.records, id.to_be_bytes())?;
        value.map(|value| User::decode(&value)).transpose()
    }

    /// Sets the user, or removes it: `None`.
    fn set(&self, id: u64, user: Option<&User>) -> Result<(), UserError> {
        self.db.transact(|tx| {
            if let Some(old) = self.read(tx, id)? {
                tx.delete(&self.by_email, KeyBuilder::new().str(&old.email))?;
                tx.delete(&self.by_city, KeyBuilder::new().str(&old.city).u64(id))?;
                tx.delete(&self.records, id.to_be_bytes())?;
            }
            let Some(user) = user else {
                return Ok(());
            };
            // The transaction depends on the absence of the address: of two that take it at the
            // same time, the second meets a conflict, runs again, and finds it taken.
            let email = KeyBuilder::new().str(&user.email);
            if tx.contains_key(&self.by_email, &email)? {
                return Err(UserError::EmailTaken);
            }
            tx.put(&self.by_email, email, id.to_be_bytes())?;
            tx.put(&self.by_city, KeyBuilder::new().str(&user.city).u64(id), "")?;
            tx.put(&self.records, id.to_be_bytes(), user.encode())?;
            Ok(())
        })
    }

    fn with_email(&self, email: &str) -> Result<Option<User>> {
        // Of one moment: between two reads of keyspaces the user might have moved.
        let snapshot = self.db.snapshot();
        let Some(id) = snapshot.get(&self.by_email, KeyBuilder::new().str(email))? else {
            return Ok(None);
        };
        let value = snapshot.get(&self.records, id)?;
        value.map(|value| User::decode(&value)).transpose()
    }

    /// In the order of their ids.
    fn in_city(&self, city: &str) -> Result<Vec<User>> {
        let snapshot = self.db.snapshot();
        let mut ids = Vec::new();
        for entry in snapshot.prefix(&self.by_city, KeyBuilder::new().str(city)) {
            let (key, _) = entry?;
            let mut parts = KeyReader::new(&key);
            let (_, id) = (parts.str()?, parts.u64()?);
            ids.push(id.to_be_bytes());
        }
        let values: Vec<Option<Value>> = snapshot.keyspace(&self.records).multi_get(&ids)?;
        let found = values.into_iter().flatten();
        found.map(|value| User::decode(&value)).collect()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for engine in EngineKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let users = Users::open(Db::open(dir.path().join("my.db"))?, engine)?;

        let ada = User::new("ada@example.org", "London");
        let grace = User::new("grace@example.org", "New York");
        users.set(1, Some(&ada))?;
        users.set(2, Some(&grace))?;
        assert_eq!(users.with_email("ada@example.org")?, Some(ada.clone()));
        assert_eq!(users.in_city("London")?, std::slice::from_ref(&ada));

        // An address that is taken is refused, and nothing is written.
        let double = User::new("ada@example.org", "Paris");
        let refused = users.set(3, Some(&double));
        assert!(matches!(refused, Err(UserError::EmailTaken)));
        assert_eq!(users.in_city("Paris")?, []);

        // The indexes follow the record.
        let moved = User::new("grace@example.com", "London");
        users.set(2, Some(&moved))?;
        assert_eq!(users.with_email("grace@example.org")?, None);
        assert_eq!(users.in_city("New York")?, []);
        assert_eq!(users.in_city("London")?, [ada, moved]);

        users.set(1, None)?;
        assert_eq!(users.with_email("ada@example.org")?, None);
        assert_eq!(users.in_city("London")?.len(), 1);

        // Of eight threads that want the same address, one gets it.
        let winners: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (10..18)
                .map(|id| {
                    let (users, bob) = (&users, User::new("bob@example.org", "Rome"));
                    scope.spawn(move || usize::from(users.set(id, Some(&bob)).is_ok()))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!((winners, users.in_city("Rome")?.len()), (1, 1));
        println!("{engine}: records and both indexes agree");
    }
    Ok(())
}
