//! `rbuild [build]`: arguments to a [`BuildRequest`].

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rbuild_image::{ImageRef, Platform};
use rbuild_solver::StepName;

use super::limits::LimitArgs;
use super::report::{self, Failure};
use crate::annotation;
use crate::annotation::Annotate;
use crate::config::Settings;
use crate::engine::Engine;
use crate::evaluate::Call;
use crate::exit_code::Exit;
use crate::interrupt::Interrupts;
use crate::progress::Mode;

#[path = "attestation_spec.rs"]
mod attestation_spec;
#[path = "cache_spec.rs"]
mod cache_spec;
#[path = "compression_spec.rs"]
mod compression_spec;
#[path = "output_spec.rs"]
mod output_spec;
#[path = "build_spec.rs"]
pub(super) mod spec;

/// Arguments of `rbuild build`; names and short forms are `docker build`'s.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rbuild -t hello:0.1 .                           the Dockerfile in this directory
  rbuild -f app.Dockerfile --target test .        another file, one stage of it
  rbuild - < Dockerfile                           a Dockerfile without a context
  tar c . | rbuild -                              a context as a tar
  rbuild -o type=oci,dest=image.tar .             an OCI archive instead of an image in the store
  rbuild -o out .                                 the files of the last stage below ./out")]
pub(super) struct BuildArgs {
    /// Name the result gets (name:tag); several are possible
    #[arg(short = 't', long = "tag", value_name = "NAME")]
    tags: Vec<ImageRef>,
    /// Dockerfile to read, also by URL; `-` is standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Stage to build instead of the last one
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Build argument; without a value it takes the environment's
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Another context by name: a directory, docker-image://, oci-layout://, a repository, a URL, or target:STAGE
    #[arg(long, value_name = "NAME=SOURCE")]
    build_context: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Run every step again
    #[arg(long)]
    no_cache: bool,
    /// Run every step of these stages again
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Cache to look in: type=registry,ref=NAME or type=local,src=DIR[,tag=TAG|,digest=DIGEST], or an image's name
    #[arg(long, value_name = "SPEC")]
    cache_from: Vec<String>,
    /// Cache to write: type=registry,ref=NAME, type=local,dest=DIR or type=inline, with mode=min|max and more
    #[arg(long, value_name = "SPEC")]
    cache_to: Vec<String>,
    /// Run a step again: a line of the Dockerfile, or STAGE:NUMBER as progress shows it ([build 2/5] is build:2)
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    no_cache_step: Vec<StepName>,
    /// Do not use results that are older, e.g. 12h or 7d
    #[arg(long, value_name = "DURATION")]
    cache_max_age: Option<String>,
    /// Ask the registries for newer base images
    #[arg(long)]
    pull: bool,
    /// Platform to build for, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Network of RUN steps
    #[arg(long, value_enum, default_value_t = NetworkArg::Default)]
    network: NetworkArg,
    /// Grant an entitlement: network.host, security.insecure, or buildx.local.delete for -o mode=delete anywhere
    #[arg(long, value_enum, value_name = "ENTITLEMENT", value_delimiter = ',')]
    allow: Vec<AllowArg>,
    /// Additional host name in RUN steps: NAME:ADDRESS, or NAME:host-gateway for this machine
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<String>,
    /// Size of /dev/shm in RUN steps, e.g. 64m
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// Limit in RUN steps, e.g. nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Secret that RUN --mount=type=secret may read: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long, value_name = "SPEC")]
    secret: Vec<String>,
    /// Agent that RUN --mount=type=ssh may use: default, ID=SOCKET or ID=KEYFILE[,KEYFILE]
    #[arg(long, value_name = "SPEC")]
    ssh: Vec<String>,
    /// Where the result goes: type=image|registry|oci|docker|tar|local|cacheonly[,KEY=VALUE…], a directory, or `-` [default: the store]
    #[arg(short, long, value_name = "SPEC")]
    output: Vec<String>,
    /// Into the Docker daemon of this machine, too
    #[arg(long)]
    load: bool,
    /// To the registries that its names say; they are asked for the right to it before anything is built
    #[arg(long)]
    push: bool,
    /// Note in the image's manifest, or in what the prefix says: manifest, manifest-descriptor, index, index-descriptor
    #[arg(long, value_name = "[TYPE:]KEY=VALUE")]
    annotation: Vec<String>,
    /// Attach where the image comes from: true, or mode=min|max
    #[arg(long, value_name = "MODE")]
    provenance: Option<String>,
    /// Attach a list of the packages inside: true
    #[arg(long, value_name = "BOOL")]
    sbom: Option<String>,
    /// Attach an attestation: type=provenance[,mode=min|max] or type=sbom
    #[arg(long, value_name = "SPEC")]
    attest: Vec<String>,
    /// The same bits wherever and whenever it is built: times become SOURCE_DATE_EPOCH [default: 0] where they are later
    #[arg(long)]
    reproducible: bool,
    /// Write what was made to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Progress view
    #[arg(long, value_enum)]
    progress: Option<Mode>,
    /// Write the plain view to a file as well, each line with the time
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Put failures and check warnings on lines of the Dockerfile: github, or gitlab[,dest=FILE] [default FILE: gl-code-quality-report.json]
    #[arg(long, value_name = "FORGE")]
    annotate: Option<Annotate>,
    /// Say at the end what would make the build faster or the image smaller, as measured [default: on a terminal]
    #[arg(long, overrides_with = "no_hints")]
    hints: bool,
    /// Do not say what would make the build faster
    #[arg(long, overrides_with = "hints")]
    no_hints: bool,
    /// Show what cached steps said when they ran
    #[arg(long)]
    show_cached_logs: bool,
    /// Print nothing but the image id
    #[arg(short, long)]
    quiet: bool,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Say at the end why each step that ran was not answered from the cache
    #[arg(long)]
    explain: bool,
    /// Say at the end what rbuild itself spent its time with
    #[arg(long)]
    timings: bool,
    /// Write the build as a trace in Chrome's format, for Perfetto or chrome://tracing
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Check the Dockerfile without building
    #[arg(long, conflicts_with_all = ["output", "push", "load", "iidfile", "metadata_file", "call"])]
    check: bool,
    /// Evaluate the Dockerfile instead of building: check, outline or targets[,format=json]
    #[arg(long, alias = "print", value_name = "METHOD")]
    call: Option<String>,
    /// At most this many steps at once [default: as many as keep the processors busy]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Directory, `-`, or the URL of a tar or git repository; ignore files hold for directories only
    #[arg(value_name = "CONTEXT")]
    context: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    unserved: UnservedArgs,
}

