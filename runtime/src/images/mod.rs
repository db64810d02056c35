//! Image files as inputs of a network: PNG and JPEG files, how they become numbers, and folders of them with labels.
//!
//! A [`Preprocess`] says what a network expects; the same one serves calibration, evaluation and the client, so that
//! all of them see the same numbers.

mod decode;
mod folder;
mod preprocess;
mod resize;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use thiserror::Error;

pub use decode::{LabelMap, Picture};
pub use folder::{FileLabels, Files};
pub use preprocess::{Channels, Filter, Layout, Preprocess, Resize};

/// Why images cannot be used.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// No image of a kind that is read.
    #[error("{path} is no image that can be read: {reason}. Give PNG or JPEG files")]
    Decode {
        /// File.
        path: PathBuf,
        /// Reason.
        reason: String,
    },
    /// No label map of a kind that is read.
    #[error(
        "{path} is no label map: {reason}. Give a PNG file with one class per pixel, as palette indices or as grey of \
         up to 8 bits, or 16 bits"
    )]
    Map {
        /// File.
        path: PathBuf,
        /// Reason.
        reason: String,
    },
    /// Image files, and nothing that says how they become an input.
    #[error("{path} holds pixels: say with --preprocess FILE how they become the network's input (docs/data.md)")]
    NoPreprocess {
        /// File or folder.
        path: PathBuf,
    },
    /// A preprocessing that cannot be used.
    #[error("the preprocessing {path} cannot be used: {reason}")]
    Preprocess {
        /// File.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An image smaller than its crop.
    #[error(
        "{path} has {found:?} pixels (height, width) where {crop:?} are cropped; resize it to at least that \
         (`resize: Short({})`)", crop[0].max(crop[1])
    )]
    Small {
        /// File.
        path: PathBuf,
        /// Size after resizing.
        found: [usize; 2],
        /// Size of the crop.
        crop: [usize; 2],
    },
    /// Another shape than the network's input.
    #[error(
        "{path} becomes an input of shape {found:?}, the network takes {expected:?}; check resize, crop, channels and \
         layout of the preprocessing"
    )]
    Shape {
        /// File.
        path: PathBuf,
        /// Shape found.
        found: Vec<usize>,
        /// Shape of the input.
        expected: Vec<usize>,
    },
    /// Labels that cannot be read or do not fit.
    #[error("the labels {path} cannot be used: {reason}")]
    Labels {
        /// File.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A folder without images.
    #[error("{path} holds no images: give a folder of .png, .jpg or .jpeg files, or of one subfolder per class")]
    Empty {
        /// Folder.
        path: PathBuf,
    },
}

/// Whether a path stands for image files: a folder, or a name that ends as theirs do.
pub fn is_images(path: &Path) -> bool {
    path.is_dir() || folder::is_image(path)
}

/// The inputs, of `shape` `[1, ...]` and row-major, that files become; at most `count` of them.
///
/// # Errors
/// A file that is no image, no preprocessing, or another shape than the network's.
pub fn load(
    files: &Files,
    preprocess: Option<&Preprocess>,
    shape: &[usize],
    count: Option<usize>,
) -> Result<Vec<Vec<f32>>, ImageError> {
    let Some(preprocess) = preprocess else {
        return Err(ImageError::NoPreprocess { path: files.root.clone() });
    };
    let take = count.unwrap_or(usize::MAX).min(files.paths.len());
    files.paths[..take].par_iter().map(|path| preprocess.input(&Picture::read(path)?, path, shape)).collect()
}
