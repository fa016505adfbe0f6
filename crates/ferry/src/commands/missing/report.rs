//! What was found out, as text and as JSON.

use std::time::Duration;

use ferry_cache::missing::Survey;
use ferry_graph::{Needed, Supply};
use ferry_store::CopyReport;
use ferry_store::http::without_password;
use serde_json::{Value, json};

use crate::cli::Missing;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::queries::Queries;

/// How many things of a kind a person is shown that need looking at.
const SHOWN: usize = 10;

pub(super) struct Report<'a> {
    pub(super) context: &'a Context,
    pub(super) options: &'a Missing,
    pub(super) queries: &'a Queries<'a>,
    pub(super) survey: &'a Survey,
    /// How long asking took.
    pub(super) took: Duration,
}

/// Paths, and bytes as far as they are known.
#[derive(Clone, Copy, Default)]
struct Amount {
    paths: u64,
    nar_size: u64,
    /// Bytes of the files to fetch; of NARs where a cache does not say it.
    download_size: u64,
    unknown_sizes: u64,
}

impl Amount {
    fn add(&mut self, nar_size: Option<u64>, download_size: Option<u64>) {
        self.paths += 1;
        self.nar_size += nar_size.unwrap_or(0);
        self.download_size += download_size.or(nar_size).unwrap_or(0);
        self.unknown_sizes += u64::from(nar_size.is_none());
    }
}

#[derive(Default)]
struct Totals {
    /// By cache.
    there: Vec<Amount>,
    /// What would be fetched of it.
    fetched: Amount,
    missing: Amount,
    by_state: Vec<(&'static str, u64)>,
}

/// Where a path is, in a word.
fn state(needed: Needed, survey: &Survey) -> &'static str {
    match needed.supply {
        Supply::Substituted | Supply::Spare => {
            match survey.offers.get(&needed.node).is_some_and(|offer| offer.place > 0) {
                true => "elsewhere",
                false => "there",
            }
        }
        Supply::Built(_) => "build",
        Supply::Fetched(_) => "fetch",
        Supply::BuiltAnyway(_) => "local",
        Supply::Source => "source",
        Supply::Derivation => "derivation",
        Supply::Unknown => "unknown",
    }
}

/// The states of what is missing, in the order in which they are told.
const MISSING: [(&str, &str); 5] = [
    ("build", "to build"),
    ("fetch", "to fetch"),
    ("source", "sources"),
    ("derivation", "derivations"),
    ("unknown", "that nobody knows how to make"),
];