/// Flags of `docker build` and buildx that are refused by name.
#[derive(Debug, clap::Args)]
struct UnservedArgs {
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
    #[arg(long, hide = true)]
    squash: bool,
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    disable_content_trust: Option<Option<String>>,
    #[arg(long = "isolation", hide = true, value_name = "KIND")]
    isolation_of_steps: Option<String>,
    #[arg(long, hide = true, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Steps leave no containers, whatever happens.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    force_rm: Option<bool>,
}

impl UnservedArgs {
    fn refuse(&self) -> Result<(), Failure> {
        let given = [
            (self.builder.is_some(), "--builder", "rbuild has no builder instances; leave it out"),
            (
                self.squash,
                "--squash",
                "copy the result into one layer with a last stage: FROM scratch, COPY --from=… / /",
            ),
            (self.compress, "--compress", "the context is read where it is, nothing is sent; leave it out"),
            (
                self.disable_content_trust.is_some(),
                "--disable-content-trust",
                "rbuild does not check Docker's signatures; name the base image by its digest, and leave this out",
            ),
            (
                self.isolation_of_steps.is_some(),
                "--isolation",
                "say before the command what confines: rbuild --isolation root|rootless build …",
            ),
            (
                !self.security_opt.is_empty(),
                "--security-opt",
                "RUN --security=insecure with --allow security.insecure lets a step do more",
            ),
            (
                self.rm == Some(false),
                "--rm=false",
                "steps leave no containers; `--target` builds the stage to look into",
            ),
        ];
        match given.iter().find(|(given, ..)| *given) {
            Some((_, flag, instead)) => {
                Err(Failure::usage(format!("{flag} is not supported by `rbuild build`"), *instead))
            }
            None => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NetworkArg {
    /// What rbuild gives by default
    #[value(alias = "bridge")]
    Default,
    /// Only loopback
    None,
    /// The host's network
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AllowArg {
    #[value(name = "network.host")]
    NetworkHost,
    #[value(name = "security.insecure")]
    SecurityInsecure,
    #[value(name = "buildx.local.delete")]
    LocalDelete,
}

/// Runs `rbuild build`.
pub(super) fn execute(args: BuildArgs, engine: &Engine) -> Result<Exit, Failure> {
    args.unserved.refuse()?;
    let settings = engine.settings();
    let request = spec::request(&args, settings)?;
    if let Some(call) = args.call()? {
        let answer = engine.evaluate(&request, call)?;
        report::answer(&answer.text)?;
        if let Some(to) = &request.annotate {
            annotation::tell(to, &request, settings, &answer.annotations)?;
        }
        if let Some(failure) = answer.error {
            return Err(failure);
        }
        return Ok(if answer.clean { Exit::Success } else { Exit::Failure });
    }
    let mode = match (args.quiet, args.progress) {
        (true, _) => Mode::Quiet,
        (false, Some(mode)) => mode,
        (false, None) => Mode::from_settings(settings)?,
    };
    for (flag, file) in [("--iidfile", &args.iidfile), ("--metadata-file", &args.metadata_file)] {
        check_place(flag, file.as_deref(), settings)?;
    }
    let _interrupts = Interrupts::cancelling(engine.cancel())?;
    let result = crate::build::build(engine, &request, mode)?;
    if let Some(file) = &args.iidfile {
        let id = result.image_id.map(|id| id.to_string()).unwrap_or_default();
        crate::output::write_whole_file(&settings.absolute(file), id.as_bytes())?;
    }
    if let Some(file) = &args.metadata_file {
        let text = serde_json::to_vec_pretty(&result.metadata).expect("a JSON value is always JSON");
        crate::output::write_whole_file(&settings.absolute(file), &text)?;
    }
    if let (Mode::Quiet, Some(id)) = (mode, result.image_id) {
        report::answer(&format!("{id}\n"))?;
    }
    Ok(Exit::Success)
}

/// A file that cannot be written since its directory is not there is told of before the build, not behind it.
fn check_place(flag: &str, file: Option<&Path>, settings: &Settings) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    match settings.absolute(file).parent() {
        Some(directory) if !directory.is_dir() => Err(Failure::usage(
            format!("{flag} {}: {} is no directory", file.display(), directory.display()),
            "make it first",
        )),
        _ => Ok(()),
    }
}

impl BuildArgs {
    /// Parses words as the command line would be.
    pub(super) fn parse_words(words: Vec<String>) -> Result<Self, Failure> {
        let command = <Self as clap::Args>::augment_args(clap::Command::new("build"));
        let matches = command.try_get_matches_from(words);
        let parsed = matches.and_then(|matches| <Self as clap::FromArgMatches>::from_arg_matches(&matches));
        parsed.map_err(|error| Failure::usage(error.to_string().trim().to_owned(), "see `rbuild build --help`"))
    }

    /// The progress view that was asked for.
    pub(super) fn mode(&self) -> Option<Mode> {
        if self.quiet { Some(Mode::Quiet) } else { self.progress }
    }

    /// Refuses what says where a result goes, for commands that keep none.
    pub(super) fn refuse_outputs(&self) -> Result<(), Failure> {
        self.unserved.refuse()?;
        let given = [
            ("--output", !self.output.is_empty()),
            ("--push", self.push),
            ("--load", self.load),
            ("--tag", !self.tags.is_empty()),
            ("--iidfile", self.iidfile.is_some()),
            ("--metadata-file", self.metadata_file.is_some()),
            ("--cache-to", !self.cache_to.is_empty()),
            ("--platform", self.platform.len() > 1),
            ("--check", self.check),
            ("--call", self.call.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Failure::usage(
                format!("{flag} has no meaning here: the result is compared, not kept"),
                "leave it out",
            )),
            None => Ok(()),
        }
    }

    /// The context as it was typed.
    pub(super) fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// What to do instead of building, if asked to.
    fn call(&self) -> Result<Option<Call>, Failure> {
        match (self.check, self.call.as_deref()) {
            (true, _) => Ok(Some(Call::CHECK)),
            (false, None) => Ok(None),
            (false, Some(text)) => Call::parse(text),
        }
    }
}
