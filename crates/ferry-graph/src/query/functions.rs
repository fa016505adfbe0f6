//! The functions that are built in: one table for the checks, for `--functions` and for the
//! manual.

use std::fmt::Write as _;

/// What an argument has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Set(&'static str),
    Regex,
    Kinds,
    Store,
    File,
    SetName,
    /// May be left out.
    Depth,
}

impl Parameter {
    /// What it is called in a signature.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Set(name) => name,
            Self::Regex => "regex",
            Self::Kinds => "kinds",
            Self::Store => "store",
            Self::File => "file",
            Self::SetName => "NAME",
            Self::Depth => "depth",
        }
    }
}

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Id {
    All,
    Build,
    Closure,
    Deriver,
    Drvs,
    Eval,
    Fods,
    Have,
    Ifd,
    Name,
    Outputs,
    Path,
    Rdeps,
    Run,
    Set,
    Srcs,
    Until,
    Valid,
}

/// A function of the query language.
#[derive(Debug)]
pub struct Function {
    pub(super) id: Id,
    /// What it is called.
    pub name: &'static str,
    pub(super) parameters: &'static [Parameter],
    /// What it yields, in one line.
    pub doc: &'static str,
    /// A use of it.
    pub example: &'static str,
}

impl Function {
    /// How it is called, such as `closure(kinds, x[, depth])`.
    #[must_use]
    pub fn signature(&self) -> String {
        let mut text = format!("{}(", self.name);
        for (index, parameter) in self.parameters.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            // Writing to a string does not fail.
            let _ = match parameter {
                Parameter::Depth => write!(text, "[{comma}{}]", parameter.name()),
                _ => write!(text, "{comma}{}", parameter.name()),
            };
        }
        text.push(')');
        text
    }
}

/// Every function that is built in, in the order in which a manual tells of them.
#[must_use]
pub fn functions() -> &'static [Function] {
    FUNCTIONS
}

pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

const X: Parameter = Parameter::Set("x");

const FUNCTIONS: &[Function] = &[
    Function {
        id: Id::Run,
        name: "run",
        parameters: &[X],
        doc: "what the objects in x refer to",
        example: "run(./result)",
    },
    Function {
        id: Id::Build,
        name: "build",
        parameters: &[X],
        doc: "what a build of x reads: outputs of other derivations, and sources",
        example: "build(hello.drv)",
    },
    Function {
        id: Id::Eval,
        name: "eval",
        parameters: &[X],
        doc: "what had to be there before the derivations of x could exist (from a recorded \
              evaluation)",
        example: "eval(hello.drv)",
    },
    Function {
        id: Id::Closure,
        name: "closure",
        parameters: &[Parameter::Kinds, X, Parameter::Depth],
        doc: "x and all that it reaches, at most depth steps away",
        example: "closure(run+build, ./result, 2)",
    },
    Function {
        id: Id::Until,
        name: "until",
        parameters: &[Parameter::Kinds, X, Parameter::Set("stop")],
        doc: "like closure, but goes no further from what is in stop (which it takes along)",
        example: "until(build, hello.drv, fods(closure(build, hello.drv)))",
    },
    Function {
        id: Id::Outputs,
        name: "outputs",
        parameters: &[X],
        doc: "the outputs of the derivations in x",
        example: "outputs(hello.drv)",
    },
    Function {
        id: Id::Deriver,
        name: "deriver",
        parameters: &[X],
        doc: "the derivations that made x",
        example: "deriver(./result)",
    },
    Function {
        id: Id::Drvs,
        name: "drvs",
        parameters: &[X],
        doc: "those of x that are derivations",
        example: "drvs(closure(run, hello.drv))",
    },
    Function {
        id: Id::Srcs,
        name: "srcs",
        parameters: &[X],
        doc: "those of x that no derivation makes: sources",
        example: "srcs(closure(run, hello.drv))",
    },
    Function {
        id: Id::Fods,
        name: "fods",
        parameters: &[X],
        doc: "those of x that are fixed-output derivations, or outputs of one",
        example: "fods(closure(build, hello.drv))",
    },
    Function {
        id: Id::Ifd,
        name: "ifd",
        parameters: &[X],
        doc: "the outputs that evaluating x had built: import-from-derivation",
        example: "ifd(hello.drv)",
    },
    Function {
        id: Id::Name,
        name: "name",
        parameters: &[Parameter::Regex, X],
        doc: "those of x in whose name (without the digest) the regular expression is found",
        example: "name(\"^gcc-[0-9]\", closure(run, ./result))",
    },
    Function {
        id: Id::Valid,
        name: "valid",
        parameters: &[Parameter::Store, X],
        doc: "those of x that are valid in a store",
        example: "closure(run, ./result) - valid(https://cache.nixos.org, closure(run, ./result))",
    },
    Function {
        id: Id::Have,
        name: "have",
        parameters: &[Parameter::File],
        doc: "the store paths that an inventory file has; one in compact form is only asked: `x - have(file)`, `x & have(file)`",
        example: "closure(run, ./result) - have(island.inventory)",
    },
    Function {
        id: Id::All,
        name: "all",
        parameters: &[],
        doc: "every object of the stores and files asked; one that cannot list what it has is a fact that is missing",
        example: "name(\"^linux-\", all())",
    },
    Function {
        id: Id::Rdeps,
        name: "rdeps",
        parameters: &[Parameter::Kinds, Parameter::Set("universe"), X, Parameter::Depth],
        doc: "those in the closure of universe that reach x, at most depth steps away, and x itself",
        example: "rdeps(run, ./result, name(\"^openssl-\", closure(run, ./result)), 1)",
    },
    Function {
        id: Id::Path,
        name: "path",
        parameters: &[Parameter::Kinds, Parameter::Set("a"), Parameter::Set("b")],
        doc: "what lies on a shortest way from a to b, both ends included",
        example: "path(run, ./result, name(\"^gcc-[0-9]\", closure(run, ./result)))",
    },
    Function {
        id: Id::Set,
        name: "set",
        parameters: &[Parameter::SetName, X],
        doc: "a named set of x",
        example: "set(runtime, ./result)",
    },
];

/// The one that was probably meant: the nearest of `known`, if any is near. At most every third
/// letter may be wrong.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are no slips of the finger, and comparing them would take long.
    const LONGEST: usize = 60;
    if word.len() > LONGEST {
        return None;
    }
    let distance = |name: &str| strsim::osa_distance(&word.to_lowercase(), &name.to_lowercase());
    known
        .into_iter()
        .filter(|name| name.len() <= LONGEST && *name != word)
        .map(|name| (distance(name), name))
        .filter(|(distance, name)| *distance <= name.chars().count() / 3)
        // Where two are equally near, the one that was named first.
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
