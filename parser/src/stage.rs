//! A Dockerfile as a whole: directives, global arguments, stages.

use crate::directive::Directives;
use crate::instruction::{Arg, Instruction, Origin, Text};
use crate::lint::Config;
use crate::word::{Escape, Word};

/// A Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// The directives at its top.
    pub directives: Directives,
    /// Which build checks run, as `# check=` has it.
    pub checks: Config,
    /// The `ARG`s before the first `FROM`.
    pub global_args: Vec<Arg>,
    /// The stages in order.
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// The escape character.
    pub fn escape(&self) -> Escape {
        self.directives.escape
    }
}

/// A stage: a `FROM` and the instructions up to the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Where its `FROM` is.
    pub origin: Origin,
    /// The image, stage or `scratch` it starts from; expanded with global arguments only.
    pub image: Word,
    /// `--platform`; expanded with global arguments only.
    pub platform: Option<Word>,
    /// The name after `AS`, in lower case.
    pub name: Option<String>,
    /// The name as written.
    pub name_as_written: Option<Text>,
    /// The description from a comment `# NAME text` directly above.
    pub description: Option<String>,
    /// The instructions in order.
    pub instructions: Vec<Instruction>,
}
