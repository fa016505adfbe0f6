//! What follows from a derivation: its path, those of its outputs, and what its dependents need.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ferry_formats::derivation::{DerivationModuloHash, downstream_placeholder, fixed_output_hash};
use ferry_formats::{ContentAddress, NarHash, PathInfo, StoreDir, StorePath, content_address, nar};

use sha2::{Digest as _, Sha256};

use crate::derivations::model::{
    Addressing, Identity, Kind, Known, KnownOutput, Recipe, Shape, Target, column,
};
use crate::derivations::render::{Context, Form, Text};
use crate::derivations::tokens::{Piece, pieces};

/// A derivation with everything that follows from it.
pub(crate) struct Settled {
    pub(crate) known: Known,
    pub(crate) references: Vec<StorePath>,
    /// The hash of the text.
    pub(crate) digest: [u8; 32],
    /// How many entries of the index have to stand before it.
    pub(crate) paths_before: u64,
    /// Bytes of its NAR.
    pub(crate) nar_size: u64,
    /// The hash of its NAR, which is computed last.
    pub(crate) nar_hash: NarHash,
}

impl Settled {
    /// What its dependents need, and its path info without signatures.
    pub(crate) fn known_and_info(self) -> (Known, PathInfo) {
        let Self { known, references, digest, nar_hash, nar_size, .. } = self;
        let info = PathInfo {
            path: known.path.clone(),
            nar_hash,
            nar_size,
            references: references.into(),
            deriver: None,
            ca: Some(ContentAddress::Text(digest)),
            signatures: Vec::new(),
        };
        (known, info)
    }
}

/// The size of the NAR of a plain file.
pub(crate) fn nar_size(length: usize) -> u64 {
    static EMPTY: LazyLock<u64> = LazyLock::new(|| nar::of_file(b"").len() as u64);
    *EMPTY + (length as u64).next_multiple_of(8)
}

/// The name of a derivation, which has no tokens but escaped bytes in it.
pub(crate) fn name_of(context: &Context<'_>, recipe: &Recipe) -> Result<Vec<u8>, String> {
    let number = recipe.values.get(column::NAME).copied().ok_or("it has no name")?;
    let mut name = Vec::new();
    pieces(&context.template(column::NAME, number)?.bytes, |piece| {
        match piece {
            Piece::Text(text) => name.extend_from_slice(text),
            _ => return Err("a name with tokens in it".to_owned()),
        }
        Ok(())
    })?;
    Ok(name)
}

/// The file's text, where the outputs are known.
pub(crate) fn text_of(
    context: &Context<'_>,
    recipe: &Recipe,
    own: &[KnownOutput],
) -> Result<Vec<u8>, String> {
    let inputs = context.inputs(recipe)?;
    let mut out = Vec::new();
    let text = Text {
        context,
        recipe,
        shape: context.shape(recipe.shape)?,
        name: &name_of(context, recipe)?,
        inputs: &inputs,
        hashes: &BTreeMap::new(),
    };
    text.pieces(Form::File, own, &text.body()?, |piece| out.extend_from_slice(piece))?;
    Ok(out)
}

