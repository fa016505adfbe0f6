//! A derivation's text, put together again, in the three forms that Nix hashes.

use std::collections::BTreeMap;

use hashbrown::HashSet;

use ferry_formats::base16::put_hex;
use ferry_formats::derivation::{DerivationModuloHash, hash_placeholder};

use crate::derivations::model::{
    Addressing, Identity, Kind, Known, KnownOutput, Recipe, Shape, Tables, Target, Template,
    column, column_of,
};
use crate::derivations::side_by_side::Earlier;
use crate::derivations::tokens::{Name, Piece, named, pieces};
use crate::format::limit;

/// Everything that a text may need.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) tables: &'a Tables,
    /// Index entries, with the store directory.
    pub(crate) plain: &'a [Box<str>],
    /// The derivations before this one.
    pub(crate) known: Earlier<'a>,
}

/// Which text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// That of the file.
    File,
    /// With hashes in place of inputs: its hash stands for the derivation as an input.
    AsInput,
    /// And without its own output paths, which follow from the hash of this.
    Masked,
}

/// The inputs of a derivation, sorted as they stand in its text.
pub(crate) struct Inputs<'a> {
    /// The paths of derivations, their numbers, and the names of their outputs.
    pub(crate) derivations: Vec<(&'a str, u32, Vec<&'a str>)>,
    pub(crate) sources: Vec<(&'a str, Target)>,
}

impl<'a> Context<'a> {
    pub(crate) fn shape(&self, number: u32) -> Result<&'a Shape, String> {
        self.tables.shapes.get(number as usize).ok_or_else(|| format!("no shape {number}"))
    }

    pub(crate) fn word(&self, number: u32) -> Result<&'a str, String> {
        let word = self.tables.words.get(number as usize).map(String::as_str);
        word.ok_or_else(|| format!("no output name {number}"))
    }

    pub(crate) fn template(&self, column: usize, number: u32) -> Result<&'a Template, String> {
        let template = self.tables.columns.get(column).and_then(|all| all.get(number as usize));
        template.ok_or_else(|| format!("no string {number} in column {column}"))
    }

    pub(crate) fn known(&self, number: u32) -> Result<&'a Known, String> {
        self.known.get(number).ok_or_else(|| format!("no derivation {number} before it"))
    }

    /// What is written for something that is mentioned.
    pub(crate) fn text(&self, target: Target) -> Result<&'a str, String> {
        match target {
            Target::Plain(number) => match self.plain.get(number as usize) {
                Some(path) => Ok(path),
                None => Err(format!("no path {number}")),
            },
            Target::Derivation(number) => Ok(&self.known(number)?.rendered),
            Target::Output { derivation, word } => {
                let known = self.known(derivation)?;
                let output = known.outputs.iter().find(|output| output.word == word);
                output
                    .map(|output| &*output.text)
                    .ok_or_else(|| format!("{} has no such output", known.rendered))
            }
        }
    }

    /// The inputs: what the strings mention, and what else the recipe says.
    pub(crate) fn inputs(&self, recipe: &Recipe) -> Result<Inputs<'a>, String> {
        let mut seen = HashSet::new();
        let mut different: Vec<Target> = Vec::new();
        for target in &recipe.mentions {
            if seen.insert(*target) {
                different.push(*target);
            }
        }
        let mut dropped = recipe.dropped.iter().copied().peekable();
        let mut outputs: Vec<(u32, &'a str)> = Vec::new();
        let mut sources = Vec::new();
        let mut add = |target: Target| {
            match target {
                Target::Output { derivation, word } => {
                    self.text(target)?;
                    outputs.push((derivation, self.word(word)?));
                }
                source => sources.push((self.text(source)?, source)),
            }
            Ok::<(), String>(())
        };
        for (target, place) in different.iter().zip(0..) {
            if dropped.next_if_eq(&place).is_none() {
                add(*target)?;
            }
        }
        if dropped.next().is_some() {
            return Err("it leaves out an input that it does not mention".to_owned());
        }
        for target in &recipe.extra {
            add(*target)?;
        }
        sources.sort_unstable_by_key(|(path, _)| *path);
        outputs.sort_unstable();
        let twice = sources.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b))
            || outputs.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
        let mut derivations = Vec::new();
        for group in outputs.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((number, _)) = group.first() else { continue };
            let names = group.iter().map(|(_, name)| *name).collect();
            derivations.push((&*self.known(*number)?.rendered, *number, names));
        }
        derivations.sort_unstable_by_key(|(path, ..)| *path);
        let twice = twice
            || derivations.windows(2).any(|pair| matches!(pair, [(a, ..), (b, ..)] if a == b));
        if twice {
            return Err("it has an input twice".to_owned());
        }
        Ok(Inputs { derivations, sources })
    }

    /// What stands for each input in a hash, or `None` where one is not known before building.
    pub(crate) fn hashes(
        &self,
        inputs: &Inputs<'a>,
    ) -> Result<Option<BTreeMap<DerivationModuloHash, Vec<&'a str>>>, String> {
        let mut hashes = BTreeMap::new();
        for (path, number, outputs) in &inputs.derivations {
            match self.known(*number)?.identity {
                Identity::Regular(hash) => hashes.insert(hash, outputs.clone()),
                Identity::Fixed(hash) if outputs.as_slice() == ["out"] => {
                    hashes.insert(hash, outputs.clone())
                }
                Identity::Fixed(_) => return Err(format!("{path} has only the output out")),
                Identity::Deferred => return Ok(None),
            };
        }
        Ok(Some(hashes))
    }
}

