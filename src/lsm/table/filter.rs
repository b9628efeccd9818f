//! Which keys a table cannot contain: a Bloom filter whose probes of one key all fall into one
//! cache line, so that a lookup costs one miss.
//!
//! After Putze, Sanders and Singler, "Cache-, Hash- and Space-Efficient Bloom Filters" (2007);
//! the choice of bits within a line by multiplication follows RocksDB's `FastLocalBloom`.
//! About 1 % false positives at 10 bits a key.

use crate::util::mutants::mutated;
use crate::util::prefetch;

/// Bytes of a line: a cache line.
pub(crate) const LINE_LEN_BYTES: usize = 64;

/// Most probes that a filter may ask for.
pub(crate) const MAX_PROBES: u8 = 30;

/// 2^32 divided by the golden ratio: moves every bit of the hash through the top nine.
const PROBE_STEP: u32 = 0x9E37_79B9;

/// Hash of a key for filters. Part of the format: it never changes.
///
/// Folded 64x64 multiplications over 16 bytes at a time, as in wyhash (Wang Yi).
#[inline]
pub(crate) fn filter_hash(key: &[u8]) -> u64 {
    // Odd constants with about as many ones as zeros; digits of pi.
    const K: [u64; 4] = [
        0x243F_6A88_85A3_08D3,
        0x1319_8A2E_0370_7345,
        0xA409_3822_299F_31D1,
        0x082E_FA98_EC4E_6C89,
    ];
    let len = key.len();
    let mut state = K[0] ^ (len as u64).wrapping_mul(K[3]);
    let (a, b) = if len > 16 {
        let mut rest = key;
        while rest.len() > 16 {
            state = fold(word64(rest, 0) ^ K[1], word64(rest, 8) ^ state);
            rest = &rest[16..];
        }
        // The last 16 bytes overlap what was taken before, so no tail needs padding.
        (word64(key, len - 16), word64(key, len - 8))
    } else if len >= 8 {
        (word64(key, 0), word64(key, len - 8))
    } else if len >= 4 {
        (word32(key, 0), word32(key, len - 4))
    } else if len > 0 {
        let (first, middle, last) = (key[0], key[len / 2], key[len - 1]);
        (
            u64::from(first) << 16 | u64::from(middle) << 8 | u64::from(last),
            0,
        )
    } else {
        (0, 0)
    };
    fold(fold(a ^ K[1], b ^ state) ^ K[2], state ^ K[3])
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[inline]
fn word32(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(
        bytes[at..at + 4].try_into().expect("four bytes"),
    ))
}

/// The line of a key: the high half of the hash scaled to the number of lines.
#[inline]
fn line_of(hash: u64, lines: usize) -> usize {
    (((hash >> 32) * lines as u64) >> 32) as usize
}

/// Asks for the line of a key.
#[inline]
pub(crate) fn prefetch(lines: &[u8], hash: u64) {
    let (lines, _) = lines.as_chunks::<LINE_LEN_BYTES>();
    if let Some(line) = lines.get(line_of(hash, lines.len())) {
        prefetch::prefetch(line);
    }
}

/// False if no key with that hash went into the filter. `lines` are the filter's bytes.
#[inline]
pub(crate) fn may_contain(lines: &[u8], probes: u8, hash: u64) -> bool {
    let (lines, _) = lines.as_chunks::<LINE_LEN_BYTES>();
    let Some(line) = lines.get(line_of(hash, lines.len())) else {
        return true; // No lines: nothing is known.
    };
    let mut bits = hash as u32;
    for _ in 0..probes {
        let bit = (bits >> 23) as usize;
        if line[bit / 8] & 1 << (bit % 8) == 0 {
            return false;
        }
        bits = bits.wrapping_mul(PROBE_STEP);
    }
    true
}

/// Collects the keys of a filter. Eight bytes a key until the table is finished, since the
/// size of the filter depends on their number.
#[derive(Debug, Default)]
pub(crate) struct FilterBuilder {
    hashes: Vec<u64>,
}

impl FilterBuilder {
    /// Adds a key by its hash.
    pub(crate) fn add(&mut self, hash: u64) {
        if !(mutated!("filter-misses-some-keys") && hash.is_multiple_of(64)) {
            self.hashes.push(hash);
        }
    }

    /// Length of the filter if it were finished now.
    pub(crate) fn len_bytes(&self, bits_per_key: u32) -> u64 {
        (self.hashes.len() as u64 * u64::from(bits_per_key)).div_ceil(LINE_LEN_BYTES as u64 * 8)
            * LINE_LEN_BYTES as u64
    }

    /// The lines, and how many probes a key makes.
    pub(crate) fn finish(self, bits_per_key: u32) -> (Vec<u8>, u8) {
        let probes = probes_for(bits_per_key);
        let mut bytes = vec![0; self.len_bytes(bits_per_key) as usize];
        let (lines, _) = bytes.as_chunks_mut::<LINE_LEN_BYTES>();
        let count = lines.len();
        for hash in self.hashes {
            let line = &mut lines[line_of(hash, count)];
            let mut bits = hash as u32;
            for _ in 0..probes {
                let bit = (bits >> 23) as usize;
                line[bit / 8] |= 1 << (bit % 8);
                bits = bits.wrapping_mul(PROBE_STEP);
            }
        }
        (bytes, probes)
    }
}

/// A plain Bloom filter is best with `bits * ln 2` probes; when all fall into one line,
/// slightly fewer are, because lines fill unevenly.
fn probes_for(bits_per_key: u32) -> u8 {
    (bits_per_key * 6 / 10).clamp(1, u32::from(MAX_PROBES)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_part_of_the_format() {
        // These values are on disks; a change needs a new filter kind.
        let key: Vec<u8> = (0..40).collect();
        let hashes: Vec<u64> = [0, 1, 3, 4, 7, 8, 16, 17, 40]
            .map(|len| filter_hash(&key[..len]))
            .to_vec();
        assert_eq!(hashes, HASHES);
    }

    const HASHES: [u64; 9] = [
        4_175_525_659_733_985_645,
        16_324_185_654_111_426_731,
        9_395_601_134_554_756_138,
        14_007_002_985_351_653_347,
        728_720_952_245_407_992,
        6_245_166_647_271_698_282,
        3_085_065_000_659_734_279,
        14_525_287_382_001_609_936,
        7_103_533_777_386_062_805,
    ];

    #[test]
    fn every_key_is_found_and_few_others() {
        for shape in 0..3_u32 {
            let key = |n: u32| match shape {
                0 => n.to_be_bytes().to_vec(),
                1 => format!("user{n:012}").into_bytes(),
                _ => format!("a/long/prefix/that/all/the/keys/share/{n}").into_bytes(),
            };
            let mut builder = FilterBuilder::default();
            for n in 0..50_000 {
                builder.add(filter_hash(&key(n)));
            }
            let (lines, probes) = builder.finish(10);
            assert_eq!(probes, 6);
            for n in 0..50_000 {
                assert!(may_contain(&lines, probes, filter_hash(&key(n))));
            }
            let wrong = (50_000..150_000)
                .filter(|n| may_contain(&lines, probes, filter_hash(&key(*n))))
                .count();
            assert!(wrong < 1_300, "{wrong} of 100,000 in shape {shape}");
        }
    }

    #[test]
    fn a_filter_without_lines_excludes_nothing() {
        assert!(may_contain(&[], 6, 1));
        let (lines, probes) = FilterBuilder::default().finish(10);
        assert!(lines.is_empty());
        assert!(may_contain(&lines, probes, 1));
    }
}
