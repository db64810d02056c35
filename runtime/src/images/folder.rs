//! Image files and their labels.
//!
//! | what | labels |
//! |---|---|
//! | an image | none |
//! | a folder of images | none |
//! | a folder with `labels.csv`, or any with `--labels FILE` | by line `file,label`: a class, or a `.png` with one class per pixel |
//! | a folder of subfolders | one class per subfolder: its name where all are numbers, its place in their order otherwise |
//!
//! Files are taken in the order of their names, those of a list in its order, and those of classes in turn, one of each
//! class, so that the first few are of all classes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::ImageError;

/// Image files, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// What was opened.
    pub root: PathBuf,
    /// The images.
    pub paths: Vec<PathBuf>,
    /// Their labels.
    pub labels: FileLabels,
}

/// Labels of image files, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileLabels {
    /// None.
    None,
    /// Class of each; negative where it is not known.
    Classes(Vec<i64>),
    /// File of each one's label map.
    Maps(Vec<PathBuf>),
}

/// Whether a name ends as those of images do.
pub(super) fn is_image(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    matches!(ending.as_deref(), Some("png" | "jpg" | "jpeg"))
}

/// Entries of a folder that satisfy `wanted`, by name.
fn entries(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, ImageError> {
    let failed = |source| ImageError::Io { path: folder.into(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if !hidden && wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl Files {
    /// Finds the images of a file or folder, with the labels of a list if one is given; see the module.
    ///
    /// # Errors
    /// What cannot be read, a folder without images, and labels that do not fit.
    pub fn open(root: &Path, labels: Option<&Path>) -> Result<Files, ImageError> {
        if !root.is_dir() {
            if let Some(path) = labels {
                let reason = "labels by file belong to a folder of images".into();
                return Err(ImageError::Labels { path: path.into(), reason });
            }
            return Ok(Files { root: root.into(), paths: vec![root.into()], labels: FileLabels::None });
        }
        let own = root.join("labels.csv");
        if let Some(list) = labels.or(own.is_file().then_some(own.as_path())) {
            return listed(root, list);
        }
        let paths = entries(root, |p| p.is_file() && is_image(p))?;
        let mut classes = Vec::new();
        for folder in entries(root, Path::is_dir)? {
            let images = entries(&folder, |p| p.is_file() && is_image(p))?;
            if !images.is_empty() {
                classes.push((folder, images));
            }
        }
        match (paths.is_empty(), classes.is_empty()) {
            (true, true) => Err(ImageError::Empty { path: root.into() }),
            (false, true) => Ok(Files { root: root.into(), paths, labels: FileLabels::None }),
            (true, false) => Ok(by_class(root, classes)),
            (false, false) => {
                let reason = "there are images beside and inside of its subfolders; keep one kind".into();
                Err(ImageError::Labels { path: root.into(), reason })
            }
        }
    }
}

fn by_class(root: &Path, classes: Vec<(PathBuf, Vec<PathBuf>)>) -> Files {
    let number = |folder: &Path| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let numbers: Option<Vec<u32>> = classes.iter().map(|(folder, _)| number(folder)).collect();
    let mut ordered: BTreeMap<i64, Vec<PathBuf>> = BTreeMap::new();
    for (place, (_, images)) in classes.into_iter().enumerate() {
        let class = numbers.as_ref().map_or(place as i64, |n| i64::from(n[place]));
        ordered.entry(class).or_default().extend(images);
    }
    let most = ordered.values().map(Vec::len).max().unwrap_or(0);
    let turn = |i: usize| ordered.iter().filter_map(move |(class, images)| Some((images.get(i)?.clone(), *class)));
    let (paths, labels) = (0..most).flat_map(turn).unzip();
    Files { root: root.into(), paths, labels: FileLabels::Classes(labels) }
}

/// Files of a list: lines `file,label`, the names relative to the folder of images, those of label maps to the list.
fn listed(root: &Path, list: &Path) -> Result<Files, ImageError> {
    let bad = |reason: String| ImageError::Labels { path: list.into(), reason };
    let text = std::fs::read_to_string(list).map_err(|source| ImageError::Io { path: list.into(), source })?;
    let beside = list.parent().unwrap_or(Path::new(""));
    let (mut paths, mut classes, mut maps) = (Vec::new(), Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || (paths.is_empty() && line == "file,label") {
            continue;
        }
        let Some((file, label)) = line.rsplit_once(',') else {
            return Err(bad(format!("line {number}, \"{line}\", is no `file,label`")));
        };
        let (file, label) = (root.join(file.trim()), label.trim());
        if !file.is_file() {
            return Err(bad(format!("line {number} names {}, which is not there", file.display())));
        }
        match label.parse::<i64>() {
            Ok(class) => classes.push(class),
            Err(_) if label.ends_with(".png") => {
                let map = beside.join(label);
                if !map.is_file() {
                    return Err(bad(format!("line {number} names {}, which is not there", map.display())));
                }
                maps.push(map);
            }
            Err(_) => {
                return Err(bad(format!("line {number}: \"{label}\" is neither a class, an integer, nor a .png file")));
            }
        }
        paths.push(file);
    }
    let labels = match (classes.is_empty(), maps.is_empty()) {
        (true, true) => return Err(bad("it names no file; write a line `file,label` for each".into())),
        (false, true) => FileLabels::Classes(classes),
        (true, false) => FileLabels::Maps(maps),
        (false, false) => return Err(bad("it gives classes for some files and label maps for others".into())),
    };
    Ok(Files { root: root.into(), paths, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        dir
    }

    fn names(files: &Files) -> Vec<String> {
        let of = |p: &PathBuf| p.strip_prefix(&files.root).unwrap().to_str().unwrap().to_string();
        files.paths.iter().map(of).collect()
    }

    #[test]
    fn classes_by_subfolder() {
        let dir = tree(&["cat/b.png", "cat/a.JPG", "ant/z.jpeg", "ant/notes.txt", ".git/x.png", "empty/readme"]);
        let files = Files::open(dir.path(), None).unwrap();
        assert_eq!(names(&files), ["ant/z.jpeg", "cat/a.JPG", "cat/b.png"]);
        assert_eq!(files.labels, FileLabels::Classes(vec![0, 1, 1]));
        let dir = tree(&["10/a.png", "9/a.png", "9/b.png"]);
        let files = Files::open(dir.path(), None).unwrap();
        assert_eq!(names(&files), ["9/a.png", "10/a.png", "9/b.png"]);
        assert_eq!(files.labels, FileLabels::Classes(vec![9, 10, 9]));
    }

    #[test]
    fn lists() {
        let dir = tree(&["a.png", "b,c.png", "maps/a.png"]);
        let open = |text: &str| {
            std::fs::write(dir.path().join("labels.csv"), text).unwrap();
            Files::open(dir.path(), None)
        };
        let files = open("file,label\nb,c.png, 3\n\na.png,-1\n").unwrap();
        assert_eq!(names(&files), ["b,c.png", "a.png"]);
        assert_eq!(files.labels, FileLabels::Classes(vec![3, -1]));
        let maps = open("a.png,maps/a.png\n").unwrap().labels;
        assert_eq!(maps, FileLabels::Maps(vec![dir.path().join("maps/a.png")]));
        for (text, part) in [
            ("a.png\n", "line 1, \"a.png\", is no `file,label`"),
            ("a.png,1\nq.png,1\n", "line 2 names"),
            ("a.png,cat\n", "\"cat\" is neither a class"),
            ("a.png,maps/q.png\n", "q.png, which is not there"),
            ("a.png,1\na.png,maps/a.png\n", "classes for some files and label maps for others"),
            ("file,label\n", "names no file"),
        ] {
            let message = open(text).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("labels.csv"), "{part:?} is not in: {message}");
        }
    }

    #[test]
    fn other_folders() {
        let dir = tree(&["notes.txt"]);
        assert!(Files::open(dir.path(), None).unwrap_err().to_string().contains("holds no images"));
        let dir = tree(&["a.png", "cat/b.png"]);
        assert!(Files::open(dir.path(), None).unwrap_err().to_string().contains("beside and inside"));
        let dir = tree(&["b.png", "a.png"]);
        let files = Files::open(dir.path(), None).unwrap();
        assert_eq!((names(&files), &files.labels), (vec!["a.png".into(), "b.png".into()], &FileLabels::None));
    }
}
