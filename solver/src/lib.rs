//! Which steps, in what order, which are already done. Pure planning and one loop; knows no sandbox.

mod cancel;
mod event;
mod op;
mod vertex;
mod worker;

pub use cancel::{CancelReason, CancelToken};
pub use event::{Event, EventSink, LogStream, Outcome, PlannedVertex, VertexFailure};
pub use op::{
    CacheSharing, ContextSource, CopyAction, FileAction, FileOp, GitSource, HttpSource, ImageSource, Linking,
    MakeDirAction, Op, RunMount, RunMountKind, RunNetwork, RunOp, RunSecurity, Source, Unpack, WriteAction,
};
pub use vertex::{CacheUse, Origin, Vertex, VertexId};
pub use worker::{Control, Job, JobError, Pinned, Product, Worker};
