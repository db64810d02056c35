//! Inputs and outputs as files.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use bcc_ir::program::Port;
use bcc_runtime::images::{self, Files, Preprocess, is_images};
use bcc_runtime::port::Tensor;
use bcc_runtime::session::Output;
use bcc_runtime::stats::Stats;
use miette::{Context, IntoDiagnostic, Report, Result, miette};
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use ndarray_npy::{NpzReader, ReadNpyError, ReadNpyExt, ReadNpzError, ViewNpyError, ViewNpyExt, WriteNpyExt};

use super::args::Data;

fn open(path: &Path) -> Result<File> {
    File::open(path).into_diagnostic().wrap_err_with(|| format!("cannot open {}", path.display()))
}

fn read(path: &Path) -> Result<ArrayD<f64>> {
    let wide = |a: ArrayD<f32>| a.mapv(f64::from);
    let failed = || format!("cannot read {}: it must hold 32-bit or 64-bit floats", path.display());
    if path.extension().is_some_and(|e| e == "npz") {
        let mut file = NpzReader::new(open(path)?).into_diagnostic().wrap_err_with(failed)?;
        let narrow: Result<ArrayD<f32>, ReadNpzError> = file.by_name("x.npy").or_else(|_| file.by_name("x"));
        if let Ok(a) = narrow {
            return Ok(wide(a));
        }
        let names = file.names().into_diagnostic()?.join(", ");
        let a: Result<ArrayD<f64>, ReadNpzError> = file.by_name("x.npy").or_else(|_| file.by_name("x"));
        return a.into_diagnostic().wrap_err_with(|| format!("{}, in an array \"x\" (it has: {names})", failed()));
    }
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).into_diagnostic().wrap_err_with(failed)?;
    // Reading makes room for what the header announces, a view compares that with what is there.
    let short = |e: Option<ViewNpyError>| matches!(e, Some(ViewNpyError::MissingBytes(_)));
    if short(ArrayViewD::<f32>::view_npy(&bytes).err()) || short(ArrayViewD::<f64>::view_npy(&bytes).err()) {
        return Err(miette!("{}, and this file is cut off", failed()));
    }
    match ArrayD::<f32>::read_npy(&bytes[..]) {
        Ok(a) => Ok(wide(a)),
        Err(ReadNpyError::WrongDescriptor(_)) => {
            ArrayD::<f64>::read_npy(&bytes[..]).into_diagnostic().wrap_err_with(failed)
        }
        Err(e) => Err(e).into_diagnostic().wrap_err_with(failed),
    }
}

/// The inputs of a file, each of the port's shape.
pub fn inputs(data: &Data, port: &Port) -> Result<Vec<Tensor>> {
    let inputs = if is_images(&data.input) { pictures(data, port) } else { arrays(data, port) }?;
    // A file that cannot be written must not cost an inference.
    for path in [&data.output, &data.stats].into_iter().flatten() {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.into_diagnostic().wrap_err_with(|| format!("cannot write {}", path.display()))?;
    }
    Ok(inputs)
}

fn pictures(data: &Data, port: &Port) -> Result<Vec<Tensor>> {
    let preprocess = data.preprocess.as_deref().map(Preprocess::load).transpose().into_diagnostic()?;
    let files = Files::open(&data.input, None).into_diagnostic()?;
    wanted(data, files.paths.len())?;
    let images = images::load(&files, preprocess.as_ref(), &port.shape, data.count).into_diagnostic()?;
    let tensor = |i: Vec<f32>| Tensor { shape: port.shape.clone(), data: i.into_iter().map(f64::from).collect() };
    Ok(images.into_iter().map(tensor).collect())
}

/// How many of `n` inputs are wanted.
fn wanted(data: &Data, n: usize) -> Result<usize> {
    let take = data.count.unwrap_or(n);
    if take == 0 || take > n {
        return Err(miette!("--count {take} of {n} inputs in {}", data.input.display()));
    }
    Ok(take)
}

