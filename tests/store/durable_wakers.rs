//! What the wakers of futures that wait for durability may do: they are code of the user.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use hedgerow::fs::SimFs;
use hedgerow::{Db, Durability, EngineKind, Error, Keyspace, Options, SeqNo};

/// Until what does not come is a failure; it says nothing about time.
const PATIENCE: Duration = Duration::from_secs(60);

struct Act<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Act<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// A store with background work whose log is soon too long, and a commit that is not durable.
fn small_log() -> (Db, Keyspace, SeqNo) {
    let options = Options::new()
        .fs(Arc::new(SimFs::new()))
        .durability(Durability::Buffered)
        .background_sync_ms(0)
        .log_segment_bytes(64 << 10)
        .log_limit_bytes(64 << 10);
    let db = options.open("/store").unwrap();
    let keyspace = db.keyspace("a", EngineKind::Lsm).unwrap();
    let seq = keyspace.put("first", "1").unwrap();
    (db, keyspace, seq)
}

fn wait_with(db: &Db, seq: SeqNo, act: impl Fn() + Send + Sync + 'static) {
    let waker = Waker::from(Arc::new(Act(act)));
    // Ready if the thread of the log was faster; the waker is called all the same.
    let _ = pin!(db.durable(seq)).poll(&mut Context::from_waker(&waker));
}

/// They were called by the thread of the log, which alone makes the log shorter: the commit waited
/// for that without end.
#[test]
fn one_may_commit_more_than_the_log_may_hold() {
    let (db, keyspace, seq) = small_log();
    let (done, outcome) = mpsc::channel();
    wait_with(&db, seq, move || {
        let put = |n: u32| keyspace.put(n.to_be_bytes(), [7; 1000]).map(drop);
        let _ = done.send((0..5000).try_for_each(put));
    });
    let committed = outcome.recv_timeout(PATIENCE);
    committed.expect("it waits without end").unwrap();
}

/// Closing waits for the thread of the log, which waited for the closing of the other thread.
#[test]
fn one_may_close_the_store_beside_another_close() {
    let (db, keyspace, seq) = small_log();
    let ((called, is_called), (done, outcome)) = (mpsc::channel(), mpsc::channel());
    let of_waker = db.clone();
    wait_with(&db, seq, move || {
        let _ = called.send(());
        while !matches!(keyspace.get("first"), Err(Error::Closed)) {
            std::thread::yield_now();
        }
        let _ = done.send(of_waker.close());
    });
    is_called.recv_timeout(PATIENCE).unwrap();
    let other = std::thread::spawn(move || db.close());
    let closed = outcome.recv_timeout(PATIENCE);
    closed.expect("each waits for the other").unwrap();
    other.join().unwrap().unwrap();
}

/// Closing wakes what still waits, and does not wait for it.
#[test]
fn one_that_takes_long_holds_up_no_close() {
    let (db, _keyspace, seq) = small_log();
    let ((called, is_called), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel::<()>());
    let may_go_on = std::sync::Mutex::new(may_go_on);
    wait_with(&db, seq, move || {
        let _ = called.send(());
        let _ = may_go_on.lock().unwrap().recv();
    });
    is_called.recv_timeout(PATIENCE).unwrap();
    db.close().unwrap();
    drop(go_on);
}
