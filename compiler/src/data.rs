//! Images on disk: arrays of the network's input, as `.npy` or as array `x` of an `.npz`, and image files with a
//! preprocessing; with classes or label maps.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bcc_runtime::images::{self, FileLabels, Files, ImageError, LabelMap, Preprocess, is_images};
use ndarray::{ArrayD, ArrayViewD, Axis};
use ndarray_npy::{NpzReader, ReadNpyExt, ViewNpyError, ViewNpyExt};
use rayon::prelude::*;
use thiserror::Error;

use crate::float::Executor;

/// Why images cannot be read.
#[derive(Debug, Error)]
pub enum DataError {
    /// The file cannot be opened.
    #[error("cannot read {path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// No array of numbers in it.
    #[error(
        "{path} holds no images: {reason}. Give an .npy file, or an .npz file with an array \"x\", of 32- or 64-bit floats"
    )]
    Format {
        /// File.
        path: PathBuf,
        /// Reason.
        reason: String,
    },
    /// Another shape than the network's.
    #[error(
        "the images of {path} have shape {found:?}, the network's input is {expected:?}: the first axis counts images"
    )]
    Shape {
        /// File.
        path: PathBuf,
        /// Shape found.
        found: Vec<usize>,
        /// Shape of the input.
        expected: Vec<usize>,
    },
    /// Image files, or a preprocessing.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A preprocessing, or labels by file, for numbers.
    #[error("{path} holds numbers: {what} is for image files")]
    NoImages {
        /// File.
        path: PathBuf,
        /// What was given.
        what: &'static str,
    },
    /// No labels, or labels that do not fit.
    #[error(
        "{path} gives no labels: {reason}. Give an .npz file with images \"x\" and their classes \"y\", integers, or a \
         folder of images with labels (docs/data.md)"
    )]
    Labels {
        /// File.
        path: PathBuf,
        /// Reason.
        reason: String,
    },
}

/// Reads images for an input of shape `[1, ...]`: an array `[n, ...]`, or one image without the
/// first axis.
pub fn load_images(path: &Path, shape: &[usize]) -> Result<Vec<Vec<f32>>, DataError> {
    let array = load_array(path)?;
    let found = array.shape().to_vec();
    let wrong = || DataError::Shape { path: path.into(), found: found.clone(), expected: shape.to_vec() };
    if found == shape[1..] {
        return Ok(vec![array.iter().copied().collect()]);
    }
    if found.len() != shape.len() || found[1..] != shape[1..] || found[0] == 0 {
        return Err(wrong());
    }
    Ok(array.axis_iter(Axis(0)).map(|image| image.iter().copied().collect()).collect())
}

/// Where images are, and how they are read.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// An `.npy` or `.npz` file, an image, or a folder of images.
    pub path: PathBuf,
    /// Labels by file, for a folder of images.
    pub labels: Option<PathBuf>,
    /// How pixels become the network's input, for image files.
    pub preprocess: Option<PathBuf>,
    /// Read the first images only.
    pub count: Option<usize>,
}

/// Images with what they show, where that is known.
pub struct Dataset {
    /// Images, each as the network's input.
    pub images: Vec<Vec<f32>>,
    /// What they show.
    pub labels: Labels,
}

/// What images show.
pub enum Labels {
    /// Not known.
    None,
    /// Class of each; negative where it is not known.
    Classes(Vec<i64>),
    /// Class of each pixel.
    Maps(Vec<LabelMap>),
}

impl Source {
    /// Reads images for an input of shape `[1, ...]`, with their labels.
    ///
    /// # Errors
    /// What cannot be read, and images or labels that do not fit.
    pub fn load(&self, shape: &[usize]) -> Result<Dataset, DataError> {
        if is_images(&self.path) { self.files(shape) } else { self.arrays(shape) }
    }

