//! `exec`: a command in a container that runs.

use std::io::IsTerminal;
use std::path::PathBuf;

use rbuild_container::{Console, DetachKeys, ExecError, ExecRequest, Foreground, Outcome, SignalInbox, StartFailure};
use rbuild_executor::{SpawnError, Warning};

use super::arguments::environment;
use super::connected::{self, own_streams};
use super::containers_of;
use crate::cli::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rbuild exec -it web bash                     a shell in a container that runs
  rbuild exec -u root -w /var/log web ls       as another user, in another directory
  rbuild exec -d web touch /tmp/here           not waited for

The exit code is the command's; 126 says that it cannot be executed, 127 that it was not found, 125 that it was not started for
another reason. It ends with the container and, without -d, with this rbuild; with -it, Ctrl-P Ctrl-Q leaves it running.")]
pub(in crate::cli) struct ExecArgs {
    /// Do not wait for the command; its output goes nowhere
    #[arg(short, long)]
    detach: bool,
    /// Keys that leave the command running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Environment variable; without a value it takes this environment's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// File with environment variables, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Keep the command's input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command all capabilities that this user may give
    #[arg(long)]
    privileged: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// User, or user:group, by name or number [default: the container's]
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory inside [default: the container's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Container, then the command and its arguments
    #[arg(value_name = "CONTAINER COMMAND [ARG]", required = true, trailing_var_arg = true)]
    words: Vec<String>,
}

impl ExecArgs {
    /// The container, as it was typed.
    pub(in crate::cli) fn container(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Refuses what is not served, and what makes no sense.
    fn check(&self) -> Result<(), Failure> {
        if self.detach && self.tty {
            return Err(Failure::new("exec cannot give a terminal to a command that nobody is connected to")
                .with_help("leave out -t, or -d"));
        }
        if self.words.len() < 2 {
            return Err(Failure::new("exec needs a container and a command")
                .with_help("rbuild exec CONTAINER COMMAND [ARG...]"));
        }
        if self.interactive && self.tty && !std::io::stdin().is_terminal() {
            return Err(
                Failure::new("the input device is not a TTY").with_help("leave out -t when the input is a pipe")
            );
        }
        Ok(())
    }
}

/// Runs `exec`.
pub(in crate::cli) fn execute(args: &ExecArgs, engine: &Engine) -> Result<Exit, Failure> {
    args.check()?;
    let request = ExecRequest {
        command: args.words[1..].to_vec(),
        env: environment(&args.env_file, &args.env, engine.settings())?,
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        console: Console { terminal: args.tty, interactive: args.interactive && !args.detach },
        privileged: args.privileged,
    };
    let containers = containers_of(engine)?;
    let record = containers.find(args.container())?;
    if args.detach {
        return connected::execute_detached(&record.id, &request, engine);
    }
    let keys = connected::detach_keys(args.detach_keys.as_ref(), engine.settings())?;
    if args.tty && args.interactive && !keys.is_empty() {
        return connected::execute(&record.id, &request, keys, engine);
    }
    let mut signals = SignalInbox::open()?;
    let mut warn = warn;
    let foreground = Foreground { streams: own_streams()?, signals: &mut signals, warn: &mut warn };
    ended(containers.exec(&record, &request, &*engine.spawner()?, foreground).map_err(failed)?)
}

fn warn(warning: &Warning) {
    report::story(&format!("warning: {warning}\n"));
}

/// The exit code of a command that has ended.
fn ended(outcome: Outcome) -> Result<Exit, Failure> {
    match outcome {
        Outcome { exit, lost_output: None } => Ok(Exit::Container(exit.code())),
        Outcome { exit, lost_output: Some(error) } => {
            let code = if exit.code() == 0 { Exit::Engine } else { Exit::Container(exit.code()) };
            Err(Failure::from_error("part of the command's output was lost", &error).with_exit(code))
        }
    }
}

fn failed(error: ExecError) -> Failure {
    let exit = error.exit().map_or(Exit::Failure, |exit| Exit::Container(exit.code()));
    let help = hint(&error);
    let failure = Failure::from(error).with_exit(exit);
    match help {
        Some(help) => failure.with_help(help),
        None => failure,
    }
}

/// A command that failed to start, in words for who asked for it.
pub(super) fn explain(error: &ExecError) -> StartFailure {
    let mut message = error.to_string();
    report::append_causes(&mut message, error);
    let code = error.exit().map_or(1, |exit| exit.code());
    StartFailure { message, help: hint(error).map(str::to_owned), code }
}

fn hint(error: &ExecError) -> Option<&'static str> {
    match error {
        ExecError::NotRunning { .. } => Some("rbuild ps lists the containers that run"),
        ExecError::User(_) => Some("--user takes a name of the container's /etc/passwd, or a number"),
        ExecError::Spawn(SpawnError::NotFound { .. }) => {
            Some("the first word behind the container is the program; flags of `exec` stand before the container")
        }
        _ => None,
    }
}