fn arrays(data: &Data, port: &Port) -> Result<Vec<Tensor>> {
    if data.preprocess.is_some() {
        return Err(miette!("--preprocess is for image files, and {} is none", data.input.display()));
    }
    let array = read(&data.input)?;
    let inner = port.shape.get(1..).unwrap_or(&[]);
    let (n, rest) = match array.shape() {
        shape if shape == inner => (1, inner),
        [n, rest @ ..] => (*n, rest),
        [] => (1, &[][..]),
    };
    if rest != inner || n == 0 {
        return Err(miette!(
            help = "stack several inputs along the first axis",
            "{} has shape {:?}, the network takes {:?}",
            data.input.display(),
            array.shape(),
            port.shape
        ));
    }
    let values: Vec<f64> = array.iter().copied().collect();
    let size = values.len() / n;
    let take = wanted(data, n)?;
    let shape = port.shape.clone();
    Ok(values.chunks_exact(size).take(take).map(|x| Tensor { shape: shape.clone(), data: x.to_vec() }).collect())
}

/// Writes what was asked for. After `trouble` at the end of a session the outputs are written all the
/// same, but not the statistics, which are incomplete.
pub fn report(data: &Data, outputs: &[Output], stats: &Stats, trouble: Option<Report>) -> Result<()> {
    let one = outputs.first().map_or(&[][..], |o| &o.value.shape);
    let mut shape = one.to_vec();
    match shape.first_mut() {
        Some(batch) if *batch == 1 => *batch = outputs.len(),
        _ => shape.insert(0, outputs.len()),
    }
    if let Some(path) = &data.output {
        let values: Vec<f32> = outputs.iter().flat_map(|o| &o.value.data).map(|v| *v as f32).collect();
        let array = ArrayD::from_shape_vec(IxDyn(&shape), values).into_diagnostic()?;
        let failed = || format!("cannot write {}", path.display());
        let file = File::create(path).into_diagnostic().wrap_err_with(failed)?;
        array.write_npy(std::io::BufWriter::new(file)).into_diagnostic().wrap_err_with(failed)?;
    }
    if let Some(path) = data.stats.as_ref().filter(|_| trouble.is_none()) {
        let text = serde_json::to_string_pretty(stats).into_diagnostic()?;
        std::fs::write(path, text + "\n")
            .into_diagnostic()
            .wrap_err_with(|| format!("cannot write {}", path.display()))?;
    }
    if data.json {
        let values: Vec<&[f64]> = outputs.iter().map(|o| &o.value.data[..]).collect();
        let json = serde_json::json!({ "shape": shape, "outputs": values, "stats": stats });
        say(&format!("{json}\n"))?;
        return trouble.map_or(Ok(()), incomplete);
    }
    let mut text = String::new();
    for (i, o) in outputs.iter().enumerate().take(10) {
        let best = o.value.data.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        if let Some((index, value)) = best {
            text += &format!("output {i}: largest value {value:.4} at {index} of {}\n", o.value.data.len());
        }
    }
    if outputs.len() > 10 {
        text += &format!("and {} more\n", outputs.len() - 10);
    }
    say(&(text + &describe(stats)))?;
    trouble.map_or(Ok(()), incomplete)
}

fn incomplete(trouble: Report) -> Result<()> {
    Err(trouble.wrap_err("the outputs hold, but traffic and times are incomplete"))
}

/// Writes to standard output. Where nobody reads on, as behind `head`, the rest is not written.
pub fn say(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e).into_diagnostic().wrap_err("cannot print"),
        _ => Ok(()),
    }
}

/// Traffic and times for people.
pub fn describe(stats: &Stats) -> String {
    let mut text = String::new();
    let phases = [("setup", &stats.phases.setup), ("offline", &stats.phases.offline), ("online", &stats.phases.online)];
    for (name, p) in phases {
        let b = p.bytes;
        text += &format!(
            "{name:8} {:9.3} s {:5} rounds {:11.3} MB (client {:.3}, server {:.3}, dealer {:.3})\n",
            p.seconds,
            p.rounds,
            (b.client + b.server + b.dealer) as f64 / 1e6,
            b.client as f64 / 1e6,
            b.server as f64 / 1e6,
            b.dealer as f64 / 1e6
        );
    }
    text
}
