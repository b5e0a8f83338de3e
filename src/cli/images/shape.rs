//! The types that Docker's client declares for `image inspect`: what templates see where a document says nothing.

use crate::cli::docker_types::{EMPTY, GRAPH_DRIVER, HEALTHCHECK, NUMBER, TEXT, WORDS, WORDS_BY_NAME, YES};
use crate::cli::go_template::{Field, Shape};

const CONFIG: Shape = Shape::Struct(
    "v1.DockerOCIImageConfig",
    &[
        Field::optional("User", TEXT),
        Field::optional("ExposedPorts", Shape::Map(&EMPTY)),
        Field::optional("Env", WORDS),
        Field::optional("Entrypoint", WORDS),
        Field::optional("Cmd", WORDS),
        Field::optional("Volumes", Shape::Map(&EMPTY)),
        Field::optional("WorkingDir", TEXT),
        Field::optional("Labels", WORDS_BY_NAME),
        Field::optional("StopSignal", TEXT),
        Field::optional("ArgsEscaped", YES),
        Field::optional("Healthcheck", Shape::Pointer("*v1.HealthcheckConfig", &HEALTHCHECK)),
        Field::optional("OnBuild", WORDS),
        Field::optional("Shell", WORDS),
    ],
);

const PLATFORM: Shape = Shape::Struct(
    "v1.Platform",
    &[
        Field::new("Architecture", TEXT).keyed("architecture"),
        Field::new("OS", TEXT).keyed("os"),
        Field::optional("OSVersion", TEXT).keyed("os.version"),
        Field::optional("OSFeatures", WORDS).keyed("os.features"),
        Field::optional("Variant", TEXT).keyed("variant"),
    ],
);

const DESCRIPTOR: Shape = Shape::Struct(
    "v1.Descriptor",
    &[
        Field::new("MediaType", TEXT).keyed("mediaType"),
        Field::new("Digest", TEXT).keyed("digest"),
        Field::new("Size", NUMBER).keyed("size"),
        Field::optional("URLs", WORDS).keyed("urls"),
        Field::optional("Annotations", WORDS_BY_NAME).keyed("annotations"),
        Field::optional("Platform", Shape::Pointer("*v1.Platform", &PLATFORM)).keyed("platform"),
        Field::optional("ArtifactType", TEXT).keyed("artifactType"),
    ],
);

/// The details of an image.
pub(super) const IMAGE: Shape = Shape::Struct(
    "image.InspectResponse",
    &[
        Field::new("ID", TEXT).keyed("Id"),
        Field::new("RepoTags", WORDS),
        Field::new("RepoDigests", WORDS),
        Field::new("Parent", TEXT),
        Field::new("Comment", TEXT),
        Field::optional("Created", TEXT),
        Field::new("DockerVersion", TEXT),
        Field::new("Author", TEXT),
        Field::new("Config", Shape::Pointer("*v1.DockerOCIImageConfig", &CONFIG)),
        Field::new("Architecture", TEXT),
        Field::optional("Variant", TEXT),
        Field::new("Os", TEXT),
        Field::optional("OsVersion", TEXT),
        Field::new("Size", NUMBER),
        Field::optional("VirtualSize", NUMBER),
        Field::new("GraphDriver", GRAPH_DRIVER),
        Field::new(
            "RootFS",
            Shape::Struct("image.RootFS", &[Field::optional("Type", TEXT), Field::optional("Layers", WORDS)]),
        ),
        Field::new("Metadata", Shape::Struct("image.Metadata", &[Field::optional("LastTagTime", Shape::Time)])),
        Field::optional("Descriptor", Shape::Pointer("*v1.Descriptor", &DESCRIPTOR)),
    ],
);
