//! Documents of rbuild's own for programs: JSON with the version of its form as the first field, which `docs/rawjson.md` explains.
//! Documents in the words of Docker or buildx have their fields and none of ours.

use serde::Serialize;

use super::report::Failure;

/// The version of every document here; a field that goes or means something else makes it one more.
const VERSION: u32 = 1;

/// A document with its version. It is a map or a struct.
#[derive(Debug, Serialize)]
pub(super) struct Versioned<'a, T> {
    version: u32,
    #[serde(flatten)]
    document: &'a T,
}

impl<'a, T: Serialize> Versioned<'a, T> {
    /// Puts the version before a document.
    pub(super) fn of(document: &'a T) -> Self {
        Self { version: VERSION, document }
    }

    /// The document on a line of its own.
    pub(super) fn line(&self) -> Result<String, Failure> {
        Ok(format!("{}\n", serde_json::to_string(self)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_comes_first() {
        #[derive(Serialize)]
        struct Document {
            name: &'static str,
        }
        assert_eq!(Versioned::of(&Document { name: "x" }).line().unwrap(), "{\"version\":1,\"name\":\"x\"}\n");
        assert_eq!(Versioned::of(&serde_json::json!({ "b": 1 })).line().unwrap(), "{\"version\":1,\"b\":1}\n");
    }
}
