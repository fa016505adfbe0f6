//! What some stores hold, what their `.drv` files say and what was recorded: tables of text.

use std::collections::{BTreeMap, BTreeSet};

use ferry_formats::{StoreDir, StorePath};

/// Nodes, written out as the graph writes them.
pub(crate) type Names = BTreeSet<String>;

/// What a database says about a store path.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) references: Names,
    pub(crate) size: Option<u64>,
    pub(crate) deriver: Option<String>,
    pub(crate) content_addressed: Option<bool>,
}

/// What a `.drv` file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Drv {
    /// Name to path, where that is known before building.
    pub(crate) outputs: BTreeMap<String, Option<String>>,
    pub(crate) fixed: bool,
    /// A derivation, and `out` or `out^out`.
    pub(crate) inputs: BTreeSet<(String, String)>,
    pub(crate) sources: Names,
    pub(crate) exported: Names,
    pub(crate) never_substituted: bool,
}

impl Drv {
    /// What a database says a `.drv` refers to: all that it reads.
    pub(crate) fn references(&self) -> Names {
        self.inputs.iter().map(|(drv, _)| drv).chain(&self.sources).cloned().collect()
    }
}

/// A recorded evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Evaluation {
    pub(crate) needs: Names,
    pub(crate) fragments: Names,
}

/// All that is known, by store path.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) objects: BTreeMap<String, Record>,
    pub(crate) derivations: BTreeMap<String, Drv>,
    /// Derivation and output's name to the path it got.
    pub(crate) realised: BTreeMap<(String, String), String>,
    pub(crate) evaluations: BTreeMap<String, Evaluation>,
    /// Paths that are mentioned, or might be asked about, and that nobody has.
    pub(crate) strangers: Names,
}

impl World {
    /// Everything that one could ask about.
    pub(crate) fn nodes(&self) -> Vec<String> {
        let mut nodes: Names = self.strangers.clone();
        nodes.extend(self.objects.keys().cloned());
        for (path, drv) in &self.derivations {
            nodes.insert(path.clone());
            for (name, output) in &drv.outputs {
                let realised = self.realised.get(&(path.clone(), name.clone()));
                let node = output.as_ref().or(realised).cloned();
                nodes.insert(node.unwrap_or_else(|| format!("{path}^{name}")));
            }
        }
        nodes.into_iter().collect()
    }

    /// Adds an object that refers to these.
    pub(crate) fn object(&mut self, path: &str, references: &[&str]) -> &mut Record {
        let references = references.iter().map(|path| (*path).to_owned()).collect();
        let record = Record { references, ..Record::default() };
        self.objects.insert(path.to_owned(), record);
        self.objects.get_mut(path).expect("just inserted")
    }

    /// Adds a `.drv` file with one output, and its record in the database.
    pub(crate) fn derivation(
        &mut self,
        path: &str,
        output: &str,
        inputs: &[(&str, &str)],
    ) -> &mut Drv {
        let outputs = BTreeMap::from([("out".to_owned(), Some(output.to_owned()))]);
        let inputs =
            inputs.iter().map(|(drv, name)| ((*drv).to_owned(), (*name).to_owned())).collect();
        let drv = Drv { outputs, inputs, ..Drv::default() };
        self.objects
            .insert(path.to_owned(), Record { references: drv.references(), ..Record::default() });
        self.derivations.insert(path.to_owned(), drv);
        self.derivations.get_mut(path).expect("just inserted")
    }
}

/// A store path with this name. Its digest follows from the name, and its place in the order of
/// paths has nothing to do with when it was made.
pub(crate) fn path(name: &str) -> String {
    let mut digest = [0_u8; 20];
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for (index, byte) in digest.iter_mut().enumerate() {
        for letter in name.bytes().chain([u8::try_from(index).unwrap()]) {
            state = (state ^ u64::from(letter)).wrapping_mul(0x0100_0000_01b3);
        }
        *byte = state.to_be_bytes()[3];
    }
    let path = StorePath::from_parts(digest, name).expect("a name that Nix accepts");
    StoreDir::default().render_path(&path)
}

/// The store path that a text is.
pub(crate) fn parse(path: &str) -> StorePath {
    StoreDir::default().parse_path(path.as_bytes()).expect("a store path")
}
