//! What lowering gives: one graph, and for each platform the last vertex and the image around it.

use rbuild_image::{ImageConfig, Platform};
use rbuild_parser::Diagnostic;

use crate::graph::Graph;
use crate::op::ImageSource;
use crate::vertex::VertexId;

/// A build, ready to be solved.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All vertices.
    pub graph: Graph,
    /// The platforms in the order they were asked for; at least one.
    pub platforms: Vec<PlatformPlan>,
    /// What people should know; never errors.
    pub warnings: Vec<Diagnostic>,
}

/// What to build for one platform.
#[derive(Clone, Debug)]
pub struct PlatformPlan {
    /// The platform.
    pub platform: Platform,
    /// The vertex whose product is the final root file system; `None` is the empty tree.
    pub rootfs: Option<VertexId>,
    /// The image.
    pub image: ImagePlan,
}

/// The image around a root file system.
#[derive(Clone, Debug, PartialEq)]
pub struct ImagePlan {
    /// The configuration, with the whole history. `rootfs.diff_ids` are those of the base image; each vertex of
    /// `layers` adds one. `created`, here and in new history entries, is set only where the build fixes it
    /// (`SOURCE_DATE_EPOCH`).
    pub config: ImageConfig,
    /// How many entries of the history come from the base image.
    pub inherited_history: usize,
    /// The image that the layers are put on; `None` for scratch.
    pub base: Option<ImageSource>,
    /// The vertices that add a layer, lowest first: one for each new history entry that is not empty.
    pub layers: Vec<VertexId>,
}
