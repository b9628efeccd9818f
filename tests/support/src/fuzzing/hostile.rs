//! Target for a directory in which anything may lie under any name.

use std::path::{Path, PathBuf};

use hedgerow::fs::{Fs, OpenMode, SimFs};

use super::{Bytes, Flags, images, stores};
use crate::image::Image;
use crate::random::Source;

/// Most changes of the directory.
const MAX_CHANGES: u32 = 24;

/// Names that mean something somewhere, and some that nearly do.
const NAMES: &[&str] = &[
    "CATALOG",
    "CATALOG.tmp",
    "WAL-MANIFEST",
    "WAL-MANIFEST.tmp",
    "LOCK",
    "CURRENT",
    "CURRENT.tmp",
    "tree.hdb",
    "wal",
    "MANIFEST-",
    "MANIFEST-0000000000000001",
    "MANIFEST-0000000000000002",
    "MANIFEST-ffffffffffffffff",
    "TABLE-0000000000000001",
    "TABLE-0000000000000007",
    "TABLE-ffffffffffffffff",
    "TABLE-1",
    "0000000000000001.log",
    "0000000000000002.log",
    "0000000000000000.log",
    "ffffffffffffffff.log",
    "0000000000000003.tmp",
    "ks-00000001",
    "ks-00000002",
    "ks-00000003",
    "ks-4294967295",
    "ks-99999999999",
    "0000000000000000.val",
    "0000000000000001.val",
    "0000000000000002.val",
    "0000000000000009.val",
    "ffffffffffffffff.val",
];

/// Changes a store's directory as the input says, opens and uses it.
pub fn hostile_dir(input: &[u8]) {
    let Some((flags, bytes)) = Flags::split(input) else {
        return;
    };
    let base = if flags.other() {
        stores::varied()
    } else {
        stores::small()
    };
    let mut image = base.clone();
    let mut source = Bytes(bytes);
    let mut foreign = Vec::new();
    let mut count = 0;
    while !source.is_empty() && count < MAX_CHANGES {
        change(&mut image, &mut source, &mut foreign);
        count += 1;
    }
    if flags.repaired() {
        images::repair(&mut image, stores::PAGE);
    }
    let Some(image) = without_conflicts(image) else {
        return;
    };
    stores::open_and_use(&image);
    foreign_files_stay(&image, &foreign);
}

/// A path of a file that is there; `None` if there is none.
fn existing(image: &Image, source: &mut Bytes<'_>) -> Option<PathBuf> {
    let count = image.files.len() as u64;
    (count > 0).then(|| {
        let at = source.below(count) as usize;
        image.files.keys().nth(at).expect("below the count").clone()
    })
}

/// A path that may or may not be there.
fn any_path(source: &mut Bytes<'_>, foreign: &mut Vec<PathBuf>) -> PathBuf {
    let dir = *source.pick(&[
        "",
        "wal",
        "ks-00000001",
        "ks-00000002",
        "ks-00000003",
        "sub",
    ]);
    let which = source.byte();
    if let Some(name) = NAMES.get(usize::from(which)) {
        return Path::new(dir).join(name);
    }
    let letters: String = source
        .take(usize::from(which % 8))
        .iter()
        .map(|byte| char::from(b'a' + byte % 26))
        .collect();
    let path = Path::new(dir).join(format!("not ours {letters}"));
    // In a directory that a store removes as a whole, or that none knows, it has no claim.
    if dir != "ks-00000003" {
        foreign.push(path.clone());
    }
    path
}

fn change(image: &mut Image, source: &mut Bytes<'_>, foreign: &mut Vec<PathBuf>) {
    let how = source.byte() % 8;
    if how == 0 {
        let path = any_path(source, foreign);
        let bytes = source.short().to_vec();
        image.files.insert(path, bytes);
        return;
    }
    let Some(path) = existing(image, source) else {
        return;
    };
    let at = usize::from(source.u16());
    let bytes = image.files.get_mut(&path).expect("it is there");
    match how {
        1 => bytes.truncate(at),
        2 => {
            for (old, new) in bytes.iter_mut().skip(at).zip(source.short()) {
                *old = *new;
            }
        }
        3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (source.byte() % 8);
            }
        }
        4 => {
            let zeros = usize::from(source.u16());
            bytes.iter_mut().skip(at).take(zeros).for_each(|b| *b = 0);
        }
        5 => {
            image.files.remove(&path);
        }
        6 => {
            let bytes = image.files.remove(&path).expect("it is there");
            image.files.insert(any_path(source, foreign), bytes);
        }
        _ => {
            let bytes = bytes.clone();
            let to = existing(image, source).expect("there is one");
            image.files.insert(to, bytes);
        }
    }
}

/// `None` if a file stands where a directory does, which no file system would have.
fn without_conflicts(image: Image) -> Option<Image> {
    let is_file = |path: &Path| image.files.contains_key(path);
    let conflict = image.files.keys().any(|path| {
        let mut above = path.ancestors().skip(1);
        above.any(is_file)
    });
    (!conflict && !image.has_file_for_dir()).then(|| image.with_parents())
}

/// Files that are not the store's are left alone, whatever is done.
fn foreign_files_stay(image: &Image, foreign: &[PathBuf]) {
    if foreign.is_empty() {
        return;
    }
    let fs = SimFs::new();
    image.write(&fs, Path::new(stores::PATH));
    if let Ok(db) = stores::options(&fs, false).open(stores::PATH) {
        let _ = db.flush();
        let _ = db.close();
    }
    for path in foreign {
        let Some(bytes) = image.files.get(path) else {
            continue;
        };
        let full = Path::new(stores::PATH).join(path);
        let file = fs.open(&full, OpenMode::Read);
        let file = file.unwrap_or_else(|error| panic!("a foreign file is gone: {error}"));
        let mut found = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, *bytes, "a foreign file was changed");
    }
}
