//! Why a program of an image cannot be executed, from the file itself: its mode, its `#!` line, its machine, its loader.

use rbuild_cache::view::{FileKind, LastLink, View};
use rbuild_executor::{NotExecutable, SpawnError};
use rbuild_image::{ContainerPath, Platform};
use rbuild_solver::RunOp;

use crate::foreign;

/// Bytes of a program that are looked at.
const HEAD: usize = 4096;
/// Where programs are looked for when a step has no `PATH`.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The files of a step as they were before it ran.
pub(crate) trait Files {
    /// What a path leads to, symlinks followed.
    fn look(&self, path: &ContainerPath) -> Option<Found>;

    /// Whether there is anything.
    fn has(&self, path: &str) -> bool {
        self.look(&ContainerPath::new(path)).is_some()
    }
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Permissions.
    pub(crate) mode: u32,
    /// Whether it is a directory.
    pub(crate) is_directory: bool,
    /// How it begins.
    pub(crate) head: Vec<u8>,
}

impl Files for View {
    fn look(&self, path: &ContainerPath) -> Option<Found> {
        let resolved = self.resolve(path.as_bytes(), LastLink::Follow).ok()?;
        let stat = self.lstat(&resolved.path).ok()??;
        let mut head = vec![0; HEAD];
        let read = match stat.kind {
            FileKind::File => self.open(&resolved.path).ok()?.read_at(&mut head, 0).ok()?,
            _ => 0,
        };
        head.truncate(read);
        Some(Found { mode: stat.mode, is_directory: stat.kind.is_directory(), head })
    }
}

/// What a word that was to be executed leads to.
pub(crate) fn locate(word: &str, op: &RunOp, files: &dyn Files) -> Option<(ContainerPath, Found)> {
    let look = |path: ContainerPath| files.look(&path).map(|found| (path, found));
    if word.contains('/') {
        return look(op.cwd.join(word));
    }
    search_path(op)
        .split(':')
        .find_map(|directory| look(ContainerPath::new(directory).join(word)).filter(|(_, found)| !found.is_directory))
}

/// Where the step looks for programs.
pub(crate) fn search_path(op: &RunOp) -> &str {
    op.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(USUAL_PATH)
}

/// Why a file that is there cannot be executed, and what to do; `None` when nothing is wrong with it.
pub(crate) fn wrong_with(path: &ContainerPath, found: &Found, op: &RunOp, files: &dyn Files) -> Option<String> {
    if found.is_directory {
        return Some(format!("{path} is a directory, no program"));
    }
    if found.mode & 0o111 == 0 {
        return Some(format!(
            "{path} is not executable (its mode is {:04o}): copy it with COPY --chmod=755, or RUN chmod +x {path} before",
            found.mode & 0o7777
        ));
    }
    if let Some(line) = found.head.strip_prefix(b"#!") {
        return wrong_with_script(path, line, files);
    }
    if found.head.starts_with(b"\x7fELF") {
        return wrong_with_binary(path, &found.head, &op.platform, files);
    }
    let shown = if found.head.is_empty() { "is empty" } else { "is neither a binary nor a script that begins with #!" };
    Some(format!("{path} {shown}: begin a script with a line such as #!/bin/sh"))
}

fn wrong_with_script(path: &ContainerPath, line: &[u8], files: &dyn Files) -> Option<String> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.ends_with(b"\r") {
        return Some(format!(
            "{path} has Windows line ends, so that its first line asks for a program whose name ends in \\r: save it with \
             LF line ends (in git: `*.sh text eol=lf` in .gitattributes)"
        ));
    }
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    let interpreter = words.next()?;
    if interpreter.starts_with('/') && !files.has(interpreter) {
        return Some(format!(
            "{path} asks for {interpreter} in its first line, which the image does not have: install it, or name another one there"
        ));
    }
    None
}

fn wrong_with_binary(path: &ContainerPath, head: &[u8], platform: &Platform, files: &dyn Files) -> Option<String> {
    let machine = foreign::architecture(head)?;
    if !foreign::runs_here(machine) {
        return Some(format!(
            "{path} is a program for {machine}, and this step runs on {}: take the one for that architecture, or build with \
             --platform=linux/{machine}",
            platform.architecture
        ));
    }
    let loader = foreign::loader(head)?;
    if files.has(&loader) {
        return None;
    }
    let libc = if loader.contains("musl") { "musl (Alpine)" } else { "glibc (Debian, Fedora …)" };
    Some(format!(
        "{path} needs {loader}, which the image does not have: it was built for {libc}; link it statically, or take a base \
         image of that kind"
    ))
}

/// Help with a step that could not be started.
pub(crate) fn not_started(error: &SpawnError, op: &RunOp, files: &dyn Files) -> String {
    let shell_form = op.argv.len() == 3 && op.argv[1] == "-c";
    let examined = |program: &str| {
        let (path, found) = locate(program, op, files)?;
        wrong_with(&path, &found, op, files)
    };
    match error {
        SpawnError::NotFound { program } if shell_form && program.starts_with('/') => format!(
            "the image has no shell {program}, which RUN without brackets needs: write RUN [\"PROGRAM\", \"ARGUMENT\"], or do \
             it in a stage that has one and COPY --from it"
        ),
        SpawnError::NotFound { program } if program.contains('/') => {
            format!("the image has no {program} before this step: COPY or install it first")
        }
        SpawnError::NotFound { program } => no_such_command(program, op, files),
        SpawnError::NotExecutable { program, reason } => examined(program).unwrap_or_else(|| {
            match reason {
                NotExecutable::Permission => {
                    "it may not be executed: check its mode, and that of its directories for the step's USER"
                }
                NotExecutable::Format => "it is no program for this machine: check its first line and its architecture",
                NotExecutable::Interpreter => {
                    "what its first line or its ELF header names is missing or broken in the image"
                }
                NotExecutable::Other(_) => "run with --log-level debug for details",
            }
            .to_owned()
        }),
        SpawnError::Cwd { path, .. } => {
            format!("WORKDIR {path} must be a directory that the step's USER may enter")
        }
        _ => "run with --log-level debug for details".to_owned(),
    }
}

