//! `ferry info`: what a bundle says about itself.

use ferry_bundle::Volumes;
use ferry_store::Store as _;
use serde_json::json;

use crate::cli::Info;
use crate::context::{Context, open_bundle};
use crate::failure::Failure;
use crate::output;
use crate::volumes;

pub(crate) fn run(context: &Context, options: &Info) -> Result<(), Failure> {
    let against = context.open_against(options.against.as_ref())?;
    let bundle = open_bundle(&options.files, against.as_ref())?;
    let volumes = bundle.volumes().map(Volumes::list);
    let named = volumes::named(&bundle, &options.files);
    let manifest = bundle.manifest();
    let store_dir = bundle.store_dir();
    let roots: Vec<String> =
        manifest.root_paths().iter().map(|root| store_dir.render_path(root)).collect();
    let signed_by: Vec<&str> =
        bundle.signatures().iter().map(|signature| signature.key_name.as_str()).collect();
    let derivations = bundle.path_infos().iter().filter(|info| info.path.is_derivation()).count();
    let file_size = match bundle.volumes() {
        Some(volumes) => Some(volumes.bundle_size()),
        None => std::fs::metadata(&named).map(|metadata| metadata.len()).ok(),
    };
    let prerequisites: Vec<String> =
        bundle.prerequisites().iter().map(|one| store_dir.render_path(&one.path)).collect();
    let evaluations: Vec<String> =
        manifest.evaluation_paths().iter().map(|path| store_dir.render_path(path)).collect();
    if context.json {
        return output::json(json!({
            "bundle": named,
            "volumes": volumes.as_deref().map(volumes::json),
            "bundleSize": file_size,
            "formatVersion": bundle.format_version(),
            "storeDir": manifest.store_dir,
            "set": manifest.set,
            "roots": roots,
            "evaluations": evaluations,
            "paths": manifest.paths,
            "derivations": derivations,
            "narSize": manifest.nar_size,
            "prerequisites": prerequisites,
            "headDigest": bundle.head_digest().to_string(),
            "signedBy": signed_by,
        }));
    }
    let mut lines = vec![
        format!("format version:  {}", bundle.format_version()),
        format!("store directory: {}", manifest.store_dir),
        format!("set:             {}", manifest.set),
    ];
    lines.extend(roots.iter().map(|root| format!("root:            {root}")));
    lines.extend(evaluations.iter().map(|path| format!("evaluation:      {path}")));
    lines.push(format!("paths:           {} ({derivations} derivations)", manifest.paths));
    lines.push(format!("NARs:            {}", output::size(manifest.nar_size)));
    lines.extend(prerequisites.iter().map(|path| format!("prerequisite:    {path}")));
    if let Some(size) = file_size {
        lines.push(format!("bundle:          {}", output::size(size)));
    }
    lines.push(format!("head digest:     {}", bundle.head_digest()));
    let signers = if signed_by.is_empty() { "nobody".to_owned() } else { signed_by.join(", ") };
    lines.push(format!("signed by:       {signers}"));
    let volumes = volumes.iter().flatten();
    lines.extend(volumes.map(|volume| format!("{:<17}{}", "volume:", volumes::line(volume))));
    output::line(lines.join("\n").as_bytes())
}
