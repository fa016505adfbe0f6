//! Measuring several ways to do the same thing, in turn.

use std::time::Duration;

use ferry_test_world::Usage;

/// What takes longer than this is measured once only.
const SLOW: Duration = Duration::from_secs(90);

/// One way to do it.
pub(crate) struct Case<'a> {
    /// What it is, as the table says it.
    pub(crate) what: String,
    /// For a peer: the case of ferry's, by its `what`, that it is compared with.
    pub(crate) against: Option<String>,
    prepare: Box<dyn Fn() + 'a>,
    run: Box<dyn Fn() -> Usage + 'a>,
    bytes: Box<dyn Fn() -> Option<u64> + 'a>,
}

impl<'a> Case<'a> {
    /// A way that ferry does it.
    pub(crate) fn ferry(what: &str, run: impl Fn() -> Usage + 'a) -> Self {
        Self {
            what: what.to_owned(),
            against: None,
            prepare: Box::new(|| ()),
            run: Box::new(run),
            bytes: Box::new(|| None),
        }
    }

    /// A way that others do it, to be compared with `ferry`'s.
    pub(crate) fn peer(what: &str, ferry: &str, run: impl Fn() -> Usage + 'a) -> Self {
        Self { against: Some(ferry.to_owned()), ..Self::ferry(what, run) }
    }

    /// The same under another name.
    pub(crate) fn named(mut self, what: impl Into<String>) -> Self {
        self.what = what.into();
        self
    }

    /// What to do before each run; not measured.
    pub(crate) fn after(mut self, prepare: impl Fn() + 'a) -> Self {
        self.prepare = Box::new(prepare);
        self
    }

    /// How many bytes came of it (or went into it), asked after each run.
    pub(crate) fn bytes(mut self, bytes: impl Fn() -> u64 + 'a) -> Self {
        self.bytes = Box::new(move || Some(bytes()));
        self
    }
}

/// What was measured of one case.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) against: Option<String>,
    pub(crate) runs: Vec<Usage>,
    pub(crate) bytes: Option<u64>,
}

impl Row {
    /// The median, in seconds.
    pub(crate) fn wall(&self) -> f64 {
        median(self.runs.iter().map(|usage| usage.wall.as_secs_f64()))
    }

    /// Time on processors, the median, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        median(self.runs.iter().map(|usage| usage.cpu.as_secs_f64()))
    }

    /// The most memory in any of the runs, in bytes.
    pub(crate) fn peak_rss(&self) -> u64 {
        self.runs.iter().map(|usage| usage.peak_rss).max().unwrap_or(0)
    }

    /// How many times as much as `other` it took: the median over the rounds in which both ran,
    /// as what else the machine was doing then fell on both.
    pub(crate) fn compared(&self, other: &Self, what: impl Fn(&Usage) -> Duration) -> f64 {
        let pairs = self.runs.iter().zip(&other.runs);
        median(pairs.map(|(one, other)| what(one).as_secs_f64() / what(other).as_secs_f64()))
    }

    /// Whether the figure is no more than an upper bound.
    pub(crate) fn peak_rss_is_floor(&self) -> bool {
        self.runs.iter().any(|usage| usage.peak_rss <= usage.peak_rss_floor)
    }
}

/// Several ways to do one thing.
pub(crate) struct Section {
    pub(crate) title: String,
    /// What the column `bytes` counts.
    pub(crate) bytes: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// Runs all cases in turn, `rounds` times.
pub(crate) fn section(
    title: impl Into<String>,
    bytes: &'static str,
    rounds: u32,
    cases: Vec<Case<'_>>,
) -> Section {
    let title = title.into();
    eprintln!("ferry-bench: {title}");
    let mut rows: Vec<Row> = cases
        .iter()
        .map(|case| Row {
            what: case.what.clone(),
            against: case.against.clone(),
            runs: Vec::new(),
            bytes: None,
        })
        .collect();
    for round in 1..=rounds {
        for (case, row) in cases.iter().zip(&mut rows) {
            if row.runs.first().is_some_and(|first| first.wall > SLOW) {
                continue;
            }
            (case.prepare)();
            // Nobody should wait for what another has left to be written.
            rustix::fs::sync();
            let usage = (case.run)();
            row.bytes = (case.bytes)();
            row.runs.push(usage);
            eprintln!(
                "ferry-bench:   {round}/{rounds} {}: {:.2} s, {} MB",
                case.what,
                usage.wall.as_secs_f64(),
                usage.peak_rss / 1_000_000
            );
        }
    }
    Section { title, bytes, rows }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => 0.0,
        (Some(value), 1) => *value,
        (Some(upper), _) => (values.get(middle - 1).unwrap_or(upper) + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median([].into_iter()), 0.0);
    }
}
