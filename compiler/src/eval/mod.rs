//! A compiled network on data: the float network as it stands, with its plan, and run by all three parties; and where
//! on the way fixed point departs from floats.
//!
//! All outputs are those before the client's steps (a softmax changes neither order nor classes).

mod layers;
mod score;
mod table;

use std::sync::{Arc, mpsc};

use bcc_ir::graph::Graph;
use bcc_ir::program::{Port, Program};
use bcc_runtime::images::LabelMap;
use bcc_runtime::port::{InputError, Tensor, encode, signed};
use bcc_runtime::session::{LocalOptions, Options, Output, SessionError, run_local};
use bcc_runtime::weights::WeightSource;
use rayon::prelude::*;
use serde::Serialize;
use thiserror::Error;

use crate::data::{Dataset, Labels};
use crate::float::{Executor, FloatError};
use crate::planner::Progress;
use crate::reference::Reference;
pub use layers::{LayerError, LayerErrors};
pub use score::{Accuracy, OutputError};
use score::{Comparison, Label, Planes};

/// Most output values of one session: its outputs are kept until it ends.
const SESSION_VALUES: usize = 1 << 25;

/// Why a network cannot be evaluated.
#[derive(Debug, Error)]
pub enum EvalError {
    /// A network that does not run.
    #[error(transparent)]
    Float(#[from] FloatError),
    /// A label that the output does not have.
    #[error("image {image} has class {class}, and the network's output has {classes} classes{hint}")]
    Class {
        /// Image, from 0.
        image: usize,
        /// Class.
        class: i64,
        /// Classes of the output.
        classes: usize,
        /// What may help.
        hint: &'static str,
    },
    /// Classes for an output that is a map.
    #[error(
        "the labels are one class per image, and the output of shape {0:?} has one per pixel: give label maps \
         (docs/data.md)"
    )]
    ClassesForMap(Vec<usize>),
    /// Label maps for an output that is none.
    #[error("the labels are maps, and the output of shape {0:?} is none: give one class per image")]
    MapsForClasses(Vec<usize>),
    /// The secure run failed.
    #[error("the secure run failed: {0}")]
    Session(#[from] SessionError),
    /// The reference and the program have different inputs or outputs.
    #[error(
        "a network of the reference has {network} {what} values and the program {program}; compile the model again"
    )]
    Values {
        /// "input" or "output".
        what: &'static str,
        /// Values of the network.
        network: usize,
        /// Values of the program.
        program: usize,
    },
}

/// What is evaluated.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// Images that are run among three parties.
    pub secure: usize,
    /// Images whose every layer is compared.
    pub layers: usize,
    /// Classes of pixels that do not count.
    pub ignore: Vec<i32>,
    /// Added to the classes of label maps.
    pub offset: i32,
}

/// What a secure run gives.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Secure {
    /// Images run.
    pub images: usize,
    /// Images beyond the bound of the input that the network was compiled for, which a client refuses.
    pub refused: usize,
    /// Why the first one is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// How often it is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// How often the float network with the plan is right on the same images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned: Option<Accuracy>,
    /// Share of the images, or pixels, that get the class that the float network with the plan gives them.
    pub agreement: f64,
    /// Difference of the outputs from those of the float network with the plan.
    pub error: OutputError,
    /// What the rounding of the input alone does in floats.
    pub rounding: Rounding,
}

/// The float network with the plan on the input as the client encodes it, against the same on the input itself. To the
/// parties the two are one input, so where this is large the network itself does not say what its output is: blocks
/// whose sums are near zero are decided by rounding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rounding {
    /// Share of the images, or pixels, that keep their class.
    pub agreement: f64,
    /// Difference of the outputs.
    pub error: OutputError,
}

/// A compiled network on data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Name of the network.
    pub network: String,
    /// Images.
    pub images: usize,
    /// Shape of the output.
    pub output: Vec<usize>,
    /// Size of the label maps, where it is not that of the output: they were resized to the output's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels_resized_from: Option<[usize; 2]>,
    /// How often the network as imported is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain: Option<Accuracy>,
    /// How often the float network with its plan is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned: Option<Accuracy>,
    /// Share of the images, or pixels, to which the plan leaves their class.
    pub plan_agreement: f64,
    /// The secure run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure: Option<Secure>,
    /// The error of every layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayerErrors>,
}

