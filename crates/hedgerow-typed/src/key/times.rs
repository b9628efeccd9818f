//! Keys of times and lengths of time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::numbers::whole_key;
use super::{AsKey, Key, KeyDecoder, KeyError};

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// Reads nanoseconds within a second.
pub(super) fn nanoseconds(input: &mut KeyDecoder<'_>) -> Result<u32, KeyError> {
    let nanoseconds = u32::decode(input)?;
    match nanoseconds < NANOS_PER_SECOND {
        true => Ok(nanoseconds),
        false => Err(input.error(format!("a second does not have {nanoseconds} nanoseconds"))),
    }
}

impl AsKey<SystemTime> for SystemTime {
    fn encode(&self, out: &mut Vec<u8>) {
        // Both parts rise with time, before 1970 as well: the seconds are rounded down.
        let (seconds, nanoseconds) = match self.duration_since(UNIX_EPOCH) {
            Ok(since) => (i128::from(since.as_secs()), since.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => (-i128::from(before.as_secs()), 0),
                    part => (-i128::from(before.as_secs()) - 1, NANOS_PER_SECOND - part),
                }
            }
        };
        // No system counts more seconds than that, some 292 thousand million years.
        let seconds = seconds.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        AsKey::<i64>::encode(&seconds, out);
        AsKey::<u32>::encode(&nanoseconds, out);
    }
}

impl Key for SystemTime {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        let seconds = i64::decode(input)?;
        let nanoseconds = nanoseconds(input)?;
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let time = match seconds < 0 {
            true => UNIX_EPOCH.checked_sub(whole),
            false => UNIX_EPOCH.checked_add(whole),
        };
        time.and_then(|time| time.checked_add(Duration::from_nanos(nanoseconds.into())))
            .ok_or_else(|| input.error(format!("no time is {seconds} seconds after 1970")))
    }

    fn schema() -> String {
        "time".into()
    }
}

impl AsKey<Duration> for Duration {
    fn encode(&self, out: &mut Vec<u8>) {
        AsKey::<u64>::encode(&self.as_secs(), out);
        AsKey::<u32>::encode(&self.subsec_nanos(), out);
    }
}

impl Key for Duration {
    fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
        let seconds = u64::decode(input)?;
        Ok(Self::new(seconds, nanoseconds(input)?))
    }

    fn schema() -> String {
        "duration".into()
    }
}

whole_key!(SystemTime, Duration);
