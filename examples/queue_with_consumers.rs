//! A queue with several consumers: each job is given to one of them, and given again if that one
//! has not finished it in time. docs/recipes.md explains the layout.
//!
//! `cargo run --example queue_with_consumers`

use std::sync::atomic::{AtomicU64, Ordering};

use hedgerow::{
    Db, Durability, EngineKind, Error, KeyBuilder, KeyReader, Keyspace, Options, Result, Value,
};

/// (READY, number) -> job
const READY: u8 = 0;
/// (TAKEN, time until which the consumer has it, number) -> job
const TAKEN: u8 = 1;
/// Consumers choose among so many jobs at the head, so that they seldom take the same one.
const CHOICE: usize = 8;

struct Queue {
    db: Db,
    jobs: Keyspace,
    /// The number of the next job. In memory, so that producers do not conflict.
    next: AtomicU64,
}

/// A job that a consumer has, until the time in its key.
struct Job {
    key: Vec<u8>,
    content: Value,
}

impl Queue {
    fn open(db: Db, engine: EngineKind) -> Result<Self> {
        let jobs = db.keyspace("jobs", engine)?;
        let mut next = 0;
        for entry in jobs.iter() {
            let (key, _) = entry?;
            let mut parts = KeyReader::new(&key);
            if parts.u8()? == TAKEN {
                parts.u64()?;
            }
            next = next.max(parts.u64()? + 1);
        }
        let next = AtomicU64::new(next);
        Ok(Self { db, jobs, next })
    }

    fn push(&self, content: &str) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.jobs
            .put(KeyBuilder::new().u8(READY).u64(number), content)?;
        Ok(())
    }

    /// Takes a job from the head, to be finished before `until`. `consumer` is a number of its own
    /// for each.
    fn take(&self, consumer: usize, until: u64) -> Result<Option<Job>> {
        self.db.transact(|tx| {
            // What lies at the head may change without harm, so these reads are not tracked ...
            let head = tx.untracked(&self.jobs);
            let head = head.prefix(KeyBuilder::new().u8(READY)).take(CHOICE);
            let head: Vec<_> = head.collect::<Result<_>>()?;
            let Some((key, content)) = head.get(consumer % head.len().max(1)) else {
                return Ok(None);
            };
            // ... but the job must still be there when this is committed.
            tx.get_for_update(&self.jobs, key)?;
            tx.delete(&self.jobs, key)?;
            let mut parts = KeyReader::new(key);
            let (_, number) = (parts.u8()?, parts.u64()?);
            let taken = KeyBuilder::new().u8(TAKEN).u64(until).u64(number);
            let key = taken.into_vec();
            tx.put(&self.jobs, &key, content)?;
            let content = content.clone();
            Ok(Some(Job { key, content }))
        })
    }

    /// The job is done. False if it took too long, and is given to another consumer.
    fn finish(&self, job: &Job) -> Result<bool> {
        self.db.transact(|tx| {
            let has_it = tx.contains_key(&self.jobs, &job.key)?;
            tx.delete(&self.jobs, &job.key)?;
            Ok::<_, Error>(has_it)
        })
    }

    /// Gives back the jobs whose time is over; how many.
    fn give_back(&self, now: u64) -> Result<u64> {
        self.db.transact(|tx| {
            let mut count = 0;
            let over = KeyBuilder::new().u8(TAKEN)..KeyBuilder::new().u8(TAKEN).u64(now);
            for entry in tx.range(&self.jobs, over) {
                let (key, content) = entry?;
                let mut parts = KeyReader::new(&key);
                let (_, _, number) = (parts.u8()?, parts.u64()?, parts.u64()?);
                tx.delete(&self.jobs, &key)?;
                tx.put(&self.jobs, KeyBuilder::new().u8(READY).u64(number), content)?;
                count += 1;
            }
            Ok(count)
        })
    }
}

fn main() -> Result<()> {
    const JOBS: usize = 400;
    for engine in EngineKind::ALL {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Options::new().durability(Durability::Buffered);
        let path = dir.path().join("my.db");
        let queue = Queue::open(options.clone().open(&path)?, engine)?;
        std::thread::scope(|scope| {
            for producer in 0..2 {
                let queue = &queue;
                scope.spawn(move || {
                    for n in (producer..JOBS).step_by(2) {
                        queue.push(&format!("job {n}")).unwrap();
                    }
                });
            }
        });

        // One consumer takes a job and is not heard of again. Four others do the rest.
        queue.take(7, 1_000)?.expect("there are jobs");
        let mut done: Vec<String> = std::thread::scope(|scope| {
            let consumer = |consumer: usize| {
                let queue = &queue;
                move || {
                    let mut done = Vec::new();
                    while let Some(job) = queue.take(consumer, 3_000).unwrap() {
                        assert!(queue.finish(&job).unwrap());
                        done.push(String::from_utf8_lossy(&job.content).into_owned());
                    }
                    done
                }
            };
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(consumer(n))).collect();
            let done = threads.into_iter().map(|thread| thread.join().unwrap());
            done.flatten().collect()
        });
        assert_eq!(done.len(), JOBS - 1);

        // After a restart that job is still taken; when its time is over, another one gets it.
        queue.db.close()?;
        let queue = Queue::open(options.open(&path)?, engine)?;
        assert!(queue.take(0, 2_000)?.is_none());
        assert_eq!(queue.give_back(1_000)?, 0);
        assert_eq!(queue.give_back(1_001)?, 1);
        let job = queue.take(0, 2_000)?.expect("it was given back");
        assert!(queue.finish(&job)? && !queue.finish(&job)?);
        done.push(String::from_utf8_lossy(&job.content).into_owned());

        done.sort_unstable();
        done.dedup();
        assert_eq!(done.len(), JOBS, "each job once");
        assert!(queue.jobs.is_empty()?);
        println!("{engine}: {JOBS} jobs, each done once");
    }
    Ok(())
}
