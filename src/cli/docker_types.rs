//! What several of the types share that Docker's client declares for its documents; each document has its own beside it.

use super::go_template::{Field, Shape};

/// `string`
pub(super) const TEXT: Shape = Shape::Text;
/// `int`, of any size
pub(super) const NUMBER: Shape = Shape::Integer;
/// `bool`
pub(super) const YES: Shape = Shape::Bool;
/// `[]string`
pub(super) const WORDS: Shape = Shape::List(&TEXT);
/// `map[string]string`
pub(super) const WORDS_BY_NAME: Shape = Shape::Map(&TEXT);
/// `struct{}`
pub(super) const EMPTY: Shape = Shape::Struct("struct {}", &[]);

/// A health check, of an image or a container.
pub(super) const HEALTHCHECK: Shape = Shape::Struct(
    "v1.HealthcheckConfig",
    &[
        Field::optional("Test", WORDS),
        Field::optional("Interval", Shape::Duration),
        Field::optional("Timeout", Shape::Duration),
        Field::optional("StartPeriod", Shape::Duration),
        Field::optional("StartInterval", Shape::Duration),
        Field::optional("Retries", NUMBER),
    ],
);

/// Where the layers of an image or a container are.
pub(super) const GRAPH_DRIVER: Shape =
    Shape::Struct("storage.DriverData", &[Field::new("Data", WORDS_BY_NAME), Field::new("Name", TEXT)]);
