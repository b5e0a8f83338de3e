//! `cp` and `diff`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rbuild_container::{ContainerRecord, Containers, CopyError, CopyLinks, CopyOwners, Files};
use rbuild_executor::FileKind;
use rbuild_image::ContainerPath;

use super::containers_of;
use crate::cli::report::{self, Failure, printable};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `cp`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "rbuild cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       rbuild cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH"
)]
pub(in crate::cli) struct CopyArgs {
    /// Keep the owners of files that come out of a container
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symlink leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing (rbuild never does; for scripts written for Docker)
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of this machine, or - for a tar archive
    #[arg(value_name = "SOURCE")]
    from: String,
    /// CONTAINER:PATH, a path of this machine, or - for a tar archive
    #[arg(value_name = "DESTINATION")]
    to: String,
}

/// One end of a copy, as it was typed.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    Container(&'a str, &'a str),
    Host(&'a str),
    Stream,
}

impl<'a> End<'a> {
    /// As in Docker, a path of this machine that has a colon begins with `/` or `.`.
    fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            _ if text.starts_with(['/', '.']) => Self::Host(text),
            Some((container, path)) if !container.is_empty() => Self::Container(container, path),
            _ => Self::Host(text),
        }
    }
}

/// Where copied files go: a directory, and the name in it; an empty name is the directory itself.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    directory: ContainerPath,
    name: Vec<u8>,
}

/// Runs `cp`.
pub(in crate::cli) fn copy(args: &CopyArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    let lease = engine.store()?.lease("cp")?;
    let links = if args.follow_link { CopyLinks::Follow } else { CopyLinks::Keep };
    // Told as Docker tells it: when the files are about to be read or written.
    let open = |name: &str, action: &str| -> Result<Files, Failure> {
        let record = containers.find(name)?;
        let files = containers.files(&record, &lease)?;
        containers.tell(&record, action, &[]);
        Ok(files)
    };
    let (read, write) = ("archive-path", "extract-to-dir");
    match (End::parse(&args.from), End::parse(&args.to)) {
        (End::Container(container, path), End::Stream) => {
            if engine.settings().stdout_is_terminal {
                return Err(Failure::new("refusing to write an archive to a terminal").with_help("redirect the output"));
            }
            let from = Source::find(open(container, read)?, path, &format!("{container}:{path}"), links)?;
            let mut out = io::BufWriter::new(io::stdout().lock());
            from.files.read(&from.path, &from.name_in_stream(), CopyLinks::Keep, &mut out)?;
            out.flush()?;
        }
        (End::Container(container, path), End::Host(host)) => {
            let (uid, gid) = engine.settings().ids;
            let owners = if args.archive { CopyOwners::Archive } else { CopyOwners::All(uid, gid) };
            let from = Source::find(open(container, read)?, path, &format!("{container}:{path}"), links)?;
            let to = followed(engine.settings().absolute(host));
            let there = std::fs::metadata(&to).ok().map(|stat| stat.is_dir());
            let parent = to.parent().is_some_and(Path::is_dir);
            let target = target(&from, host, host_path(&to), there, parent)?;
            let directory = PathBuf::from(target.directory.to_string());
            let into = Files::of_host(&directory)
                .map_err(|error| Failure::from_error(&format!("cannot open {}", directory.display()), &error))?;
            from.copy(&target.name, &into, &ContainerPath::root(), owners)?;
        }
        (End::Host(host), End::Container(container, path)) => {
            let files = Files::of_host(Path::new("/"))?;
            let absolute = engine.settings().absolute(host);
            let keeps = match host {
                _ if host.ends_with("/.") || host == "." => "/.",
                _ if host.ends_with('/') => "/",
                _ => "",
            };
            let from = Source::find(files, &format!("{}{keeps}", absolute.display()), host, links)?;
            if path.is_empty() {
                return Err(Failure::new("the path in the container is empty").with_help("its root is CONTAINER:/"));
            }
            let into = open(container, write)?;
            // A link there is followed, also one that leads to nothing yet.
            let place = into.resolve(&ContainerPath::new(path));
            let there = into.stat(&place, CopyLinks::Follow)?.map(|stat| stat.kind == FileKind::Directory);
            let parent = match place.parent() {
                Some(parent) => {
                    into.stat(&parent, CopyLinks::Follow)?.is_some_and(|stat| stat.kind == FileKind::Directory)
                }
                None => true,
            };
            let target = target(&from, path, place, there, parent)?;
            from.copy(&target.name, &into, &target.directory, CopyOwners::Archive)?;
        }
        (End::Stream, End::Container(container, path)) => {
            let into = open(container, write)?;
            let place = ContainerPath::new(path);
            if into.stat(&place, CopyLinks::Follow)?.is_none_or(|stat| stat.kind != FileKind::Directory) {
                return Err(Failure::new(format!("destination \"{container}:{path}\" must be a directory")));
            }
            into.write(&place, &mut io::stdin().lock(), CopyOwners::Archive)?;
        }
        (End::Container(..), End::Container(..)) => {
            return Err(Failure::new("copying between containers is not supported"));
        }
        _ => {
            return Err(Failure::usage(
                "must specify at least one container source",
                "a container's path is CONTAINER:PATH",
            ));
        }
    }
    Ok(Exit::Success)
}

