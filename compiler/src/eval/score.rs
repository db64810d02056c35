//! Scores of outputs: classes against labels, pixels against label maps, and outputs against each other.

use bcc_runtime::images::LabelMap;
use serde::Serialize;

/// How often a network is right. Fields that do not apply are left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// Images with a label.
    pub labelled: usize,
    /// Share of them whose largest output is that of their class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1: Option<f64>,
    /// Share of them whose class is among the five largest outputs; for more than five classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top5: Option<f64>,
    /// Mean over the classes that occur, in labels or outputs, of intersection over union.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miou: Option<f64>,
    /// Share of the labelled pixels of the right class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_accuracy: Option<f64>,
}

/// What an image shows.
pub(super) enum Label<'a> {
    Unknown,
    Class(usize),
    /// Class of each position of the output; negative where it does not count.
    Map(&'a LabelMap),
}

/// Counts of one network over images.
#[derive(Clone, Debug, Default)]
pub(super) struct Score {
    labelled: usize,
    maps: bool,
    classes: usize,
    top1: u64,
    top5: u64,
    pixels: u64,
    right: u64,
    /// Pixels by class: of that class in both, in the labels, in the output.
    by_class: Vec<[u64; 3]>,
}

/// The output as `classes` planes of `positions` values each.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    pub classes: usize,
    pub positions: usize,
}

impl Planes {
    /// Axis 1 of `[1, c, ...]` has the classes; a tensor of another shape is one list of them.
    pub(super) fn of(shape: &[usize]) -> Planes {
        match shape {
            [1, classes, rest @ ..] => Planes { classes: *classes, positions: rest.iter().product() },
            _ => Planes { classes: shape.iter().product(), positions: 1 },
        }
    }

    /// Class of the largest value at every position; the first of equal ones.
    pub(super) fn best<T: Copy + PartialOrd>(self, output: &[T]) -> Vec<usize> {
        let at = |class: usize, p: usize| output[class * self.positions + p];
        let larger = |p: usize| (1..self.classes).fold(0, |best, c| if at(c, p) > at(best, p) { c } else { best });
        (0..self.positions).map(larger).collect()
    }
}

impl Score {
    pub(super) fn add(&mut self, planes: Planes, output: &[f64], label: &Label<'_>) {
        self.classes = planes.classes;
        match label {
            Label::Unknown => {}
            Label::Class(class) => {
                self.labelled += 1;
                let ahead = |c: usize| output[c] > output[*class] || (output[c] == output[*class] && c < *class);
                let rank = (0..planes.classes).filter(|c| ahead(*c)).count();
                self.top1 += u64::from(rank == 0);
                self.top5 += u64::from(rank < 5);
            }
            Label::Map(map) => {
                self.labelled += 1;
                self.maps = true;
                self.by_class.resize(planes.classes, [0; 3]);
                for (got, want) in planes.best(output).into_iter().zip(&map.classes) {
                    let Ok(want) = usize::try_from(*want) else { continue };
                    self.pixels += 1;
                    self.by_class[want][1] += 1;
                    self.by_class[got][2] += 1;
                    if got == want {
                        self.right += 1;
                        self.by_class[got][0] += 1;
                    }
                }
            }
        }
    }

    pub(super) fn merge(mut self, other: Score) -> Score {
        self.labelled += other.labelled;
        self.maps |= other.maps;
        self.classes = self.classes.max(other.classes);
        self.top1 += other.top1;
        self.top5 += other.top5;
        self.pixels += other.pixels;
        self.right += other.right;
        self.by_class.resize(self.by_class.len().max(other.by_class.len()), [0; 3]);
        for (a, b) in self.by_class.iter_mut().zip(other.by_class) {
            (0..3).for_each(|i| a[i] += b[i]);
        }
        self
    }

    /// `None` where no image has a label.
    pub(super) fn accuracy(&self) -> Option<Accuracy> {
        let share = |n: u64, of: f64| (of > 0.0).then(|| n as f64 / of);
        let of = self.labelled as f64;
        let union = |[both, want, got]: &[u64; 3]| (want + got - both) as f64;
        let ious: Vec<f64> = self.by_class.iter().filter_map(|c| share(c[0], union(c))).collect();
        let miou = (!ious.is_empty()).then(|| ious.iter().sum::<f64>() / ious.len() as f64);
        (self.labelled > 0).then(|| Accuracy {
            labelled: self.labelled,
            top1: share(self.top1, of).filter(|_| !self.maps),
            top5: share(self.top5, of).filter(|_| !self.maps && self.classes > 5),
            miou,
            pixel_accuracy: share(self.right, self.pixels as f64),
        })
    }
}

