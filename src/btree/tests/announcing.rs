//! How often background threads are woken.

use super::*;
use crate::engine::Work;

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn wakes(bench: &Bench) -> u64 {
    bench.host.wakes.load(Ordering::SeqCst)
}

/// What a background thread does that was woken, if none of it can begin.
fn look_in_vain(bench: &Bench) {
    for work in [Work::Flush, Work::Compact] {
        assert!(!bench.engine.run_once(work).unwrap());
    }
}

fn fill_buffer(bench: &mut Bench) {
    while bench.engine.work_due().is_none() {
        bench.put(&key(bench.seq as u32), &[1; 100]);
    }
    assert_eq!(bench.engine.work_due(), Some(Work::Flush));
}

/// Each put beside a checkpoint woke a thread, which found that it could not help.
#[test]
fn puts_beside_a_checkpoint_wake_a_thread_once() {
    let (_, mut bench) = Bench::in_memory(1024);
    for _ in 0..3 {
        let before = wakes(&bench);
        fill_buffer(&mut bench);
        assert_eq!(wakes(&bench), before + 1);
        bench
            .flush_meanwhile(|bench| {
                for i in 0..100 {
                    bench.put(&key(i), &[2; 100]);
                    look_in_vain(bench);
                }
                assert_eq!(wakes(bench), before + 1);
                Ok(())
            })
            .unwrap();
    }
    bench.check_all();
}

/// A checkpoint that fails is announced again.
#[test]
fn what_is_due_after_a_checkpoint_that_failed_is_announced() {
    let (_, mut bench) = Bench::in_memory(1024);
    fill_buffer(&mut bench);
    let before = wakes(&bench);
    bench
        .flush_meanwhile(|_| Err(Error::invalid("refused by the test")))
        .unwrap_err();
    let after = wakes(&bench);
    assert!(after > before);
    bench.put(&key(0), &[3; 100]);
    assert_eq!(wakes(&bench), after + 1);
}

/// Reads had paid for packs, and each put woke a thread that waits for the puts to end. Lookups
/// woke none at all.
#[test]
fn reads_that_paid_for_packs_wake_a_thread_and_puts_while_it_waits_do_not() {
    let (_, mut bench) = Bench::in_memory(16 << 10);
    for n in 0..5000 {
        bench.put(&key(n), &[1; 100]);
    }
    bench.engine.compact().unwrap();
    for round in 0..2 {
        let of_round = || (7 + round..5000).step_by(200);
        of_round().for_each(|n| bench.put(&key(n), &[2; 100]));
        bench.engine.flush().unwrap();
        let before = wakes(&bench);
        while bench.engine.work_due().is_none() {
            of_round().for_each(|n| bench.check_get(&key(n)));
        }
        assert_eq!(bench.engine.work_due(), Some(Work::Compact));
        for n in 0..50 {
            bench.put(&key(n), &[3; 100]);
            look_in_vain(&bench);
        }
        assert_eq!(wakes(&bench), before + 1);
        for _ in 0..1000 {
            bench.engine.run_once(Work::Compact).unwrap();
        }
        assert_eq!(bench.engine.work_due(), None);
    }
    bench.check_all();
}
