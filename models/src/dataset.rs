//! Images and labels from NPZ files.

use std::fs::File;
use std::path::Path;

use ndarray::{Array1, ArrayD, IxDyn, OwnedRepr};
use ndarray_npy::NpzReader;

use crate::error::ModelError;

/// Inputs of a network with their labels.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Inputs as the network takes them, the first dimension counting images.
    pub x: ArrayD<f32>,
    /// The class of each image; -1 where it is not known.
    pub y: Array1<i64>,
}

/// Reads the arrays `x`, float32, and `y`, int64, of an NPZ file.
///
/// # Errors
/// [`ModelError::Dataset`] if the file or an array cannot be read, or their lengths differ.
pub fn load(path: &Path) -> Result<Dataset, ModelError> {
    let failed = |reason: String| ModelError::Dataset { path: path.to_path_buf(), reason };
    let file = File::open(path).map_err(|e| failed(e.to_string()))?;
    let mut npz = NpzReader::new(file).map_err(|e| failed(e.to_string()))?;
    let x = npz.by_name::<OwnedRepr<f32>, IxDyn>("x").map_err(|e| failed(format!("array `x`: {e}")))?;
    let y: Array1<i64> = npz.by_name("y").map_err(|e| failed(format!("array `y`: {e}")))?;
    let images = x.shape().first().copied().unwrap_or(0);
    if images != y.len() {
        return Err(failed(format!("{images} images but {} labels", y.len())));
    }
    Ok(Dataset { x, y })
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::*;

    use super::*;

    fn here(path: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    /// Correct answers of a trained network on the first `count` test images.
    fn correct(network: &str, count: usize) -> usize {
        let data = load(&here("data/fmnist_test.npz")).expect("the committed test images");
        assert_eq!(data.x.shape(), [512, 1, 28, 28]);
        let plan = tract_onnx::onnx()
            .model_for_path(here(network))
            .and_then(|m| m.into_optimized()?.into_runnable())
            .expect("the committed network");
        data.x
            .outer_iter()
            .zip(&data.y)
            .take(count)
            .filter(|(image, label)| {
                let pixels: Vec<f32> = image.iter().copied().collect();
                let input = Tensor::from_shape(&[1, 1, 28, 28], &pixels).expect("28x28 pixels");
                let logits = plan.run(tvec!(input.into())).expect("it runs");
                let logits = logits[0].to_plain_array_view::<f32>().expect("floats");
                let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                best.map(|(class, _)| class as i64) == Some(**label)
            })
            .count()
    }

    #[test]
    fn trained_networks_know_the_test_images() {
        // 91.75 % and 90.46 % on all 10,000.
        assert!(correct("trained/fmnist_resnet20.onnx", 128) >= 112);
        assert!(correct("trained/fmnist_resnet8.onnx", 128) >= 112);
    }

    #[test]
    fn calibration_images_are_normalised() {
        let data = load(&here("data/fmnist_calib.npz")).expect("the committed training images");
        assert_eq!(data.x.shape(), [256, 1, 28, 28]);
        let mean = data.x.mean().expect("not empty");
        assert!(mean.abs() < 0.1, "mean {mean}");
    }

    #[test]
    fn errors_name_the_file_and_the_array() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("short.npz");
        let mut npz = ndarray_npy::NpzWriter::new(File::create(&path).expect("a file"));
        npz.add_array("x", &ndarray::Array2::<f32>::zeros((3, 2))).expect("written");
        npz.add_array("y", &Array1::<i64>::zeros(2)).expect("written");
        npz.finish().expect("written");
        let message = load(&path).expect_err("lengths differ").to_string();
        assert!(message.contains("short.npz") && message.contains("3 images but 2"));
        let missing = load(&dir.path().join("none.npz")).expect_err("no file");
        assert!(missing.to_string().contains("none.npz"));
    }
}
