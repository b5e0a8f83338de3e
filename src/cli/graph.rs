//! `rbuild graph`: the steps of a recorded build, or of a Dockerfile that is only planned.

use std::path::PathBuf;

use clap::ValueEnum;

use super::build::spec;
use super::report::{self, Failure};
use crate::build_record;
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::graph_view::{self, GraphView};
use crate::output;

/// Arguments of `rbuild graph`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rbuild graph                          the newest build, as a table
  rbuild graph -o build.svg 3fa9        a build as a picture
  rbuild graph --format dot . | dot -Tpng > plan.png
  rbuild graph -f app.Dockerfile .      what a build would do, and what it would take from the cache")]
pub(super) struct GraphArgs {
    /// Dockerfile to plan; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Stage to plan instead of the last one
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Build argument of the plan
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Platform to plan for
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<String>,
    /// Form [default: by the name of --output, else text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// File to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A build (an id or its beginning, ^0 for the newest one), or a context to plan: a directory [default: the newest
    /// build; with --file the current directory]
    #[arg(value_name = "CONTEXT | BUILD")]
    subject: Option<String>,
}

/// A form of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table
    Text,
    /// A picture
    Svg,
    /// For Graphviz
    Dot,
    /// For programs
    Json,
}

/// Runs `rbuild graph`.
pub(super) fn execute(args: &GraphArgs, engine: &Engine) -> Result<Exit, Failure> {
    let view = match args.context(engine) {
        Some(context) => graph_view::plan(engine, &spec::request(&args.build_args(&context)?, engine.settings())?)?,
        None => {
            let store = engine.store()?;
            let build = build_record::find(store, args.subject.as_deref().unwrap_or_default())?;
            let steps = build_record::open(store, &build)?;
            if steps.is_empty() {
                let failure = Failure::new(format!("build {} has no steps", build.id));
                return Err(match &build.error {
                    Some(error) => failure.with_help(format!("it ended before they were known: {error}")),
                    None => failure,
                });
            }
            GraphView::of_build(&build, &steps)
        }
    };
    let text = match args.format() {
        Format::Text => view.text(),
        Format::Svg => view.svg(),
        Format::Dot => view.dot(),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&view).map_err(Failure::from)?),
    };
    match &args.output {
        Some(file) => output::write_whole_file(&engine.settings().absolute(file), text.as_bytes())?,
        None => report::answer(&text)?,
    }
    Ok(Exit::Success)
}

impl GraphArgs {
    /// The context to plan; `None` when a build is meant.
    fn context(&self, engine: &Engine) -> Option<String> {
        let planned = self.file.is_some() || self.target.is_some() || !self.build_arg.is_empty();
        match &self.subject {
            None => (planned || !self.platform.is_empty()).then(|| ".".to_owned()),
            // A build's id is never a path that somebody would type for a directory.
            Some(subject) => {
                let is_path = subject.contains('/') || subject == "." || subject == "..";
                let is_directory = || engine.settings().absolute(subject).is_dir();
                (planned || is_path || is_directory()).then(|| subject.clone())
            }
        }
    }

    /// The same as arguments of a build.
    fn build_args(&self, context: &str) -> Result<super::build::BuildArgs, Failure> {
        let mut words = vec!["build".to_owned()];
        words.extend(self.file.iter().map(|file| format!("--file={file}")));
        words.extend(self.target.iter().map(|target| format!("--target={target}")));
        words.extend(self.build_arg.iter().map(|arg| format!("--build-arg={arg}")));
        words.extend(self.platform.iter().map(|platform| format!("--platform={platform}")));
        words.extend(["--".to_owned(), context.to_owned()]);
        super::build::BuildArgs::parse_words(words)
    }

    fn format(&self) -> Format {
        let extension = self.output.as_ref().and_then(|file| file.extension()).and_then(|extension| extension.to_str());
        self.format.unwrap_or(match extension {
            Some("svg") => Format::Svg,
            Some("dot" | "gv") => Format::Dot,
            Some("json") => Format::Json,
            _ => Format::Text,
        })
    }
}
