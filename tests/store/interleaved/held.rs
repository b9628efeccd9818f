//! A thread is held at one place while others go on: what the schedules of the suite come across,
//! where it once was a fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use hedgerow::fs::SimFs;
use hedgerow::{Durability, EngineKind};
use support::sizes::{Sizes, keyspace_options, single_threaded};

use crate::crash_states::STORE;

/// What is committed to a keyspace while it is being flushed is in the next flush, and until then
/// the log has it. The log was deleted up to the last commit: those were gone.
#[test]
fn commits_beside_a_flush_outlive_the_log() {
    for engine in EngineKind::ALL {
        let fs = SimFs::new();
        let options = single_threaded(Arc::new(fs.clone())).durability(Durability::Buffered);
        let db = options.clone().open(STORE).unwrap();
        let flushed = db.keyspace_with("flushed", keyspace_options(engine, Sizes::Tiny));
        let flushed = flushed.unwrap();
        let other = db.keyspace_with("other", keyspace_options(engine, Sizes::Tiny));
        let other = other.unwrap();
        for n in 0..10_u8 {
            flushed.put([n], [n; 100]).unwrap();
        }
        let (reached, at_the_place) = channel();
        let (go_on, gone_on) = channel::<()>();
        let gone_on = std::sync::Mutex::new(gone_on);
        let first = AtomicBool::new(true);
        fs.on_change(move |_, operation| {
            let is_data = operation.path.starts_with("/store/ks-00000001");
            if operation.op == "sync" && is_data && first.swap(false, Ordering::SeqCst) {
                reached.send(()).unwrap();
                gone_on.lock().unwrap().recv().unwrap();
            }
        });
        std::thread::scope(|scope| {
            scope.spawn(|| flushed.flush().unwrap());
            at_the_place.recv().unwrap();
            flushed.put("beside", "the flush").unwrap();
            go_on.send(()).unwrap();
        });
        fs.clear_hook();
        // Segments that nothing else keeps.
        for n in 0..100_u8 {
            other.put([n], [n; 3000]).unwrap();
        }
        other.flush().unwrap();
        while db.run_background_once().unwrap() {}
        assert_eq!(flushed.get("beside").unwrap().unwrap(), b"the flush");
        let killed = fs.killed();
        drop((flushed, other, db));
        let options = single_threaded(Arc::new(killed));
        let db = options.open(STORE).unwrap();
        let flushed = db.existing_keyspace("flushed").unwrap().unwrap();
        let found = flushed.get("beside").unwrap();
        assert_eq!(found.as_deref(), Some(&b"the flush"[..]), "{engine}");
    }
}
