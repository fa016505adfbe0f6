//! `ferry convert`: from a bundle to what others read, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ferry_bundle::{BundleWriter, PackOptions};
use ferry_formats::{PathInfo, StorePath};
use ferry_store::derivation_directory::write_derivations;
use ferry_store::export::ExportWriter;
use ferry_store::{CopyReport, copy};
use serde_json::{Value, json};

use crate::cli::{Convert, Format};
use crate::context::{Context, secret_keys};
use crate::conversion::Freight;
use crate::failure::Failure;
use crate::output;
use crate::sink::Sink;
use crate::sources::{cache_address, is_cache, open_cache};

pub(crate) fn run(context: &Context, options: &Convert) -> Result<(), Failure> {
    let to = match options.to_format {
        Some(format) => format,
        None => guess(context, &options.output)?,
    };
    if to != Format::Bundle && !(options.root.is_empty() && options.set.is_none()) {
        let message = format!("{} has no place for --root and --set", to.describe());
        return Err(Failure::usage(message));
    }
    if !matches!(to, Format::Bundle | Format::Cache) && !options.sign.sign_key.is_empty() {
        let message = format!("{} has no place for signatures", to.describe());
        return Err(Failure::usage(message));
    }
    let freight = Freight::open(context, &options.from, options.from_format)?;
    let roots = match options.root.as_slice() {
        [] => freight.roots(),
        named => named_roots(&freight, named)?,
    };
    let outcome = match to {
        Format::Bundle => into_bundle(context, options, &freight, roots.clone()),
        Format::Export => into_export(context, options, &freight),
        Format::Drvs => into_directory(context, options, &freight),
        Format::Cache => into_cache(context, options, &freight),
    };
    let (report, size) = outcome.map_err(|failure| advise(&freight, failure))?;
    let lost = Lost::count(&freight, to)?;
    tell(context, options, &freight, to, (&report, size), &lost);
    if context.json {
        let store_dir = freight.store().store_dir();
        output::json(json!({
            "from": options.from,
            "fromFormat": name(freight.format()),
            "to": options.output,
            "toFormat": name(to),
            "size": size,
            "roots": roots.iter().map(|root| store_dir.render_path(root)).collect::<Vec<_>>(),
            "paths": report.added,
            "narSize": report.nar_size,
            "lost": lost.json(),
        }))?;
    }
    Ok(())
}

/// Where something is missing, what is converted is not closed under references.
fn advise(freight: &Freight, failure: Failure) -> Failure {
    let infos = freight.path_infos();
    let known: BTreeSet<&StorePath> = infos.iter().map(|info| &info.path).collect();
    let closed = infos.iter().flat_map(PathInfo::other_references).all(|path| known.contains(path));
    match freight.format() {
        Format::Export if !closed => failure.hint(
            "export all that the paths refer to: `nix-store --export $(nix-store --query \
             --requisites PATH)`",
        ),
        Format::Drvs if !closed => failure.hint(
            "derivations alone do not hold the sources that they read; `ferry pack` takes those \
             along, out of a store that has them",
        ),
        _ => failure,
    }
}

fn name(format: Format) -> String {
    let value = clap::ValueEnum::to_possible_value(&format);
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// What a file of this name is to hold.
fn guess(context: &Context, output: &Path) -> Result<Format, Failure> {
    if is_cache(context, &output.to_string_lossy()) {
        return Ok(Format::Cache);
    }
    if output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Ok(Format::Drvs);
    }
    match output.extension().and_then(|extension| extension.to_str()) {
        Some("ferry") => Ok(Format::Bundle),
        Some("export" | "closure") => Ok(Format::Export),
        _ => Err(Failure::usage(format!("what should {} become?", output.display()))
            .hint("say so with --to, or name it *.ferry, *.export, DIRECTORY/ or file://…")),
    }
}

fn named_roots(freight: &Freight, named: &[String]) -> Result<Vec<StorePath>, Failure> {
    let store = freight.store();
    let parse = |text: &String| {
        let directory = store.store_dir();
        let path = match text.contains('/') {
            true => directory.parse_path(text.as_bytes()),
            false => StorePath::from_basename(text.as_bytes()),
        };
        let path = path.map_err(|error| Failure::usage(format!("--root {text}: {error}")))?;
        store.require(&path)?;
        Ok(path)
    };
    named.iter().map(parse).collect()
}

fn offered(freight: &Freight) -> BTreeMap<StorePath, PathInfo> {
    freight.path_infos().iter().map(|info| (info.path.clone(), info.clone())).collect()
}

fn into_bundle(
    context: &Context,
    options: &Convert,
    freight: &Freight,
    roots: Vec<StorePath>,
) -> Result<(CopyReport, Option<u64>), Failure> {
    let keys = secret_keys(&options.sign.sign_key)?;
    let set = options.set.clone().unwrap_or_else(|| freight.set(&roots));
    let level = options.level.zstd();
    let pack_options =
        PackOptions { set, roots, level, sign_with: keys.clone(), ..PackOptions::default() };
    let sink = Sink::new(&options.output, "a bundle")?.apart_from([options.from.as_path()])?;
    let (report, written) = sink.write(|sink| {
        let name = options.output.display().to_string();
        let store_dir = freight.store().store_dir().clone();
        let bundle = BundleWriter::new(sink, name, store_dir, pack_options);
        copy(freight.store(), &bundle, offered(freight), &keys, &*context.bars)
    })?;
    Ok((report, written.size()))
}