    /// As [`load`](Self::load), without labels.
    ///
    /// # Errors
    /// What cannot be read, and images that do not fit.
    pub fn images(&self, shape: &[usize]) -> Result<Vec<Vec<f32>>, DataError> {
        if is_images(&self.path) {
            return Ok(self.files(shape)?.images);
        }
        self.numbers()?;
        let mut images = load_images(&self.path, shape)?;
        images.truncate(self.count.unwrap_or(usize::MAX));
        Ok(images)
    }

    /// Checks that nothing is asked for that numbers do not have.
    fn numbers(&self) -> Result<(), DataError> {
        let given = [(self.preprocess.is_some(), "--preprocess"), (self.labels.is_some(), "--labels")];
        match given.into_iter().find(|(given, _)| *given) {
            Some((_, what)) => Err(DataError::NoImages { path: self.path.clone(), what }),
            None => Ok(()),
        }
    }

    fn files(&self, shape: &[usize]) -> Result<Dataset, DataError> {
        let preprocess = self.preprocess.as_deref().map(Preprocess::load).transpose()?;
        let files = Files::open(&self.path, self.labels.as_deref())?;
        let images = images::load(&files, preprocess.as_ref(), shape, self.count)?;
        let labels = match files.labels {
            FileLabels::None => Labels::None,
            FileLabels::Classes(classes) => Labels::Classes(classes[..images.len()].to_vec()),
            FileLabels::Maps(paths) => {
                let preprocess = preprocess.unwrap_or_default();
                let map = |path: &PathBuf| preprocess.map(&LabelMap::read(path)?, path);
                Labels::Maps(paths[..images.len()].par_iter().map(map).collect::<Result<_, _>>()?)
            }
        };
        Ok(Dataset { images, labels })
    }

    fn arrays(&self, shape: &[usize]) -> Result<Dataset, DataError> {
        self.numbers()?;
        let mut images = load_images(&self.path, shape)?;
        let mut labels = match array_labels(&self.path)? {
            None => Labels::None,
            Some(y) => labels_of(&self.path, y, images.len())?,
        };
        let count = self.count.unwrap_or(usize::MAX);
        images.truncate(count);
        match &mut labels {
            Labels::None => {}
            Labels::Classes(classes) => classes.truncate(count),
            Labels::Maps(maps) => maps.truncate(count),
        }
        Ok(Dataset { images, labels })
    }
}

/// Images with their classes.
pub struct Labelled {
    /// Images.
    pub images: Vec<Vec<f32>>,
    /// Class of each; negative where it is not known.
    pub labels: Vec<i64>,
}

impl Labelled {
    /// Share of the images of known class whose largest output is that of their class.
    pub fn accuracy(&self, network: &Executor<'_>) -> f64 {
        let right = |(image, label): &(&Vec<f32>, &i64)| {
            let y = network.run(image);
            let best = (0..y.len()).max_by(|a, b| y[*a].total_cmp(&y[*b]));
            best.and_then(|b| i64::try_from(b).ok()) == Some(**label)
        };
        let known = self.labels.iter().filter(|l| **l >= 0).count();
        let count = self.images.par_iter().zip(&self.labels).filter(|(_, l)| **l >= 0).filter(right).count();
        count as f64 / known.max(1) as f64
    }
}

/// Reads images and their classes: arrays `x` and `y`, integers, of an `.npz`.
///
/// # Errors
/// As [`load_images`], or labels that do not fit.
pub fn load_labelled(path: &Path, shape: &[usize]) -> Result<Labelled, DataError> {
    Source { path: path.into(), ..Source::default() }.load(shape)?.classes(path)
}

impl Dataset {
    /// The images with their classes; `path` is for messages.
    ///
    /// # Errors
    /// No labels, or label maps.
    pub fn classes(self, path: &Path) -> Result<Labelled, DataError> {
        let reason = match self.labels {
            Labels::Classes(labels) => return Ok(Labelled { images: self.images, labels }),
            Labels::None => "it holds images alone",
            Labels::Maps(_) => "it has a class per pixel, and one per image is needed here",
        };
        Err(DataError::Labels { path: path.into(), reason: reason.into() })
    }
}