impl Report<'_> {
    /// A line for each path that is missing, or for all.
    pub(super) fn print(&self) -> Result<(), Failure> {
        let graph = self.queries.explorer.graph();
        let shown = |needed: &&Needed| self.options.all || needed.supply.is_missing();
        let lines = self.survey.realisation.needed.iter().filter(shown).map(|needed| {
            let path = graph.render(needed.node);
            let mut line = format!("{:<10} {path}", state(*needed, self.survey));
            match (self.survey.offers.get(&needed.node), needed.supply) {
                (Some(offer), _) => {
                    line.push(' ');
                    line.push_str(&self.cache(offer.place));
                }
                (None, Supply::Fetched(derivation)) => {
                    for url in graph.urls(derivation) {
                        line.push(' ');
                        line.push_str(url);
                    }
                }
                _ => {}
            }
            line
        });
        output::records(lines, false)
    }

    /// Tells the sums.
    pub(super) fn summarise(&self) {
        let talk = self.context.talk;
        let totals = self.totals();
        let there = sum(&totals.there);
        let all = there.paths + totals.missing.paths;
        talk.say(format!(
            "{} of {} are there ({} %), {} of NARs{}; {} to download",
            there.paths,
            output::paths(all),
            percent(there.paths, all),
            output::size(there.nar_size),
            self.bytes_covered(&there, &totals.missing),
            output::size(totals.fetched.download_size),
        ));
        if self.options.caches.len() > 1 {
            for (place, amount) in totals.there.iter().enumerate() {
                talk.say(format!("{} in {}", output::paths(amount.paths), self.cache(place)));
            }
        }
        let kinds: Vec<String> = MISSING
            .iter()
            .filter_map(|(state, words)| {
                let (_, count) = totals.by_state.iter().find(|(name, _)| name == state)?;
                Some(format!("{count} {words}"))
            })
            .collect();
        if !kinds.is_empty() {
            let missing = output::paths(totals.missing.paths);
            talk.say(format!("{missing} nowhere: {}", kinds.join(", ")));
        }
        if let Some((_, count)) = totals.by_state.iter().find(|(state, _)| *state == "local") {
            talk.say(format!(
                "{} whoever wants them builds, as their derivations say (allowSubstitutes)",
                output::paths(*count)
            ));
        }
        self.warn();
        let requests: u64 = self.survey.requests.iter().sum();
        talk.say(format!(
            "asked {requests} times in {:.1} s ({:.0} requests a second)",
            self.took.as_secs_f64(),
            self.requests_a_second(),
        ));
    }

    /// Tells what is there and cannot be used.
    fn warn(&self) {
        let talk = self.context.talk;
        let unusable = self.survey.unusable.values().flatten();
        let (untrusted, bad): (Vec<_>, Vec<_>) = unusable.partition(|one| one.is_untrusted);
        if let Some(first) = untrusted.first() {
            talk.say(format!(
                "{} there without a signature that counts, such as: {}, {} \
                 (--trusted-public-key, or --no-check-sigs to count them)",
                output::paths(untrusted.len() as u64),
                self.cache(first.place),
                first.reason,
            ));
        }
        for one in bad.iter().take(SHOWN) {
            talk.say(format!("not usable: {}", one.reason));
        }
        if bad.len() > SHOWN {
            talk.say(format!("not usable: {} more", bad.len() - SHOWN));
        }
        let graph = self.queries.explorer.graph();
        let incomplete = &self.survey.realisation.incomplete;
        for (path, reference) in incomplete.iter().take(SHOWN) {
            talk.say(format!(
                "{} is there, and {}, which it refers to, is nowhere",
                graph.render(*path),
                graph.render(*reference)
            ));
        }
        if incomplete.len() > SHOWN {
            talk.say(format!("{} more are there like this", incomplete.len() - SHOWN));
        }
    }

    /// All of it, for programs.
    pub(super) fn json(
        &self,
        added: Option<usize>,
        fetched: Option<&CopyReport>,
    ) -> Result<(), Failure> {
        let totals = self.totals();
        let there = sum(&totals.there);
        let bytes = there.nar_size + totals.missing.nar_size;
        let graph = self.queries.explorer.graph();
        let caches: Vec<Value> = (0..self.options.caches.len())
            .map(|place| {
                let amount = totals.there.get(place).copied().unwrap_or_default();
                json!({
                    "address": self.cache(place),
                    "paths": amount.paths,
                    "narSize": amount.nar_size,
                    "requests": self.survey.requests.get(place),
                })
            })
            .collect();
        let incomplete: Vec<Value> = self
            .survey
            .realisation
            .incomplete
            .iter()
            .map(
                |(path, to)| json!({ "path": graph.render(*path), "reference": graph.render(*to) }),
            )
            .collect();
        let built = self.queries.explorer.sorted(&self.survey.realisation.built);
        output::json(json!({
            "caches": caches,
            "needed": there.paths + totals.missing.paths,
            "there": there.paths,
            "missing": totals.missing.paths,
            "coverage": {
                "paths": percent(there.paths, there.paths + totals.missing.paths),
                "bytes": percent(there.nar_size, bytes),
                "unknownSizes": totals.missing.unknown_sizes,
            },
            "narSize": totals.fetched.nar_size,
            "downloadSize": totals.fetched.download_size,
            "requestsPerSecond": self.requests_a_second(),
            "built": built.iter().map(|node| graph.render(*node)).collect::<Vec<_>>(),
            "incomplete": incomplete,
            "missingFacts": self.queries.missing_of_derivations(),
            "addedToList": added,
            "fetched": fetched.map(|report| json!({
                "added": report.added,
                "present": report.present,
                "narSize": report.nar_size,
            })),
            "paths": self.survey.realisation.needed.iter().map(|one| self.path(*one)).collect::<Vec<_>>(),
        }))
    }

    fn path(&self, needed: Needed) -> Value {
        let graph = self.queries.explorer.graph();
        let offer = self.survey.offers.get(&needed.node);
        let (derivation, urls) = match needed.supply {
            Supply::Fetched(derivation) => (Some(derivation), Some(graph.urls(derivation))),
            Supply::Built(derivation) | Supply::BuiltAnyway(derivation) => (Some(derivation), None),
            _ => (None, None),
        };
        let unusable: Vec<Value> = self
            .survey
            .unusable
            .get(&needed.node)
            .into_iter()
            .flatten()
            .map(|one| {
                json!({
                    "cache": self.cache(one.place),
                    "untrusted": one.is_untrusted,
                    "reason": one.reason,
                })
            })
            .collect();
        json!({
            "path": graph.render(needed.node),
            "state": state(needed, self.survey),
            "substituted": needed.supply == Supply::Substituted,
            "cache": offer.map(|offer| self.cache(offer.place)),
            "narSize": offer.map(|offer| offer.nar_size).or_else(|| graph.nar_size(needed.node)),
            "downloadSize": offer.and_then(|offer| offer.file_size),
            "derivation": derivation.map(|derivation| graph.render(derivation)),
            "urls": urls,
            "unusable": unusable,
        })
    }

    fn totals(&self) -> Totals {
        let graph = self.queries.explorer.graph();
        let mut totals = Totals {
            there: vec![Amount::default(); self.options.caches.len()],
            ..Totals::default()
        };
        for needed in &self.survey.realisation.needed {
            let state = state(*needed, self.survey);
            match totals.by_state.iter_mut().find(|(name, _)| *name == state) {
                Some((_, count)) => *count += 1,
                None => totals.by_state.push((state, 1)),
            }
            if let Some(offer) = self.survey.offers.get(&needed.node) {
                if let Some(there) = totals.there.get_mut(offer.place) {
                    there.add(Some(offer.nar_size), offer.file_size);
                }
                if needed.supply == Supply::Substituted {
                    totals.fetched.add(Some(offer.nar_size), offer.file_size);
                }
            } else if needed.supply.is_missing() {
                totals.missing.add(graph.nar_size(needed.node), None);
            }
        }
        totals
    }

    fn bytes_covered(&self, there: &Amount, missing: &Amount) -> String {
        let all = there.nar_size + missing.nar_size;
        match (missing.paths, missing.unknown_sizes) {
            (0, _) => String::new(),
            (_, 0) => format!(" ({} % of the bytes)", percent(there.nar_size, all)),
            (paths, unknown) if paths == unknown => String::new(),
            (_, unknown) => format!(
                " ({} % of the bytes that are known; the size of {} is not)",
                percent(there.nar_size, all),
                output::paths(unknown)
            ),
        }
    }

    fn requests_a_second(&self) -> f64 {
        let requests: u64 = self.survey.requests.iter().sum();
        let requests = f64::from(u32::try_from(requests).unwrap_or(u32::MAX));
        (requests / self.took.as_secs_f64().max(0.001) * 10.0).round() / 10.0
    }

    /// A cache as it was named, without a password.
    fn cache(&self, place: usize) -> String {
        self.options.caches.get(place).map(|cache| without_password(cache)).unwrap_or_default()
    }
}

fn sum(amounts: &[Amount]) -> Amount {
    let mut sum = Amount::default();
    for one in amounts {
        sum.paths += one.paths;
        sum.nar_size += one.nar_size;
        sum.download_size += one.download_size;
        sum.unknown_sizes += one.unknown_sizes;
    }
    sum
}

/// A share in per cent, cut off behind two digits: only all of it is 100.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 100.0;
    }
    let hundredths = u128::from(part) * 10_000 / u128::from(whole);
    f64::from(u32::try_from(hundredths).unwrap_or(u32::MAX)) / 100.0
}