/// What is copied.
struct Source {
    files: Files,
    /// Where it is, with the links that are to be followed followed.
    path: ContainerPath,
    /// What it was called.
    name: Vec<u8>,
    is_directory: bool,
    /// Only what is in it: its path ends in `/.`.
    content: bool,
}

impl Source {
    /// A link is followed when that was asked for, and when a `/` behind it says that a directory is meant.
    fn find(files: Files, typed: &str, shown: &str, links: CopyLinks) -> Result<Self, Failure> {
        if typed.is_empty() {
            return Err(
                Failure::new(format!("{shown}: the path is empty")).with_help("a container's root is CONTAINER:/")
            );
        }
        let content = typed.ends_with("/.");
        let meant = content || typed.ends_with('/');
        let links = if meant { CopyLinks::Follow } else { links };
        let path = ContainerPath::new(typed);
        let stat =
            files.stat(&path, links)?.ok_or_else(|| Failure::new(format!("no such file or directory: {shown}")))?;
        let is_directory = stat.kind == FileKind::Directory;
        if meant && !is_directory {
            return Err(Failure::new(format!("not a directory: {shown}")));
        }
        let name = name_of(&path).to_vec();
        let path = if links == CopyLinks::Follow { files.resolve(&path) } else { path };
        Ok(Self { files, path, name, is_directory, content })
    }

    /// What it is called in an archive for standard output.
    fn name_in_stream(&self) -> Vec<u8> {
        if self.content { b".".to_vec() } else { name_of(&self.path).to_vec() }
    }

    /// Copies through a pipe: one thread packs, this one unpacks.
    fn copy(&self, name: &[u8], into: &Files, directory: &ContainerPath, owners: CopyOwners) -> Result<(), Failure> {
        let (mut reader, writer) = io::pipe()?;
        std::thread::scope(|scope| {
            let packed = scope.spawn(|| {
                let mut out = io::BufWriter::new(writer);
                let result = self.files.read(&self.path, name, CopyLinks::Keep, &mut out);
                result.map(|()| out.flush())
            });
            let unpacked = into.write(directory, &mut reader, owners);
            // A packer that still writes gives up when nobody reads.
            drop(reader);
            let packed: Result<io::Result<()>, CopyError> = packed.join().expect("packing does not panic");
            match (packed, unpacked) {
                (_, Err(error)) if !matches!(error, CopyError::Read(_)) => Err(error.into()),
                // An archive that ends early is the packer's failure.
                (Err(error), _) | (Ok(_), Err(error)) => Err(error.into()),
                (Ok(flushed), Ok(())) => Ok(flushed?),
            }
        })
    }
}

