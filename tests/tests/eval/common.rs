//! Commands, and image files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bcc_compiler::data::{Labelled, load_labelled};
use bcc_models::onnx::{Conv, Dim, GraphBuilder};
use bcc_tests::nets::models_dir;
use bcc_tests::random::Numbers;
use prost::Message;
use serde_json::Value;
use tempfile::TempDir;

/// A binary beside the folder of this test's executable.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let path = test.parent().and_then(Path::parent).unwrap().join(file);
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A folder that commands run in.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        Place(TempDir::new().unwrap())
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), bytes).unwrap();
    }

    /// Runs a command line, its words separated by blanks.
    pub fn run(&self, program: &str, line: &str) -> Ended {
        let words = line.split_whitespace();
        let done =
            Command::new(binary(program)).args(words).current_dir(&self.0).env("NO_COLOR", "1").output().unwrap();
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        let ended = Ended { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) };
        assert!(!ended.err.contains("panicked") && !ended.err.contains("RUST_BACKTRACE"), "{}", ended.err);
        ended
    }

    #[track_caller]
    pub fn bcc(&self, line: &str) -> String {
        let ended = self.run("bcc", line);
        assert_eq!(ended.code, Some(0), "bcc {line}: {}", ended.err);
        ended.out
    }

    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.bcc(line)).unwrap()
    }

    /// The command fails, and its message has the parts.
    #[track_caller]
    pub fn fails(&self, line: &str, parts: &[&str]) {
        let ended = self.run("bcc", line);
        assert!(matches!(ended.code, Some(1 | 2)), "bcc {line}: {:?}: {}{}", ended.code, ended.out, ended.err);
        for part in parts {
            assert!(dense(&ended.err).contains(&dense(part)), "{part:?} is not in:\n{}", ended.err);
        }
        assert!(ended.out.is_empty(), "{}", ended.out);
    }
}

/// Messages are wrapped to the terminal and drawn with lines; neither counts.
fn dense(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !"│├╰╭─▶×·".contains(*c)).collect()
}

pub fn png(size: [usize; 2], color: png::ColorType, bytes: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size[1] as u32, size[0] as u32);
    encoder.set_color(color);
    encoder.write_header().unwrap().write_image_data(bytes).unwrap();
    file
}

/// Files of `models`, as words of a command line.
pub fn model(name: &str) -> String {
    models_dir().join(name).canonicalize().unwrap().to_str().unwrap().to_string()
}

/// The first bundled test images, and the pixels that they come from.
pub fn fashion(count: usize) -> (Labelled, Vec<Vec<u8>>) {
    let mut data = load_labelled(&models_dir().join("data/fmnist_test.npz"), &[1, 1, 28, 28]).unwrap();
    data.images.truncate(count);
    data.labels.truncate(count);
    let pixels = |i: &Vec<f32>| i.iter().map(|x| ((x * 0.3530 + 0.2860) * 255.0).round() as u8).collect();
    let pixels = data.images.iter().map(pixels).collect();
    (data, pixels)
}

/// The preprocessing of the bundled networks.
pub const FASHION: &str =
    "Preprocess(channels: Gray, scale: 0.00392156862745098, mean: [0.2860], std: [0.3530], layout: NCHW)";

/// A network from pictures of 12x16 pixels to maps of four classes.
pub fn segmentation() -> Vec<u8> {
    let mut numbers = Numbers::new(5);
    let mut g = GraphBuilder::new("maps", 13);
    let x = g.input("x", &[Dim::from(1), 3.into(), 12.into(), 16.into()]);
    let w = g.f32("w", &[6, 3, 3, 3], numbers.values(162, 0.4));
    // Biases, as pixels where no channel is active would be ties.
    let b = g.f32("b", &[6], numbers.values(6, 0.5));
    let c = g.conv("c", &x, &w, Some(&b), &Conv::square(3, 1, 1));
    let r = g.relu("r", &c);
    let v = g.f32("v", &[4, 6, 1, 1], numbers.values(24, 1.0));
    let d = g.f32("d", &[4], numbers.values(4, 0.5));
    let y = g.conv("y", &r, &v, Some(&d), &Conv::square(1, 1, 0));
    g.output(&y, "out", &[Dim::from(1), 4.into(), 12.into(), 16.into()]);
    g.finish().unwrap().encode_to_vec()
}
