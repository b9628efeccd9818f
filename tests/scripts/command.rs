//! The commands of a script.
//!
//! ```text
//! open lsm btree model [write_buffer=N] [block=N] [table=N] [page=N] [segment=N] [values=N] [lz4]
//! put KEY VALUE          fill PREFIX FIRST..END LEN     delete KEY        delete_range RANGE
//! batch put KEY VALUE; delete KEY; delete_range RANGE   one commit, in all keyspaces
//! get KEY [@SNAPSHOT]    scan RANGE [rev] [@SNAPSHOT]   count RANGE [@SNAPSHOT]
//! snapshot NAME          drop NAME
//! sync   flush   compact   verify
//! step                   one unit of background work
//! settle                 background work until none is due
//! inspect [levels|tables|blocks]        the keyspaces
//! inspect_store [levels|tables|blocks]  catalogue, WAL manifest and log
//! close_and_open         kill_and_open                  lose_power_and_open
//! ```
//!
//! A RANGE is `a..b`, `a..`, `..b` or `..`. `fill` puts the keys PREFIX0000 and so on with values
//! of LEN bytes.

use std::ops::{Bound, Range};

use hedgerow::InspectDetail;

/// Where a range begins and ends.
pub type Bounds = (Bound<String>, Bound<String>);

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Open(Setup),
    Write(Write),
    Fill {
        prefix: String,
        numbers: Range<u64>,
        value_len_bytes: usize,
    },
    Batch(Vec<Write>),
    Read(Read, Option<String>),
    Snapshot(String),
    Drop(String),
    Sync,
    Flush,
    Compact,
    Verify,
    Step,
    Settle,
    Inspect(InspectDetail),
    InspectStore(InspectDetail),
    Reopen(End),
}

/// What is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    pub has_lsm: bool,
    pub has_btree: bool,
    pub has_model: bool,
    pub has_compression: bool,
    pub write_buffer_bytes: u64,
    pub block_size_bytes: u32,
    pub table_size_bytes: u64,
    pub page_size_bytes: u32,
    pub log_segment_bytes: u64,
    pub value_threshold_bytes: u32,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put(String, String),
    Delete(String),
    DeleteRange(Bounds),
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Get(String),
    Scan { range: Bounds, is_reverse: bool },
    Count(Bounds),
}

/// How a store ends before it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Closed,
    /// What was written stays.
    Killed,
    /// What was not synced is lost.
    WithoutPower,
}

impl Command {
    /// Reads a line.
    pub fn parse(line: &str) -> Result<Self, String> {
        let unknown = || format!("what is {line:?}?");
        if let Some(writes) = line.strip_prefix("batch ") {
            let writes = writes.split("; ").map(|write| {
                let words: Vec<&str> = write.split(' ').collect();
                Write::parse(&words).ok_or_else(unknown)
            });
            return writes.collect::<Result<_, _>>().map(Self::Batch);
        }
        let mut words: Vec<&str> = line.split(' ').collect();
        let snapshot = words.last().and_then(|word| word.strip_prefix('@'));
        let snapshot = snapshot.map(str::to_owned);
        if snapshot.is_some() {
            words.pop();
        }
        if let Some(read) = Read::parse(&words) {
            return Ok(Self::Read(read, snapshot));
        }
        if snapshot.is_some() {
            return Err(format!("only reads take a snapshot: {line:?}"));
        }
        if let Some(write) = Write::parse(&words) {
            return Ok(Self::Write(write));
        }
        Ok(match words[..] {
            ["open", ref words @ ..] => Self::Open(Setup::parse(words)?),
            ["fill", prefix, numbers, len] => Self::Fill {
                prefix: prefix.to_owned(),
                numbers: numbers_of(numbers).ok_or_else(unknown)?,
                value_len_bytes: len.parse().map_err(|_| unknown())?,
            },
            ["snapshot", name] => Self::Snapshot(name.to_owned()),
            ["drop", name] => Self::Drop(name.to_owned()),
            ["sync"] => Self::Sync,
            ["flush"] => Self::Flush,
            ["compact"] => Self::Compact,
            ["verify"] => Self::Verify,
            ["step"] => Self::Step,
            ["settle"] => Self::Settle,
            ["inspect", ref detail @ ..] => Self::Inspect(detail_of(detail).ok_or_else(unknown)?),
            ["inspect_store", ref detail @ ..] => {
                Self::InspectStore(detail_of(detail).ok_or_else(unknown)?)
            }
            ["close_and_open"] => Self::Reopen(End::Closed),
            ["kill_and_open"] => Self::Reopen(End::Killed),
            ["lose_power_and_open"] => Self::Reopen(End::WithoutPower),
            _ => return Err(unknown()),
        })
    }
}

