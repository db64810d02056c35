//! A network with a class per pixel on pictures with label maps.

use bcc_compiler::float::Executor;
use bcc_compiler::onnx::{ImportOptions, import_bytes};
use bcc_runtime::images::{Picture, Preprocess};
use bcc_tests::random::Numbers;

use super::common::{Place, png, segmentation};

const SIZE: [usize; 2] = [12, 16];

/// Pictures, and maps with the classes that the float network gives them, each one more; every fifth pixel is 0.
fn place() -> Place {
    let p = Place::new();
    p.write("net.onnx", segmentation());
    p.write("p.ron", "Preprocess(scale: 0.0078125, mean: [1], layout: NCHW)");
    let graph = import_bytes(&segmentation(), &ImportOptions::default()).unwrap();
    let network = Executor::new(&graph);
    let preprocess = Preprocess::load(&p.at("p.ron")).unwrap();
    let mut numbers = Numbers::new(8);
    let mut list = String::new();
    for i in 0..4 {
        let pixels: Vec<u8> = (0..3 * SIZE[0] * SIZE[1]).map(|_| numbers.below(256) as u8).collect();
        let path = p.at(&format!("photos/{i}.png"));
        p.write(&format!("photos/{i}.png"), png(SIZE, png::ColorType::Rgb, &pixels));
        let input = preprocess.input(&Picture::read(&path).unwrap(), &path, &[1, 3, SIZE[0], SIZE[1]]).unwrap();
        let y = network.run(&input);
        let plane = SIZE[0] * SIZE[1];
        let class = |at: usize| (0..4).max_by(|a, b| y[a * plane + at].total_cmp(&y[b * plane + at])).unwrap();
        let map: Vec<u8> = (0..plane).map(|at| if at % 5 == 0 { 0 } else { class(at) as u8 + 1 }).collect();
        p.write(&format!("maps/{i}.png"), png(SIZE, png::ColorType::Grayscale, &map));
        let double: Vec<u8> =
            (0..4 * plane).map(|at| map[at / (4 * SIZE[1]) * SIZE[1] + at % (2 * SIZE[1]) / 2]).collect();
        p.write(&format!("maps/large_{i}.png"), png([2 * SIZE[0], 2 * SIZE[1]], png::ColorType::Grayscale, &double));
        list += &format!("{i}.png,maps/{i}.png\n");
    }
    p.write("labels.csv", &list);
    p.write("large.csv", list.replace("maps/", "maps/large_"));
    p.bcc("compile net.onnx --calib photos --preprocess p.ron -o out");
    p
}

#[test]
fn label_maps() {
    let p = place();
    let line = "eval out --data photos --preprocess p.ron --labels labels.csv --json --label-offset -1";
    let json = p.json(&format!("{line} --ignore-label 0"));
    let names: Vec<&str> = json["plain"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["labelled", "miou", "pixel_accuracy"]);
    for network in ["plain", "planned"] {
        assert_eq!((json[network]["miou"].as_f64(), json[network]["pixel_accuracy"].as_f64()), (Some(1.0), Some(1.0)));
    }
    let secure = &json["secure"];
    assert_eq!((secure["images"].as_u64(), &json["output"]), (Some(4), &serde_json::json!([1, 4, 12, 16])));
    // Pixels of random pictures are rarely near ties.
    for share in [&secure["agreement"], &secure["accuracy"]["pixel_accuracy"], &secure["accuracy"]["miou"]] {
        assert!(share.as_f64().unwrap() > 0.97, "{secure}");
    }
    // Maps twice as large are compared at the output's pixels.
    let large = p.json(&format!("{} --ignore-label 0", line.replace("labels.csv", "large.csv")));
    assert_eq!((&large["plain"], &large["labels_resized_from"]), (&json["plain"], &serde_json::json!([24, 32])));
    // Without --ignore-label, class 0 becomes -1.
    p.fails(line, &["image 0 has class -1, and the network's output has 4 classes", "--ignore-label"]);
    let table =
        p.bcc("eval out --data photos --preprocess p.ron --labels labels.csv --label-offset -1 --ignore-label 0");
    assert!(table.contains("mIoU") && table.contains("pixels"), "{table}");
}

#[test]
fn labels_of_the_wrong_kind() {
    let p = place();
    p.write("classes.csv", "0.png,1\n");
    p.fails(
        "eval out --data photos --preprocess p.ron --labels classes.csv",
        &["one class per image", "[1, 4, 12, 16]", "label maps"],
    );
    p.write("classes.csv", "0.png,p.ron\n");
    p.fails("eval out --data photos --preprocess p.ron --labels classes.csv", &["line 1", "neither a class"]);
    p.write("classes.csv", "0.png,photos/0.png\n");
    p.fails("eval out --data photos --preprocess p.ron --labels classes.csv", &["0.png is no label map", "colours"]);
}
