//! A trained network on images with classes.

use bcc_compiler::data::{Labels, Source};
use bcc_runtime::images::{Picture, Preprocess};
use serde_json::Value;

use super::common::{FASHION, Place, fashion, model, png};

const COUNT: usize = 24;

/// ResNet-8 compiled, and test images as files: by class, and with a list of labels.
fn place(blocks: &str) -> Place {
    let p = Place::new();
    let (net, calib) = (model("trained/fmnist_resnet8.onnx"), model("data/fmnist_calib.npz"));
    p.bcc(&format!("compile {net} --calib {calib} --images 64 {blocks} -o out"));
    let (data, pixels) = fashion(COUNT);
    let mut list = String::from("file,label\n");
    for (i, (pixels, label)) in pixels.iter().zip(&data.labels).enumerate() {
        let file = png([28, 28], png::ColorType::Grayscale, pixels);
        p.write(&format!("classes/{label}/{i:03}.png"), &file);
        p.write(&format!("listed/{i:03}.png"), &file);
        list += &format!("{i:03}.png,{label}\n");
    }
    p.write("listed/labels.csv", list);
    p.write("p.ron", FASHION);
    p
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn arrays_and_files_give_the_same() {
    let p = place("");
    let options = format!("--count {COUNT} --secure 6 --layers 3 --json");
    let arrays = p.json(&format!("eval out --data {} {options}", model("data/fmnist_test.npz")));
    let files = p.json(&format!("eval out --data listed --preprocess p.ron --threads 1 {options}"));

    assert_eq!(
        names(&arrays),
        ["images", "layers", "network", "output", "plain", "plan_agreement", "planned", "secure"]
    );
    assert_eq!(names(&arrays["plain"]), ["labelled", "top1", "top5"]);
    assert_eq!(
        names(&arrays["secure"]),
        ["accuracy", "agreement", "error", "images", "planned", "refused", "rounding"]
    );
    assert_eq!(names(&arrays["secure"]["rounding"]), ["agreement", "error"]);
    assert_eq!(names(&arrays["secure"]["error"]), ["largest", "mean", "range"]);
    assert_eq!(names(&arrays["layers"]), ["grows_at", "images", "layers", "overflows"]);
    let layers = arrays["layers"]["layers"].as_array().unwrap();
    let of_layer = ["growth", "largest", "mean", "name", "op", "range", "relative_largest", "relative_mean"];
    assert!(layers.iter().all(|l| names(l) == of_layer));

    // Every ReLU is kept: the plan changes nothing, and fixed point next to nothing.
    assert_eq!((arrays["plan_agreement"].as_f64(), arrays["secure"]["agreement"].as_f64()), (Some(1.0), Some(1.0)));
    assert_eq!(arrays["plain"], arrays["planned"]);
    assert_eq!(arrays["secure"]["accuracy"], arrays["secure"]["planned"]);
    assert!(number(&arrays["plain"]["top1"]) > 0.8 && number(&arrays["plain"]["top5"]) > 0.95);
    // A trained network without blocks hardly moves when its input is rounded, and moves by more than nothing.
    let moved = arrays["secure"]["rounding"]["error"]["largest"].as_f64().unwrap();
    assert!(moved > 0.0 && moved < 0.05 && arrays["secure"]["rounding"]["agreement"] == 1.0, "{moved}");
    let error = &arrays["secure"]["error"];
    assert!(number(&error["largest"]) < 0.05 && number(&error["range"]) > 5.0, "{error}");
    assert!(number(&error["mean"]) > 0.0 && number(&error["mean"]) < number(&error["largest"]));
    // 9 convolutions, 3 sums, 7 ReLUs, pool and matrix; none of them exact, none grossly wrong.
    assert_eq!(layers.len(), 21);
    for l in layers {
        assert!(number(&l["largest"]) > 0.0 && number(&l["relative_largest"]) < 0.01, "{l}");
    }
    let grows = &arrays["layers"]["grows_at"];
    let most = layers.iter().map(|l| number(&l["growth"])).fold(0.0, f64::max);
    assert_eq!(number(&layers.iter().find(|l| l["name"] == *grows).unwrap()["growth"]), most);

    // Files differ from the arrays by the rounding of the last bit, and secure runs by their dither.
    for name in ["images", "plain", "planned", "plan_agreement", "network", "output"] {
        assert_eq!(arrays[name], files[name], "{name}");
    }
    let classes = p.json("eval out --data classes --preprocess p.ron --secure 0 --layers 0 --json");
    assert_eq!(classes["plain"], arrays["plain"]);
    assert_eq!(names(&classes), ["images", "network", "output", "plain", "plan_agreement", "planned"]);
}

#[test]
fn pixels_become_the_numbers_that_training_made_of_them() {
    let p = place("");
    let (data, _) = fashion(COUNT);
    let source = Source { path: p.at("listed"), preprocess: Some(p.at("p.ron")), count: Some(20), ..Source::default() };
    let files = source.load(&[1, 1, 28, 28]).unwrap();
    assert_eq!(files.images.len(), 20);
    for (file, array) in files.images.iter().zip(&data.images) {
        assert!(file.iter().zip(array).all(|(f, a)| (f - a).abs() <= 1e-6));
    }
    assert!(matches!(files.labels, Labels::Classes(classes) if classes == data.labels[..20]));
}

#[test]
fn blocks_show_in_the_scores_and_layers() {
    let p = place("--blocks 4x4 --correct mean");
    let data = model("data/fmnist_test.npz");
    let text = p.bcc(&format!("eval out --data {data} --count {COUNT} --secure 4"));
    for part in ["fmnist_resnet8, 24 images", "top-1", "float, with the plan", "secure", "the error grows most at"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    let json = p.json(&format!("eval out --data {data} --count {COUNT} --secure 4 --json"));
    assert!(number(&json["plan_agreement"]) < 1.0);
    assert!(number(&json["planned"]["top1"]) < number(&json["plain"]["top1"]));
    assert_eq!(json["secure"]["images"], 4);
}

/// Calibration on files gives the bytes that calibration on their numbers gives, and the same network twice gives the
/// same reference.
#[test]
fn calibration_on_files() {
    let p = place("");
    let net = model("trained/fmnist_resnet8.onnx");
    p.bcc(&format!("compile {net} --calib listed --preprocess p.ron --images 8 -o files"));
    p.bcc(&format!("compile {net} --calib listed --preprocess p.ron --images 8 -o again"));
    for file in ["program.bcc", "weights.bcc", "reference.bcc"] {
        assert!(std::fs::read(p.at("files").join(file)).unwrap() == std::fs::read(p.at("again").join(file)).unwrap());
    }
    let planned = p.json(&format!(
        "plan {net} --calib listed --preprocess p.ron --budget 20% --refine 0 --eval classes -o plan.ron --json"
    ));
    assert_eq!(planned["accuracy"]["images"], COUNT);
}

/// The client gives a picture, and gets what it gets for the picture's numbers.
#[test]
fn the_client_gives_a_picture() {
    let p = place("");
    let run = |input: &str| -> Value {
        let ended = p.run("bcr", &format!("run out --in-memory --json --input {input}"));
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        serde_json::from_str(&ended.out).unwrap()
    };
    let one = run("listed/003.png --preprocess p.ron");
    let all = run("listed --preprocess p.ron --count 4");
    let numbers = run(&format!("{} --count 4", model("data/fmnist_test.npz")));
    assert_eq!(one["outputs"].as_array().unwrap().len(), 1);
    let logits = |v: &Value, i: usize| -> Vec<f64> { v["outputs"][i].as_array().unwrap().iter().map(number).collect() };
    let close = |a: Vec<f64>, b: Vec<f64>| a.len() == 10 && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.05);
    assert!(close(logits(&one, 0), logits(&numbers, 3)));
    assert!((0..4).all(|i| close(logits(&all, i), logits(&numbers, i))));
    for (line, part) in [
        ("listed/003.png", "--preprocess FILE"),
        ("listed/003.png --preprocess q.ron", "cannot read q.ron"),
        ("listed/labels.csv --preprocess p.ron", "is for image files"),
        ("listed --preprocess p.ron --count 99", "--count 99 of 24"),
    ] {
        let ended = p.run("bcr", &format!("run out --in-memory --input {line}"));
        assert!(ended.code == Some(1) && ended.err.contains(part), "{part:?} is not in: {}", ended.err);
    }
}

#[test]
fn the_bundled_preprocessing_is_that_of_torchvision() {
    let p = Preprocess::load(model("preprocess/imagenet.ron").as_ref()).unwrap();
    let grey = Picture { size: [300, 400], rgb: vec![51; 3 * 300 * 400] };
    let input = p.input(&grey, "grey".as_ref(), &[1, 3, 224, 224]).unwrap();
    for (c, (mean, std)) in [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)].into_iter().enumerate() {
        let want = (0.2 - mean) / std;
        assert!(input[c * 224 * 224..][..224 * 224].iter().all(|v| (v - want).abs() < 1e-6));
    }
}
