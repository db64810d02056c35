//! Weights kept in files beside the model: they are read into it before it is imported.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::{ModelProto, TensorProto};

use super::error::{ImportError, Problem, Site};

/// Reads external tensors from `directory`; yields what could not be read, which stays external.
pub(super) fn inline(model: &mut ModelProto, directory: &Path) -> Vec<ImportError> {
    let Some(graph) = &mut model.graph else { return Vec::new() };
    let constants = graph.node.iter_mut().flat_map(|n| n.attribute.iter_mut().filter_map(|a| a.t.as_mut()));
    let external = |t: &&mut TensorProto| t.data_location == Some(DataLocation::External as i32);
    let tensors = graph.initializer.iter_mut().chain(constants).filter(external);
    tensors.filter_map(|tensor| read(tensor, directory).err().map(|e| *e)).collect()
}

fn read(tensor: &mut TensorProto, directory: &Path) -> Result<(), Box<ImportError>> {
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let location = entry("location").unwrap_or_default();
    let failed = |reason: String, remedy: &str| {
        let problem = Problem::ExternalFile { tensor: tensor.name.clone(), file: location.into(), reason };
        Box::new(ImportError { site: Site::File, problem, remedy: remedy.into() })
    };
    let one = "save the model as one file (onnx.save with save_as_external_data=False)";
    // A model must not make this read files elsewhere.
    let inside = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
    if location.is_empty() || !Path::new(location).components().all(inside) {
        return Err(failed("it is no path below the folder of the model".into(), one));
    }
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| failed(format!("{key} \"{text}\" is no number"), one)),
    };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    let copied = "copy that file beside the model, with the name it was saved with, and complete";
    let io = |e: std::io::Error| failed(e.to_string(), copied);
    let mut file = File::open(directory.join(location)).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let length = length.unwrap_or(size.saturating_sub(offset));
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(failed(format!("it has {size} bytes, and {length} are wanted from {offset} on"), copied));
    }
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes).map_err(io)?;
    tensor.raw_data = bytes;
    tensor.data_location = None;
    tensor.external_data.clear();
    Ok(())
}