/// What finds packages, by the distribution that has it.
const PACKAGE_MANAGERS: [&str; 8] = ["apt-get", "apk", "dnf", "microdnf", "yum", "zypper", "pacman", "apt"];

/// Help with a name that is nowhere in `PATH`.
pub(crate) fn no_such_command(name: &str, op: &RunOp, files: &dyn Files) -> String {
    if PACKAGE_MANAGERS.contains(&name) {
        let there = PACKAGE_MANAGERS.iter().find(|other| locate(other, op, files).is_some());
        return match there {
            Some(other) => format!("this image has no {name}: its packages are installed with {other}"),
            None => format!("this image has no {name}, and no other package manager: take a base image that has one"),
        };
    }
    match name {
        "sudo" if matches!(op.user.as_str(), "" | "0" | "root") => {
            return "steps run as root until a USER line: leave sudo out".to_owned();
        }
        "sudo" => {
            return "there is no sudo: write USER root before the step, and the other USER again behind it".to_owned();
        }
        "source" => {
            return "source is a command of bash: write `. FILE`, or SHELL [\"/bin/bash\", \"-c\"] before".to_owned();
        }
        _ if name.starts_with('[') && name.len() > 1 => {
            return "this was meant as a list, which is JSON: words in it stand in double quotes, RUN [\"program\", \"argument\"]"
                .to_owned();
        }
        _ => {}
    }
    format!(
        "no {name:?} in this image's PATH ({}): install the package that has it in an earlier step, or check its spelling",
        search_path(op)
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Files by path: mode, and how they begin; a directory has none.
    #[derive(Default)]
    pub(crate) struct Fake(pub(crate) BTreeMap<&'static str, (u32, Option<&'static [u8]>)>);

    impl Files for Fake {
        fn look(&self, path: &ContainerPath) -> Option<Found> {
            let path = std::str::from_utf8(path.as_bytes()).unwrap();
            let (mode, head) = self.0.get(path)?;
            Some(Found { mode: *mode, is_directory: head.is_none(), head: head.unwrap_or_default().to_vec() })
        }
    }

    /// A step of a command in shell form.
    pub(crate) fn shell(command: &str) -> RunOp {
        serde_json::from_value(serde_json::json!({
            "argv": ["/bin/sh", "-c", command], "env": ["PATH=/bin"], "arguments": [], "proxy_env": [], "cwd": ContainerPath::new("/app"),
            "user": "", "mounts": [], "network": "Default", "security": "Sandbox", "platform": Platform::host(),
            "hostname": "", "extra_hosts": [], "shm_size": 0, "ulimits": []
        }))
        .unwrap()
    }

    fn files() -> Fake {
        Fake(BTreeMap::from([
            ("/bin/sh", (0o755, Some(b"\x7fELF".as_slice()))),
            ("/app/plain.sh", (0o644, Some(b"#!/bin/sh\n".as_slice()))),
            ("/app/fine.sh", (0o755, Some(b"#!/bin/sh\n".as_slice()))),
            ("/app/windows.sh", (0o755, Some(b"#!/bin/sh\r\necho\r\n".as_slice()))),
            ("/app/bash.sh", (0o755, Some(b"#!/bin/bash -e\n".as_slice()))),
            ("/app/text", (0o755, Some(b"hello".as_slice()))),
            ("/app/empty", (0o755, Some(b"".as_slice()))),
            ("/app/dir", (0o755, None)),
        ]))
    }

    #[test]
    fn a_file_says_what_is_wrong_with_it() {
        let (op, files) = (shell(""), files());
        let told = |word: &str| {
            let (path, found) = locate(word, &op, &files)?;
            Some(wrong_with(&path, &found, &op, &files).unwrap_or_else(|| "fine".to_owned()))
        };
        assert_eq!(told("./no"), None);
        assert_eq!(told("./fine.sh").unwrap(), "fine");
        assert!(told("/app/plain.sh").unwrap().contains("its mode is 0644"));
        assert!(told("./windows.sh").unwrap().contains("Windows line ends"));
        assert!(told("./bash.sh").unwrap().contains("/bin/bash"));
        assert!(told("./text").unwrap().contains("#!/bin/sh"));
        assert!(told("./empty").unwrap().contains("is empty"));
        assert!(told("./dir").unwrap().contains("directory"));
    }

    #[test]
    fn an_image_without_a_shell_is_told_from_a_missing_program() {
        let not_found = |program: &str| SpawnError::NotFound { program: program.to_owned() };
        let told = not_started(&not_found("/bin/sh"), &shell("echo"), &Fake::default());
        assert!(told.contains("no shell /bin/sh"), "{told}");
        let op = RunOp { argv: vec!["app".to_owned()], ..shell("") };
        let told = not_started(&not_found("app"), &op, &Fake::default());
        assert!(told.contains("PATH (/bin)"), "{told}");
    }
}