impl Setup {
    fn parse(words: &[&str]) -> Result<Self, String> {
        // The smallest that there are: a script can show every entry that there is.
        let mut setup = Self {
            has_lsm: false,
            has_btree: false,
            has_model: false,
            has_compression: false,
            write_buffer_bytes: 1 << 20,
            block_size_bytes: 256,
            table_size_bytes: 16 << 10,
            page_size_bytes: 1 << 10,
            log_segment_bytes: 64 << 10,
            value_threshold_bytes: 0,
        };
        for word in words {
            let unknown = || format!("what is {word:?}?");
            let number = |text: &str| text.parse::<u64>().map_err(|_| unknown());
            match word.split_once('=') {
                None => match *word {
                    "lsm" => setup.has_lsm = true,
                    "btree" => setup.has_btree = true,
                    "model" => setup.has_model = true,
                    "lz4" => setup.has_compression = true,
                    _ => return Err(unknown()),
                },
                Some(("write_buffer", bytes)) => setup.write_buffer_bytes = number(bytes)?,
                Some(("block", bytes)) => setup.block_size_bytes = number(bytes)? as u32,
                Some(("table", bytes)) => setup.table_size_bytes = number(bytes)?,
                Some(("page", bytes)) => setup.page_size_bytes = number(bytes)? as u32,
                Some(("values", bytes)) => setup.value_threshold_bytes = number(bytes)? as u32,
                Some(("segment", bytes)) => setup.log_segment_bytes = number(bytes)?,
                Some(_) => return Err(unknown()),
            }
        }
        Ok(setup)
    }
}

impl Write {
    fn parse(words: &[&str]) -> Option<Self> {
        Some(match *words {
            ["put", key, value] => Self::Put(key.to_owned(), value.to_owned()),
            ["delete", key] => Self::Delete(key.to_owned()),
            ["delete_range", range] => Self::DeleteRange(range_of(range)?),
            _ => return None,
        })
    }
}

impl Read {
    fn parse(words: &[&str]) -> Option<Self> {
        Some(match *words {
            ["get", key] => Self::Get(key.to_owned()),
            ["scan", range] | ["scan", range, "rev"] => Self::Scan {
                range: range_of(range)?,
                is_reverse: words.len() == 3,
            },
            ["count", range] => Self::Count(range_of(range)?),
            _ => return None,
        })
    }
}

fn range_of(text: &str) -> Option<Bounds> {
    let (start, end) = text.split_once("..")?;
    let bound = |text: &str, bound: fn(String) -> Bound<String>| match text {
        "" => Bound::Unbounded,
        key => bound(key.to_owned()),
    };
    Some((bound(start, Bound::Included), bound(end, Bound::Excluded)))
}

fn numbers_of(text: &str) -> Option<Range<u64>> {
    let (first, end) = text.split_once("..")?;
    Some(first.parse().ok()?..end.parse().ok()?)
}

fn detail_of(words: &[&str]) -> Option<InspectDetail> {
    match *words {
        [] | ["levels"] => Some(InspectDetail::Levels),
        ["tables"] => Some(InspectDetail::Tables),
        ["blocks"] => Some(InspectDetail::Blocks),
        _ => None,
    }
}
