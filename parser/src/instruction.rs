//! The instructions of a stage as typed values: a closed enum and one struct for each. Words that BuildKit expands at build
//! time stay [`Word`]s here; text that is never expanded is a [`Text`]. Nothing here looks at values of variables.

use crate::Span;
use crate::heredoc::Heredoc;
use crate::mount::MountFlag;
use crate::word::Word;

/// Where an instruction comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The keyword as written (`RUN`, `run`).
    pub keyword: String,
    /// The whole instruction with its continuation lines joined, without here-document bodies; as BuildKit shows it.
    pub text: String,
    /// Its place, from the keyword to the end of its last line (here-documents included).
    pub span: Span,
    /// The part of that place without here-document bodies.
    pub head: Span,
    /// Checks switched off or on by a `# check=` comment directly above it.
    pub checks: Option<Box<crate::lint::Config>>,
}

/// Text that stays as it is: exec-form arguments, shell commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text, JSON escapes resolved.
    pub value: String,
    /// Its place.
    pub span: Span,
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Handed to the shell as one argument. Empty when the instruction has no arguments.
    Shell(Text),
    /// An argument vector, from a JSON array. May be empty.
    Exec(Vec<Text>),
}

impl CommandLine {
    /// The argument vector, a shell command put behind `shell`.
    pub fn argv(&self, shell: &[String]) -> Vec<String> {
        match self {
            Self::Shell(text) => shell.iter().cloned().chain([text.value.clone()]).collect(),
            Self::Exec(args) => args.iter().map(|arg| arg.value.clone()).collect(),
        }
    }
}

/// `ARG name[=default] …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    /// Where it is.
    pub origin: Origin,
    /// What it declares, in order.
    pub args: Vec<ArgDeclaration>,
}

/// One `name[=default]` of an `ARG`. A stage's `ARG` expands the default only; before the first `FROM` likewise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The name.
    pub name: Text,
    /// The default.
    pub value: Option<Word>,
    /// The description from a comment `# NAME text` directly above.
    pub description: Option<String>,
}

/// `ENV name=value …`; names and values are expanded, all with the environment before the instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Env {
    /// Where it is.
    pub origin: Origin,
    /// The pairs in order.
    pub pairs: Vec<Pair>,
}

/// `LABEL name=value …`; names and values are expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where it is.
    pub origin: Origin,
    /// The pairs in order.
    pub pairs: Vec<Pair>,
}

/// A name and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub name: Word,
    /// The value.
    pub value: Word,
    /// How the two were separated.
    pub form: PairForm,
}

/// How a name and its value were separated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairForm {
    /// `name=value`.
    Equals,
    /// The old `name value`, the value being the rest of the instruction.
    Blank,
}

/// `MAINTAINER name`; never expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintainer {
    /// Where it is.
    pub origin: Origin,
    /// The name.
    pub name: Text,
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it is.
    pub origin: Origin,
    /// The command.
    pub command: CommandLine,
    /// Here-documents in the order of their openers. RUN bodies are never expanded by the builder.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order. Finish each with [`MountFlag::resolve`].
    pub mounts: Vec<MountFlag>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// `--device`, in order.
    pub devices: Vec<Device>,
}

/// What a `RUN` really executes once its here-documents are put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// An argument vector.
    Exec(Vec<String>),
    /// One argument for the shell.
    Shell(String),
    /// A lone here-document that starts with `#!`: a file `/dev/pipes/NAME`, mode 0755, executed as it is.
    File {
        /// The file's name.
        name: String,
        /// The file's content.
        content: String,
    },
}

/// `--network` of a `RUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The build's network.
    #[default]
    Default,
    /// No network.
    None,
    /// The host's; needs an entitlement.
    Host,
}

/// `--security` of a `RUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// The normal sandbox.
    #[default]
    Sandbox,
    /// Full privileges; needs an entitlement.
    Insecure,
}

/// `--device` of a `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The CDI name.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// The flag's place.
    pub span: Span,
}

/// `CMD`; never expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    /// Where it is.
    pub origin: Origin,
    /// The command.
    pub command: CommandLine,
}

/// `ENTRYPOINT`; never expanded. An empty exec form removes the entrypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrypoint {
    /// Where it is.
    pub origin: Origin,
    /// The command.
    pub command: CommandLine,
}

/// `COPY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where it is.
    pub origin: Origin,
    /// Sources and destination.
    pub paths: SourcesAndDest,
    /// `--from`: a stage, an image or a named context; not expanded.
    pub from: Option<Text>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`: octal or symbolic.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in order; BuildKit takes them as they are, without expanding them.
    pub exclude: Vec<Word>,
}

/// `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Where it is.
    pub origin: Origin,
    /// Sources and destination.
    pub paths: SourcesAndDest,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`: octal or symbolic.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--exclude`, in order; BuildKit takes them as they are, without expanding them.
    pub exclude: Vec<Word>,
    /// `--checksum`.
    pub checksum: Option<Word>,
    /// `--keep-git-dir`, if given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`, if given.
    pub unpack: Option<bool>,
}

