//! Writes a recorded evaluation: `docs/trace-format.md`.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use ferry_formats::StoreDir;
use serde_json::{Map, Value, json};

use super::trace::{Added, Need, OutputOf, Outside, Recorded, TraceError, TraceHeader};
use super::trace_entries;
use super::trace_line::VERSION;
use crate::whole_file::write_whole;

impl Recorded {
    /// Writes it into a file, which is there when it is whole.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path, store_dir: &StoreDir) -> Result<(), TraceError> {
        let failed = |source| TraceError::Unwritten { file: file.display().to_string(), source };
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        write_whole(file, 0o644, |file| {
            let mut out = BufWriter::new(file);
            self.write_to(&mut out, store_dir).and_then(|()| out.flush())
        })
        .map_err(failed)
    }

    /// Writes it line by line.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn write_to(&self, out: &mut impl Write, store_dir: &StoreDir) -> io::Result<()> {
        let mut lines = Lines { out, count: 0 };
        let first = header(&self.header, store_dir);
        lines.write(first)?;
        for root in &self.roots {
            lines.write(json!({ "root": store_dir.render_path(root) }))?;
        }
        for one in &self.needs {
            lines.write(need(one, store_dir))?;
        }
        for one in &self.added {
            lines.write(added(one, store_dir))?;
        }
        for one in &self.outside {
            lines.write(outside(one, store_dir))?;
        }
        for warning in &self.warnings {
            lines.write(json!({ "warning": warning.text, "why": warning.why }))?;
        }
        for reason in &self.incomplete {
            lines.write(json!({ "incomplete": reason }))?;
        }
        let count = lines.count - 1;
        let complete = self.incomplete.is_empty();
        lines.write(json!({ "end": true, "complete": complete, "lines": count }))
    }
}

struct Lines<'a, W> {
    out: &'a mut W,
    count: u64,
}

impl<W: Write> Lines<'_, W> {
    fn write(&mut self, line: Value) -> io::Result<()> {
        self.count += 1;
        // What is not known is left out.
        let line = match line {
            Value::Object(members) => {
                members.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>()
            }
            _ => Map::new(),
        };
        serde_json::to_writer(&mut self.out, &line)?;
        self.out.write_all(b"\n")
    }
}

fn header(header: &TraceHeader, store_dir: &StoreDir) -> Value {
    json!({
        "ferryTrace": VERSION,
        "storeDir": store_dir.as_str(),
        "evaluator": header.evaluator,
        "command": header.command,
        "workingDirectory": header.working_directory,
        "environment": header.environment,
        "protocol": header.protocol,
        "system": header.system,
        "recorder": header.recorder,
    })
}

fn need(need: &Need, store_dir: &StoreDir) -> Value {
    let output_of = need.output_of.as_ref().map(|OutputOf { derivation, outputs }| {
        format!("{}^{}", store_dir.render_path(derivation), outputs.join("^"))
    });
    json!({
        "need": store_dir.render_path(&need.path),
        "why": need.why.as_str(),
        "outputOf": output_of,
        "url": need.url,
        "rev": need.rev,
        "node": need.node,
    })
}

fn added(added: &Added, store_dir: &StoreDir) -> Value {
    json!({
        "added": store_dir.render_path(&added.path),
        "why": added.why.as_str(),
        "from": added.from,
    })
}

fn outside(outside: &Outside, store_dir: &StoreDir) -> Value {
    json!({
        "outside": outside.what,
        "why": outside.why.as_str(),
        "url": outside.url,
        "narHash": outside.nar_hash.map(ferry_formats::NarHash::to_sri),
        "copy": outside.copy.as_ref().map(|path| store_dir.render_path(path)),
        "entries": trace_entries::write(outside.entries.as_ref()),
    })
}
