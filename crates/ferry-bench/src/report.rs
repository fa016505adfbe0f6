//! The figures as Markdown, and all of them as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::facts::Facts;
use crate::measure::{Row, Section};

const NOT_MEASURED: &str = "\
Not measured: cold caches (all that is read was written shortly before, and is in memory), the
network, slow disks, and the memory of a daemon or of several processes together: peak memory is
that of the largest single process that the command started.
";

/// What was found out.
pub(crate) struct Report {
    pub(crate) facts: Facts,
    sections: Vec<Section>,
}

impl Report {
    pub(crate) fn new(facts: Facts) -> Self {
        Self { facts, sections: Vec::new() }
    }

    /// The facts, as a table.
    pub(crate) fn heading(&self) -> String {
        let mut text = "| | |\n|---|---|\n".to_owned();
        for (name, value) in &self.facts {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        text
    }

    /// Takes a section in, and returns it as a table.
    pub(crate) fn add(&mut self, section: Section) -> String {
        let text = table(&section);
        self.sections.push(section);
        text
    }

    /// What stands at the end.
    pub(crate) fn footer(&self) -> String {
        let mut text = String::from("\n");
        if let Some((name, value)) = self.facts.last() {
            let _ = writeln!(text, "{name}: {value}\n");
        }
        text + NOT_MEASURED
    }

    /// Every single measurement.
    pub(crate) fn json(&self) -> String {
        let facts: serde_json::Map<String, Value> =
            self.facts.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let sections: Vec<Value> = self
            .sections
            .iter()
            .map(|section| {
                let rows: Vec<Value> = section.rows.iter().map(row_json).collect();
                json!({"title": section.title, "rows": rows})
            })
            .collect();
        let mut text = format!("{:#}", json!({"version": 1, "facts": facts, "sections": sections}));
        text.push('\n');
        text
    }
}

fn row_json(row: &Row) -> Value {
    let each = |of: &dyn Fn(&ferry_test_world::Usage) -> Value| -> Vec<Value> {
        row.runs.iter().map(of).collect()
    };
    json!({
        "what": row.what,
        "against": row.against,
        "wallSeconds": each(&|usage| json!(usage.wall.as_secs_f64())),
        "cpuSeconds": each(&|usage| json!(usage.cpu.as_secs_f64())),
        "peakRss": each(&|usage| json!(usage.peak_rss)),
        "peakRssFloor": each(&|usage| json!(usage.peak_rss_floor)),
        "bytes": row.bytes,
    })
}

fn table(section: &Section) -> String {
    let mut text = format!(
        "\n### {}\n\n| what ran | wall | runs | CPU | peak RSS | {} | peer / ferry |\n\
         |---|---:|---:|---:|---:|---:|---|\n",
        section.title, section.bytes
    );
    for row in &section.rows {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {}{} | {} | {} |",
            if row.against.is_none() { format!("**{}**", row.what) } else { row.what.clone() },
            seconds(row.wall()),
            row.runs.len(),
            seconds(row.cpu()),
            if row.peak_rss_is_floor() { "≤ " } else { "" },
            size(row.peak_rss()),
            row.bytes.map(size).unwrap_or_default(),
            ratio(section, row),
        );
    }
    text
}

/// How a peer compares with the case of ferry's that it stands against.
fn ratio(section: &Section, row: &Row) -> String {
    let Some(name) = &row.against else { return String::new() };
    let ferry = section.rows.iter().find(|row| row.what == *name);
    let ferry = ferry.unwrap_or_else(|| panic!("there is no `{name}` in `{}`", section.title));
    let mut text = format!(
        "time {}, CPU {}",
        times(row.compared(ferry, |usage| usage.wall)),
        times(row.compared(ferry, |usage| usage.cpu))
    );
    if let (Some(bytes), Some(least)) = (row.bytes, ferry.bytes) {
        let _ = write!(text, ", bytes {}", times(bytes as f64 / least as f64));
    }
    text + &format!(" of `{name}`")
}

fn times(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.2}×") } else { format!("{ratio:.0}×") }
}

fn seconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} s") } else { format!("{value:.1} s") }
}

/// `1.23 MB`, in powers of a thousand.
pub(crate) fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        _ if bytes < 1e3 => format!("{bytes} B"),
        _ if bytes < 1e6 => format!("{:.1} kB", bytes / 1e3),
        _ if bytes < 1e8 => format!("{:.2} MB", bytes / 1e6),
        _ if bytes < 1e9 => format!("{:.0} MB", bytes / 1e6),
        _ => format!("{:.2} GB", bytes / 1e9),
    }
}
