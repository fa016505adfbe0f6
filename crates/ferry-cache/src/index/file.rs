//! The file that keeps an index: `ferry-index.jsonl.zst`, described in docs/cache-index.md.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use ferry_formats::{StoreDir, StorePath};
use ferry_store::message::{beginning, harmless};
use serde::{Deserialize, Serialize};

use super::CacheIndex;
use crate::directory::Staging;
use crate::{BinaryCache, CacheError};

/// Its name.
const NAME: &str = "ferry-index.jsonl.zst";
const VERSION: u32 = 1;
/// The zstd level: higher ones take much longer and save little.
const LEVEL: i32 = 9;
/// No line is longer, in bytes: that of a path with ten thousand references.
const MAX_LINE: u64 = 4 << 20;

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    ferry_cache_index: u32,
    store_dir: String,
    paths: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<String>,
}

/// Each of the others.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    path: String,
    nar_size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    references: Vec<String>,
}

impl BinaryCache {
    /// The index that is kept in the cache, if there is one.
    pub(crate) fn kept_index(&self) -> Result<Option<CacheIndex>, CacheError> {
        let Some(file) = self.place.open(NAME, None)? else { return Ok(None) };
        let bad = |reason| CacheError::BadIndex { url: self.place.shown_file(NAME), reason };
        let decoder = zstd::stream::read::Decoder::new(file);
        let mut reader = BufReader::new(decoder.map_err(|error| bad(error.to_string()))?);
        read(&self.store_dir, &mut reader).map(Some).map_err(bad)
    }

    /// Keeps an index in the cache, in place of the one that is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_index(&self, index: &CacheIndex) -> Result<(), CacheError> {
        let staging = Staging::beside(&self.place, &self.scratch)?;
        let file = staging.new_file();
        let write = || -> io::Result<()> {
            let mut encoder = zstd::stream::write::Encoder::new(File::create(&file)?, LEVEL)?;
            // So that what was damaged is noticed.
            encoder.include_checksum(true)?;
            let mut writer = BufWriter::new(encoder);
            index.write(&mut writer)?;
            let encoder = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
            encoder.finish()?.sync_all()
        };
        write().map_err(CacheError::io("write", file.display()))?;
        self.place.put(&file, NAME)
    }
}

impl CacheIndex {
    fn write(&self, writer: &mut impl Write) -> io::Result<()> {
        let entries = self.entries();
        let line = |writer: &mut dyn Write, text: serde_json::Result<Vec<u8>>| {
            let mut text = text?;
            text.push(b'\n');
            writer.write_all(&text)
        };
        let header = Header {
            ferry_cache_index: VERSION,
            store_dir: self.store_dir.as_str().to_owned(),
            paths: entries.len() as u64,
            newest: self.newest.map(|newest| newest.to_string()),
        };
        line(writer, serde_json::to_vec(&header))?;
        // As text: whoever reads it need not know what a hash is.
        let mut lines: Vec<_> =
            entries.iter().map(|entry| (entry.path.to_basename(), entry)).collect();
        lines.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (path, entry) in lines {
            let object = self.object(entry.path.digest()).map(|(_, object)| object);
            let references = object.into_iter().flat_map(|object| self.references(object));
            let mut references: Vec<String> = references.map(StorePath::to_basename).collect();
            references.sort();
            let text =
                Line { path, nar_size: entry.nar_size, file_size: entry.file_size, references };
            line(writer, serde_json::to_vec(&text))?;
        }
        Ok(())
    }
}

