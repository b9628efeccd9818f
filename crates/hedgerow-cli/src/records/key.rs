//! Keys of several columns.
//!
//! Parts are joined so that different parts never give the same key: within a part, `%` is written
//! as `%25` and the first character of the joiner as `%XX` for each of its bytes. An unescaped
//! first character therefore begins a joiner, everywhere in the key, and the parts can be told from
//! it. `Biel/Bienne` within `CH/BE/Biel%2FBienne/2661513` is an example. A key of one column is
//! that column, unchanged.

use std::io::Write as _;

use crate::failure::{Failure, Result};

/// Refuses a joiner that cannot keep parts apart.
pub fn check_join(join: &str) -> Result<()> {
    if join.is_empty() {
        return Err(Failure::usage(
            "an empty --join makes one key of different columns (a, bc and ab, c)",
        ));
    }
    if join.contains('%') {
        return Err(Failure::usage("--join cannot contain %, which escapes"));
    }
    Ok(())
}

/// Makes keys out of parts.
#[derive(Debug)]
pub struct Joiner<'a> {
    join: &'a [u8],
    /// The first character of `join`.
    first: &'a [u8],
    /// False for a key of one column.
    escapes: bool,
}

impl<'a> Joiner<'a> {
    /// For keys of `parts` columns.
    pub fn new(join: &'a str, parts: usize) -> Self {
        let first = join.chars().next().map_or(0, char::len_utf8);
        Self {
            join: join.as_bytes(),
            first: &join.as_bytes()[..first],
            escapes: parts > 1,
        }
    }

    /// Appends the part with the number `nth`, from zero, to a key.
    pub fn push(&self, key: &mut Vec<u8>, nth: usize, part: &[u8]) {
        if !self.escapes {
            key.extend_from_slice(part);
            return;
        }
        if nth > 0 {
            key.extend_from_slice(self.join);
        }
        let mut rest = part;
        while let Some(byte) = rest.first() {
            let escaped = match rest.starts_with(self.first) {
                true => self.first.len(),
                false => usize::from(*byte == b'%'),
            };
            for byte in &rest[..escaped] {
                write!(key, "%{byte:02X}").expect("a vector takes everything");
            }
            let taken = escaped.max(1);
            if escaped == 0 {
                key.push(*byte);
            }
            rest = &rest[taken..];
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn join(joiner: &str, parts: &[&[u8]]) -> Vec<u8> {
        check_join(joiner).unwrap();
        let maker = Joiner::new(joiner, parts.len());
        let mut key = Vec::new();
        for (nth, part) in parts.iter().enumerate() {
            maker.push(&mut key, nth, part);
        }
        key
    }

    /// `a/b` and `c` became the same key as `a` and `b/c`.
    #[test]
    fn joined_keys_never_collide() {
        assert_eq!(join("/", &[b"a/b", b"50%"]), b"a%2Fb/50%25");
        assert_eq!(join("/", &[b"a/b%"]), b"a/b%");
        assert!(check_join("").is_err() && check_join("a%").is_err());
        for joiner in ["/", "aa", "ab", "€€", "::"] {
            // Every pair of short parts over the letters that are dangerous for this joiner.
            let mut letters: Vec<u8> = [joiner.as_bytes(), b"%2x"].concat();
            letters.sort_unstable();
            letters.dedup();
            let mut parts: Vec<Vec<u8>> = vec![vec![]];
            for _ in 0..3 {
                let longer: Vec<Vec<u8>> = parts
                    .iter()
                    .flat_map(|part| letters.iter().map(move |l| [&part[..], &[*l]].concat()))
                    .collect();
                parts.extend(longer);
                parts.sort();
                parts.dedup();
            }
            let mut seen = HashMap::new();
            for first in &parts {
                for second in &parts {
                    let key = join(joiner, &[first, second]);
                    if let Some(other) = seen.insert(key, (first, second)) {
                        panic!("{joiner}: {other:?} and {:?}", (first, second));
                    }
                }
            }
        }
    }
}
