//! `-v [SOURCE:]TARGET[:OPTIONS]`.
//!
//! A source with a slash, `.` or `..` is a host path, anything else the name of a volume. `z` and `Z` ask for SELinux
//! labels on the source; sandboxes run without a label of their own, so that nothing has to be relabelled for them.

use std::path::Path;

use rbuild_executor::{Access, BindManner, Propagation};

use super::{CopyUp, InvalidMount, MissingSource, MountRequest, MountRequestSource, propagation, target};

/// Reads one `-v`. Host paths that start with a dot count from `cwd`.
pub fn parse(text: &str, cwd: &Path) -> Result<MountRequest, InvalidMount> {
    let invalid = || InvalidMount::Specification { text: text.to_owned() };
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(invalid());
    }
    let (source, path, options) = match parts[..] {
        [path] => (None, path, Options::default()),
        // Docker takes `/data:ro` for a host path and a relative target; so do we, and say what is wrong with it.
        [source, path] => (Some(source), path, Options::default()),
        [source, path, options] => (Some(source), path, Options::parse(options)?),
        _ => return Err(invalid()),
    };
    let target = target(path)?;
    let source = match source {
        Some(source) if is_host_path(source) => {
            if options.copy == CopyUp::Nothing {
                return Err(InvalidMount::Mode { mode: "nocopy".to_owned() });
            }
            let manner = BindManner { propagation: options.propagation.unwrap_or_default(), ..BindManner::default() };
            MountRequestSource::Bind { path: cwd.join(source), missing: MissingSource::CreateDirectory, manner }
        }
        _ if options.propagation.is_some() => {
            return Err(InvalidMount::WrongKind { key: "propagation".to_owned(), kind: "volume" });
        }
        Some(name) => MountRequestSource::Volume { name: Some(name.parse()?), copy: options.copy, labels: Vec::new() },
        None => MountRequestSource::Volume { name: None, copy: options.copy, labels: Vec::new() },
    };
    Ok(MountRequest { target, source, access: options.access })
}

/// Whether the source of a `-v` is a path rather than a volume's name.
fn is_host_path(source: &str) -> bool {
    source.starts_with('/') || source == "." || source == ".." || source.starts_with("./") || source.starts_with("../")
}

/// What stands behind the second colon.
struct Options {
    access: Access,
    copy: CopyUp,
    propagation: Option<Propagation>,
}

impl Default for Options {
    fn default() -> Self {
        Self { access: Access::ReadWrite, copy: CopyUp::Content, propagation: None }
    }
}

impl Options {
    fn parse(text: &str) -> Result<Self, InvalidMount> {
        let mut options = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for word in text.split(',') {
            let family = match word {
                "ro" | "rw" => "access",
                "z" | "Z" => "label",
                "nocopy" => "copy",
                "consistent" | "cached" | "delegated" => "consistency",
                _ if propagation(word).is_some() => "propagation",
                _ => return Err(InvalidMount::Mode { mode: text.to_owned() }),
            };
            if seen.contains(&family) {
                return Err(InvalidMount::Mode { mode: text.to_owned() });
            }
            seen.push(family);
            match word {
                "ro" => options.access = Access::ReadOnly,
                "nocopy" => options.copy = CopyUp::Nothing,
                _ => options.propagation = propagation(word).or(options.propagation),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_image::ContainerPath;

    fn read(text: &str) -> Result<MountRequest, InvalidMount> {
        parse(text, Path::new("/here"))
    }

    fn bind(path: &str, target: &str, access: Access) -> MountRequest {
        MountRequest {
            target: ContainerPath::new(target),
            source: MountRequestSource::Bind {
                path: path.into(),
                missing: MissingSource::CreateDirectory,
                manner: BindManner::default(),
            },
            access,
        }
    }

    fn volume(name: Option<&str>, target: &str, access: Access, copy: CopyUp) -> MountRequest {
        MountRequest {
            target: ContainerPath::new(target),
            source: MountRequestSource::Volume { name: name.map(|n| n.parse().unwrap()), copy, labels: Vec::new() },
            access,
        }
    }

    #[test]
    fn all_forms_of_v_are_read() {
        use Access::{ReadOnly, ReadWrite};
        use CopyUp::{Content, Nothing};
        for (text, want) in [
            ("/data", volume(None, "/data", ReadWrite, Content)),
            ("/data/../x/", volume(None, "/x", ReadWrite, Content)),
            ("/h:/c", bind("/h", "/c", ReadWrite)),
            ("/h:/c:ro", bind("/h", "/c", ReadOnly)),
            ("/h:/c:rw,z", bind("/h", "/c", ReadWrite)),
            ("/h:/c:Z,ro,rprivate,cached", bind("/h", "/c", ReadOnly)),
            (".:/c", bind("/here/.", "/c", ReadWrite)),
            ("./sub:/c", bind("/here/./sub", "/c", ReadWrite)),
            ("../up:/c", bind("/here/../up", "/c", ReadWrite)),
            ("data:/c", volume(Some("data"), "/c", ReadWrite, Content)),
            ("data:/c:ro,nocopy", volume(Some("data"), "/c", ReadOnly, Nothing)),
            ("my.vol_1-x:/c", volume(Some("my.vol_1-x"), "/c", ReadWrite, Content)),
        ] {
            assert_eq!(read(text), Ok(want), "{text:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, want) in [
            ("", "invalid volume specification: ''"),
            (":/c", "invalid volume specification: ':/c'"),
            ("/h:", "invalid volume specification: '/h:'"),
            ("/h:/c:", "invalid volume specification: '/h:/c:'"),
            ("/h:/c:ro:x", "invalid volume specification: '/h:/c:ro:x'"),
            ("data", "invalid mount path: 'data': mount path must be absolute"),
            ("/data:ro", "invalid mount path: 'ro': mount path must be absolute"),
            ("/h:c", "invalid mount path: 'c': mount path must be absolute"),
            ("/h:/", "invalid specification: destination can't be '/'"),
            ("/h:/..", "invalid specification: destination can't be '/'"),
            ("/h:/c:bad", "invalid mode: bad"),
            ("/h:/c:ro,rw", "invalid mode: ro,rw"),
            ("/h:/c:ro,ro", "invalid mode: ro,ro"),
            ("/h:/c:ro,", "invalid mode: ro,"),
            ("/h:/c:nocopy", "invalid mode: nocopy"),
            ("a:/c", "volume name is too short, names should be at least two alphanumeric characters"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), want, "{text:?}");
        }
        assert!(read("sub/dir:/c").unwrap_err().to_string().contains("includes invalid characters"));
        let tied = |text: &str| match read(text).unwrap().source {
            MountRequestSource::Bind { manner, .. } => manner.propagation,
            other => panic!("{other:?}"),
        };
        assert_eq!(tied("/h:/c:rshared"), Propagation::Shared);
        assert_eq!(tied("/h:/c:slave,ro"), Propagation::Slave);
        assert_eq!(tied("/h:/c:rprivate"), Propagation::Private);
        let volume = read("data:/c:rslave").unwrap_err().to_string();
        assert_eq!(volume, "cannot use 'propagation' with a mount of type 'volume'");
    }
}
