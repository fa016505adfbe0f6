//! The entries of a directory that an evaluation listed, as a trace has them.

use std::collections::BTreeMap;
use std::fs::FileType;

use serde_json::{Map, Value};

/// What an entry of a directory is, in the words of `builtins.readDir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Something else: a socket, a device.
    Unknown,
}

impl EntryKind {
    /// The kind of something on the disk.
    #[must_use]
    pub fn of(kind: FileType) -> Self {
        match () {
            () if kind.is_file() => Self::Regular,
            () if kind.is_dir() => Self::Directory,
            () if kind.is_symlink() => Self::Symlink,
            () => Self::Unknown,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Unknown => "unknown",
        }
    }
}

/// Writes entries; nothing where there are none to be told of.
pub(super) fn write(entries: Option<&BTreeMap<String, EntryKind>>) -> Value {
    let entries = entries.map(|entries| {
        entries.iter().map(|(name, kind)| (name.clone(), kind.as_str().into())).collect()
    });
    entries.map_or(Value::Null, Value::Object)
}

/// Reads them.
pub(super) fn read(value: Option<&Value>) -> Result<Option<BTreeMap<String, EntryKind>>, String> {
    let object: &Map<String, Value> = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(object)) => object,
        Some(_) => return Err("`entries` should be an object".to_owned()),
    };
    let kinds = [EntryKind::Regular, EntryKind::Directory, EntryKind::Symlink, EntryKind::Unknown];
    let mut entries = BTreeMap::new();
    for (name, kind) in object {
        let kind = kind.as_str().and_then(|text| kinds.iter().find(|kind| kind.as_str() == text));
        let kind = kind.ok_or_else(|| "`entries` should hold kinds of files".to_owned())?;
        let is_name = !name.is_empty() && name != "." && name != "..";
        if !is_name || name.contains(['/', '\0']) {
            return Err("`entries` should hold names of files".to_owned());
        }
        entries.insert(name.clone(), *kind);
    }
    Ok(Some(entries))
}
