//! Operations on both engines against the model, in memory. The source of decisions is the
//! fuzzer's bytes; what is done and compared is lockstep.rs.

use hedgerow::fs::SimFs;

use super::Bytes;
use crate::lockstep::{Op, Run, Setting, draw};
use crate::random::Source;

/// Most operations of an input.
const MAX_OPS: u32 = 1500;
/// Most power losses of an input: each opens the store several times and reads everything.
const MAX_CRASHES: u32 = 12;

/// Operations on both engines against the model, in lockstep.
pub fn operations(input: &[u8]) {
    run(input, |source| draw(source));
}

/// The same with a power loss after every few operations, and recoveries that lose power too.
pub fn crashes(input: &[u8]) {
    run(input, |source| {
        let crash = source.weighted(&[20, 1, 3]);
        if crash == 0 {
            return draw(source);
        }
        let recoveries = (0..source.below(3)).map(|_| source.below(60)).collect();
        match crash {
            1 => Op::Crash(recoveries),
            _ => Op::CrashKeeping(source.below(1 << 16), recoveries),
        }
    });
}

fn run(input: &[u8], mut draw: impl FnMut(&mut Bytes<'_>) -> Op) {
    let mut source = Bytes(input);
    // The bytes are all spent on what is drawn from them; their parity is not.
    let has_maps = input
        .iter()
        .fold(0, |parity, byte| parity ^ (byte.count_ones() % 2))
        == 1;
    let mem = if has_maps {
        SimFs::with_maps()
    } else {
        SimFs::new()
    };
    let mut setting = Setting::draw(&mut source, "/store".into(), Some(mem));
    // Single-threaded, so that an input always does the same.
    setting.options = setting.options.background_threads(0).background_sync_ms(0);
    let mut run = Run::start(setting).unwrap_or_else(|reason| panic!("{reason}"));
    let (mut count, mut crashes) = (0, 0);
    while !source.is_empty() && count < MAX_OPS && crashes < MAX_CRASHES {
        let op = draw(&mut source);
        crashes += u32::from(matches!(op, Op::Crash(_) | Op::CrashKeeping(..)));
        if let Err(reason) = run.step(&op) {
            panic!("operation {count}, {op:?}: {reason}");
        }
        count += 1;
    }
    if let Err(reason) = run.finish() {
        panic!("at the end: {reason}");
    }
}
