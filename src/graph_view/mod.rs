//! The steps of a build as a picture: what reads what, what was cached, what took long. Plain data in, text out.

mod dot;
mod layout;
mod plan;
mod svg;
mod text;

use serde::Serialize;

use crate::build_record::{BuildInfo, RecordedStep, StepState};
use crate::progress::{critical_path_of, time};

pub(crate) use plan::plan;

/// A graph that can be drawn. Nodes stand after those that they read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct GraphView {
    /// The version of the JSON form.
    pub(crate) version: u32,
    /// What the picture is of.
    pub(crate) title: String,
    /// The build, where it is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) build: Option<String>,
    /// The chain of steps that took longest, in nanoseconds.
    pub(crate) critical_ns: u64,
    /// The steps.
    pub(crate) nodes: Vec<Node>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Node {
    /// Display number, from 1.
    pub(crate) number: usize,
    /// Display name.
    pub(crate) name: String,
    /// Stage name or number.
    pub(crate) stage: String,
    /// First line in the Dockerfile; 0 where there is none.
    pub(crate) line: u32,
    /// How it stands.
    pub(crate) state: NodeState,
    /// How long it took, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) took_ns: Option<u64>,
    /// Whether it is on the critical path.
    pub(crate) critical: bool,
    /// Positions of the nodes that it reads.
    pub(crate) inputs: Vec<usize>,
}

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeState {
    /// It came, or would come, from the cache.
    Hit,
    /// It ran.
    Ran,
    /// It would run.
    Miss,
    /// It failed.
    Failed,
    /// It was stopped, or never began.
    Cancelled,
    /// It runs, or ran when its build died.
    Running,
}

impl NodeState {
    /// In one word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Hit => "cached",
            Self::Ran => "ran",
            Self::Miss => "would run",
            Self::Failed => "failed",
            Self::Cancelled => "canceled",
            Self::Running => "running",
        }
    }
}

impl GraphView {
    /// Marks the critical path.
    fn new(title: String, build: Option<String>, mut nodes: Vec<Node>) -> Self {
        let inputs: Vec<&[usize]> = nodes.iter().map(|node| node.inputs.as_slice()).collect();
        let took: Vec<Option<u64>> = nodes.iter().map(|node| node.took_ns).collect();
        let (path, critical_ns) = critical_path_of(&inputs, &took);
        for at in path {
            nodes[at].critical = true;
        }
        Self { version: 1, title, build, critical_ns, nodes }
    }

    /// The picture of a recorded build.
    pub(crate) fn of_build(build: &BuildInfo, steps: &[RecordedStep]) -> Self {
        let node = |step: &RecordedStep| Node {
            number: step.detail.number,
            name: step.name.clone(),
            stage: step.detail.stage.clone(),
            line: step.detail.line,
            state: match step.state {
                StepState::Cached => NodeState::Hit,
                StepState::Done => NodeState::Ran,
                StepState::Failed => NodeState::Failed,
                StepState::Cancelled | StepState::Waiting => NodeState::Cancelled,
                StepState::Running => NodeState::Running,
            },
            took_ns: step.duration.map(|took| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
            critical: false,
            inputs: step.detail.inputs.clone(),
        };
        let title = format!("build {} of {}", build.id, build.inputs.name);
        Self::new(title, Some(build.id.to_string()), steps.iter().map(node).collect())
    }

    /// What the picture shows, in one line.
    fn summary(&self) -> String {
        let count = |state: NodeState| self.nodes.iter().filter(|node| node.state == state).count();
        let mut parts = vec![format!("{} steps", self.nodes.len())];
        let states = [
            NodeState::Hit,
            NodeState::Ran,
            NodeState::Miss,
            NodeState::Failed,
            NodeState::Cancelled,
            NodeState::Running,
        ];
        parts.extend(
            states
                .into_iter()
                .filter(|state| count(*state) > 0)
                .map(|state| format!("{} {}", count(state), state.word())),
        );
        if self.critical_ns > 0 {
            parts.push(format!("critical path {}", time(self.critical_ns)));
        }
        parts.join(", ")
    }

    /// As SVG: one file that needs nothing else, for light and dark screens.
    pub(crate) fn svg(&self) -> String {
        svg::render(self)
    }

    /// For Graphviz.
    pub(crate) fn dot(&self) -> String {
        dot::render(self)
    }

    /// As a table.
    pub(crate) fn text(&self) -> String {
        text::render(self)
    }
}

impl Node {
    /// State and time.
    fn caption(&self) -> String {
        match self.took_ns {
            Some(took) => format!("{} {}", self.state.word(), time(took)),
            None => self.state.word().to_owned(),
        }
    }

