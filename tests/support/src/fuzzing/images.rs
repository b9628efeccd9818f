//! What is done to all files of a store.

use std::path::Path;

use crate::image::Image;
use crate::repair;

/// Makes all checksums right.
pub fn repair(image: &mut Image, page_size: usize) {
    let catalogue = image.files.get(Path::new("CATALOG"));
    let Some(store) = catalogue.and_then(|bytes| repair::store_id(bytes)) else {
        return;
    };
    for (path, bytes) in &mut image.files {
        repair::file(path, bytes, store, page_size);
    }
}

/// Gives the store another random number: every file that names it, and all checksums.
pub fn rebind(image: &mut Image, store: u64, page_size: usize) {
    let put = |bytes: &mut [u8], at: usize| {
        if let Some(old) = bytes.get_mut(at..at + 8) {
            old.copy_from_slice(&store.to_le_bytes());
        }
    };
    for (path, bytes) in &mut image.files {
        let name = path.file_name().and_then(|name| name.to_str());
        match name.unwrap_or_default() {
            "CATALOG" | "WAL-MANIFEST" => put(bytes, 12),
            "tree.hdb" => {
                put(bytes, 16);
                put(bytes, page_size + 16);
            }
            name if name.starts_with("MANIFEST-") || name.ends_with(".log") => put(bytes, 16),
            _ => {}
        }
    }
    repair(image, page_size);
}