/// Computes everything; `out` is left with the file's text.
pub(crate) fn settle(
    store_dir: &StoreDir,
    paths: &dyn Fn(Target) -> Option<StorePath>,
    context: &Context<'_>,
    recipe: &Recipe,
    out: &mut Vec<u8>,
) -> Result<Settled, String> {
    let name = name_of(context, recipe)?;
    let name = std::str::from_utf8(&name).map_err(|_| "its name is not text")?;
    let shape = context.shape(recipe.shape)?;
    let inputs = context.inputs(recipe)?;
    let hashes = context.hashes(&inputs)?;
    let none = BTreeMap::new();
    let text = Text {
        context,
        recipe,
        shape,
        name: name.as_bytes(),
        inputs: &inputs,
        hashes: hashes.as_ref().unwrap_or(&none),
    };
    let body = text.body()?;
    let hash = |form: Form, own: &[KnownOutput]| {
        if hashes.is_none() {
            return Err("it depends on outputs that are known only when they are built".to_owned());
        }
        let mut hasher = Sha256::new();
        text.pieces(form, own, &body, |piece| hasher.update(piece))?;
        Ok(DerivationModuloHash::new(hasher.finalize().into()))
    };

    let mut outputs: Box<[KnownOutput]>;
    let identity;
    match kind_of_all(shape)? {
        Kind::InputAddressed => {
            let modulo = hash(Form::Masked, &[])?;
            outputs = own_paths(context, shape, |word| {
                store_dir.build_output_path(modulo, word, name).map_err(|error| error.to_string())
            })
            .map(|paths| render(store_dir, shape, &paths))?;
            identity = Identity::Regular(hash(Form::AsInput, &outputs)?);
        }
        Kind::Fixed(by) => {
            if outputs_of(context, shape)? != ["out"] {
                return Err("a fixed output of another name than out".to_owned());
            }
            let path = fixed_path(store_dir, by, &recipe.digest, name)?;
            outputs = render(store_dir, shape, std::slice::from_ref(&path));
            let path = store_dir.render_path(&path);
            identity = Identity::Fixed(fixed_hash(by, &recipe.digest, &path));
        }
        Kind::Deferred | Kind::Floating(_) | Kind::Impure(_) => {
            outputs = Box::default();
            identity = Identity::Deferred;
        }
    }

    out.clear();
    text.pieces(Form::File, &outputs, &body, |piece| out.extend_from_slice(piece))?;
    let mut references = Vec::with_capacity(inputs.derivations.len() + inputs.sources.len());
    for (_, number, _) in &inputs.derivations {
        references.push(context.known(*number)?.path.clone());
    }
    for (_, source) in &inputs.sources {
        references.push(paths(*source).ok_or("a source that is not there")?);
    }
    references.sort_unstable();
    references.dedup();
    let paths_before = inputs.sources.iter().map(|(_, source)| match source {
        Target::Plain(number) => u64::from(*number) + 1,
        _ => 0,
    });
    let paths_before = paths_before.max().unwrap_or(0);
    let digest = NarHash::of(out).0;
    let address = ContentAddress::Text(digest);
    let path = format!("{name}.drv");
    let path = content_address::path(store_dir, &path, &address, references.iter(), false)
        .map_err(|error| error.to_string())?;
    if identity == Identity::Deferred {
        outputs = shape
            .outputs
            .iter()
            .map(|(word, _)| {
                let text = downstream_placeholder(&path, [context.word(*word)?])
                    .map_err(|error| error.to_string())?;
                Ok(KnownOutput { word: *word, text: text.into(), is_path: false })
            })
            .collect::<Result<_, String>>()?;
    }
    let rendered = store_dir.render_path(&path).into();
    let known = Known { path, rendered, outputs, identity };
    let (nar_size, nar_hash) = (nar_size(out.len()), NarHash([0; 32]));
    Ok(Settled { known, references, digest, paths_before, nar_size, nar_hash })
}

/// The kind that all outputs have in common, as Nix wants it.
fn kind_of_all(shape: &Shape) -> Result<Kind, String> {
    let Some((_, first)) = shape.outputs.first() else {
        return Err("a derivation without outputs".to_owned());
    };
    let alike = shape.outputs.iter().all(|(_, kind)| match (first, kind) {
        (Kind::Floating(a), Kind::Floating(b)) => a.algorithm == b.algorithm,
        (Kind::Impure(_), Kind::Impure(_)) => true,
        (a, b) => a == b,
    });
    match (alike, first) {
        (true, kind) => Ok(*kind),
        (false, _) => Err("outputs of different kinds".to_owned()),
    }
}

fn outputs_of<'a>(context: &Context<'a>, shape: &Shape) -> Result<Vec<&'a str>, String> {
    shape.outputs.iter().map(|(word, _)| context.word(*word)).collect()
}

fn own_paths(
    context: &Context<'_>,
    shape: &Shape,
    path: impl Fn(&str) -> Result<StorePath, String>,
) -> Result<Vec<StorePath>, String> {
    shape.outputs.iter().map(|(word, _)| path(context.word(*word)?)).collect()
}

fn render(store_dir: &StoreDir, shape: &Shape, paths: &[StorePath]) -> Box<[KnownOutput]> {
    let known = |((word, _), path): (&(u32, Kind), &StorePath)| KnownOutput {
        word: *word,
        text: store_dir.render_path(path).into_boxed_str(),
        is_path: true,
    };
    shape.outputs.iter().zip(paths).map(known).collect()
}

pub(crate) fn fixed_path(
    store_dir: &StoreDir,
    by: Addressing,
    digest: &[u8],
    name: &str,
) -> Result<StorePath, String> {
    let address = ContentAddress::from_parts(by.method, by.algorithm, digest)
        .map_err(|error| error.to_string())?;
    store_dir.build_ca_path(name, &address, [], false).map_err(|error| error.to_string())
}

/// What stands for a derivation with a fixed output.
pub(crate) fn fixed_hash(by: Addressing, digest: &[u8], path: &str) -> DerivationModuloHash {
    let method = format!("{}{}", by.prefix(), by.algorithm.as_str());
    fixed_output_hash(&method, digest, path)
}