/// Reads an index, or says what is wrong with it.
fn read(store_dir: &StoreDir, reader: &mut impl BufRead) -> Result<CacheIndex, String> {
    let mut text = Vec::new();
    let mut next = |text: &mut Vec<u8>| -> Result<bool, String> {
        text.clear();
        let mut limited = reader.by_ref().take(MAX_LINE);
        limited.read_until(b'\n', text).map_err(|error| error.to_string())?;
        match text.last() {
            None => Ok(false),
            Some(b'\n') => Ok(true),
            Some(_) => Err(format!("a line of it has no end, or more than {MAX_LINE} bytes")),
        }
    };
    if !next(&mut text)? {
        return Err("it is empty".to_owned());
    }
    let header: Header = serde_json::from_slice(&text)
        .map_err(|error| format!("it is no index: {error}: it begins: {}", beginning(&text)))?;
    if header.ferry_cache_index != VERSION {
        return Err(format!("its version is {}, and {VERSION} is known", header.ferry_cache_index));
    }
    if header.store_dir != store_dir.as_str() {
        return Err(format!("it is of paths below {}", harmless(&header.store_dir)));
    }
    let mut index = CacheIndex::new(store_dir.clone());
    index.newest = header.newest.and_then(|newest| newest.parse().ok());
    let mut number = 1;
    while next(&mut text)? {
        number += 1;
        let bad = |reason: &dyn std::fmt::Display| {
            format!("line {number}: {}: {}", harmless(&reason.to_string()), beginning(&text))
        };
        let line: Line = serde_json::from_slice(&text).map_err(|error| bad(&error))?;
        let parse =
            |name: &String| StorePath::from_basename(name.as_bytes()).map_err(|error| bad(&error));
        let path = parse(&line.path)?;
        let references = line.references.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        index.add(&path, line.nar_size, line.file_size, references.iter());
    }
    match number - 1 {
        lines if lines == header.paths => Ok(index),
        lines => Err(format!("it has {lines} paths, and should have {}", header.paths)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: u8) -> StorePath {
        StorePath::from_parts([number; 20], &format!("p{number}")).unwrap()
    }

    fn index() -> CacheIndex {
        let mut index = CacheIndex::new(StoreDir::default());
        index.newest = Some(1_234_567_890_123_456_789);
        index.add(&path(3), 30, Some(3), [path(2), path(9)].iter());
        index.add(&path(2), 20, None, [].iter());
        index
    }

    fn text(index: &CacheIndex) -> String {
        let mut text = Vec::new();
        index.write(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn an_index_is_lines_of_json_and_is_read_as_it_was_written() {
        let written = text(&index());
        let [two, three, nine] = [2, 3, 9].map(|number| path(number).to_basename());
        let expected = format!(
            "{{\"ferryCacheIndex\":1,\"storeDir\":\"/nix/store\",\"paths\":2,\
             \"newest\":\"1234567890123456789\"}}\n\
             {{\"path\":\"{two}\",\"narSize\":20}}\n\
             {{\"path\":\"{three}\",\"narSize\":30,\"fileSize\":3,\
             \"references\":[\"{two}\",\"{nine}\"]}}\n"
        );
        assert_eq!(written, expected);
        let read = read(&StoreDir::default(), &mut written.as_bytes()).unwrap();
        assert!(read.says_the_same(&index()));
        let entries: Vec<u64> = read.entries().iter().map(|entry| entry.nar_size).collect();
        assert_eq!(entries, [20, 30]);
    }

    #[test]
    fn what_is_no_index_is_refused_and_no_cut_goes_unnoticed() {
        let written = text(&index());
        let refused =
            |text: &str| read(&StoreDir::default(), &mut text.as_bytes()).err().unwrap_or_default();
        for end in 0..written.len() {
            assert_ne!(refused(&written[..end]), "", "cut at {end}");
        }
        assert!(refused("<html>\n").contains("no index"));
        assert!(refused(&written.replace("Index\":1", "Index\":2")).contains("version is 2"));
        assert!(refused(&written.replace("/nix/store", "/gnu/store")).contains("/gnu/store"));
        assert!(refused(&written.replace("-p3", "/p3")).contains("line 3"));
        assert!(refused(&(written.clone() + &written)).contains("line 4"));
        let long = "x".repeat(5 << 20);
        assert!(refused(&long).contains("has no end"));
    }
}
