//! Which steps, in what order, which are already done. Pure planning and one loop; knows no sandbox.

mod cancel;
mod event;
#[cfg(test)]
mod fixture;
mod flight;
mod graph;
mod key;
mod lower;
mod miss;
mod op;
mod pools;
mod prune;
mod records;
mod schedule;
mod state;
mod store_cache;
mod task;
mod vertex;
mod worker;

pub use cancel::{CancelReason, CancelToken};
pub use event::{Event, EventSink, LogStream, Outcome, PlannedVertex, VertexFailure};
pub use graph::Graph;
pub use key::Key;
pub use lower::{
    Entitlements, Goal, ImagePlan, InvalidStepName, NamedContext, NoCache, Outline, OutlineArg, OutlineInput, Plan,
    PlatformPlan, Resolve, ResolveError, ResolvedImage, StageChoice, StepName, Target, Ulimit, git_context,
    http_context, lower, more_faults, outline, targets,
};
pub use miss::{Change, Earlier, FieldChange, FileChange, FileFacts, MOST_TOLD, MissReason, VariableSource};
pub use op::{
    CacheSharing, ContextSource, CopyAction, FileAction, FileOp, GitSource, GitTimes, HttpSource, ImageSource, Linking,
    MakeDirAction, Op, RunMount, RunMountKind, RunNetwork, RunOp, RunSecurity, Source, Unpack, WriteAction,
};
pub use pools::Limits;
pub use prune::needed;
pub use rbuild_cache::{KeyKind, StepUsage};
pub use records::{About, Claim, Found, NewStep, Past, RecordFailure, StepCache};
pub use schedule::{OnFailure, SolveError, SolveOptions, Solved, Surroundings, VertexReport, solve};
pub use state::VertexState;
pub use store_cache::StoreCache;
pub use vertex::{CacheUse, Origin, Vertex, VertexId};
pub use worker::{Control, Executed, Job, JobError, Pinned, Product, Used, Worker};