/// How far two networks' outputs are from each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Distance {
    same: u64,
    positions: u64,
    largest: f64,
    sum: f64,
    values: u64,
    range: f64,
}

/// How far outputs are from those that they should equal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutputError {
    /// Largest difference of a value.
    pub largest: f64,
    /// Mean magnitude of the differences.
    pub mean: f64,
    /// Largest magnitude of a value of the float network.
    pub range: f64,
}

impl Distance {
    pub(super) fn add(&mut self, planes: Planes, output: &[f64], reference: &[f64]) {
        let (a, b) = (planes.best(output), planes.best(reference));
        self.same += a.iter().zip(&b).filter(|(a, b)| a == b).count() as u64;
        self.positions += a.len() as u64;
        for (x, y) in output.iter().zip(reference) {
            let error = (x - y).abs();
            self.largest = self.largest.max(error);
            self.sum += error;
            self.range = self.range.max(y.abs());
        }
        self.values += output.len() as u64;
    }

    pub(super) fn merge(self, other: Distance) -> Distance {
        Distance {
            same: self.same + other.same,
            positions: self.positions + other.positions,
            largest: self.largest.max(other.largest),
            sum: self.sum + other.sum,
            values: self.values + other.values,
            range: self.range.max(other.range),
        }
    }

    /// Share of images, or pixels, of the same class.
    pub(super) fn agreement(&self) -> f64 {
        self.same as f64 / self.positions.max(1) as f64
    }

    pub(super) fn error(&self) -> OutputError {
        OutputError { largest: self.largest, mean: self.sum / self.values.max(1) as f64, range: self.range }
    }
}

/// One network's outputs beside those that they should equal.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparison {
    pub output: Score,
    pub reference: Score,
    pub distance: Distance,
}

impl Comparison {
    pub(super) fn merge(self, other: Comparison) -> Comparison {
        Comparison {
            output: self.output.merge(other.output),
            reference: self.reference.merge(other.reference),
            distance: self.distance.merge(other.distance),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let planes = Planes::of(&[1, 6]);
        let mut a = Score::default();
        let output = [0.0, 3.0, 1.0, 3.0, -1.0, 2.0];
        for class in [1, 3, 4] {
            a.add(planes, &output, &Label::Class(class));
        }
        let mut b = Score::default();
        b.add(planes, &output, &Label::Unknown);
        b.add(planes, &output, &Label::Class(0));
        let accuracy = a.merge(b).accuracy();
        let want = Accuracy { labelled: 4, top1: Some(0.25), top5: Some(0.75), miou: None, pixel_accuracy: None };
        assert_eq!(accuracy, Some(want));
        assert_eq!(Score::default().accuracy(), None);
    }

    #[test]
    fn maps() {
        // Outputs 0 1 / 2 2 where 0 1 / 1 - is right: unions 1, 2, 1, class 3 does not occur.
        let planes = Planes::of(&[1, 4, 2, 2]);
        let mut output = vec![0.0; 16];
        for (position, class) in [0, 1, 2, 2].into_iter().enumerate() {
            output[4 * class + position] = 1.0;
        }
        let map = LabelMap { size: [2, 2], classes: vec![0, 1, 1, -1] };
        let mut score = Score::default();
        score.add(planes, &output, &Label::Map(&map));
        let accuracy = score.accuracy();
        let (miou, pixel_accuracy) = (Some((1.0 + 0.5 + 0.0) / 3.0), Some(2.0 / 3.0));
        assert_eq!(accuracy, Some(Accuracy { labelled: 1, top1: None, top5: None, miou, pixel_accuracy }));
    }

    #[test]
    fn distances() {
        let planes = Planes::of(&[1, 2, 1, 2]);
        let mut d = Distance::default();
        d.add(planes, &[1.0, 0.0, 0.0, 1.0], &[1.0, 0.5, 0.0, 0.25]);
        assert_eq!(d.agreement(), 0.5);
        assert_eq!(d.error(), OutputError { largest: 0.75, mean: 1.25 / 4.0, range: 1.0 });
    }
}
