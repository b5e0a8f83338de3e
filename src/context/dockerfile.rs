//! The Dockerfile and its ignore file: which names are tried, in which order (BuildKit's rules).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rbuild_executor::RootDir;
use rbuild_image::ContainerPath;
use rbuild_parser::Source;

use super::{IgnoreFile, MAX_TEXT};
use crate::cli::report::Failure;
use crate::request::DockerfileInput;

const DEFAULT: &str = "Dockerfile";
/// What BuildKit tries when there is no `Dockerfile`.
const LOWER: &str = "dockerfile";
const IGNORE: &str = ".dockerignore";

/// Reads the Dockerfile of a directory context; the path is where it was found.
pub(super) fn read(directory: &Path, input: &DockerfileInput) -> Result<(Source, Option<PathBuf>), Failure> {
    match input {
        DockerfileInput::Stdin => {
            let text = text_of(&mut io::stdin(), "standard input")?;
            Ok((Source::new(DEFAULT, text), None))
        }
        DockerfileInput::Path(path) => {
            let lower = path.file_name().filter(|last| *last == DEFAULT).map(|_| path.with_file_name(LOWER));
            for path in std::iter::once(path.clone()).chain(lower) {
                if let Some(mut file) = open(&path)? {
                    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
                    return Ok((Source::new(name, text_of(&mut file, &path.display().to_string())?), Some(path)));
                }
            }
            Err(missing(&path.display().to_string()).with_help(elsewhere(directory, path)))
        }
        DockerfileInput::Url(url) => Err(missing(url)),
        DockerfileInput::Default => {
            for name in [DEFAULT, LOWER] {
                let path = directory.join(name);
                if let Some(mut file) = open_inside(directory, name)? {
                    return Ok((Source::new(name, text_of(&mut file, &path.display().to_string())?), Some(path)));
                }
            }
            let none = format!("{} has no Dockerfile", directory.display());
            let like = like_dockerfiles(directory);
            Err(missing(DEFAULT).with_help(match like.as_slice() {
                [] => format!("{none}; name another file with -f, or another directory"),
                names => {
                    format!("{none}, but {}: name it with -f {}", names.join(", "), directory.join(&names[0]).display())
                }
            }))
        }
    }
}

/// Where a Dockerfile that is not there may be meant to be: `-f` counts from the working directory.
fn elsewhere(directory: &Path, path: &Path) -> String {
    let inside = directory.join(path);
    if path.is_relative() && inside.is_file() {
        return format!("-f counts from the working directory: write -f {}", inside.display());
    }
    let beside = match path.parent() {
        Some(parent) if path.is_absolute() || !parent.as_os_str().is_empty() => parent,
        _ => directory,
    };
    match like_dockerfiles(beside).as_slice() {
        [] => "name an existing file with -f; without it, Dockerfile in the context is read".to_owned(),
        names => format!("{} has {}", beside.display(), names.join(", ")),
    }
}

/// The names of what is, or was meant to be, a Dockerfile; not more than a few.
fn like_dockerfiles(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let names = files.filter_map(|entry| entry.file_name().into_string().ok());
    let is_like = |name: &String| {
        let lower = name.to_lowercase();
        let usual = lower.contains("dockerfile") || lower.contains("containerfile");
        (usual && !lower.ends_with(".dockerignore")) || rbuild_parser::suggestion(&lower, [LOWER]).is_some()
    };
    let mut names: Vec<String> = names.filter(is_like).collect();
    names.sort_unstable();
    names.truncate(5);
    names
}

/// Reads the ignore file of a directory context: the Dockerfile's own one, else the context's.
pub(super) fn ignore_file(directory: &Path, dockerfile: Option<&Path>) -> Result<IgnoreFile, Failure> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(IGNORE);
        PathBuf::from(name)
    });
    for path in own.into_iter().chain([directory.join(IGNORE)]) {
        let found = match path.strip_prefix(directory) {
            Ok(inside) => open_inside(directory, &inside.to_string_lossy())?,
            Err(_) => open(&path)?,
        };
        if let Some(mut file) = found {
            let mut bytes = Vec::new();
            file.by_ref().take(MAX_TEXT).read_to_end(&mut bytes)?;
            return parse_ignore(&bytes, &path.display().to_string());
        }
    }
    Ok(IgnoreFile::default())
}

