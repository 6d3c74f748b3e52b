//! Medians, quartiles and the decision whether a goal is met.

use serde::{Deserialize, Serialize};

/// The middle half of a set of readings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quartiles {
    pub(crate) p25: f64,
    pub(crate) median: f64,
    pub(crate) p75: f64,
}

impl Quartiles {
    /// `None` without readings.
    pub(crate) fn of(readings: &[f64]) -> Option<Self> {
        Some(Self {
            p25: quantile(readings, 0.25)?,
            median: quantile(readings, 0.5)?,
            p75: quantile(readings, 0.75)?,
        })
    }
}

/// The quantile `q` in 0..=1, linear between the two nearest readings.
pub(crate) fn quantile(readings: &[f64], q: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = readings.iter().copied().filter(|r| r.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = q.clamp(0.0, 1.0) * last as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * (at - below as f64))
}

pub(crate) fn median(readings: &[f64]) -> Option<f64> {
    quantile(readings, 0.5)
}

/// Where the median of what was sampled lies, with 95 % confidence and whatever the distribution: for readings
/// with heavy tails, whose quartiles say how wild they are and not how well the median is known. `p25` and `p75`
/// are the ends.
pub(crate) fn median_interval(readings: &[f64]) -> Option<Quartiles> {
    let half_width = 0.98 / (readings.len() as f64).sqrt();
    Some(Quartiles {
        p25: quantile(readings, 0.5 - half_width)?,
        median: quantile(readings, 0.5)?,
        p75: quantile(readings, 0.5 + half_width)?,
    })
}

/// True where each quartile is known to one per cent: where its own 68 % interval, whatever the distribution, is no
/// wider than that to either side.
pub(crate) fn are_quartiles_known(readings: &[f64]) -> bool {
    const WITHIN: f64 = 0.01;
    let step = (0.25 * 0.75 / readings.len().max(1) as f64).sqrt();
    [0.25, 0.75].into_iter().all(|q| {
        let ends = (quantile(readings, q - step), quantile(readings, q + step));
        matches!(ends, (Some(low), Some(high)) if (high - low) / 2.0 <= WITHIN)
    })
}

/// How far the quartiles of a copy of the reference stray from 1, as a factor of at least 1. Two
/// copies of one program differ by this much, so no difference below it says anything.
pub(crate) fn band(copy: Option<Quartiles>) -> f64 {
    match copy {
        Some(q) if q.p25 > 0.0 => q.p75.max(1.0 / q.p25).max(1.0),
        _ => 1.0,
    }
}

/// A ratio meets its goal when the whole middle half is at or below it, or above it by no more
/// than what a copy of the reference shows.
pub(crate) fn meets(ratio: Quartiles, goal: f64, band: f64) -> bool {
    ratio.p75 <= goal * band.max(1.0)
}

/// Above this a median's control says nothing.
const RESOLVES: f64 = 1.25;

/// A median meets its goal when its interval reaches down to it, or to what two copies of the reference are told
/// apart by. `None` where that is so much that anything would.
pub(crate) fn median_meets(interval: Quartiles, goal: f64, band: f64) -> Option<bool> {
    (band <= RESOLVES).then_some(interval.p25 <= goal * band.max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_many_is_known_better_than_its_readings_are_tame() {
        let wild: Vec<f64> = (0..128).map(|n| 0.1 + f64::from(n) / 64.0).collect();
        let interval = median_interval(&wild).expect("readings");
        assert!(interval.p25 > 0.9 && interval.p75 < 1.3, "{interval:?}");
        assert_eq!(median_interval(&[]), None);
        let one = median_interval(&[2.0]).expect("a reading");
        assert_eq!((one.p25, one.p75), (2.0, 2.0));
    }

    #[test]
    fn a_median_is_missed_only_when_it_is_shown_to_be_worse() {
        let interval = Quartiles { p25: 1.02, median: 1.1, p75: 1.2 };
        assert_eq!(median_meets(interval, 1.0, 1.05), Some(true));
        assert_eq!(median_meets(interval, 1.0, 1.01), Some(false));
        assert_eq!(median_meets(interval, 1.0, 2.0), None, "the control says nothing");
    }

    #[test]
    fn quartiles_are_known_by_many_readings_or_by_tame_ones() {
        let spread = |n: u32, by: f64| -> Vec<f64> {
            (0..n).map(|at| 1.0 + by * (f64::from(at) / f64::from(n) - 0.5)).collect()
        };
        assert!(are_quartiles_known(&spread(32, 0.05)));
        assert!(!are_quartiles_known(&spread(32, 0.4)));
        assert!(are_quartiles_known(&spread(512, 0.4)));
        assert!(!are_quartiles_known(&[]));
    }

    #[test]
    fn quantiles_are_linear_between_neighbours() {
        let readings = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&readings, 0.0), Some(1.0));
        assert_eq!(quantile(&readings, 0.25), Some(1.75));
        assert_eq!(median(&readings), Some(2.5));
        assert_eq!(quantile(&readings, 1.0), Some(4.0));
        assert_eq!(median(&[7.0]), Some(7.0));
    }

    #[test]
    fn no_readings_have_no_median() {
        assert_eq!(median(&[]), None);
        assert_eq!(Quartiles::of(&[]), None);
        assert_eq!(median(&[f64::NAN, f64::INFINITY]), None);
    }

    #[test]
    fn a_reading_that_is_no_number_is_left_out() {
        assert_eq!(median(&[1.0, f64::NAN, 3.0]), Some(2.0));
    }

    #[test]
    fn the_band_is_symmetric_and_never_below_one() {
        let q = |p25, p75| Some(Quartiles { p25, median: 1.0, p75 });
        assert_eq!(band(q(1.0, 1.0)), 1.0);
        assert_eq!(band(q(0.99, 1.04)), 1.04);
        assert_eq!(band(q(0.8, 1.04)), 1.25);
        assert_eq!(band(None), 1.0);
        assert_eq!(band(q(0.0, 0.5)), 1.0);
    }

    #[test]
    fn a_goal_wants_the_whole_middle_half() {
        let ratio = Quartiles { p25: 0.98, median: 1.00, p75: 1.03 };
        assert!(meets(ratio, 1.03, 1.0));
        assert!(!meets(ratio, 1.02, 1.0), "the upper quartile is above the goal");
        assert!(meets(ratio, 1.02, 1.01), "within what a copy of the reference shows");
        assert!(!meets(ratio, 1.00, 1.02));
        assert!(meets(ratio, 1.03, 0.5), "a band never tightens a goal");
    }
}
