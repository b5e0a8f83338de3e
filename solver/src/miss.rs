//! Why a vertex was not answered from the cache: what its key was made of against the nearest earlier description.
//!
//! | file | does |
//! |---|---|
//! | `explain` | finds the nearest description: same place first, then most equal |
//! | `compare` | says what differs between two descriptions, field by field |
//! | `files` | says which files differ between two selections |
//! | `told` | puts it into words |
//!
//! All this happens after the step has run, on its own thread, and only for what ran.

mod compare;
mod explain;
mod files;
mod told;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::vertex::VertexId;

pub(crate) use explain::Miss;

/// Most differences that are told of one vertex, and most files of one selection.
pub const MOST_TOLD: usize = 100;

/// Why a vertex ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum MissReason {
    /// It was asked not to look (`--no-cache`).
    Ignored,
    /// Its result is older than results may be (`--cache-max-age`).
    TooOld {
        /// When that was made.
        made: Timestamp,
    },
    /// It is an image: the image store is their cache.
    ImageStore,
    /// Nothing comparable was ever recorded, or it is forgotten.
    NothingRecorded,
    /// Exactly this was recorded, and evicted since.
    Evicted {
        /// The rule, as people know it.
        rule: String,
        /// When.
        at: Timestamp,
    },
    /// Exactly this was recorded, and the result is gone without a trace: a power cut, or a store that was rebuilt.
    Lost,
    /// It differs from the nearest earlier one.
    Changed {
        /// The earlier one.
        earlier: Earlier,
        /// What differs.
        changes: Vec<Change>,
    },
    /// Nothing in its definition differs: something that it reads ran again and came out differently.
    InputsDiffer {
        /// What.
        changes: Vec<Change>,
    },
}

/// What a vertex is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// The step as people know it.
    pub step: String,
    /// Where it stood, when that is another place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// When it was recorded.
    pub at: Timestamp,
    /// Which build recorded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
}

/// Where a variable's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VariableSource {
    /// A build argument.
    #[serde(rename = "ARG")]
    Argument,
    /// The image's environment.
    #[serde(rename = "ENV")]
    Environment,
}

/// One thing that differs. What was absent before or is absent now is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Change {
    /// The command of a `RUN`.
    Command {
        /// What it was.
        before: String,
        /// What it is.
        after: String,
    },
    /// A variable that the command sees.
    Variable {
        /// Where its value comes from.
        source: VariableSource,
        /// Its name.
        name: String,
        /// What it was; `None` also where that is secret.
        before: Option<String>,
        /// What it is; `None` also where that is secret.
        after: Option<String>,
        /// Whether values are not told because the name says that they are secret.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        hidden: bool,
    },
    /// A flag, the user, the working directory, a source, a destination, …
    Setting {
        /// Which.
        name: String,
        /// What it was.
        before: Option<String>,
        /// What it is.
        after: Option<String>,
    },
    /// A `RUN --mount`.
    Mount {
        /// What it was.
        before: Option<String>,
        /// What it is.
        after: Option<String>,
    },
    /// Files that are copied or mounted.
    Files {
        /// Where they come from: `build context`, or the name of a step.
        from: String,
        /// Which of them; empty when the earlier ones are not known any more.
        files: Vec<FileChange>,
        /// How many more differ.
        #[serde(default, skip_serializing_if = "is_zero")]
        more: usize,
    },
    /// The base image, a URL or a repository.
    Source {
        /// What it is to the step: `base image`, `COPY --from`, …
        role: String,
        /// What it was.
        before: Option<String>,
        /// What it is.
        after: Option<String>,
        /// What differs.
        fields: Vec<FieldChange>,
    },
    /// A step that this one reads.
    Input {
        /// What it is to the step: `parent`, `COPY --from`, …
        role: String,
        /// What it was.
        before: Option<String>,
        /// What it is.
        after: Option<String>,
        /// Where its own explanation is, when it ran in this build.
        #[serde(skip_serializing_if = "Option::is_none")]
        ran: Option<VertexId>,
        /// Why it is another one, when it did not run; steps between are in `via`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        because: Vec<Self>,
        /// The steps between this one and the one that differs, nearest first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        via: Vec<String>,
    },
}

/// One field of a source that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The field, e.g. `digest` or `commit`.
    pub field: String,
    /// What it was.
    pub before: Option<String>,
    /// What it is.
    pub after: Option<String>,
}

/// A file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Where it is in its context or stage.
    pub path: String,
    /// What it was; `None` for a new one.
    pub before: Option<FileFacts>,
    /// What it is; `None` for one that is gone.
    pub after: Option<FileFacts>,
    /// Whether what it holds differs: content, link target, device numbers.
    pub content: bool,
    /// Whether extended attributes differ.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attributes: bool,
}

/// What is told of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// `file`, `directory`, `link`, …
    pub kind: String,
    /// Permissions, in octal.
    pub mode: String,
    /// Owner and group.
    pub owner: String,
    /// Bytes.
    pub size: u64,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}