/// Evaluates a verified program.
///
/// # Errors
/// Labels that do not fit the output, and a secure run that fails.
pub fn evaluate(
    program: &Program,
    weights: &dyn WeightSource,
    reference: &Reference,
    data: &Dataset,
    options: &EvalOptions,
    progress: &dyn Progress,
) -> Result<Evaluation, EvalError> {
    let run = Run::new(program, reference, data, options)?;
    let floats = run.floats(progress)?;
    let secure = if options.secure > 0 { Some(run.secure(weights, options.secure, progress)?) } else { None };
    let images = &data.images[..options.layers.min(data.images.len())];
    let layers = (!images.is_empty()).then(|| {
        progress.stage("layers", images.len() as u64);
        layers::compare(reference, images, progress)
    });
    Ok(Evaluation {
        network: program.name.clone(),
        images: data.images.len(),
        output: run.shape,
        labels_resized_from: run.resized,
        plain: floats.reference.accuracy(),
        planned: floats.output.accuracy(),
        plan_agreement: floats.distance.agreement(),
        secure,
        layers,
    })
}

struct Run<'a> {
    program: &'a Program,
    reference: &'a Reference,
    data: &'a Dataset,
    shape: Vec<usize>,
    planes: Planes,
    /// Label maps in the output's classes and size.
    maps: Vec<LabelMap>,
    resized: Option<[usize; 2]>,
}

