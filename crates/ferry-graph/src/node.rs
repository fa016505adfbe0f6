//! Nodes: store objects by number, and the table that gives them their numbers.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hash as _, Hasher as _};

use ferry_formats::{StorePath, nixbase32};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

/// A node of one [`Graph`](crate::Graph): a store object, by number.
///
/// Numbers are given in the order in which objects are first heard of, and mean nothing in
/// another graph. (A graph that ran out of 32-bit numbers would need hundreds of gigabytes.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    pub(crate) fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a node stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A store path.
    Path(StorePath),
    /// An output whose path is not known yet: `derivation^name`. The derivation may be such an
    /// output itself.
    Output {
        /// What it is an output of.
        derivation: NodeId,
        /// The output's name.
        name: String,
    },
}

/// All nodes. Digests and names lie in two long arrays: a graph of a million objects is mostly
/// this table.
#[derive(Default)]
pub(crate) struct Nodes {
    /// Zeros for an output whose path is not known.
    digests: Vec<[u8; 20]>,
    names: String,
    /// Where each name ends in `names`; it begins where the one before it ends.
    ends: Vec<usize>,
    by_path: HashTable<u32>,
    /// What each output whose path is not known is an output of.
    derivations: HashMap<NodeId, NodeId>,
    by_output: HashMap<(NodeId, Box<str>), NodeId>,
    hasher: DefaultHashBuilder,
}

impl Nodes {
    pub(crate) fn len(&self) -> usize {
        self.digests.len()
    }

    /// The node of a store path, a new one if need be.
    pub(crate) fn path(&mut self, path: &StorePath) -> NodeId {
        let hash = self.hash(path.digest(), path.name());
        let found = self.by_path.find(hash, |&index| self.is(index, path.digest(), path.name()));
        if let Some(&index) = found {
            return NodeId(index);
        }
        let node = self.push(*path.digest(), path.name());
        let Self { by_path, digests, names, ends, hasher, .. } = self;
        by_path.insert_unique(hash, node.0, |&index| {
            let index = index as usize;
            let digest = digests.get(index).copied().unwrap_or_default();
            hash_of(hasher, &digest, name_at(names, ends, index))
        });
        node
    }

    /// The node of a store path that has been heard of.
    pub(crate) fn find(&self, path: &StorePath) -> Option<NodeId> {
        let hash = self.hash(path.digest(), path.name());
        self.by_path
            .find(hash, |&index| self.is(index, path.digest(), path.name()))
            .map(|&index| NodeId(index))
    }

    /// The node of an output whose path is not known.
    pub(crate) fn output(&mut self, derivation: NodeId, name: &str) -> NodeId {
        let key = (derivation, Box::from(name));
        if let Some(&node) = self.by_output.get(&key) {
            return node;
        }
        let node = self.push([0; 20], name);
        self.derivations.insert(node, derivation);
        self.by_output.insert(key, node);
        node
    }

    pub(crate) fn object(&self, node: NodeId) -> Option<Object> {
        let name = name_at(&self.names, &self.ends, node.index());
        if let Some(&derivation) = self.derivations.get(&node) {
            return Some(Object::Output { derivation, name: name.to_owned() });
        }
        let digest = *self.digests.get(node.index())?;
        StorePath::from_parts(digest, name).ok().map(Object::Path)
    }

    /// Writes out `directory/digest-name`, and the names of outputs behind it.
    pub(crate) fn render(&self, directory: &str, node: NodeId) -> String {
        let mut outputs = Vec::new();
        let mut node = node;
        while let Some(derivation) = self.derivation_of(node) {
            outputs.push(self.name(node));
            node = derivation;
        }
        let digest = self.digests.get(node.index()).copied().unwrap_or_default();
        let name = self.name(node);
        let mut text = String::with_capacity(directory.len() + name.len() + 48);
        for part in [directory, "/", &nixbase32::encode(&digest), "-", name] {
            text.push_str(part);
        }
        for output in outputs.iter().rev() {
            text.push('^');
            text.push_str(output);
        }
        text
    }

    /// The order of what is written out.
    pub(crate) fn compare(&self, a: NodeId, b: NodeId) -> Ordering {
        if self.derivation_of(a).is_some() || self.derivation_of(b).is_some() {
            return self.render("", a).cmp(&self.render("", b));
        }
        let digest = |node: NodeId| self.digests.get(node.index()).copied().unwrap_or_default();
        // Nix's base 32 begins with the last byte.
        let digests = digest(a).iter().rev().cmp(digest(b).iter().rev());
        digests.then_with(|| self.name(a).cmp(self.name(b)))
    }

    /// The name of a store path without its digest, or of an output.
    pub(crate) fn name(&self, node: NodeId) -> &str {
        name_at(&self.names, &self.ends, node.index())
    }

    /// What an output whose path is not known is an output of.
    pub(crate) fn derivation_of(&self, node: NodeId) -> Option<NodeId> {
        self.derivations.get(&node).copied()
    }

    /// Whether it is a store path that names a derivation.
    pub(crate) fn is_derivation(&self, node: NodeId) -> bool {
        self.name(node).ends_with(".drv") && !self.derivations.contains_key(&node)
    }

    fn push(&mut self, digest: [u8; 20], name: &str) -> NodeId {
        let node = NodeId::from_index(self.digests.len());
        self.digests.push(digest);
        self.names.push_str(name);
        self.ends.push(self.names.len());
        node
    }

    fn hash(&self, digest: &[u8; 20], name: &str) -> u64 {
        hash_of(&self.hasher, digest, name)
    }

    fn is(&self, index: u32, digest: &[u8; 20], name: &str) -> bool {
        let index = index as usize;
        self.digests.get(index) == Some(digest) && name_at(&self.names, &self.ends, index) == name
    }
}

fn name_at<'a>(names: &'a str, ends: &[usize], index: usize) -> &'a str {
    let start = index.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    ends.get(index).and_then(|&end| names.get(start..end)).unwrap_or_default()
}

fn hash_of(hasher: &DefaultHashBuilder, digest: &[u8; 20], name: &str) -> u64 {
    // The digest is a hash already; the name is there for objects that only claim one.
    let mut state = hasher.build_hasher();
    digest.hash(&mut state);
    name.hash(&mut state);
    state.finish()
}