    /// The name on one line, without control characters.
    fn label(&self) -> String {
        crate::cli::report::printable(&self.name.replace(['\n', '\t'], " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph of named nodes: inputs, state, seconds.
    pub(super) fn graph(nodes: &[(&str, &[usize], NodeState, u64)]) -> GraphView {
        let node = |(at, (name, inputs, state, seconds)): (usize, &(&str, &[usize], NodeState, u64))| Node {
            number: at + 1,
            name: (*name).to_owned(),
            stage: "0".to_owned(),
            line: at as u32 + 1,
            state: *state,
            took_ns: (*seconds > 0).then_some(seconds * 1_000_000_000),
            critical: false,
            inputs: inputs.to_vec(),
        };
        GraphView::new("test".to_owned(), None, nodes.iter().enumerate().map(node).collect())
    }

    /// Two branches between one begin and one end.
    pub(super) fn diamond() -> GraphView {
        graph(&[
            ("[base 1/1] FROM busybox", &[], NodeState::Hit, 0),
            ("[left 1/1] RUN echo \"<a> & b\"", &[0], NodeState::Ran, 12),
            ("[right 1/1] RUN b\u{1b}[2J", &[0], NodeState::Ran, 3),
            ("[end 1/1] COPY --from=left / /", &[1, 2], NodeState::Failed, 1),
        ])
    }

    #[test]
    fn the_text_has_marks_states_and_inputs() {
        insta::assert_snapshot!(diamond().text(), @r#"
        test: 4 steps, 1 cached, 2 ran, 1 failed, critical path 13.0s (*)

            STEP   STATE    TIME    READS   NAME
            1      cached                   [base 1/1] FROM busybox
        *   2      ran      12.0s   1       [left 1/1] RUN echo "<a> & b"
            3      ran      3.0s    1       [right 1/1] RUN b\u{1b}[2J
        *   4      failed   1.0s    2 3     [end 1/1] COPY --from=left / /
        "#);
    }

    #[test]
    fn dot_is_quoted() {
        insta::assert_snapshot!(diamond().dot(), @r##"
        digraph build {
          rankdir=TB; node [shape=box style="rounded,filled" fontname="sans-serif"];
          label="test: 4 steps, 1 cached, 2 ran, 1 failed, critical path 13.0s";
          n1 [label="[base 1/1] FROM busybox\ncached" fillcolor="#d3f2dc"];
          n2 [label="[left 1/1] RUN echo \"<a> & b\"\nran 12.0s" fillcolor="#d6e6fb" penwidth=3];
          n3 [label="[right 1/1] RUN b\\u{1b}[2J\nran 3.0s" fillcolor="#d6e6fb"];
          n4 [label="[end 1/1] COPY --from=left / /\nfailed 1.0s" fillcolor="#fbd9d7" penwidth=3];
          n1 -> n2;
          n1 -> n3;
          n2 -> n4 [penwidth=3];
          n3 -> n4;
        }
        "##);
    }

    #[test]
    fn svg_escapes_what_it_is_given() {
        let svg = diamond().svg();
        assert!(svg.contains("RUN echo &quot;&lt;a&gt; &amp; b&quot;"), "{svg}");
        assert!(!svg.contains('\u{1b}') && !svg.contains("<a>"));
        assert_eq!(svg.matches("<g class=\"node").count(), 4);
        assert_eq!(svg.matches("<path class=\"edge").count(), 4);
        assert!(svg.contains("prefers-color-scheme: dark") && svg.contains("<title"));
    }

    #[test]
    fn nodes_never_overlap_whatever_the_shape() {
        let linear: Vec<Vec<usize>> = (0..20_usize).map(|at| at.checked_sub(1).into_iter().collect()).collect();
        let mut wide = vec![vec![]];
        wide.extend((0..8).map(|_| vec![0]));
        wide.push((1..9).collect());
        for shape in [linear, wide, stages()] {
            let nodes: Vec<_> =
                shape.iter().map(|inputs| ("[a 1/1] RUN x", inputs.as_slice(), NodeState::Ran, 1)).collect();
            let view = graph(&nodes);
            let laid = layout::layout(&view);
            for (at, a) in laid.nodes.iter().enumerate() {
                for b in &laid.nodes[at + 1..] {
                    let apart = (a.x - b.x).abs() >= layout::NODE_WIDTH || (a.y - b.y).abs() >= layout::NODE_HEIGHT;
                    assert!(apart, "{a:?} {b:?}");
                }
                for input in &view.nodes[at].inputs {
                    assert!(laid.nodes[*input].y < a.y, "what is read stands above");
                }
            }
        }
    }

    /// Sixty steps: six stages of nine on one base, joined in pairs, then all together.
    fn stages() -> Vec<Vec<usize>> {
        let mut nodes: Vec<Vec<usize>> = vec![vec![]];
        let mut ends = Vec::new();
        for stage in 0..6 {
            let mut last = 0;
            for step in 0..9 {
                let mut inputs = vec![last];
                if let (true, Some(other)) = (step == 5 && stage % 2 == 1, ends.last()) {
                    inputs.push(*other);
                }
                nodes.push(inputs);
                last = nodes.len() - 1;
            }
            ends.push(last);
        }
        let mut last = 0;
        for end in ends {
            nodes.push(vec![last, end]);
            last = nodes.len() - 1;
        }
        nodes
    }
}
