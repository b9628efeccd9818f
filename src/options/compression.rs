//! How the blocks of a table are compressed.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Levels of zstd. Those above are for windows of many megabytes, which no block has.
const ZSTD_LEVELS: RangeInclusive<u8> = 1..=19;

/// What a build without zstd lacks, in errors.
pub(crate) const ZSTD_FEATURE: &str = "zstd (the Cargo feature `zstd` of hedgerow)";

/// Compression of table blocks. A block that does not shrink by an eighth is stored as it is.
///
/// As text it is `none`, `lz4`, or `zstd:` and the level; `zstd` alone is level 3.
///
/// ```
/// use hedgerow::Compression;
///
/// assert_eq!("zstd:9".parse::<Compression>()?, Compression::Zstd { level: 9 });
/// assert_eq!(Compression::Lz4.to_string(), "lz4");
/// assert!(Compression::Lz4.is_available());
/// # Ok::<(), hedgerow::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Blocks are stored as they are.
    None,
    /// LZ4 block format: little processor time.
    #[default]
    Lz4,
    /// Zstandard: smaller, for more time both ways. Needs the Cargo feature `zstd`: without it, a
    /// keyspace that asks for this is refused, and so is a store that has such a keyspace or table
    /// ([`Error::UnsupportedFeature`]).
    Zstd {
        /// 1 to 19. For blocks of the default size, 1 and 3 differ little.
        level: u8,
    },
}

impl Compression {
    /// True if this build can compress and decompress in this way.
    pub const fn is_available(self) -> bool {
        !matches!(self, Self::Zstd { .. }) || cfg!(feature = "zstd")
    }

    /// The number of the kind, and the level, in files.
    pub(crate) const fn code(self) -> [u8; 2] {
        match self {
            Self::None => [0, 0],
            Self::Lz4 => [1, 0],
            Self::Zstd { level } => [2, level],
        }
    }

    /// What has that code, available or not.
    pub(crate) fn from_code(code: [u8; 2]) -> Option<Self> {
        match code {
            [0, 0] => Some(Self::None),
            [1, 0] => Some(Self::Lz4),
            [2, level] if ZSTD_LEVELS.contains(&level) => Some(Self::Zstd { level }),
            _ => None,
        }
    }

    /// Refuses levels that there are not, and what this build has not, as the option `name`.
    pub(super) fn check(self, name: &str) -> Result<()> {
        match self {
            Self::Zstd { level } if !ZSTD_LEVELS.contains(&level) => Err(Error::invalid(format!(
                "{name}: the level of zstd must be 1 to 19, not {level}"
            ))),
            _ if !self.is_available() => Err(Error::invalid(format!(
                "{name} {self} needs {ZSTD_FEATURE}, which this build does not have"
            ))),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Lz4 => f.pad("lz4"),
            Self::Zstd { level } => f.pad(&format!("zstd:{level}")),
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let zstd = |level: &str| {
            let level = level.parse().ok();
            let level = level.filter(|level| ZSTD_LEVELS.contains(level));
            level.map(|level| Self::Zstd { level })
        };
        let found = match name {
            "none" => Some(Self::None),
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd { level: 3 }),
            _ => name.strip_prefix("zstd:").and_then(zstd),
        };
        found.ok_or_else(|| {
            let what = "use none, lz4, or zstd:LEVEL with a level from 1 to 19";
            Error::invalid(format!("unknown compression {name:?}: {what}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_codes_round_trip() {
        let levels = ZSTD_LEVELS.map(|level| Compression::Zstd { level });
        for kind in [Compression::None, Compression::Lz4]
            .into_iter()
            .chain(levels)
        {
            assert_eq!(kind.to_string().parse::<Compression>().unwrap(), kind);
            assert_eq!(Compression::from_code(kind.code()), Some(kind));
            assert_eq!(kind.check("compression").is_ok(), kind.is_available());
        }
        for text in ["", "LZ4", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "zstd3"] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
        for code in [[0, 1], [1, 1], [2, 0], [2, 20], [3, 0], [255, 255]] {
            assert_eq!(Compression::from_code(code), None);
        }
    }

    #[test]
    fn levels_that_there_are_not_are_refused_by_name() {
        for level in [0, 20, 255] {
            let refused = Compression::Zstd { level }.check("last_level_compression");
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("last_level_compression"), "{text}");
            assert!(text.contains("1 to 19"), "{text}");
        }
    }
}
