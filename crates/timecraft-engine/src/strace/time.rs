//! Time stamps of lines.

use std::fmt::Write as _;

use super::Timestamps;

const NS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// Appends what stands before a line of this time.
pub(crate) fn write_timestamp(out: &mut String, time_ns: u64, timestamps: Timestamps) {
    match timestamps {
        Timestamps::None => {}
        Timestamps::Relative => {
            let (seconds, us) = (time_ns / NS_PER_SECOND, time_ns % NS_PER_SECOND / 1_000);
            let _ = write!(out, "{seconds:6}.{us:06} ");
        }
        Timestamps::Absolute { zero_ns } => {
            write_utc(out, zero_ns.saturating_add(time_ns));
            out.push(' ');
        }
    }
}

/// Appends a time as RFC 3339 has it, in UTC and to the microsecond.
pub(crate) fn write_utc(out: &mut String, unix_ns: u64) {
    let (seconds, us) = (unix_ns / NS_PER_SECOND, unix_ns % NS_PER_SECOND / 1_000);
    let (year, month, day) = civil_from_days(seconds / SECONDS_PER_DAY);
    let second = seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{us:06}Z");
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms",
/// without the part for days before).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ];
        for (seconds, text) in cases {
            let mut out = String::new();
            write_utc(&mut out, seconds * NS_PER_SECOND);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn stamps_come_in_three_forms() {
        let stamp = |timestamps| {
            let mut out = String::new();
            write_timestamp(&mut out, 12_345_678_901, timestamps);
            out
        };
        assert_eq!(stamp(Timestamps::None), "");
        assert_eq!(stamp(Timestamps::Relative), "    12.345678 ");
        let zero_ns = 1_700_000_000 * NS_PER_SECOND;
        assert_eq!(stamp(Timestamps::Absolute { zero_ns }), "2023-11-14T22:13:32.345678Z ");
    }
}
