//! `scan`: a range of keys, either way.

use std::ffi::OsString;
use std::ops::Bound;

use clap::Args;
use hedgerow::{KeyBounds, KvRead, Scan as Entries};
use serde_json::json;

use crate::bytes::{Notation, unescape, unhex};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::store::{Access, KeyspaceArg, StoreArg, existing, open};

/// A range of keys on the command line.
#[derive(Debug, Clone, Default, Args)]
pub struct RangeArgs {
    /// Smallest key
    #[arg(long, value_name = "KEY", conflicts_with = "prefix")]
    pub from: Option<OsString>,
    /// End: keys below this one
    #[arg(long, value_name = "KEY", conflicts_with = "prefix")]
    pub to: Option<OsString>,
    /// Keys that start so
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<OsString>,
}

/// The bounds that [`RangeArgs`] stand for.
pub type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl RangeArgs {
    /// The bounds meant.
    pub fn bounds(&self, hex: bool) -> Result<Bounds> {
        let parse =
            |arg: &Option<OsString>| arg.as_ref().map(|arg| parse_key(arg, hex)).transpose();
        if let Some(prefix) = parse(&self.prefix)? {
            return Ok(prefix_bounds(prefix));
        }
        let from = parse(&self.from)?.map_or(Bound::Unbounded, Bound::Included);
        let to = parse(&self.to)?.map_or(Bound::Unbounded, Bound::Excluded);
        Ok((from, to))
    }
}

/// A key on the command line, written as `scan` prints it: escaped, or in hexadecimal.
pub fn parse_key(arg: &OsString, hex: bool) -> Result<Vec<u8>> {
    if hex {
        return parse_hex(arg);
    }
    unescape(arg.as_encoded_bytes()).map_err(|what| {
        let what = format!("the key {}: {what}; \\\\ is a backslash", arg.display());
        Failure::usage(what)
    })
}

/// Hexadecimal on the command line.
pub fn parse_hex(arg: &OsString) -> Result<Vec<u8>> {
    unhex(arg.as_encoded_bytes())
        .map_err(|what| Failure::usage(format!("{}: {what}", arg.display())))
}

/// All keys that start with `prefix`.
fn prefix_bounds(prefix: Vec<u8>) -> Bounds {
    // The end is the smallest key above all of them: the last byte that can grow grows, and what
    // follows it goes. If none can grow, no key is above them.
    let end = match prefix.iter().rposition(|byte| *byte != 0xFF) {
        Some(at) => {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1;
            Bound::Excluded(end)
        }
        None => Bound::Unbounded,
    };
    (Bound::Included(prefix), end)
}

/// Print the records in a range of keys
///
/// A record a line: key, tab, value, escaped as by dump.
#[derive(Debug, Args)]
pub struct Scan {
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keyspace: KeyspaceArg,
    #[command(flatten)]
    range: RangeArgs,
    /// From the largest key down
    #[arg(long)]
    reverse: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print keys only
    #[arg(long)]
    keys_only: bool,
    /// Bounds are given and records printed in hexadecimal
    #[arg(long)]
    hex: bool,
}

impl Scan {
    /// Runs the command.
    pub fn run(&self, out: &mut Output) -> Result<()> {
        let bounds = self.range.bounds(self.hex)?;
        let db = open(&self.store, Access::Read)?;
        let keyspace = existing(&db, &self.keyspace)?;
        self.print(&keyspace, bounds, out)
    }

    fn print(&self, kv: &impl KvRead, bounds: impl KeyBounds, out: &mut Output) -> Result<()> {
        let notation = Notation::new(self.hex);
        let mut scan = kv.range(bounds);
        let mut line = String::new();
        for _ in 0..self.limit.unwrap_or(u64::MAX) {
            let printed = step(&mut scan, self.reverse, |key, value| {
                if out.json {
                    let mut object = json!({ "key": notation.json(key) });
                    if !self.keys_only {
                        object["value"] = notation.json(value);
                    }
                    return out.value(&object);
                }
                line.clear();
                notation.write(&mut line, key);
                if !self.keys_only {
                    line.push('\t');
                    notation.write(&mut line, value);
                }
                out.line(&line)
            })?;
            match printed {
                Some(printed) => printed?,
                None => break,
            }
        }
        Ok(())
    }
}

/// Lends the next entry, from the front or from the back.
fn step<R>(
    scan: &mut Entries,
    reverse: bool,
    read: impl FnOnce(&[u8], &[u8]) -> R,
) -> hedgerow::Result<Option<R>> {
    if reverse {
        scan.next_back_with(read)
    } else {
        scan.next_with(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_become_bounds() {
        let bounds = |prefix: &[u8]| prefix_bounds(prefix.to_vec()).1;
        assert_eq!(bounds(b"a"), Bound::Excluded(b"b".to_vec()));
        assert_eq!(bounds(b"a\xFF\xFF"), Bound::Excluded(b"b".to_vec()));
        assert_eq!(bounds(b"\xFF"), Bound::Unbounded);
        assert_eq!(bounds(b""), Bound::Unbounded);
    }

    #[test]
    fn hexadecimal_bounds() {
        let range = RangeArgs {
            from: Some("00ff".into()),
            ..RangeArgs::default()
        };
        assert_eq!(
            range.bounds(true).unwrap().0,
            Bound::Included(vec![0, 0xFF])
        );
        assert_eq!(
            range.bounds(false).unwrap().0,
            Bound::Included(b"00ff".to_vec())
        );
        let range = RangeArgs {
            prefix: Some("0".into()),
            ..RangeArgs::default()
        };
        assert!(range.bounds(true).is_err());
    }
}
