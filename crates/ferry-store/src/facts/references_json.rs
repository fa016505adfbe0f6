//! The JSON form of a references graph: `.attrs.json`, as `prepareStructuredAttrs` in Nix's
//! `parsed-derivations.cc` writes it.
//!
//! It is older than `nix path-info --json`, and stayed as it was when that changed. What has
//! changed: Nix 2.8 has no `valid` unless it is false, Nix 2.19 writes `ca` as null where it is
//! otherwise left out.

use ferry_formats::{ContentAddress, NarHash, StoreDir, StorePath};
use serde_json::{Map, Value};

use super::references_graph::{ReferencesGraphEntry, ReferencesGraphError};
use crate::message::harmless;

/// Reads the whole of an `.attrs.json`, or one graph by itself.
pub(super) fn parse(
    file: &str,
    bytes: &[u8],
    store_dir: &StoreDir,
) -> Result<Vec<ReferencesGraphEntry>, ReferencesGraphError> {
    let reader = Reader { file, store_dir };
    let value: Value =
        serde_json::from_slice(bytes).map_err(|source| ReferencesGraphError::Line {
            file: file.to_owned(),
            line: source.line(),
            reason: format!("it is not JSON: {source}"),
        })?;
    let mut entries = Vec::new();
    match &value {
        Value::Object(attributes) => {
            for name in reader.graphs(attributes)? {
                let place = harmless(name);
                let Some(graph) = attributes.get(name) else {
                    return Err(reader.error(&place, "it is not there"));
                };
                reader.graph(&place, graph, &mut entries)?;
            }
        }
        graph => reader.graph("", graph, &mut entries)?,
    }
    Ok(entries)
}

struct Reader<'a> {
    file: &'a str,
    store_dir: &'a StoreDir,
}

impl Reader<'_> {
    fn error(&self, place: &str, reason: impl Into<String>) -> ReferencesGraphError {
        ReferencesGraphError::Json {
            file: self.file.to_owned(),
            place: if place.is_empty() { "the top" } else { place }.to_owned(),
            reason: reason.into(),
        }
    }

    /// The names of the graphs in an `.attrs.json`.
    fn graphs<'a>(
        &self,
        attributes: &'a Map<String, Value>,
    ) -> Result<impl Iterator<Item = &'a String>, ReferencesGraphError> {
        const NAMES: &str = "exportReferencesGraph";
        match attributes.get(NAMES) {
            Some(Value::Object(graphs)) => Ok(graphs.keys()),
            Some(_) => Err(self.error(NAMES, "it is not an object, so Nix wrote no graphs")),
            None => Err(self.error("", format!("there is no `{NAMES}`"))),
        }
    }

    fn graph(
        &self,
        place: &str,
        graph: &Value,
        entries: &mut Vec<ReferencesGraphEntry>,
    ) -> Result<(), ReferencesGraphError> {
        let Some(graph) = graph.as_array() else {
            return Err(self.error(place, "it is not a list"));
        };
        for (number, value) in graph.iter().enumerate() {
            let place = format!("{place}[{number}]");
            let Some(object) = value.as_object() else {
                return Err(self.error(&place, "it is not an object"));
            };
            // Nix 2.8 lists what is not valid as well.
            if object.get("valid") != Some(&Value::Bool(false)) {
                entries.push(self.entry(&place, object)?);
            }
        }
        Ok(())
    }

    fn entry(
        &self,
        place: &str,
        object: &Map<String, Value>,
    ) -> Result<ReferencesGraphEntry, ReferencesGraphError> {
        let path = self.path(&format!("{place}.path"), object.get("path"))?;
        let at = format!("{place}.references");
        let Some(references) = object.get("references").and_then(Value::as_array) else {
            return Err(self.error(&at, "there is no list of references"));
        };
        let references = references
            .iter()
            .enumerate()
            .map(|(number, value)| self.path(&format!("{at}[{number}]"), Some(value)))
            .collect::<Result<_, _>>()?;
        let nar_size = match object.get("narSize") {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_u64().ok_or_else(|| {
                self.error(&format!("{place}.narSize"), "it is not a number of bytes")
            })?),
        };
        // Newer versions write it in another form; whoever wants it can compute it.
        let nar_hash = object.get("narHash").and_then(Value::as_str);
        let nar_hash = nar_hash.and_then(|text| NarHash::parse(text).ok());
        let deriver = match object.get("deriver") {
            None | Some(Value::Null) => None,
            value => Some(self.path(&format!("{place}.deriver"), value)?),
        };
        let ca = object.get("ca").filter(|ca| !ca.is_null());
        let content_addressed = Some(ca.is_some());
        let ca = ca.and_then(Value::as_str).and_then(|text| ContentAddress::parse(text).ok());
        Ok(ReferencesGraphEntry {
            path,
            references,
            nar_hash,
            nar_size,
            deriver,
            content_addressed,
            ca,
        })
    }

    fn path(&self, place: &str, value: Option<&Value>) -> Result<StorePath, ReferencesGraphError> {
        let Some(text) = value.and_then(Value::as_str) else {
            return Err(self.error(place, "there is no store path"));
        };
        self.store_dir.parse_path(text.as_bytes()).map_err(|source| {
            self.error(place, format!("`{}` is not a store path: {source}", harmless(text)))
        })
    }
}
