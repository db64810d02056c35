//! Images on disk: arrays of the network's input, as `.npy` or as array `x` of an `.npz`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

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
    /// No labels, or labels that do not fit.
    #[error("{path} gives no labels: {reason}. Give an .npz file with images \"x\" and their classes \"y\", integers")]
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

/// Images with their classes.
pub struct Labelled {
    /// Images.
    pub images: Vec<Vec<f32>>,
    /// Class of each.
    pub labels: Vec<i64>,
}

impl Labelled {
    /// Share of the images whose largest output is that of their class.
    pub fn accuracy(&self, network: &Executor<'_>) -> f64 {
        let right = |(image, label): &(&Vec<f32>, &i64)| {
            let y = network.run(image);
            let best = (0..y.len()).max_by(|a, b| y[*a].total_cmp(&y[*b]));
            best.and_then(|b| i64::try_from(b).ok()) == Some(**label)
        };
        let count = self.images.par_iter().zip(&self.labels).filter(right).count();
        count as f64 / self.images.len().max(1) as f64
    }
}

/// Reads images and their classes: arrays `x` and `y`, integers, of an `.npz`.
///
/// # Errors
/// As [`load_images`], or labels that do not fit.
pub fn load_labelled(path: &Path, shape: &[usize]) -> Result<Labelled, DataError> {
    let labels = |reason: String| DataError::Labels { path: path.into(), reason };
    if path.extension().is_none_or(|e| e != "npz") {
        return Err(labels("it is no .npz file".into()));
    }
    let images = load_images(path, shape)?;
    let file = File::open(path).map_err(|source| DataError::Io { path: path.into(), source })?;
    let mut npz = NpzReader::new(file).map_err(|e| labels(e.to_string()))?;
    let wide: Result<ndarray::Array1<i64>, _> = npz.by_name("y");
    let found = wide.or_else(|first| {
        let narrow: Result<ndarray::Array1<i32>, _> = npz.by_name("y");
        narrow.map(|a| a.mapv(i64::from)).map_err(|_| first)
    });
    let found = found.map_err(|e| labels(e.to_string()))?.to_vec();
    if found.len() != images.len() {
        return Err(labels(format!("{} labels for {} images", found.len(), images.len())));
    }
    Ok(Labelled { images, labels: found })
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
