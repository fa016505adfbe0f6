//! A part of the graph as a drawing: text for Graphviz.
//!
//! The language is described at <https://graphviz.org/doc/info/lang.html>.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use crate::error::GraphError;
use crate::explore::Explorer;
use crate::graph::Kind;
use crate::{NodeId, NodeSet};

/// How many characters of a digest are shown: enough to tell two paths of one name apart.
const DIGEST_SHOWN: usize = 8;

/// Nodes and the edges among them. Its text is a graph in Graphviz's DOT language, the same text
/// for the same facts.
#[derive(Clone, Debug)]
pub struct Dot {
    nodes: Vec<Drawn>,
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
struct Drawn {
    label: Vec<String>,
    looks: Looks,
}

/// An edge between two nodes, by their places in the order of nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    from: usize,
    to: usize,
    stroke: Stroke,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stroke {
    Needs(Kind),
    MadeBy,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Looks {
    Derivation,
    FixedDerivation,
    Output,
    FixedOutput,
    Source,
    /// An output whose path is not known.
    UnknownPath,
    /// A path that nobody is known to have made, and that need not be a source.
    UnknownOrigin,
}

impl Explorer<'_> {
    /// Draws some nodes and the edges of these kinds among them. `marks` are short texts that are
    /// shown at a node.
    ///
    /// An output whose derivation is drawn too is joined to it by a plain line, and what building
    /// and evaluating needs is drawn at the derivation only. What a derivation refers to is drawn
    /// where no edge says already that the derivation reads it, or an output of it.
    ///
    /// What is not known is not drawn, and not noted as missing.
    ///
    /// # Errors
    /// When a source could not look.
    pub fn dot(
        &mut self,
        nodes: &NodeSet,
        kinds: &[Kind],
        marks: &HashMap<NodeId, Vec<String>>,
    ) -> Result<Dot, GraphError> {
        let order = self.sorted(nodes);
        let was_quiet = std::mem::replace(&mut self.quiet, true);
        let fixed = self.learn_drawing(nodes, &order, kinds);
        self.quiet = was_quiet;
        let fixed = fixed?;
        let place: HashMap<NodeId, usize> =
            order.iter().enumerate().map(|(place, node)| (*node, place)).collect();
        let mut lines = Vec::new();
        for (from, &node) in order.iter().enumerate() {
            self.lines_from(node, nodes, kinds, &mut |target, stroke| {
                if let Some(&to) = place.get(&target)
                    && to != from
                {
                    lines.push(Line { from, to, stroke });
                }
            });
        }
        lines.sort_unstable();
        lines.dedup();
        let drawn: Vec<Drawn> = order
            .iter()
            .map(|&node| Drawn {
                label: self.label(node, marks.get(&node).map(Vec::as_slice).unwrap_or_default()),
                looks: self.looks(node, &fixed),
            })
            .collect();
        Ok(Dot { nodes: drawn, lines })
    }

    /// Learns the edges and who makes the nodes; which of them are fixed outputs is the answer.
    fn learn_drawing(
        &mut self,
        nodes: &NodeSet,
        order: &[NodeId],
        kinds: &[Kind],
    ) -> Result<NodeSet, GraphError> {
        for &kind in kinds {
            self.learn(kind, order)?;
        }
        self.fixed_outputs(nodes)
    }

    fn lines_from(
        &self,
        node: NodeId,
        drawn: &NodeSet,
        kinds: &[Kind],
        draw: &mut dyn FnMut(NodeId, Stroke),
    ) {
        let is_derivation = self.graph.is_derivation(node);
        // What a derivation reads, and who makes that: it refers to those.
        let mut said = NodeSet::default();
        for &builder in self.builders(node) {
            if !is_derivation && drawn.contains(builder) {
                draw(builder, Stroke::MadeBy);
                continue;
            }
            for &kind in kinds {
                self.needs_of_builder(kind, builder, &mut |target| {
                    draw(target, Stroke::Needs(kind));
                    if is_derivation && kind == Kind::Build && drawn.contains(target) {
                        said.insert(target);
                        said.extend(self.builders(target).iter().copied());
                    }
                });
            }
        }
        if kinds.contains(&Kind::Run) {
            self.neighbours(Kind::Run, node, &mut |target| {
                if !said.contains(target) {
                    draw(target, Stroke::Needs(Kind::Run));
                }
            });
        }
    }

    fn looks(&self, node: NodeId, fixed: &NodeSet) -> Looks {
        if self.graph.is_derivation(node) {
            let is_fixed = self.graph.derivation(node).is_some_and(|record| record.fixed_output);
            return if is_fixed { Looks::FixedDerivation } else { Looks::Derivation };
        }
        if self.graph.path(node).is_none() {
            return Looks::UnknownPath;
        }
        if self.builders(node).is_empty() {
            return if self.is_source(node) { Looks::Source } else { Looks::UnknownOrigin };
        }
        if fixed.contains(node) { Looks::FixedOutput } else { Looks::Output }
    }

    /// Name, the beginning of the digest, marks: a line each.
    fn label(&self, node: NodeId, marks: &[String]) -> Vec<String> {
        // `/nix/store/DIGEST-NAME`, perhaps with an output's name.
        let text = self.graph.render(node);
        let base = text.strip_prefix(self.graph.store_dir().as_str()).unwrap_or(&text);
        let base = base.trim_start_matches('/');
        let (digest, name) = base.split_once('-').unwrap_or(("", base));
        let shown = digest.get(..DIGEST_SHOWN).unwrap_or(digest);
        let mut label = vec![name.to_owned(), shown.to_owned()];
        label.extend(marks.iter().cloned());
        label
    }
}

impl Looks {
    fn name(self) -> &'static str {
        match self {
            Self::Derivation => "derivation",
            Self::FixedDerivation => "fixed-output derivation",
            Self::Output => "output",
            Self::FixedOutput => "fixed output",
            Self::Source => "source",
            Self::UnknownPath => "output without a path yet",
            Self::UnknownOrigin => "path of unknown origin",
        }
    }

