//! Declared types: what Go's structs are to Docker's templates. With one, a field that a document leaves out has its
//! zero value (`[]`, `map[]`, `<nil>`, nothing) instead of being missing.

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// A string.
    Text,
    /// A number.
    Integer,
    /// A number of nanoseconds, printed as a duration.
    Duration,
    /// A point in time, in the form of RFC 3339.
    Time,
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
    /// Go's name.
    pub(super) name: &'static str,
    /// JSON's name; templates may use either.
    pub(super) key: &'static str,
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
        Self { name, key: name, shape, presence: Presence::Always }
    }

    /// The same field, under another name in JSON.
    pub(crate) const fn keyed(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    /// A field that JSON leaves out when it is empty.
    pub(crate) const fn optional(name: &'static str, shape: Shape) -> Self {
        Self { name, key: name, shape, presence: Presence::NotEmpty }
    }
}

/// Fields whose names in Go and in JSON differ, where templates see documents without a shape.
const NAMES: [(&str, &str); 10] = [
    ("ID", "Id"),
    ("DNS", "Dns"),
    ("DNSOptions", "DnsOptions"),
    ("DNSSearch", "DnsSearch"),
    ("CPUShares", "CpuShares"),
    ("CPUPeriod", "CpuPeriod"),
    ("CPUQuota", "CpuQuota"),
    ("NanoCPUs", "NanoCpus"),
    ("CPURealtimePeriod", "CpuRealtimePeriod"),
    ("CPURealtimeRuntime", "CpuRealtimeRuntime"),
];

/// The key that JSON has for a field of Go's.
pub(super) fn json_key(field: &str) -> Option<&'static str> {
    NAMES.iter().find(|(name, _)| *name == field).map(|(_, key)| *key)
}
