//! Declared types: what Go's structs are to Docker's templates. With one, a field that a document leaves out has its
//! zero value (`[]`, `map[]`, `<nil>`, nothing) instead of being missing.

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Whatever the document has.
    Any,
    /// A string.
    Text,
    /// A number.
    Integer,
    /// A number of nanoseconds, printed as a duration.
    Duration,
    /// true or false
    Bool,
    /// A slice.
    List(&'static Self),
    /// A map from strings.
    Map(&'static Self),
    /// A struct, with Go's name for it.
    Struct(&'static str, &'static [Field]),
    /// A pointer, with Go's name for it: nil where the document has nothing.
    Pointer(&'static str, &'static Self),
}

/// A field of a struct.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) presence: Presence,
}

/// Whether JSON has a field that is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Yes.
    Always,
    /// No (`omitempty`).
    NotEmpty,
}

impl Field {
    /// A field that JSON always has.
    pub(crate) const fn new(name: &'static str, shape: Shape) -> Self {
        Self { name, shape, presence: Presence::Always }
    }

    /// A field that JSON leaves out when it is empty.
    pub(crate) const fn optional(name: &'static str, shape: Shape) -> Self {
        Self { name, shape, presence: Presence::NotEmpty }
    }
}
