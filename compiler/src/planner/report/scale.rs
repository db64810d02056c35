//! Axes: from values to positions, with ticks.

/// Share of a logarithmic axis that values of 0 take at its low end.
const ZERO_BAND: f64 = 0.1;

/// How values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Logarithmic. Values of 0 (a distortion with every ReLU kept) get a place of their own below.
    Log,
    /// Linear.
    Linear,
}

/// An axis from position `from` to `to`.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    kind: Kind,
    /// Ends of the axis; decimal logarithms if logarithmic.
    low: f64,
    high: f64,
    zero: bool,
    from: f64,
    to: f64,
}

impl Scale {
    /// An axis that holds all values that it can: finite ones, and on a logarithmic axis not
    /// negative ones.
    pub fn new(kind: Kind, values: &[f64], from: f64, to: f64) -> Scale {
        // Beyond this the difference of two values is no number.
        let mut finite: Vec<f64> = values.iter().copied().filter(|v| v.abs() < 1e300).collect();
        let zero = kind == Kind::Log && finite.contains(&0.0);
        if kind == Kind::Log {
            finite.retain(|v| *v > 0.0);
            finite.iter_mut().for_each(|v| *v = v.log10());
        }
        let low = finite.iter().copied().fold(f64::INFINITY, f64::min);
        let high = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let least = match kind {
            Kind::Log => 0.3,
            Kind::Linear => 0.02 * high.abs().max(low.abs()).max(0.05),
        };
        let pad = (0.06 * (high - low)).max(0.5 * (least - (high - low)));
        Scale { kind, low: low - pad, high: high + pad, zero, from, to }
    }

    /// Position of a value that is on the axis.
    pub fn at(&self, value: f64) -> Option<f64> {
        let start = if self.zero { ZERO_BAND } else { 0.0 };
        let t = match self.kind {
            _ if value.is_nan() => return None,
            Kind::Log if value == 0.0 && self.zero => return Some(self.from + 0.3 * ZERO_BAND * (self.to - self.from)),
            Kind::Log if value <= 0.0 => return None,
            Kind::Log => value.log10(),
            Kind::Linear => value,
        };
        let t = (t - self.low) / (self.high - self.low);
        // Half a pixel on axes of a thousand: ticks at the ends stay.
        (-1e-3..=1.0 + 1e-3).contains(&t).then_some(self.from + (start + (1.0 - start) * t) * (self.to - self.from))
    }

    /// Where the axis is broken between 0 and the rest, if it is.
    pub fn cut(&self) -> Option<f64> {
        self.zero.then_some(self.from + 0.75 * ZERO_BAND * (self.to - self.from))
    }

    /// At most so many values to mark, in order: the finest round ones.
    pub fn ticks(&self, most: usize) -> Vec<f64> {
        let most = most.max(2);
        let most = most - usize::from(self.zero);
        let mut ticks = if self.kind == Kind::Linear { self.round_ticks(most) } else { self.decades(most) };
        if self.kind == Kind::Log && ticks.len() < 3.min(most) {
            ticks = self.round_ticks(most);
        }
        if self.zero {
            ticks.insert(0, 0.0);
        }
        ticks
    }

    fn decades(&self, most: usize) -> Vec<f64> {
        let range = self.low.floor() as i32..=self.high.ceil() as i32;
        let marks = |step: i32, digits: &[u32]| -> Vec<f64> {
            let decades = range.clone().filter(|d| d.rem_euclid(step) == 0);
            // Parsed, so that a tick is the number nearest to its decimal form.
            let all = decades.flat_map(|d| digits.iter().filter_map(move |m| format!("{m}e{d}").parse().ok()));
            all.filter(|v| self.at(*v).is_some()).collect()
        };
        let fine = [&[1, 2, 3, 4, 5, 6, 8][..], &[1, 2, 3, 5], &[1, 2, 5], &[1, 3]].map(|digits| marks(1, digits));
        let candidates = fine.into_iter().chain((1..700).map(|step| marks(step, &[1])));
        candidates.into_iter().find(|c| c.len() <= most).unwrap_or_default()
    }

    fn round_ticks(&self, most: usize) -> Vec<f64> {
        let back = |x: f64| if self.kind == Kind::Log { 10f64.powf(x) } else { x };
        let (low, high) = (back(self.low), back(self.high));
        let raw = (high - low) / most.max(1) as f64;
        let size = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * size).into_iter().find(|s| *s >= raw).unwrap_or(raw);
        let first = (low / step).ceil();
        (0..=most).map(|k| (first + k as f64) * step).filter(|v| self.at(*v).is_some()).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithmic_axes_mark_round_values() {
        let axis = Scale::new(Kind::Log, &[0.01, 1.0], 0.0, 100.0);
        assert_eq!(axis.ticks(7), [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]);
        assert_eq!(axis.ticks(3), [0.01, 0.1, 1.0]);
        let (a, b) = (axis.at(0.01).unwrap_or(-1.0), axis.at(1.0).unwrap_or(-1.0));
        assert!(a > 0.0 && b < 100.0 && (a + b - 100.0).abs() < 1e-9);
        assert_eq!(axis.at(0.0), None);
        assert_eq!(axis.at(-1.0), None);
        assert_eq!(axis.at(f64::NAN), None);
    }

    #[test]
    fn zero_has_a_place_below_logarithmic_axes() {
        let axis = Scale::new(Kind::Log, &[0.0, 1e-3, 1e-1], 100.0, 0.0);
        let (zero, low) = (axis.at(0.0).unwrap_or(0.0), axis.at(1e-3).unwrap_or(100.0));
        assert!(zero > low && zero <= 100.0);
        assert_eq!(axis.ticks(4).first(), Some(&0.0));
        assert!(axis.cut().is_some_and(|c| c < zero && c > low));
    }

    #[test]
    fn any_values_make_an_axis() {
        let odd: [&[f64]; 8] = [
            &[],
            &[f64::NAN, f64::INFINITY],
            &[0.0],
            &[0.5, 0.5],
            &[-1.0],
            &[f64::MIN_POSITIVE, f64::MAX],
            &[1e-320, 1e299],
            &[-1e299, 1e299],
        ];
        for values in odd {
            for kind in [Kind::Log, Kind::Linear] {
                let axis = Scale::new(kind, values, 0.0, 300.0);
                let ticks = axis.ticks(6);
                assert!((1..=6).contains(&ticks.len()), "{values:?} {kind:?}: {ticks:?}");
                assert!(ticks.iter().all(|t| axis.at(*t).is_some_and(|p| (-1.0..=301.0).contains(&p))), "{values:?}");
            }
        }
        let same = Scale::new(Kind::Linear, &[0.91, 0.91], 0.0, 100.0);
        assert!(same.at(0.91).is_some_and(|p| (p - 50.0).abs() < 1e-6));
    }
}
