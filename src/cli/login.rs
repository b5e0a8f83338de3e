//! `login` and `logout`: credentials for registries. What is missing is asked for on a terminal, the password unseen.

use std::io::{self, BufRead, IsTerminal, Read};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::transfer;

/// The most bytes of a password.
const MAX_BYTES: u64 = 64 << 10;

/// Arguments of `login`.
#[derive(Debug, clap::Args)]
pub(super) struct LoginArgs {
    /// Registry's host, with a port if it has one [default: docker.io]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password; better given by --password-stdin
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

/// Runs `login`.
pub(super) fn login(args: &LoginArgs, engine: &Engine) -> Result<Exit, Failure> {
    let server = args.server.as_deref().unwrap_or("docker.io");
    if args.username.is_none() && args.password.is_none() && transfer::login_again(engine, server)? {
        report::answer("Login Succeeded\n")?;
        return Ok(Exit::Success);
    }
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask("Username", Echo::Shown)?,
    };
    let password = match (&args.password, args.password_stdin) {
        (Some(password), _) => {
            report::story("WARNING: a password on the command line can be seen by others; use --password-stdin\n");
            password.clone()
        }
        (None, true) => {
            let mut text = String::new();
            io::stdin().take(MAX_BYTES).read_to_string(&mut text)?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        (None, false) => ask("Password", Echo::Hidden)?,
    };
    transfer::login(engine, server, &user, password)?;
    report::answer("Login Succeeded\n")?;
    Ok(Exit::Success)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    Shown,
    Hidden,
}

/// Asks for a line on the terminal.
fn ask(what: &str, echo: Echo) -> Result<String, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(
            format!("{what} is missing, and there is no terminal to ask on"),
            "use -u NAME and --password-stdin",
        ));
    }
    report::story(&format!("{what}: "));
    let _hidden = if echo == Echo::Hidden { Some(Hidden::begin()?) } else { None };
    let mut line = String::new();
    stdin.lock().take(MAX_BYTES).read_line(&mut line)?;
    if echo == Echo::Hidden {
        report::story("\n");
    }
    let line = line.trim_end_matches(['\n', '\r']).to_owned();
    if line.is_empty() { Err(Failure::new(format!("{what} is empty"))) } else { Ok(line) }
}

/// The terminal of standard input without echo; it comes back when this goes.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to be restored.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Arguments of `logout`.
#[derive(Debug, clap::Args)]
pub(super) struct LogoutArgs {
    /// Registry's host [default: docker.io]
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// Runs `logout`.
pub(super) fn logout(args: &LogoutArgs, engine: &Engine) -> Result<Exit, Failure> {
    let server = args.server.as_deref().unwrap_or("docker.io");
    let known = transfer::logout(engine, server)?;
    let said = if known {
        format!("Removing login credentials for {server}\n")
    } else {
        format!("Not logged in to {server}\n")
    };
    report::answer(&said)?;
    Ok(Exit::Success)
}