/// One derivation, to be written in any form.
pub(crate) struct Text<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) recipe: &'a Recipe,
    pub(crate) shape: &'a Shape,
    pub(crate) name: &'a [u8],
    pub(crate) inputs: &'a Inputs<'a>,
    pub(crate) hashes: &'a BTreeMap<DerivationModuloHash, Vec<&'a str>>,
}

/// What stands behind outputs and inputs, which is nearly the same in all forms.
pub(crate) struct Body {
    bytes: Vec<u8>,
    /// Where values belong that differ: those of variables that are called like an output.
    holes: Vec<Hole>,
}

struct Hole {
    at: usize,
    /// The place of the output in the shape.
    output: usize,
    column: usize,
    value: u32,
    /// The first mention in it, among those of the recipe.
    mention: usize,
}

impl Text<'_> {
    /// Writes what comes first; `own` are its outputs, empty as long as they are not known.
    fn write_head(&self, form: Form, own: &[KnownOutput], out: &mut Vec<u8>) -> Result<(), String> {
        out.extend(b"Derive([");
        for (place, (word, kind)) in self.shape.outputs.iter().enumerate() {
            out.extend(if place > 0 { &b",(\""[..] } else { b"(\"" });
            out.extend(self.context.word(*word)?.as_bytes());
            out.extend(b"\",\"");
            if form != Form::Masked {
                out.extend(path_of(own.get(place)));
            }
            out.extend(b"\",\"");
            self.write_kind(*kind, out);
            out.extend(b"\")");
        }
        out.extend(b"],[");
        self.write_inputs(form, out);
        Ok(())
    }

    /// Writes the rest, once for all forms.
    pub(crate) fn body(&self) -> Result<Body, String> {
        let mut body = Body { bytes: Vec::with_capacity(4096), holes: Vec::new() };
        let out = &mut body.bytes;
        out.extend(b"],[");
        write_list(out, self.inputs.sources.iter().map(|(path, _)| path.as_bytes()));
        out.extend(b"],\"");
        let all = &self.recipe.mentions;
        let mut mentions = all.iter();
        let mut values = self.recipe.values.iter().copied();
        let mut next = |column: usize, out: &mut Vec<u8>| {
            let value = values.next().ok_or("a string is missing")?;
            let template = self.context.template(column, value)?;
            let mention = all.len() - mentions.len();
            self.expand(template, &mut mentions.by_ref().copied(), None, out)?;
            Ok::<_, String>((value, mention))
        };
        next(column::NAME, &mut Vec::new())?;
        next(column::SYSTEM, out)?;
        out.extend(b"\",\"");
        next(column::BUILDER, out)?;
        out.extend(b"\",[");
        let before = out.len();
        out.push(b'"');
        next(column::ARGUMENTS, out)?;
        // Each argument ends with what begins the next: too much behind the last.
        let after = out.len();
        out.truncate(if after == before + 1 { before } else { after - 2 });
        out.extend(b"],[");
        let mut hidden = Vec::new();
        for (place, key) in self.shape.keys.iter().enumerate() {
            let text = self.context.tables.keys.get(*key as usize).ok_or("a key is missing")?;
            out.extend(if place > 0 { &b",(\""[..] } else { b"(\"" });
            out.extend(text.iter());
            out.extend(b"\",\"");
            let column = column_of(*key);
            match self.own_output(text)? {
                Some(output) => {
                    hidden.clear();
                    let (value, mention) = next(column, &mut hidden)?;
                    body.holes.push(Hole { at: out.len(), output, column, value, mention });
                }
                None => drop(next(column, out)?),
            }
            out.extend(b"\")");
        }
        out.extend(b"])");
        Ok(body)
    }

    /// Hands over all of it, piece by piece.
    pub(crate) fn pieces(
        &self,
        form: Form,
        own: &[KnownOutput],
        body: &Body,
        mut put: impl FnMut(&[u8]),
    ) -> Result<(), String> {
        let mut length = 0;
        let mut put = |piece: &[u8]| {
            length += piece.len();
            put(piece);
            match length > limit::DERIVATION {
                true => Err("it is longer than a derivation may be".to_owned()),
                false => Ok(()),
            }
        };
        let mut buffer = Vec::with_capacity(1024);
        self.write_head(form, own, &mut buffer)?;
        put(&buffer)?;
        let mut from = 0;
        for hole in &body.holes {
            put(body.bytes.get(from..hole.at).unwrap_or_default())?;
            from = hole.at;
            if form != Form::Masked {
                buffer.clear();
                let template = self.context.template(hole.column, hole.value)?;
                let mentions = self.recipe.mentions.get(hole.mention..).unwrap_or_default();
                let own = own.get(hole.output);
                self.expand(template, &mut mentions.iter().copied(), own, &mut buffer)?;
                put(&buffer)?;
            }
        }
        put(body.bytes.get(from..).unwrap_or_default())
    }

    /// The place of the output of this name, if there is one.
    fn own_output(&self, key: &[u8]) -> Result<Option<usize>, String> {
        for (place, (word, _)) in self.shape.outputs.iter().enumerate() {
            if self.context.word(*word)?.as_bytes() == key {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn write_kind(&self, kind: Kind, out: &mut Vec<u8>) {
        let addressed = |out: &mut Vec<u8>, by: Addressing| {
            out.extend(by.prefix().as_bytes());
            out.extend(by.algorithm.as_str().as_bytes());
            out.extend(b"\",\"");
        };
        match kind {
            Kind::InputAddressed | Kind::Deferred => out.extend(b"\",\""),
            Kind::Floating(by) => addressed(out, by),
            Kind::Impure(by) => {
                addressed(out, by);
                out.extend(b"impure");
            }
            Kind::Fixed(by) => {
                addressed(out, by);
                put_hex(out, &self.recipe.digest);
            }
        }
    }

    fn write_inputs(&self, form: Form, out: &mut Vec<u8>) {
        let mut hex = Vec::new();
        let mut first = true;
        let mut put = |input: &[u8], outputs: &[&str]| {
            out.extend(if std::mem::take(&mut first) { &b"(\""[..] } else { b",(\"" });
            out.extend(input);
            out.extend(b"\",[");
            write_list(out, outputs.iter().map(|output| output.as_bytes()));
            out.extend(b"])");
        };
        if form == Form::File {
            self.inputs
                .derivations
                .iter()
                .for_each(|(path, _, outputs)| put(path.as_bytes(), outputs));
        } else {
            for (hash, outputs) in self.hashes {
                hex.clear();
                put_hex(&mut hex, hash.as_bytes());
                put(&hex, outputs);
            }
        }
    }

    fn expand(
        &self,
        template: &Template,
        mentions: &mut impl Iterator<Item = Target>,
        own: Option<&KnownOutput>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if template.is_text && out.len() + template.bytes.len() <= limit::DERIVATION {
            out.extend_from_slice(&template.bytes);
            return Ok(());
        }
        let name = Name::new(self.name);
        pieces(&template.bytes, |piece| {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Byte(byte) => out.push(byte),
                Piece::Mention => {
                    let target = mentions.next().ok_or("it mentions too little")?;
                    out.extend_from_slice(self.context.text(target)?.as_bytes());
                }
                Piece::Placeholder(word) => {
                    out.extend_from_slice(hash_placeholder(self.context.word(word)?).as_bytes());
                }
                Piece::OwnOutput => out.extend_from_slice(path_of(own)),
                Piece::Name(token) => out.extend_from_slice(named(name, token)?),
                Piece::ArgumentEnd => out.extend_from_slice(b"\",\""),
            }
            // Here, as a token of one byte may stand for hundreds.
            if out.len() > limit::DERIVATION {
                return Err("it is longer than a derivation may be".to_owned());
            }
            Ok(())
        })
    }
}

fn path_of(output: Option<&KnownOutput>) -> &[u8] {
    output.filter(|output| output.is_path).map_or(b"", |output| output.text.as_bytes())
}

fn write_list<'a>(out: &mut Vec<u8>, strings: impl Iterator<Item = &'a [u8]>) {
    for (place, string) in strings.enumerate() {
        out.extend(if place > 0 { &b",\""[..] } else { b"\"" });
        out.extend(string);
        out.push(b'"');
    }
}
