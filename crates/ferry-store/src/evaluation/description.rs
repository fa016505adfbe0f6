//! `evaluation.json`: what was evaluated, and how.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::message::harmless;

/// The version of `evaluation.json` that is written and read here.
const VERSION: u64 = 1;

/// What was evaluated, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The command, a list of words.
    pub command: Vec<String>,
    /// Where it was run.
    pub working_directory: Option<String>,
    /// Variables that matter to evaluate again: `NIX_PATH`, and what else the recorder saw.
    pub environment: BTreeMap<String, String>,
    /// The evaluator, as it names itself.
    pub evaluator: Option<String>,
    /// What was evaluated for: `x86_64-linux`.
    pub system: Option<String>,
    /// What it resulted in, as whole store paths.
    pub roots: Vec<String>,
    /// Absolute paths of directories that were working trees of Git.
    pub working_trees: Vec<String>,
}

impl Description {
    /// As it is written.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let fields = json!({
            "ferryEvaluation": VERSION,
            "command": self.command,
            "workingDirectory": self.working_directory,
            "environment": self.environment,
            "evaluator": self.evaluator,
            "system": self.system,
            "roots": self.roots,
            "gitWorkingTrees": self.working_trees,
        });
        format!("{fields:#}\n").into_bytes()
    }

    /// Reads what was written; the error says what is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let fields: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| format!("evaluation.json is not a JSON object: {error}"))?;
        match fields.get("ferryEvaluation").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(format!("evaluation.json has version {other}; known is {VERSION}"));
            }
            None => return Err("evaluation.json has no version".to_owned()),
        }
        Ok(Self {
            command: texts(&fields, "command")?,
            working_directory: text(&fields, "workingDirectory")?,
            environment: variables(fields.get("environment"))?,
            evaluator: text(&fields, "evaluator")?,
            system: text(&fields, "system")?,
            roots: texts(&fields, "roots")?,
            working_trees: texts(&fields, "gitWorkingTrees")?,
        })
    }
}

/// An optional member that is a string.
fn text(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(name, "a string", other)),
    }
}

/// An optional member that is a list of strings.
fn texts(fields: &Map<String, Value>, name: &str) -> Result<Vec<String>, String> {
    let list = match fields.get(name) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(wrong(name, "a list of strings", other)),
    };
    let words: Option<_> = list.iter().map(|word| word.as_str().map(str::to_owned)).collect();
    words.ok_or_else(|| format!("`{name}` should be a list of strings"))
}

/// An optional member that is an object of strings.
fn variables(value: Option<&Value>) -> Result<BTreeMap<String, String>, String> {
    let object = match value {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(object)) => object,
        Some(other) => return Err(wrong("environment", "an object of strings", other)),
    };
    let pairs = object.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    pairs.collect::<Option<_>>().ok_or_else(|| "`environment` should hold strings".to_owned())
}

fn wrong(name: &str, expected: &str, found: &Value) -> String {
    format!("`{name}` should be {expected}, and not {}", harmless(&found.to_string()))
}