/// Docker's rules: into a directory that is there, else under the last name of the path.
fn target(
    from: &Source,
    typed: &str,
    path: ContainerPath,
    there: Option<bool>,
    parent_there: bool,
) -> Result<Target, Failure> {
    let last = || -> Result<Target, Failure> {
        let directory = path.parent().unwrap_or_else(ContainerPath::root);
        Ok(Target { directory, name: path.file_name().unwrap_or_default().to_vec() })
    };
    match there {
        Some(true) if from.content => Ok(Target { directory: path, name: Vec::new() }),
        Some(true) => Ok(Target { directory: path, name: from.name.clone() }),
        Some(false) if typed.ends_with('/') => Err(Failure::new(format!("not a directory: {typed}"))),
        Some(false) if from.is_directory => Err(Failure::new(format!("cannot copy a directory to the file {typed}"))),
        Some(false) => last(),
        None if typed.ends_with('/') && !from.is_directory => {
            Err(Failure::new(format!("destination directory {typed} does not exist")))
        }
        // A directory that is not there yet has no content that could be meant.
        None if typed.ends_with("/.") => Err(Failure::new(format!("no such file or directory: {typed}"))),
        None if !parent_there => Err(Failure::new(format!("the directory of {typed} does not exist"))),
        None => last(),
    }
}

/// Where a path of this machine leads, also when nothing is there yet.
fn followed(mut path: PathBuf) -> PathBuf {
    // As many as the kernel follows.
    for _ in 0..40 {
        let (Ok(link), Some(parent)) = (std::fs::read_link(&path), path.parent()) else { break };
        path = parent.join(link);
    }
    path
}

fn name_of(path: &ContainerPath) -> &[u8] {
    path.file_name().unwrap_or_default()
}

fn host_path(path: &Path) -> ContainerPath {
    use std::os::unix::ffi::OsStrExt;
    ContainerPath::root().join(path.as_os_str().as_bytes())
}

/// Arguments of `diff`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DiffArgs {
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Runs `diff`.
pub(in crate::cli) fn diff(args: &DiffArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers: Containers = containers_of(engine)?;
    let record: ContainerRecord = containers.find(&args.container)?;
    let changes = containers.diff(&record, &engine.store()?.lease("diff")?)?;
    let lines: String = changes.iter().map(|(kind, path)| format!("{kind} {path}\n")).collect();
    report::answer(&printable(&lines))?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart_as_by_docker() {
        for (text, want) in [
            ("web:/etc", End::Container("web", "/etc")),
            ("web:", End::Container("web", "")),
            ("./a:b", End::Host("./a:b")),
            ("/a:b", End::Host("/a:b")),
            ("plain", End::Host("plain")),
            ("-", End::Stream),
        ] {
            assert_eq!(End::parse(text), want, "{text}");
        }
    }

    #[test]
    fn where_files_go_is_dockers_rule() {
        let placed = |source: &str, directory: bool, to: &str, there: Option<bool>, parent: bool| {
            let files = Files::of_host(Path::new("/")).unwrap();
            let content = directory && source.ends_with("/.");
            let path = ContainerPath::new(source);
            let from = Source { files, name: name_of(&path).to_vec(), path, is_directory: directory, content };
            target(&from, to, ContainerPath::new(to), there, parent)
                .map(|target| format!("{} {}", target.directory, String::from_utf8(target.name).unwrap()))
                .map_err(|failure| failure.message().to_owned())
        };
        assert_eq!(placed("/a/f", false, "/d", Some(true), true).unwrap(), "/d f");
        assert_eq!(placed("/a/f", false, "/d/g", None, true).unwrap(), "/d g");
        assert_eq!(placed("/a/f", false, "/d/g", Some(false), true).unwrap(), "/d g");
        assert_eq!(placed("/a", true, "/d", Some(true), true).unwrap(), "/d a");
        assert_eq!(placed("/a/.", true, "/d", Some(true), true).unwrap(), "/d ");
        assert_eq!(placed("/a", true, "/d/n", None, true).unwrap(), "/d n");
        assert!(placed("/a", true, "/d", Some(false), true).is_err());
        assert!(placed("/a/f", false, "/d/", None, true).is_err());
        assert!(placed("/a/f", false, "/d/g/", Some(false), true).is_err());
        assert!(placed("/a/f", false, "/x/y", None, false).is_err());
    }
}
