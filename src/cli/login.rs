//! `login` and `logout`: credentials for registries. What is missing is asked for on a terminal, the password unseen.

use std::io::{self, BufRead, IsTerminal, Read};

use rbuild_image::credentials::{KeptIn, registry_of_key};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::transfer::{self, Existing};

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
    let server = server(args.server.as_deref());
    if args.username.is_none() && args.password.is_none() {
        let existing = transfer::login_again(engine, server)?;
        if existing != Existing::None {
            report::story("Authenticating with existing credentials...\n");
        }
        if existing == Existing::Accepted {
            report::answer("Login Succeeded\n")?;
            return Ok(Exit::Success);
        }
    }
    if args.password.is_some() {
        report::story("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");
    }
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask("Username", Echo::Shown)?,
    };
    let password = match (&args.password, args.password_stdin) {
        (Some(password), _) => password.clone(),
        (None, true) => {
            let mut text = String::new();
            io::stdin().take(MAX_BYTES).read_to_string(&mut text)?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        (None, false) => ask("Password", Echo::Hidden)?,
    };
    if password.is_empty() {
        return Err(Failure::new("the password is empty"));
    }
    if let KeptIn::File(path) = transfer::login(engine, server, &user, password)? {
        report::story(&format!(
            "WARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. See\n\
             https://docs.docker.com/go/credential-store/\n",
            path.display()
        ));
    }
    report::answer("Login Succeeded\n")?;
    Ok(Exit::Success)
}

/// The registry that is meant: people also give the address of one.
fn server(given: Option<&str>) -> &str {
    given.map_or("docker.io", registry_of_key)
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
    let server = server(args.server.as_deref());
    let known = transfer::logout(engine, server)?;
    let said = if known {
        format!("Removing login credentials for {server}\n")
    } else {
        format!("Not logged in to {server}\n")
    };
    report::answer(&said)?;
    Ok(Exit::Success)
}
