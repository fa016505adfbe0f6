//! `ferry cache verify`: what is wrong with a binary cache.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::process::ExitCode;
use std::time::Duration;

use ferry_cache::{Fault, FaultKind, ReadData, Sample, VerifyOptions, VerifyReport, VerifyState};
use ferry_formats::StoreDir;
use serde_json::{Value, json};

use super::{open, store_paths};
use crate::cli::CacheVerify;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

const DAY: u64 = 24 * 60 * 60;

pub(super) fn run(context: &Context, options: &CacheVerify) -> Result<ExitCode, Failure> {
    let cache = open(context, &options.cache)?;
    let store_dir = context.store_dir()?;
    let mut trust = context.trust(&options.trust)?;
    trust.require_signatures &= !options.no_check_sigs;
    let sample = options.sample.map(|part| Sample {
        part,
        seed: options.seed.unwrap_or_else(|| RandomState::new().hash_one(())),
    });
    let data = match sample {
        Some(sample) => ReadData::Sample(sample),
        None if options.read_data => ReadData::Everything,
        None => ReadData::Nothing,
    };
    let verify = VerifyOptions {
        roots: store_paths(context, &store_dir, &options.paths)?,
        shard: options.shard,
        trust,
        data,
        again_after: options.again_after.map(|days| Duration::from_secs(days.saturating_mul(DAY))),
    };
    let state = options.state.as_ref().map(|file| VerifyState::open(file, &cache)).transpose()?;
    let report = cache.verify(&verify, state.as_ref(), &*context.bars)?;
    if context.json {
        let report = as_json(options, &store_dir, sample, &report);
        output::json(report)?;
    } else {
        let lines = report.faults.iter().map(|fault| line(fault, &store_dir));
        output::records(lines, false)?;
    }
    tell(context, options, sample, &report);
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn line(fault: &Fault, store_dir: &StoreDir) -> String {
    let path = fault.path.as_ref().map_or("-".to_owned(), |path| store_dir.render_path(path));
    format!("{}\t{}\t{path}\t{}", fault.kind.name(), fault.file, output::harmless(&fault.message))
}

/// How many faults there are of each kind.
fn counts(report: &VerifyReport) -> BTreeMap<FaultKind, u64> {
    let mut counts = BTreeMap::new();
    for fault in &report.faults {
        *counts.entry(fault.kind).or_default() += 1;
    }
    counts
}

fn as_json(
    options: &CacheVerify,
    store_dir: &StoreDir,
    sample: Option<Sample>,
    report: &VerifyReport,
) -> Value {
    let faults = report.faults.iter().map(|fault| {
        json!({
            "kind": fault.kind.name(),
            "harmless": fault.kind.is_harmless(),
            "file": fault.file,
            "path": fault.path.as_ref().map(|path| store_dir.render_path(path)),
            "message": fault.message,
            "size": fault.size,
        })
    });
    let counts: BTreeMap<&str, u64> =
        counts(report).into_iter().map(|(kind, count)| (kind.name(), count)).collect();
    json!({
        "cache": options.cache,
        "sound": report.is_sound(),
        "paths": report.paths,
        "narSize": report.nar_size,
        "fileSize": report.file_size,
        "signedByTrusted": report.signed_by_trusted,
        "shard": options.shard.to_string(),
        "sample": sample.map(|sample| json!({
            "part": sample.part.to_string(),
            // As text: not every reader of JSON keeps all digits of such a number.
            "seed": sample.seed.to_string(),
        })),
        "narsRead": report.nars_read,
        "narSizeRead": report.nar_size_read,
        "narsReadBefore": report.nars_read_before,
        "lookedForOrphans": report.looked_for_orphans,
        "counts": counts,
        "faults": faults.collect::<Vec<_>>(),
    })
}

fn tell(context: &Context, options: &CacheVerify, sample: Option<Sample>, report: &VerifyReport) {
    let say = |text: String| context.talk.say(text);
    say(format!(
        "{}: {}, {} of NARs in {} of files; {} signed by a trusted key",
        options.cache,
        output::paths(report.paths),
        output::size(report.nar_size),
        output::size(report.file_size),
        report.signed_by_trusted,
    ));
    if let Some(sample) = sample {
        say(format!("sample of {}: --seed {} takes the same again", sample.part, sample.seed));
    }
    if options.read_data || sample.is_some() {
        say(format!(
            "read the NARs of {} ({}); {} read by an earlier run",
            output::paths(report.nars_read),
            output::size(report.nar_size_read),
            report.nars_read_before,
        ));
    }
    for (kind, count) in counts(report) {
        say(format!("{} ({count}): {}", kind.name(), advice(kind)));
    }
    if report.is_sound() {
        say("nothing is wrong with it".to_owned());
    }
}

/// What a kind of fault is, and what to do about it.
fn advice(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::BadCacheInfo => {
            "write `nix-cache-info` again: `StoreDir: /nix/store`, and `Priority: …` if wanted"
        }
        FaultKind::BadNarinfo | FaultKind::OtherPath | FaultKind::BadUrl => {
            "nothing can be substituted by it: remove this narinfo, and copy the path into the \
             cache again"
        }
        FaultKind::MissingPath => "copy it into the cache",
        FaultKind::MissingReference => {
            "what refers to it cannot be used without: copy that into the cache again, with all \
             that it refers to"
        }
        FaultKind::NoNar
        | FaultKind::WrongFileSize
        | FaultKind::WrongFileHash
        | FaultKind::BadCompression
        | FaultKind::WrongNarSize
        | FaultKind::WrongNarHash
        | FaultKind::MalformedNar
        | FaultKind::WrongContent => {
            "remove the narinfo of the path and its NAR, and copy the path into the cache again \
             from a store that has it"
        }
        FaultKind::Unreadable => "look at the disk, and at who may read the file",
        FaultKind::UnknownCompression => {
            "Nix may still read it; no other thing is known to be wrong"
        }
        FaultKind::BadDeriver => "Nix passes over it; remove the line `Deriver` if it disturbs",
        FaultKind::WrongContentAddress => {
            "Nix takes no such path without a signature: copy it into the cache again"
        }
        FaultKind::MalformedSignature => {
            "Nix passes over it; `ferry cache sign --remove-key NAME` removes it"
        }
        FaultKind::BadSignature => {
            "the narinfo was changed after it was signed, or another key has the same name: read \
             the data, then sign it again (`ferry cache sign`)"
        }
        FaultKind::Unsigned => {
            "Nix refuses it where require-sigs is on: `ferry cache sign`, or leave this out with \
             --no-check-sigs"
        }
        FaultKind::Untrusted => {
            "name the key that signs here with --trusted-public-key, or sign it \
             (`ferry cache sign`)"
        }
        FaultKind::BadListing | FaultKind::WrongListing => "remove the listing: a cache needs none",
        FaultKind::BadRealisation => "remove it, and copy what it is of into the cache again",
        FaultKind::DanglingRealisation => "copy its path into the cache, or remove it",
        FaultKind::OrphanNar | FaultKind::OrphanListing => {
            "takes up room only; what a writer is putting there at this moment looks the same"
        }
        FaultKind::StaleStaging => "takes up room only; the next writer removes it",
        _ => "see docs/cache-verify.md",
    }
}
