//! One line of a trace: `docs/trace-format.md`.

use std::collections::BTreeMap;

use ferry_formats::{NarHash, StoreDir, StorePath};
use serde_json::{Map, Value};

use super::trace_entries::{self, EntryKind};
use crate::message::harmless;

/// The version of the format that is read here.
pub(super) const VERSION: u64 = 1;

/// Why an evaluation needed something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Why {
    /// An output that it had built, or fetched from a cache, to read it.
    ImportFromDerivation,
    /// The result of `fetchurl`, `fetchTarball`, `fetchGit`, `fetchTree` and the like.
    Fetch,
    /// An input of a flake, or the flake itself.
    FlakeInput,
    /// A file or directory that it copied into the store: a path in an expression,
    /// `builtins.path`, `builtins.filterSource`.
    Source,
    /// Text that it put into the store: `builtins.toFile`.
    Text,
    /// `builtins.storePath`, or a store path given some other way.
    StorePath,
    /// Nix files that were evaluated.
    NixFile,
    /// What `<name>` was looked up in.
    NixPath,
    /// The directory of a flake.
    Flake,
    /// A file or directory that an evaluated file names, and that may have been read; or a link.
    Path,
    /// A file that was read.
    File,
    /// A directory whose entries were listed.
    Directory,
    /// A file or directory that was looked at, and not read.
    Exists,
    /// The producer of a dynamic derivation, which is an output itself.
    DynamicDerivation,
    /// Something in the fetchers' cache below the user's home.
    FetcherCache,
    /// A reason that this version does not know.
    Other(String),
}

impl Why {
    fn parse(text: &str) -> Self {
        match text {
            "import-from-derivation" => Self::ImportFromDerivation,
            "fetch" => Self::Fetch,
            "flake-input" => Self::FlakeInput,
            "source" => Self::Source,
            "text" => Self::Text,
            "store-path" => Self::StorePath,
            "nix-file" => Self::NixFile,
            "nix-path" => Self::NixPath,
            "flake" => Self::Flake,
            "path" => Self::Path,
            "file" => Self::File,
            "directory" => Self::Directory,
            "exists" => Self::Exists,
            "dynamic-derivation" => Self::DynamicDerivation,
            "fetcher-cache" => Self::FetcherCache,
            other => Self::Other(other.to_owned()),
        }
    }

    /// As a trace has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::ImportFromDerivation => "import-from-derivation",
            Self::Fetch => "fetch",
            Self::FlakeInput => "flake-input",
            Self::Source => "source",
            Self::Text => "text",
            Self::StorePath => "store-path",
            Self::NixFile => "nix-file",
            Self::NixPath => "nix-path",
            Self::Flake => "flake",
            Self::Path => "path",
            Self::File => "file",
            Self::Directory => "directory",
            Self::Exists => "exists",
            Self::DynamicDerivation => "dynamic-derivation",
            Self::FetcherCache => "fetcher-cache",
            Self::Other(text) => text,
        }
    }
}

/// What a path that was needed is an output of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutputOf {
    /// The derivation.
    pub derivation: StorePath,
    /// The output's name; several, one behind the other, for the output of an output.
    pub outputs: Vec<String>,
}

/// A store object that an evaluation needed, and cannot make again by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// Its path.
    pub path: StorePath,
    /// What for.
    pub why: Why,
    /// What it was built from, if it was.
    pub output_of: Option<OutputOf>,
    /// Where it was fetched from, if it was.
    pub url: Option<String>,
    /// The revision that was fetched, if there is such a thing.
    pub rev: Option<String>,
    /// What a flake's lock file calls it.
    pub node: Option<String>,
}

impl Need {
    /// A need of which nothing more is known.
    #[must_use]
    pub fn new(path: StorePath, why: Why) -> Self {
        Self { path, why, output_of: None, url: None, rev: None, node: None }
    }
}

