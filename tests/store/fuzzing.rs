//! What the fuzz targets do with their bytes. Shared between the targets (fuzz/fuzz_targets) and
//! the replay of their seeds on the stable tool chain (corpus.rs).

use std::path::Path;
use std::sync::{Arc, OnceLock};

use hedgerow::fs::SimFs;
use hedgerow::{Db, Durability, EngineKind, Kv, KvRead, Options};

use crate::image::Image;
use crate::lockstep::{Run, Setting, draw};
use crate::random::{Random, Source};

/// A fuzzer's bytes as a source of decisions: one byte decides among up to 256 things.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u64 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        u64::from(*first)
    }
}

impl Source for Bytes<'_> {
    fn bits(&mut self) -> u64 {
        (0..8).fold(0, |bits, _| bits << 8 | self.byte())
    }

    fn below(&mut self, limit: u64) -> u64 {
        match limit {
            0..=256 => self.byte() % limit,
            257..=65_536 => (self.byte() << 8 | self.byte()) % limit,
            _ => self.bits() % limit,
        }
    }
}

/// Operations on both engines against the model, in memory, with crashes. Single-threaded, so
/// that an input always does the same.
pub fn operations(input: &[u8]) {
    let mut source = Bytes(input);
    let mut setting = Setting::draw(&mut source, "/store".into(), Some(SimFs::new()));
    setting.options = setting.options.background_threads(0).background_sync_ms(0);
    let mut run = Run::start(setting).unwrap_or_else(|reason| panic!("{reason}"));
    let mut count = 0;
    while !source.0.is_empty() && count < 4000 {
        let op = draw(&mut source);
        if let Err(reason) = run.step(&op) {
            panic!("operation {count}, {op:?}: {reason}");
        }
        count += 1;
    }
    if let Err(reason) = run.finish() {
        panic!("at the end: {reason}");
    }
}

/// A small store of both engines with files of every kind.
pub fn template() -> &'static Image {
    static TEMPLATE: OnceLock<Image> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let fs = SimFs::new();
        let db = tiny(&fs, false).open("/store").unwrap();
        let mut random = Random::new(30);
        for engine in EngineKind::ALL {
            let options = crate::sizes::keyspace_options(engine, crate::sizes::Sizes::Tiny);
            let keyspace = db.keyspace_with(engine.name(), options).unwrap();
            for n in 0..150u32 {
                let len = random.below(60) as usize;
                keyspace
                    .put((n % 120).to_be_bytes(), random.bytes(len))
                    .unwrap();
                if n == 100 {
                    keyspace.put(b"long", random.bytes(3000)).unwrap();
                    keyspace
                        .delete_range(10u32.to_be_bytes()..20u32.to_be_bytes())
                        .unwrap();
                    keyspace.flush().unwrap();
                }
            }
        }
        db.sync().unwrap();
        drop(db);
        Image::of(&fs, Path::new("/store"))
    })
}

fn tiny(fs: &SimFs, read_only: bool) -> Options {
    crate::sizes::tiny(Options::new())
        .fs(Arc::new(fs.clone()))
        .background_threads(0)
        .background_sync_ms(0)
        .durability(Durability::Buffered)
        .read_only(read_only)
}

/// Bytes as the content, or as a part of the content, of one file of a store. Everything may
/// fail; nothing may panic, hang, or take memory without bound.
pub fn open_hostile(input: &[u8]) {
    let [which, how, high, low, bytes @ ..] = input else {
        return;
    };
    let mut image = template().clone();
    let count = image.files.len();
    let (_, file) = image
        .files
        .iter_mut()
        .nth(usize::from(*which) % count)
        .expect("a file");
    let at = usize::from(*high) << 8 | usize::from(*low);
    match how % 4 {
        0 => *file = bytes.to_vec(),
        1 => {
            let at = at % (file.len() + 1);
            file.truncate(at);
            file.extend_from_slice(bytes);
        }
        2 => {
            for (byte, new) in file.iter_mut().skip(at).zip(bytes) {
                *byte = *new;
            }
        }
        _ => {
            for (byte, new) in file.iter_mut().skip(at).zip(bytes) {
                *byte ^= *new;
            }
        }
    }
    let fs = SimFs::new();
    image.write(&fs, Path::new("/store"));
    for read_only in [true, false] {
        if let Ok(db) = tiny(&fs, read_only).open("/store") {
            use_everything(&db);
        }
    }
}

/// Reads, verifies, writes and maintains whatever opened.
fn use_everything(db: &Db) {
    let _ = db.verify();
    for info in db.keyspaces() {
        let Ok(Some(keyspace)) = db.existing_keyspace(&info.name) else {
            continue;
        };
        let _ = keyspace.iter().take(100_000).filter(Result::is_ok).count();
        let _ = keyspace
            .iter()
            .rev()
            .take(100_000)
            .filter(Result::is_ok)
            .count();
        for n in (0..120u32).step_by(7) {
            let _ = keyspace.get(n.to_be_bytes());
            let _ = keyspace.put(n.to_be_bytes(), b"new");
        }
        let _ = keyspace.delete_range(30u32.to_be_bytes()..90u32.to_be_bytes());
        let _ = keyspace.flush();
        let _ = keyspace.compact();
        let _ = keyspace.stats();
    }
    for _ in 0..100 {
        if !matches!(db.run_background_once(), Ok(true)) {
            break;
        }
    }
    let _ = db.stats();
    let _ = db.close();
}