    /// Attributes of the node. The colours can be told apart without seeing red and green.
    fn attributes(self) -> &'static str {
        match self {
            Self::Derivation => r##"shape=box, fillcolor="#d6e6f5""##,
            Self::FixedDerivation => r##"shape=box, fillcolor="#fdeeb8""##,
            Self::Output => r##"shape=ellipse, fillcolor="#d6e6f5""##,
            Self::FixedOutput => r##"shape=ellipse, fillcolor="#fdeeb8""##,
            Self::Source => r##"shape=note, fillcolor="#eeeeee""##,
            Self::UnknownPath => r##"shape=ellipse, style="filled,dashed", fillcolor="#ffffff""##,
            Self::UnknownOrigin => r##"shape=ellipse, fillcolor="#ffffff""##,
        }
    }
}

impl Stroke {
    fn name(self) -> &'static str {
        match self {
            Self::Needs(kind) => kind.name(),
            Self::MadeBy => "made by",
        }
    }

    fn attributes(self) -> &'static str {
        match self {
            Self::Needs(Kind::Run) => "style=solid",
            Self::Needs(Kind::Build) => "style=dashed",
            Self::Needs(Kind::Eval) => "style=dotted",
            Self::MadeBy => r##"color="#888888", arrowhead=none"##,
        }
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "digraph store {{")?;
        writeln!(formatter, "  ranksep=0.35; nodesep=0.2;")?;
        writeln!(formatter, r#"  node [style=filled, fontname="sans-serif", fontsize=11];"#)?;
        writeln!(formatter, r#"  edge [fontname="sans-serif", fontsize=10];"#)?;
        for (place, node) in self.nodes.iter().enumerate() {
            let lines: Vec<String> = node.label.iter().map(|line| escaped(line)).collect();
            let (label, attributes) = (lines.join(r"\n"), node.looks.attributes());
            writeln!(formatter, r#"  n{place} [label="{label}", {attributes}];"#)?;
        }
        for Line { from, to, stroke } in &self.lines {
            writeln!(formatter, "  n{from} -> n{to} [{}];", stroke.attributes())?;
        }
        self.write_legend(formatter)?;
        writeln!(formatter, "}}")
    }
}

impl Dot {
    /// One of each that is drawn.
    fn write_legend(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looks: BTreeSet<Looks> = self.nodes.iter().map(|node| node.looks).collect();
        let strokes: BTreeSet<Stroke> = self.lines.iter().map(|line| line.stroke).collect();
        if looks.is_empty() {
            return Ok(());
        }
        writeln!(formatter, "  subgraph cluster_legend {{")?;
        writeln!(formatter, r##"    label="legend"; fontname="sans-serif"; color="#888888";"##)?;
        for (place, looks) in looks.iter().enumerate() {
            let (name, attributes) = (looks.name(), looks.attributes());
            writeln!(formatter, r#"    l{place} [label="{name}", {attributes}];"#)?;
        }
        // One above the other.
        for (above, below) in (0..looks.len()).zip(1..looks.len()) {
            writeln!(formatter, "    l{above} -> l{below} [style=invis];")?;
        }
        for (place, stroke) in strokes.iter().enumerate() {
            let (name, attributes) = (stroke.name(), stroke.attributes());
            // Lines within a group are straight.
            for end in ["a", "b"] {
                writeln!(formatter, "    {end}{place} [shape=point, group=g{place}];")?;
            }
            writeln!(
                formatter,
                r#"    a{place} -> b{place} [label=" {name} ", weight=9, {attributes}];"#
            )?;
        }
        writeln!(formatter, "  }}")
    }
}

/// Text between quotes. Marks are the caller's, and output names whatever a `.drv` file says.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\\' => escaped.extend(['\\', character]),
            '\n' => escaped.push_str(r"\n"),
            other if other.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn what_means_something_to_graphviz_is_escaped() {
        assert_eq!(escaped(r#"a "b" \N"#), r#"a \"b\" \\N"#);
        assert_eq!(escaped("two\nlines\tand <b>é</b>"), "two\\nlines\u{fffd}and <b>é</b>");
    }
}