/// Array `y` of an `.npz`, if there is one.
fn array_labels(path: &Path) -> Result<Option<ArrayD<i64>>, DataError> {
    if path.extension().is_none_or(|e| e != "npz") {
        return Ok(None);
    }
    let labels = |reason: String| DataError::Labels { path: path.into(), reason };
    let file = File::open(path).map_err(|source| DataError::Io { path: path.into(), source })?;
    let mut npz = NpzReader::new(file).map_err(|e| labels(e.to_string()))?;
    let names = npz.names().map_err(|e| labels(e.to_string()))?;
    let Some(name) = names.iter().find(|n| n.trim_end_matches(".npy") == "y").cloned() else { return Ok(None) };
    macro_rules! of_type {
        ($($ty:ty),*) => {
            $(if let Ok(a) = npz.by_name::<ndarray::OwnedRepr<$ty>, ndarray::IxDyn>(&name) {
                return Ok(Some(a.mapv(|v| v as i64)));
            })*
        };
    }
    of_type!(i32, u8, u16);
    npz.by_name::<ndarray::OwnedRepr<i64>, ndarray::IxDyn>(&name).map(Some).map_err(|e| labels(e.to_string()))
}

/// Classes, `[n]`, or label maps, `[n, h, w]`, of `images` images.
fn labels_of(path: &Path, y: ArrayD<i64>, images: usize) -> Result<Labels, DataError> {
    let bad = |reason: String| DataError::Labels { path: path.into(), reason };
    match *y.shape() {
        [n] if n == images => Ok(Labels::Classes(y.iter().copied().collect())),
        [n, h, w] if n == images && h * w > 0 => {
            let class = |v: &i64| i32::try_from(*v).map_err(|_| bad(format!("class {v} of a pixel is out of bounds")));
            let classes: Vec<i32> = y.iter().map(class).collect::<Result<_, _>>()?;
            let map = |c: &[i32]| LabelMap { size: [h, w], classes: c.to_vec() };
            Ok(Labels::Maps(classes.chunks_exact(h * w).map(map).collect()))
        }
        [n, ..] if n != images => Err(bad(format!("{n} labels for {images} images"))),
        ref other => Err(bad(format!("\"y\" has shape {other:?}, and [n] or [n, height, width] belongs there"))),
    }
}

fn load_array(path: &Path) -> Result<ArrayD<f32>, DataError> {
    let open = || File::open(path).map_err(|source| DataError::Io { path: path.into(), source });
    let format = |reason: String| DataError::Format { path: path.into(), reason };
    if path.extension().is_some_and(|e| e == "npz") {
        let mut npz = NpzReader::new(open()?).map_err(|e| format(e.to_string()))?;
        let names = npz.names().map_err(|e| format(e.to_string()))?;
        let name = names.iter().find(|n| n.trim_end_matches(".npy") == "x").cloned();
        let name = name.ok_or_else(|| format(format!("its arrays are {names:?}")))?;
        return npz
            .by_name::<ndarray::OwnedRepr<f32>, ndarray::IxDyn>(&name)
            .or_else(|_| {
                let wide: Result<ArrayD<f64>, _> = npz.by_name(&name);
                wide.map(|a| a.mapv(|x| x as f32))
            })
            .map_err(|e| format(e.to_string()));
    }
    let mut bytes = Vec::new();
    open()?.read_to_end(&mut bytes).map_err(|e| format(e.to_string()))?;
    // Reading makes room for what the header announces; a view compares that with what is there.
    let short = |e: Option<ViewNpyError>| matches!(e, Some(ViewNpyError::MissingBytes(_)));
    if short(ArrayViewD::<f32>::view_npy(&bytes).err()) || short(ArrayViewD::<f64>::view_npy(&bytes).err()) {
        return Err(format("it is cut off".into()));
    }
    let narrow = ArrayD::<f32>::read_npy(&bytes[..]);
    narrow
        .or_else(|first| ArrayD::<f64>::read_npy(&bytes[..]).map(|a| a.mapv(|x| x as f32)).map_err(|_| first))
        .map_err(|e| format(e.to_string()))
}