fn into_export(
    context: &Context,
    options: &Convert,
    freight: &Freight,
) -> Result<(CopyReport, Option<u64>), Failure> {
    let sink =
        Sink::new(&options.output, "an export stream")?.apart_from([options.from.as_path()])?;
    let (report, written) = sink.write(|sink| {
        let name = options.output.display().to_string();
        let stream = ExportWriter::new(sink, name, freight.store().store_dir().clone());
        copy(freight.store(), &stream, offered(freight), &[], &*context.bars)
    })?;
    Ok((report, written.size()))
}

fn into_directory(
    context: &Context,
    options: &Convert,
    freight: &Freight,
) -> Result<(CopyReport, Option<u64>), Failure> {
    refuse_stream(options)?;
    let (added, nar_size) =
        write_derivations(freight.store(), freight.path_infos(), &options.output, &*context.bars)?;
    Ok((CopyReport { added, nar_size, ..CopyReport::default() }, None))
}

fn into_cache(
    context: &Context,
    options: &Convert,
    freight: &Freight,
) -> Result<(CopyReport, Option<u64>), Failure> {
    refuse_stream(options)?;
    let place = options.output.to_string_lossy();
    let address = cache_address(context, &place)?;
    let mut keys = secret_keys(&options.sign.sign_key)?;
    keys.extend(secret_keys(&address.secret_key_files)?);
    let store = freight.store();
    let cache = open_cache(context, &place, &address, store.store_dir())?;
    Ok((copy(store, &cache, offered(freight), &keys, &*context.bars)?, None))
}

fn refuse_stream(options: &Convert) -> Result<(), Failure> {
    if options.output == Path::new("-") {
        return Err(Failure::usage("a directory cannot be standard output"));
    }
    Ok(())
}

/// What had no place in the new format.
#[derive(Default)]
struct Lost {
    others: usize,
    signed: usize,
    content_addressed: usize,
    realisations: usize,
}

impl Lost {
    fn count(freight: &Freight, to: Format) -> Result<Self, Failure> {
        let infos = freight.path_infos();
        let realisations = match to {
            Format::Bundle | Format::Cache => 0,
            Format::Export | Format::Drvs => {
                freight.store().realisations(&offered(freight).into())?.len()
            }
        };
        let count = |holds: &dyn Fn(&PathInfo) -> bool| infos.iter().filter(|it| holds(it)).count();
        let signed = |info: &PathInfo| !info.signatures.is_empty();
        let none = Self { realisations, ..Self::default() };
        Ok(match to {
            Format::Bundle | Format::Cache => none,
            Format::Export => Self {
                signed: count(&signed),
                content_addressed: count(&|info| info.ca.is_some()),
                ..none
            },
            Format::Drvs => Self {
                signed: count(&|info| signed(info) && info.path.is_derivation()),
                others: count(&|info| !info.path.is_derivation()),
                ..none
            },
        })
    }

    fn json(&self) -> Value {
        json!({
            "paths": self.others,
            "signaturesOfPaths": self.signed,
            "contentAddressesOfPaths": self.content_addressed,
            "realisations": self.realisations,
        })
    }
}

fn tell(
    context: &Context,
    options: &Convert,
    freight: &Freight,
    to: Format,
    (report, size): (&CopyReport, Option<u64>),
    lost: &Lost,
) {
    let target = match options.output.to_str() {
        Some("-") => "standard output".to_owned(),
        _ => options.output.display().to_string(),
    };
    let size = size.map(|size| format!(" ({})", output::size(size))).unwrap_or_default();
    context.talk.say(format!(
        "converted {}, {} of NARs, into {target}{size}",
        output::paths(report.added as u64),
        output::size(report.nar_size),
    ));
    if to == Format::Export && lost.signed > 0 {
        context.talk.say(format!(
            "left out the signatures of {}: an export stream has no place for them, and Nix \
             imports it only for users whom it trusts",
            output::paths(lost.signed as u64),
        ));
    }
    if lost.realisations > 0 {
        context.talk.say(format!(
            "{} realisations (of which outputs became which paths) have no place there: the other \
             side builds again what it has the outputs of",
            lost.realisations
        ));
    }
    if lost.others > 0 {
        context.talk.say(format!(
            "left out {} that {} no derivation",
            output::paths(lost.others as u64),
            if lost.others == 1 { "is" } else { "are" },
        ));
    }
    let unproved =
        freight.path_infos().iter().filter(|info| info.ca.is_none() && info.signatures.is_empty());
    let unproved = unproved.count();
    if freight.format() != Format::Bundle && unproved > 0 && options.sign.sign_key.is_empty() {
        context.talk.say(format!(
            "{} without a signature or a content address: loading needs --no-check-sigs, or \
             convert with --sign-key",
            output::paths(unproved as u64),
        ));
    }
}