/// A store object that an evaluation made by itself, and will make again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Added {
    /// Its path.
    pub path: StorePath,
    /// [`Why::Source`], or [`Why::Text`].
    pub why: Why,
    /// What it was copied from, if that is known: an absolute path, or something below the
    /// fetchers' cache.
    pub from: Option<String>,
}

/// Something that an evaluation needed and that is not a store object, so that no set of store
/// paths can hold it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outside {
    /// The absolute path of a file or directory; of something in the fetchers' cache, its path in
    /// there.
    pub what: String,
    /// What for.
    pub why: Why,
    /// Where it was fetched from, if it was.
    pub url: Option<String>,
    /// The hash of it as a NAR, as it was when it was read.
    pub nar_hash: Option<NarHash>,
    /// The store object that has all of it that was read, where a part of it was not.
    pub copy: Option<StorePath>,
    /// What was in a directory when it was listed.
    pub entries: Option<BTreeMap<String, EntryKind>>,
}

impl Outside {
    /// Something of which nothing more is known.
    #[must_use]
    pub fn new(what: String, why: Why) -> Self {
        Self { what, why, url: None, nar_hash: None, copy: None, entries: None }
    }
}

/// Why an evaluation may have another result some other day, or somewhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Warning {
    /// For a person to read.
    pub text: String,
    /// One of a few words: `docs/trace-format.md`.
    pub why: String,
}

/// What the first line of a trace says about the recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceHeader {
    /// The evaluator, as it names itself: `nix (Nix) 2.26.3`.
    pub evaluator: Option<String>,
    /// What was run.
    pub command: Vec<String>,
    /// Where it was run.
    pub working_directory: Option<String>,
    /// Variables that matter to it.
    pub environment: BTreeMap<String, String>,
    /// The version of the daemon's protocol that was spoken: `1.38`.
    pub protocol: Option<String>,
    /// What was evaluated for: `x86_64-linux`.
    pub system: Option<String>,
    /// What made the recording.
    pub recorder: Option<String>,
}

/// A line behind the first.
pub(super) enum Line {
    Root(StorePath),
    Need(Need),
    Added(Added),
    Outside(Outside),
    Warning(Warning),
    Incomplete(String),
    End {
        complete: bool,
        lines: Option<u64>,
    },
    /// A kind of line that this version does not know.
    Unknown,
}

/// Why a first line is not one of a trace.
pub(super) enum BadHeader {
    NotATrace,
    Version(String),
    StoreDir(String),
    Reason(String),
}

/// Reads the first line.
pub(super) fn header(line: &[u8], store_dir: &StoreDir) -> Result<TraceHeader, BadHeader> {
    let Ok(Value::Object(object)) = serde_json::from_slice(line) else {
        return Err(BadHeader::NotATrace);
    };
    match object.get("ferryTrace") {
        None => return Err(BadHeader::NotATrace),
        Some(version) if version.as_u64() == Some(VERSION) => {}
        Some(other) => return Err(BadHeader::Version(harmless(&other.to_string()))),
    }
    let text = |name| optional_text(&object, name).map_err(BadHeader::Reason);
    match text("storeDir")? {
        Some(found) if found == store_dir.as_str() => {}
        Some(found) => return Err(BadHeader::StoreDir(harmless(&found))),
        None => return Err(BadHeader::Reason("there is no `storeDir`".to_owned())),
    }
    let command = match object.get("command") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(words)) => {
            words.iter().map(|word| word.as_str().map(str::to_owned)).collect()
        }
        Some(_) => None,
    };
    let environment = match object.get("environment") {
        None | Some(Value::Null) => Some(BTreeMap::new()),
        Some(Value::Object(variables)) => variables
            .iter()
            .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect(),
        Some(_) => None,
    };
    Ok(TraceHeader {
        evaluator: text("evaluator")?,
        working_directory: text("workingDirectory")?,
        environment: environment.ok_or_else(|| {
            BadHeader::Reason("`environment` is not an object of strings".to_owned())
        })?,
        command: command
            .ok_or_else(|| BadHeader::Reason("`command` is not a list of strings".to_owned()))?,
        protocol: text("protocol")?,
        system: text("system")?,
        recorder: text("recorder")?,
    })
}

