//! `ferry verify`: everything in a bundle, checked.

use ferry_bundle::{Bundle, Condition, VerifyReport, Volume, verify, verify_against};
use ferry_store::Store as _;
use ferry_store::copy::require_same_directory;
use ferry_store::uri::OpenStore;
use serde_json::json;

use crate::base::read_content_from;
use crate::cli::Verify;
use crate::commands::prerequisites;
use crate::context::{Context, open_bundle, require_bundle_key};
use crate::failure::Failure;
use crate::output;
use crate::volumes;

pub(crate) fn run(context: &Context, options: &Verify) -> Result<(), Failure> {
    let trust = context.trust(&options.trust)?;
    let against = context.open_against(options.against.as_ref())?;
    let volumes = volumes::checked(context, &options.files)?;
    let told = |failure: Failure| match context.json && failure.is_of_the_work() {
        true => tell_failure(options, volumes.as_deref(), failure),
        false => failure,
    };
    let mut bundle = open_bundle(&options.files, against.as_ref()).map_err(told)?;
    require_bundle_key(&bundle, &options.keys).map_err(told)?;
    if let Some(store) = &against {
        require_same_directory(&bundle, store.destination())?;
        prerequisites::require(context, &bundle, store.destination())?;
        read_content_from(&mut bundle, store).map_err(told)?;
    }
    let report = match &against {
        None => verify(&bundle, &trust, &*context.bars),
        Some(store) => verify_against(&bundle, store.destination(), &trust, &*context.bars),
    };
    let report = report.map_err(Failure::from).map_err(told)?;
    let prerequisites = bundle.prerequisites().len() as u64;
    // What parity stands in for today may be more than it can tomorrow.
    let not_whole = volumes.iter().flatten().filter(|one| one.condition != Condition::Whole);
    let not_whole = not_whole.count();
    let store_dir = bundle.store_dir();
    if context.json {
        output::json(json!({
            "bundle": volumes::named(&bundle, &options.files),
            "volumes": volumes.as_deref().map(volumes::json),
            "volumesNotWhole": volumes.is_some().then_some(not_whole),
            "valid": true,
            "paths": report.copied.added,
            "narSize": report.copied.nar_size,
            "prerequisites": prerequisites,
            "against": options.against,
            "contentAddressed": report.content_addressed,
            "signedByTrusted": report.signed_by_trusted,
            "signedBy": report.signed_by,
            "untrusted":
                report.untrusted.iter().map(|path| store_dir.render_path(path)).collect::<Vec<_>>(),
        }))?;
    } else {
        tell(context, &bundle, &report, against.as_ref());
    }
    if options.require_sigs && !report.untrusted.is_empty() {
        let untrusted = report.untrusted.iter().map(|path| store_dir.render_path(path)).collect();
        return Err(Failure::new(format!(
            "no trusted key has signed {} of it:",
            output::paths(report.untrusted.len() as u64)
        ))
        .list(untrusted)
        .hint(
            "sign when packing (--sign-key) and name that key here (--trusted-public-key, or \
             trusted-public-keys in nix.conf)",
        ));
    }
    match not_whole {
        0 => Ok(()),
        count => Err(Failure::new(format!(
            "{}: all of it can be read, but {count} of its volumes are missing or damaged",
            bundle.name(),
        ))
        .hint("`ferry repair` with one of them writes those again; think of what they lie on")),
    }
}

/// Prints for programs what is wrong, which people are told elsewhere.
fn tell_failure(options: &Verify, volumes: Option<&[Volume]>, failure: Failure) -> Failure {
    let name = options.files.first().map(|file| file.display().to_string());
    let mut fields = failure.json();
    if let Some(object) = fields.as_object_mut() {
        object.insert("bundle".to_owned(), json!(name));
        object.insert("valid".to_owned(), json!(false));
        object.insert("volumes".to_owned(), json!(volumes.map(volumes::json)));
    }
    match output::json(fields) {
        Ok(()) => failure,
        Err(unwritten) => unwritten,
    }
}

fn tell(context: &Context, bundle: &Bundle, report: &VerifyReport, against: Option<&OpenStore>) {
    let prerequisites = bundle.prerequisites().len() as u64;
    context.talk.say(format!(
        "{} is whole: {}, {} of NARs, every hash right",
        bundle.describe(),
        output::paths(report.copied.added as u64),
        output::size(report.copied.nar_size),
    ));
    context.talk.say(format!(
        "{} content-addressed, {} signed by a trusted key, {} that need --no-check-sigs here",
        report.content_addressed,
        report.signed_by_trusted,
        report.untrusted.len(),
    ));
    if prerequisites > 0 {
        context.talk.say(match against {
            Some(store) => format!(
                "{} has what it leaves to it ({})",
                store.store().describe(),
                output::paths(prerequisites),
            ),
            None => format!(
                "it leaves {} to the store that receives it: --against STORE looks for them",
                output::paths(prerequisites),
            ),
        });
    }
}
