//! `ferry verify`: everything in a bundle, checked.

use ferry_bundle::verify;
use ferry_store::Store as _;
use serde_json::json;

use crate::cli::Verify;
use crate::context::{Context, open_bundle, require_bundle_key};
use crate::failure::Failure;
use crate::output;
use crate::volumes;

pub(crate) fn run(context: &Context, options: &Verify) -> Result<(), Failure> {
    let trust = context.trust(&options.trust)?;
    let volumes = volumes::checked(context, &options.files)?;
    let bundle = open_bundle(&options.files)?;
    require_bundle_key(&bundle, &options.keys)?;
    let report = verify(&bundle, &trust, &*context.bars)?;
    let store_dir = bundle.store_dir();
    if context.json {
        return output::json(json!({
            "bundle": volumes::named(&bundle, &options.files),
            "volumes": volumes.as_deref().map(volumes::json),
            "valid": true,
            "paths": report.copied.added,
            "narSize": report.copied.nar_size,
            "contentAddressed": report.content_addressed,
            "signedByTrusted": report.signed_by_trusted,
            "signedBy": report.signed_by,
            "untrusted":
                report.untrusted.iter().map(|path| store_dir.render_path(path)).collect::<Vec<_>>(),
        }));
    }
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
    Ok(())
}
