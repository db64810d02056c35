//! What `bcc eval` refuses.

use std::fs;

use bcc_tests::random::Numbers;
use ndarray::{Array1, Array4};
use ndarray_npy::NpzWriter;

use super::common::{FASHION, Place, model, png};

#[test]
fn bad_data_and_files() {
    let p = Place::new();
    let (net, calib, test) =
        (model("trained/fmnist_resnet8.onnx"), model("data/fmnist_calib.npz"), model("data/fmnist_test.npz"));
    p.bcc(&format!("compile {net} --calib {calib} --images 8 -o out"));
    p.bcc(&format!("compile {net} --calib {calib} --images 8 --margin 3 -o other"));
    let eval = |more: &str| format!("eval out --secure 0 --layers 0 --data {more}");

    p.fails(&eval("none.npz"), &["cannot read none.npz"]);
    p.fails(&eval(&format!("{test} --count 0")), &["--count 0", "at least one"]);
    p.fails(&eval(&format!("{test} --preprocess p.ron")), &["holds numbers", "--preprocess is for image files"]);
    p.fails(&eval(&format!("{test} --labels l.csv")), &["holds numbers", "--labels is for image files"]);
    fs::create_dir(p.at("empty")).unwrap();
    p.fails(&eval("empty"), &["empty holds no images", "one subfolder per class"]);
    p.write("p/a.png", png([28, 28], png::ColorType::Grayscale, &[0; 784]));
    p.fails(&eval("p"), &["p holds pixels", "--preprocess FILE"]);
    p.write("p.ron", FASHION);
    p.fails(&eval("p/a.png --preprocess p.ron --labels l.csv"), &["belong to a folder of images"]);
    p.fails(&format!("compile {net} --calib {calib} --preprocess p.ron -o x"), &["--preprocess", "none are given"]);
    p.write("color.ron", "Preprocess(resize: Exact(28, 28))");
    p.fails(&eval("p --preprocess color.ron"), &["a.png", "[1, 3, 28, 28]", "[1, 1, 28, 28]", "channels and layout"]);
    p.write("crop.ron", "Preprocess(crop: (32, 28), channels: Gray)");
    p.fails(&eval("p --preprocess crop.ron"), &["a.png has [28, 28] pixels", "[32, 28] are cropped", "Short(32)"]);
    p.write("bad.ron", "Preprocess(std: [0])");
    p.fails(&eval("p --preprocess bad.ron"), &["bad.ron cannot be used", "std holds 0"]);
    p.write("p/b.jpg", b"not a picture");
    p.fails(&eval("p --preprocess p.ron"), &["b.jpg is no image", "PNG or JPEG"]);

    let labelled = |classes: &[i64]| {
        let mut npz = NpzWriter::new(fs::File::create(p.at("y.npz")).unwrap());
        let x = Numbers::new(2).values(classes.len() * 784, 0.5);
        npz.add_array("x", &Array4::from_shape_vec((classes.len(), 1, 28, 28), x).unwrap()).unwrap();
        npz.add_array("y", &Array1::from_vec(classes.to_vec())).unwrap();
        npz.finish().unwrap();
    };
    labelled(&[3, 10]);
    p.fails(&eval("y.npz"), &["image 1 has class 10, and the network's output has 10 classes"]);
    // Unknown classes do not count.
    labelled(&[3, -1, -1]);
    let json = p.json(&eval("y.npz --json"));
    assert_eq!((json["images"].as_u64(), json["plain"]["labelled"].as_u64()), (Some(3), Some(1)));

    let reference = p.at("out/reference.bcc");
    let whole = fs::read(&reference).unwrap();
    fs::copy(p.at("other/reference.bcc"), &reference).unwrap();
    p.fails(&eval(&test), &["reference.bcc belongs to other files"]);
    fs::write(&reference, &whole[..whole.len() - 1]).unwrap();
    p.fails(&eval(&test), &["reference.bcc is damaged"]);
    fs::copy(p.at("out/program.bcc"), &reference).unwrap();
    p.fails(&eval(&test), &["reference.bcc is no bcc reference file"]);
    fs::remove_file(&reference).unwrap();
    p.fails(&eval(&test), &["cannot read", "reference.bcc", "`bcc compile` writes it"]);
}

/// An image beyond the compiled range is counted and named, and the others are run.
#[test]
fn images_that_the_client_refuses() {
    let p = Place::new();
    let (net, calib) = (model("trained/fmnist_resnet8.onnx"), model("data/fmnist_calib.npz"));
    p.bcc(&format!("compile {net} --calib {calib} --images 8 -o out"));
    let mut x = Numbers::new(2).values(3 * 784, 1.0);
    x[784 + 3] = 1e4;
    ndarray_npy::write_npy(p.at("x.npy"), &Array4::from_shape_vec((3, 1, 28, 28), x).unwrap()).unwrap();
    let json = p.json("eval out --data x.npy --json");
    let secure = &json["secure"];
    assert_eq!((secure["images"].as_u64(), secure["refused"].as_u64()), (Some(2), Some(1)));
    assert!(secure["refusal"].as_str().unwrap().contains("element [0, 0, 0, 3] of the input is 10000"), "{secure}");
    assert!(secure.get("accuracy").is_none() && json.get("plain").is_none());
    assert_eq!((json["layers"]["images"].as_u64(), json["layers"]["overflows"].as_u64()), (Some(2), Some(1)));
    assert!(json["layers"]["overflow"].as_str().unwrap().contains("bits hold"), "{json}");
    let text = p.bcc("eval out --data x.npy");
    assert!(text.contains("1 images are refused by the client") && text.contains("a larger --margin"), "{text}");
}
