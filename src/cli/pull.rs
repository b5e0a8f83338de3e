//! `pull`, `push`, `login`, `logout`: registries.

use std::io::Read;

use rbuild_image::{ImageRef, Platform};

use super::report::{self, Failure};
use crate::engine::Engine;
use crate::exit_code::Exit;
use crate::progress::{Mode, Transfers};
use crate::transfer;

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    /// Image to fetch: name, name:tag or name@digest
    #[arg(value_name = "IMAGE")]
    image: ImageRef,
    /// Platform to choose [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
}

/// Runs `pull`.
pub(super) fn pull(args: &PullArgs, engine: &Engine) -> Result<Exit, Failure> {
    let reference = args.image.tag_or_latest();
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let transfers = Transfers::start(mode(args.quiet), engine.settings());
    let pulled = transfer::pull(engine, &reference, &platform, &transfers);
    transfers.finish();
    let pulled = pulled?;
    if !args.quiet {
        let status = if pulled.was_present { "Image is up to date" } else { "Downloaded newer image" };
        report::story(&format!("Digest: {}\nStatus: {status} for {reference}\n", pulled.digest));
    }
    report::answer(&format!("{}\n", reference.canonical()))?;
    Ok(Exit::Success)
}

/// Arguments of `push`.
#[derive(Debug, clap::Args)]
pub(super) struct PushArgs {
    /// Image to send; its name says where to
    #[arg(value_name = "NAME")]
    image: ImageRef,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
}

/// Runs `push`.
pub(super) fn push(args: &PushArgs, engine: &Engine) -> Result<Exit, Failure> {
    let reference = args.image.tag_or_latest();
    let transfers = Transfers::start(mode(args.quiet), engine.settings());
    let pushed = transfer::push(engine, &reference, &transfers);
    transfers.finish();
    let pushed = pushed?;
    if args.quiet {
        report::answer(&format!("{}\n", reference.canonical()))?;
    } else {
        let tag = reference.tag().unwrap_or("latest");
        report::answer(&format!("{tag}: digest: {} size: {}\n", pushed.digest, pushed.size))?;
    }
    Ok(Exit::Success)
}

fn mode(quiet: bool) -> Mode {
    if quiet { Mode::Quiet } else { Mode::Auto }
}

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
    #[arg(long)]
    password_stdin: bool,
}

/// Runs `login`.
pub(super) fn login(args: &LoginArgs, engine: &Engine) -> Result<Exit, Failure> {
    let missing = |what: &str| Failure::usage(format!("{what} is missing"), "use -u NAME and --password-stdin");
    let user = args.username.clone().ok_or_else(|| missing("the user name"))?;
    let password = match (&args.password, args.password_stdin) {
        (Some(password), _) => {
            report::story("WARNING: a password on the command line can be seen by others; use --password-stdin\n");
            password.clone()
        }
        (None, true) => {
            let mut text = String::new();
            std::io::stdin().take(64 * 1024).read_to_string(&mut text)?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        (None, false) => return Err(missing("the password")),
    };
    transfer::login(engine, args.server.as_deref().unwrap_or("docker.io"), &user, password)?;
    report::answer("Login Succeeded\n")?;
    Ok(Exit::Success)
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
