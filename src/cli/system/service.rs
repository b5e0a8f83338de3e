//! `system service`: a systemd unit that starts containers with the machine and stops them in order with it.
//!
//! rbuild needs no service: a container's monitor applies its restart policy. Only a boot has nobody to notice it. The unit
//! is shown, and written only when that is asked for; one that somebody else wrote is neither replaced nor removed.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::report::{self, Failure};
use crate::cli::run::containers_of;
use crate::engine::Engine;
use crate::exit_code::Exit;

use super::boot::boot_id;

/// Arguments of `system service`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ServiceArgs {
    /// Write the unit and enable it
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Disable the unit and remove it
    #[arg(long)]
    disable: bool,
}

/// First line of what is ours.
const MARK: &str = "# Written by `rbuild system service --enable`; --disable removes it.";

/// Whose systemd it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    System,
    /// Of the user, for a store without root.
    User,
}

/// Runs `system service`.
pub(super) fn service(args: &ServiceArgs, engine: &Engine) -> Result<Exit, Failure> {
    let settings = engine.settings();
    let manager = if settings.user_namespace.is_some() { Manager::User } else { Manager::System };
    let program = fs::read_link("/proc/self/exe")?;
    let unit = unit(&program, &settings.root, manager);
    if !args.enable && !args.disable {
        report::answer(&unit)?;
        return Ok(Exit::Success);
    }
    let name = unit_name(&settings.root);
    let directory = match manager {
        Manager::System => PathBuf::from("/etc/systemd/system"),
        Manager::User => settings
            .config_home
            .as_ref()
            .ok_or_else(|| Failure::new("no home directory is known: set HOME or XDG_CONFIG_HOME"))?
            .join("systemd/user"),
    };
    let path = directory.join(&name);
    if !Path::new("/run/systemd/system").exists() {
        return Err(Failure::new("systemd does not run this machine").with_help(
            "let whatever starts programs at boot run `rbuild system start-containers`; `rbuild system service` shows the unit",
        ));
    }
    let ours = match fs::read_to_string(&path) {
        Ok(text) if !text.starts_with(MARK) => {
            return Err(Failure::new(format!("{} was not written by rbuild", path.display())));
        }
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(Failure::from_error(&format!("cannot read {}", path.display()), &error)),
    };
    if args.enable {
        fs::create_dir_all(&directory)?;
        write(&path, &unit)
            .map_err(|error| Failure::from_error(&format!("cannot write {}", path.display()), &error))?;
        // What runs now needs no start; the next boot does.
        containers_of(engine)?.note_boot(&boot_id()?)?;
        systemctl(manager, &["daemon-reload"])?;
        systemctl(manager, &["enable", "--now", &name])?;
        report::answer(&format!("{}\n", path.display()))?;
        if manager == Manager::User {
            report::story("With `loginctl enable-linger` it is started at boot, not when you log in.\n");
        }
    } else if ours {
        systemctl(manager, &["disable", &name])?;
        fs::remove_file(&path)?;
        systemctl(manager, &["daemon-reload"])?;
        report::answer(&format!("{}\n", path.display()))?;
    }
    Ok(Exit::Success)
}

fn write(path: &Path, unit: &str) -> std::io::Result<()> {
    use std::io::Write;
    let hidden = path.with_extension("service.new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&hidden)?;
    file.write_all(unit.as_bytes())?;
    file.sync_all()?;
    fs::rename(&hidden, path)
}

fn systemctl(manager: Manager, words: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("systemctl");
    if manager == Manager::User {
        command.arg("--user");
    }
    let ran = command.args(words).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| Failure::from_error("cannot run systemctl", &error))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    Err(Failure::new(format!("systemctl {} failed: {}", words.join(" "), report::printable(&said))))
}

/// `rbuild.service` for the usual stores; others have their place in their names, escaped as systemd does.
fn unit_name(root: &Path) -> String {
    if root == Path::new("/var/lib/rbuild") || root.ends_with(".local/share/rbuild") {
        return "rbuild.service".to_owned();
    }
    let mut name = "rbuild-".to_owned();
    for byte in root.to_string_lossy().trim_matches('/').bytes() {
        match byte {
            b'/' => name.push('-'),
            b if b.is_ascii_alphanumeric() || b == b'_' || b == b'.' => name.push(b.into()),
            b => name.push_str(&format!("\\x{b:02x}")),
        }
    }
    name + ".service"
}

fn unit(program: &Path, root: &Path, manager: Manager) -> String {
    let rbuild = format!("{} --root {}", quoted(program), quoted(root));
    let (after, wanted_by) = match manager {
        Manager::System => {
            let mounts = format!("RequiresMountsFor={}\n", quoted(root));
            (
                format!("Wants=network-online.target\nAfter=network-online.target nftables.service\n{mounts}"),
                "multi-user.target",
            )
        }
        Manager::User => (String::new(), "default.target"),
    };
    // The monitors are processes of the unit: when it is stopped they are told by `stop-containers`, not by systemd.
    format!(
        "{MARK}\n\
         [Unit]\n\
         Description=Containers of rbuild that come up with the machine\n\
         {after}\n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={rbuild} system start-containers\n\
         ExecStop={rbuild} system stop-containers\n\
         KillMode=process\n\
         Delegate=yes\n\
         TasksMax=infinity\n\
         TimeoutStartSec=infinity\n\
         TimeoutStopSec=120\n\
         \n\
         [Install]\n\
         WantedBy={wanted_by}\n"
    )
}

/// A word of a command as systemd reads it.
fn quoted(path: &Path) -> String {
    let mut out = String::from("\"");
    for c in path.to_string_lossy().chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '%' => out.push_str("%%"),
            '$' => out.push_str("$$"),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_names_and_words() {
        assert_eq!(unit_name(Path::new("/var/lib/rbuild")), "rbuild.service");
        assert_eq!(unit_name(Path::new("/srv/my-store/a")), "rbuild-srv-my\\x2dstore-a.service");
        assert_eq!(quoted(Path::new("/a b/100%/$x\"")), "\"/a b/100%%/$$x\\\"\"");
    }

    #[test]
    fn the_unit_starts_and_stops() {
        let unit = unit(Path::new("/usr/bin/rbuild"), Path::new("/var/lib/rbuild"), Manager::System);
        assert!(unit.starts_with(MARK));
        for line in [
            "ExecStart=\"/usr/bin/rbuild\" --root \"/var/lib/rbuild\" system start-containers",
            "ExecStop=\"/usr/bin/rbuild\" --root \"/var/lib/rbuild\" system stop-containers",
            "RequiresMountsFor=\"/var/lib/rbuild\"",
            "WantedBy=multi-user.target",
        ] {
            assert!(unit.lines().any(|one| one == line), "{line} is missing:\n{unit}");
        }
        let user = super::unit(Path::new("/usr/bin/rbuild"), Path::new("/home/u/store"), Manager::User);
        assert!(user.contains("WantedBy=default.target") && !user.contains("RequiresMountsFor"), "{user}");
    }
}