/// What `COPY` and `ADD` move where. BuildKit handles all paths before all inline contents, whatever their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcesAndDest {
    /// Paths, wildcards, URLs, repositories; expanded.
    pub sources: Vec<Word>,
    /// Files written in the Dockerfile itself.
    pub contents: Vec<InlineFile>,
    /// The destination; expanded.
    pub dest: Word,
}

/// A file whose content is a here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// Its name: the delimiter.
    pub name: String,
    /// Its content, tabs already removed for `<<-`. Expand it with [`InlineFile::expand`].
    pub content: String,
    /// Whether variables in it are expanded (the delimiter was not quoted).
    pub expands: bool,
    /// The place of the body.
    pub span: Span,
}

/// `WORKDIR path`; expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workdir {
    /// Where it is.
    pub origin: Origin,
    /// The path.
    pub path: Word,
}

/// `USER user[:group]`; expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Where it is.
    pub origin: Origin,
    /// The user.
    pub user: Word,
}

/// `EXPOSE port …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expose {
    /// Where it is.
    pub origin: Origin,
    /// The ports in byte order of their text. Expand each with [`Word::expand_words`] (one word may become several), then
    /// read every result with [`port::parse`](crate::port::parse).
    pub ports: Vec<Word>,
}

/// `VOLUME path …`; expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Where it is.
    pub origin: Origin,
    /// The paths in order.
    pub paths: Vec<Word>,
}

/// `STOPSIGNAL signal`; expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopSignal {
    /// Where it is.
    pub origin: Origin,
    /// The signal.
    pub signal: Word,
}

/// `HEALTHCHECK`; never expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Healthcheck {
    /// Where it is.
    pub origin: Origin,
    /// What to do.
    pub check: HealthcheckKind,
}

/// What a `HEALTHCHECK` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthcheckKind {
    /// `NONE`: switch off an inherited check.
    None,
    /// `CMD`.
    Command {
        /// The command; the shell form is stored as `CMD-SHELL`.
        command: CommandLine,
        /// Nanoseconds between checks; 0 is the default.
        interval: i64,
        /// Nanoseconds a check may take; 0 is the default.
        timeout: i64,
        /// Nanoseconds in which failures do not count; 0 is the default.
        start_period: i64,
        /// Nanoseconds between checks in the start period; 0 is the default.
        start_interval: i64,
        /// Failures in a row that make a container unhealthy; 0 is the default.
        retries: i64,
    },
}

/// `SHELL ["…"]`; never expanded, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shell {
    /// Where it is.
    pub origin: Origin,
    /// The shell with its arguments.
    pub argv: Vec<Text>,
}

/// `ONBUILD instruction`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnBuild {
    /// Where it is.
    pub origin: Origin,
    /// The trigger as the image config keeps it, here-documents included. Read it again with
    /// [`parse_trigger`](crate::parse_trigger).
    pub trigger: String,
}

/// An instruction of a stage. `FROM` is not among them: it makes a [`Stage`](crate::Stage).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented on its struct")]
pub enum Instruction {
    Add(Box<Add>),
    Arg(Arg),
    Cmd(Cmd),
    Copy(Box<Copy>),
    Entrypoint(Entrypoint),
    Env(Env),
    Expose(Expose),
    Healthcheck(Box<Healthcheck>),
    Label(Label),
    Maintainer(Maintainer),
    OnBuild(OnBuild),
    Run(Box<Run>),
    Shell(Shell),
    StopSignal(StopSignal),
    User(User),
    Volume(Volume),
    Workdir(Workdir),
}

impl Instruction {
    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        match self {
            Self::Add(x) => &x.origin,
            Self::Arg(x) => &x.origin,
            Self::Cmd(x) => &x.origin,
            Self::Copy(x) => &x.origin,
            Self::Entrypoint(x) => &x.origin,
            Self::Env(x) => &x.origin,
            Self::Expose(x) => &x.origin,
            Self::Healthcheck(x) => &x.origin,
            Self::Label(x) => &x.origin,
            Self::Maintainer(x) => &x.origin,
            Self::OnBuild(x) => &x.origin,
            Self::Run(x) => &x.origin,
            Self::Shell(x) => &x.origin,
            Self::StopSignal(x) => &x.origin,
            Self::User(x) => &x.origin,
            Self::Volume(x) => &x.origin,
            Self::Workdir(x) => &x.origin,
        }
    }

    /// Its place.
    pub fn span(&self) -> Span {
        self.origin().span
    }

    /// The keyword in capitals.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::OnBuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}
