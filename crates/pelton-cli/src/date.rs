//! Calendar dates in UTC, for the listing and the access log. HTTP's own dates come from
//! `httpdate`.

use std::time::SystemTime;

/// A moment in UTC, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: u8,
    /// 1 to 31.
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
}

impl Date {
    /// The date of a moment in the proleptic Gregorian calendar.
    pub(crate) fn of(time: SystemTime) -> Date {
        let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => after.as_secs() as i64,
            // Rounded down, so that half a second before the epoch is still in 1969.
            Err(before) => {
                let before = before.duration();
                -(before.as_secs() as i64) - i64::from(before.subsec_nanos() > 0)
            }
        };
        let (days, clock) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));

        // Years that begin in March put the leap day at the end, so that a month's first day is a
        // linear function of its number, and 400 of them are always 146 097 days.
        let days = days + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        Date {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month: month as u8,
            day: day as u8,
            hour: (clock / 3_600) as u8,
            minute: (clock / 60 % 60) as u8,
            second: (clock % 60) as u8,
        }
    }

    /// The English short name of the month, as logs and mails have it.
    pub(crate) fn month_name(&self) -> &'static str {
        const NAMES: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        NAMES[usize::from(self.month - 1)]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(time: SystemTime) -> String {
        let d = Date::of(time);
        let (y, mo, da, h, mi, s) = (d.year, d.month, d.day, d.hour, d.minute, d.second);
        format!("{y}-{mo:02}-{da:02} {h:02}:{mi:02}:{s:02}")
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let table = [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (951_868_800, "2000-03-01 00:00:00"),
            (971_211_336, "2000-10-10 20:55:36"),
            (1_709_164_800, "2024-02-29 00:00:00"),
            (1_735_689_599, "2024-12-31 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ];
        for (seconds, want) in table {
            assert_eq!(text(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), want);
        }
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(500);
        assert_eq!(text(before), "1969-12-31 23:59:59");
    }

    #[test]
    fn every_day_of_four_centuries_agrees_with_httpdate() {
        for day in (0..146_097u64).step_by(7) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400 + 3_661);
            let date = Date::of(time);
            let want = httpdate::fmt_http_date(time);
            let (d, month, year) = (date.day, date.month_name(), date.year);
            assert!(want.contains(&format!("{d:02} {month} {year} 01:01:01")), "{want}");
        }
    }
}