/// Reads a line behind the first.
pub(super) fn line(line: &[u8], store_dir: &StoreDir) -> Result<Line, String> {
    const KINDS: [&str; 8] =
        ["root", "need", "added", "outside", "warning", "incomplete", "end", "ferryTrace"];
    let object: Map<String, Value> =
        serde_json::from_slice(line).map_err(|source| format!("not a JSON object: {source}"))?;
    let mut kinds = KINDS.into_iter().filter(|kind| object.contains_key(*kind));
    let Some(kind) = kinds.next() else { return Ok(Line::Unknown) };
    if let Some(other) = kinds.next() {
        return Err(format!("it is both `{kind}` and `{other}`"));
    }
    let text = |name: &str| {
        optional_text(&object, name)?.ok_or_else(|| format!("`{name}` should be a string"))
    };
    let path = |name: &str| store_path(store_dir, name, &text(name)?);
    let why = || text("why").map(|why| Why::parse(&why));
    Ok(match kind {
        "root" => Line::Root(path("root")?),
        "need" => Line::Need(Need {
            path: path("need")?,
            why: why()?,
            output_of: optional_text(&object, "outputOf")?
                .map(|text| output_of(store_dir, &text))
                .transpose()?,
            url: optional_text(&object, "url")?,
            rev: optional_text(&object, "rev")?,
            node: optional_text(&object, "node")?,
        }),
        "added" => Line::Added(Added {
            path: path("added")?,
            why: why()?,
            from: optional_text(&object, "from")?,
        }),
        "outside" => Line::Outside(Outside {
            what: text("outside")?,
            why: why()?,
            url: optional_text(&object, "url")?,
            nar_hash: optional_text(&object, "narHash")?
                .map(|text| NarHash::parse(&text).map_err(|error| error.to_string()))
                .transpose()?,
            copy: optional_text(&object, "copy")?
                .map(|text| store_path(store_dir, "copy", &text))
                .transpose()?,
            entries: trace_entries::read(object.get("entries"))?,
        }),
        "warning" => Line::Warning(Warning { text: text("warning")?, why: text("why")? }),
        "incomplete" => Line::Incomplete(text("incomplete")?),
        "end" => Line::End {
            complete: match (object.get("end"), object.get("complete")) {
                (Some(Value::Bool(true)), Some(Value::Bool(complete))) => *complete,
                _ => return Err("`end` should be true, and `complete` true or false".to_owned()),
            },
            lines: match object.get("lines") {
                None | Some(Value::Null) => None,
                Some(value) => {
                    Some(value.as_u64().ok_or_else(|| "`lines` should be a number".to_owned())?)
                }
            },
        },
        _ => return Err("a second trace begins here".to_owned()),
    })
}

fn optional_text(object: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{name}` should be a string")),
    }
}

fn store_path(store_dir: &StoreDir, name: &str, text: &str) -> Result<StorePath, String> {
    store_dir.parse_path(text.as_bytes()).map_err(|source| {
        format!("`{name}` should be a store path, and not `{}`: {source}", harmless(text))
    })
}

/// Reads `PATH.drv^NAME`, or `PATH.drv^NAME^NAME` for the output of an output.
fn output_of(store_dir: &StoreDir, text: &str) -> Result<OutputOf, String> {
    let mut parts = text.split('^');
    let derivation = store_path(store_dir, "outputOf", parts.next().unwrap_or_default())?;
    let outputs: Vec<String> = parts.map(str::to_owned).collect();
    if !derivation.is_derivation() || outputs.is_empty() || outputs.iter().any(String::is_empty) {
        return Err(format!(
            "`outputOf` should be `PATH.drv^OUTPUT`, and not `{}`",
            harmless(text)
        ));
    }
    Ok(OutputOf { derivation, outputs })
}