impl<'a> Run<'a> {
    fn new(
        program: &'a Program,
        reference: &'a Reference,
        data: &'a Dataset,
        options: &EvalOptions,
    ) -> Result<Run<'a>, EvalError> {
        let shape = |g: &Graph| g.output().map(|o| g.node(o).shape.clone()).unwrap_or_default();
        let shape = shape(&reference.planned);
        let planes = Planes::of(&shape);
        let len = |g: &Graph, id: Option<_>| id.map_or(0, |id| g.node(id).len());
        let sizes = |shape: &[usize]| shape.iter().product::<usize>();
        let (input, output) = (sizes(&program.input.shape), sizes(&program.output.shape));
        for g in [&reference.plain, &reference.planned, &reference.fixed] {
            let pairs = [("input", len(g, g.input()), input), ("output", len(g, g.output()), output)];
            if let Some((what, network, program)) = pairs.into_iter().find(|(_, n, p)| n != p) {
                return Err(EvalError::Values { what, network, program });
            }
        }
        let mut run = Run { program, reference, data, shape, planes, maps: Vec::new(), resized: None };
        match &data.labels {
            Labels::None => {}
            Labels::Classes(_) if planes.positions > 1 => return Err(EvalError::ClassesForMap(run.shape)),
            Labels::Classes(classes) => {
                let outside = |c: &i64| usize::try_from(*c).is_ok_and(|c| c >= planes.classes);
                if let Some(image) = classes.iter().position(outside) {
                    let (class, classes) = (classes[image], planes.classes);
                    return Err(EvalError::Class { image, class, classes, hint: "" });
                }
            }
            Labels::Maps(maps) => run.maps = run.fit(maps, options)?,
        }
        Ok(run)
    }

    /// Label maps in the output's classes and size; pixels that do not count become negative.
    fn fit(&mut self, maps: &[LabelMap], options: &EvalOptions) -> Result<Vec<LabelMap>, EvalError> {
        let &[1, classes, h, w] = self.shape.as_slice() else {
            return Err(EvalError::MapsForClasses(self.shape.clone()));
        };
        let mut fitted = Vec::with_capacity(maps.len());
        for (image, map) in maps.iter().enumerate() {
            if map.size != [h, w] {
                self.resized.get_or_insert(map.size);
            }
            let mut map = map.resized([h, w]);
            for class in &mut map.classes {
                if options.ignore.contains(class) {
                    *class = -1;
                    continue;
                }
                let moved = i64::from(*class) + i64::from(options.offset);
                let fits = (0..classes as i64).contains(&moved);
                *class = i32::try_from(moved).ok().filter(|_| fits).ok_or(EvalError::Class {
                    image,
                    class: moved,
                    classes,
                    hint: "; --ignore-label says which classes do not count, --label-offset moves them",
                })?;
            }
            fitted.push(map);
        }
        Ok(fitted)
    }

    fn label(&self, image: usize) -> Label<'_> {
        match &self.data.labels {
            Labels::None => Label::Unknown,
            Labels::Classes(classes) => usize::try_from(classes[image]).map_or(Label::Unknown, Label::Class),
            Labels::Maps(_) => Label::Map(&self.maps[image]),
        }
    }

    /// Two outputs for an image: the one, and the one that it should equal.
    fn compare(&self, image: usize, output: &[f64], reference: &[f64]) -> Comparison {
        let label = self.label(image);
        let mut c = Comparison::default();
        c.output.add(self.planes, output, &label);
        c.reference.add(self.planes, reference, &label);
        c.distance.add(self.planes, output, reference);
        c
    }

    /// The network with the plan against the plain one.
    fn floats(&self, progress: &dyn Progress) -> Result<Comparison, EvalError> {
        progress.stage("floats", self.data.images.len() as u64);
        let plain = Executor::try_new(&self.reference.plain)?;
        let planned = Executor::try_new(&self.reference.planned)?;
        let one = |(i, image): (usize, &Vec<f32>)| {
            let comparison = self.compare(i, &wide(&planned.run(image)), &wide(&plain.run(image)));
            progress.done(1);
            comparison
        };
        // Collected in order: sums of floats depend on it.
        let all: Vec<_> = self.data.images.par_iter().enumerate().map(one).collect();
        Ok(all.into_iter().fold(Comparison::default(), Comparison::merge))
    }

    fn secure(&self, weights: &dyn WeightSource, count: usize, progress: &dyn Progress) -> Result<Secure, EvalError> {
        let port = &self.program.input;
        let (mut inputs, mut refused) = (Vec::new(), Vec::<InputError>::new());
        for (i, image) in self.data.images.iter().enumerate().take(count) {
            let data = image.iter().map(|x| f64::from(*x)).collect();
            let tensor = Tensor { shape: port.shape.clone(), data };
            match encode(port, &tensor) {
                Ok(encoded) => inputs.push((i, tensor, signed(port, encoded.to_vec()))),
                Err(e) => refused.push(e),
            }
        }
        progress.stage("three parties", inputs.len() as u64);
        let planned = Executor::try_new(&self.reference.planned)?;
        let (mut total, mut rounded) = (Comparison::default(), Comparison::default());
        let per_session = (SESSION_VALUES / (self.planes.classes * self.planes.positions).max(1)).max(1);
        for chunk in inputs.chunks(per_session) {
            let tensors: Vec<Tensor> = chunk.iter().map(|(_, t, _)| t.clone()).collect();
            let outputs = session(self.program, weights, &tensors, progress)?;
            let one = |((i, _, encoded), output): (&(usize, Tensor, Vec<i64>), &Output)| {
                let secure = reals(&self.program.output, &output.integers);
                let float = wide(&planned.run(&self.data.images[*i]));
                let x: Vec<f32> = reals(port, encoded).into_iter().map(|x| x as f32).collect();
                (self.compare(*i, &secure, &float), self.compare(*i, &wide(&planned.run(&x)), &float))
            };
            let all: Vec<_> = chunk.par_iter().zip(&outputs).map(one).collect();
            for (of_secure, of_rounded) in all {
                total = total.merge(of_secure);
                rounded = rounded.merge(of_rounded);
            }
        }
        Ok(Secure {
            images: inputs.len(),
            refused: refused.len(),
            refusal: refused.first().map(ToString::to_string),
            accuracy: total.output.accuracy(),
            planned: total.reference.accuracy(),
            agreement: total.distance.agreement(),
            error: total.distance.error(),
            rounding: Rounding { agreement: rounded.distance.agreement(), error: rounded.distance.error() },
        })
    }
}

/// Runs inferences among three parties of this process; `progress` hears of each.
fn session(
    program: &Program,
    weights: &dyn WeightSource,
    inputs: &[Tensor],
    progress: &dyn Progress,
) -> Result<Vec<Output>, SessionError> {
    let (sender, receiver) = mpsc::channel();
    // Nobody listens only when the receiver's thread has ended, which it does after this sender.
    let done = move |_| sender.send(()).unwrap_or_default();
    let party = Options { progress: Some(Arc::new(done)), ..Options::default() };
    std::thread::scope(|scope| {
        scope.spawn(move || receiver.iter().for_each(|()| progress.done(1)));
        let options = LocalOptions { party, ..LocalOptions::default() };
        run_local(program, weights, inputs, &options).map(|r| r.outputs)
    })
}

/// What a port's integers stand for.
fn reals(port: &Port, integers: &[i64]) -> Vec<f64> {
    let unit = port.gain / f64::from(port.frac).exp2();
    integers.iter().map(|v| *v as f64 * unit).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}