/// Reads a file of an unpacked context; `None` when there is none of that name.
type ReadInside<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>, Failure>;

/// Reads the Dockerfile of a context that was unpacked.
pub(super) fn read_inside(read: ReadInside<'_>, input: &DockerfileInput) -> Result<Source, Failure> {
    let names = match input {
        DockerfileInput::Default => vec![DEFAULT.to_owned(), LOWER.to_owned()],
        DockerfileInput::Path(path) => {
            let name = path.to_string_lossy().into_owned();
            let lower = path.file_name().filter(|last| *last == DEFAULT).map(|_| path.with_file_name(LOWER));
            let lower = lower.map(|path| path.to_string_lossy().into_owned());
            std::iter::once(name).chain(lower).collect()
        }
        DockerfileInput::Url(_) | DockerfileInput::Stdin => {
            return Err(Failure::usage("standard input is the context already", "give one as a path"));
        }
    };
    for name in &names {
        if let Some(bytes) = read(name)? {
            let text = String::from_utf8(bytes).map_err(|error| not_text(name, error.as_bytes()))?;
            let shown = Path::new(name).file_name().map_or(name.clone(), |last| last.to_string_lossy().into_owned());
            return Ok(Source::new(shown, text));
        }
    }
    Err(missing(&names[0]).with_help("the context has no such file; -f names another one inside it"))
}

fn parse_ignore(bytes: &[u8], name: &str) -> Result<IgnoreFile, Failure> {
    let short = Path::new(name).file_name().map_or_else(|| name.into(), |last| last.to_string_lossy());
    IgnoreFile::parse(&short, bytes)
        .map_err(|error| Failure::new(format!("{name}: {error}")).with_help("mend or remove the pattern"))
}

/// Opens a regular file of a context; no symlink in it leads out of the context (rule B-07).
fn open_inside(directory: &Path, name: &str) -> Result<Option<File>, Failure> {
    let failed = |error: io::Error| {
        let path = directory.join(name);
        let shown = Failure::new(format!("cannot open {}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::IsADirectory => shown.with_help("rename that directory, or name the Dockerfile with -f"),
            io::ErrorKind::PermissionDenied => {
                shown.with_help(format!("whoever builds must be able to read it: chmod +r {}", path.display()))
            }
            _ => shown,
        }
    };
    match RootDir::open(directory).map_err(failed)?.open_file(&ContainerPath::new(name)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Opens a regular file; `None` when there is nothing of that name.
fn open(path: &Path) -> Result<Option<File>, Failure> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, rustix::fs::Mode::empty()) {
        Ok(fd) => {
            let file = File::from(fd);
            let metadata = file.metadata()?;
            if metadata.is_file() {
                return Ok(Some(file));
            }
            let what = if metadata.is_dir() { "a directory" } else { "no regular file" };
            Err(Failure::new(format!("failed to read dockerfile: {} is {what}", path.display())).with_help(
                "-f names the Dockerfile itself; the directory with your files comes last: rbuild -f FILE DIR",
            ))
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(Failure::new(format!("cannot open {}: {error}", path.display()))),
    }
}

fn text_of(reader: &mut dyn Read, name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_TEXT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(Failure::new(format!("{name} is larger than {MAX_TEXT} bytes: no Dockerfile")));
    }
    String::from_utf8(bytes).map_err(|error| not_text(name, error.as_bytes()))
}

fn not_text(name: &str, bytes: &[u8]) -> Failure {
    let help = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        "it is UTF-16, as `>` of PowerShell writes files: save it as UTF-8"
    } else {
        "save it as UTF-8, or name the Dockerfile with -f"
    };
    Failure::new(format!("{name} is not UTF-8 text: no Dockerfile")).with_help(help)
}

fn missing(name: &str) -> Failure {
    Failure::new(format!("failed to read dockerfile: open {name}: no such file or directory"))
}
