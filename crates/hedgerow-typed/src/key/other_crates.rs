//! Keys of types of other crates.

#[cfg(feature = "uuid")]
mod of_uuid {
    use uuid::Uuid;

    use crate::key::numbers::whole_key;
    use crate::key::{AsKey, Key, KeyDecoder, KeyError};

    impl AsKey<Uuid> for Uuid {
        fn encode(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(self.as_bytes());
        }
    }

    impl Key for Uuid {
        fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
            input.take().map(Self::from_bytes)
        }

        fn schema() -> String {
            "uuid".into()
        }
    }

    whole_key!(Uuid);
}

/// Dates as the number of the day, times as seconds since 1970 in UTC and nanoseconds.
#[cfg(feature = "time")]
mod of_time {
    use time::{Date, OffsetDateTime, UtcDateTime};

    use crate::key::numbers::whole_key;
    use crate::key::times::nanoseconds;
    use crate::key::{AsKey, AsPrefix, Key, KeyDecoder, KeyError};

    impl AsKey<UtcDateTime> for UtcDateTime {
        fn encode(&self, out: &mut Vec<u8>) {
            AsKey::<i64>::encode(&self.unix_timestamp(), out);
            AsKey::<u32>::encode(&self.nanosecond(), out);
        }
    }

    impl Key for UtcDateTime {
        fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
            let seconds = i64::decode(input)?;
            let nanoseconds = nanoseconds(input)?;
            Self::from_unix_timestamp(seconds)
                .and_then(|time| time.replace_nanosecond(nanoseconds))
                .map_err(|_| input.error(format!("no time is {seconds} seconds after 1970")))
        }

        fn schema() -> String {
            "time".into()
        }
    }

    impl AsKey<UtcDateTime> for OffsetDateTime {
        fn encode(&self, out: &mut Vec<u8>) {
            self.to_utc().encode(out);
        }
    }

    impl AsPrefix<UtcDateTime> for OffsetDateTime {
        fn encode_prefix(&self, out: &mut Vec<u8>) {
            self.to_utc().encode(out);
        }
    }

    impl AsKey<Date> for Date {
        fn encode(&self, out: &mut Vec<u8>) {
            AsKey::<i32>::encode(&self.to_julian_day(), out);
        }
    }

    impl Key for Date {
        fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
            let day = i32::decode(input)?;
            Self::from_julian_day(day)
                .map_err(|_| input.error(format!("there is no date with the Julian day {day}")))
        }

        fn schema() -> String {
            "julian_day".into()
        }
    }

    whole_key!(UtcDateTime, Date);
}

/// Dates as the number of the day, times as seconds since 1970 in UTC and nanoseconds.
#[cfg(feature = "chrono")]
mod of_chrono {
    use chrono::{DateTime, Datelike, NaiveDate, Utc};

    use crate::key::numbers::whole_key;
    use crate::key::{AsKey, Key, KeyDecoder, KeyError};

    impl AsKey<DateTime<Utc>> for DateTime<Utc> {
        fn encode(&self, out: &mut Vec<u8>) {
            AsKey::<i64>::encode(&self.timestamp(), out);
            AsKey::<u32>::encode(&self.timestamp_subsec_nanos(), out);
        }
    }

    impl Key for DateTime<Utc> {
        fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
            // A leap second has more than a thousand million nanoseconds, and is in its place.
            let (seconds, nanoseconds) = (i64::decode(input)?, u32::decode(input)?);
            Self::from_timestamp(seconds, nanoseconds).ok_or_else(|| {
                let what = format!("no time is {seconds} s and {nanoseconds} ns after 1970");
                input.error(what)
            })
        }

        fn schema() -> String {
            "time".into()
        }
    }

    impl AsKey<NaiveDate> for NaiveDate {
        fn encode(&self, out: &mut Vec<u8>) {
            AsKey::<i32>::encode(&self.num_days_from_ce(), out);
        }
    }

    impl Key for NaiveDate {
        fn decode(input: &mut KeyDecoder<'_>) -> Result<Self, KeyError> {
            let day = i32::decode(input)?;
            Self::from_num_days_from_ce_opt(day)
                .ok_or_else(|| input.error(format!("there is no date with the number {day}")))
        }

        fn schema() -> String {
            "day".into()
        }
    }

    whole_key!(DateTime<Utc>, NaiveDate);
}
