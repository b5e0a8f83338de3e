//! Variables: the user's before the image's, and what every process gets besides.

use std::collections::HashSet;

/// `PATH` of a process whose image and user set none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user's variables, then those of the image that the user did not name.
pub(super) fn merge(image: &[String], user: &[String]) -> Vec<String> {
    let named: HashSet<&str> = user.iter().map(|entry| name(entry)).collect();
    let inherited = image.iter().filter(|entry| !named.contains(name(entry)));
    user.iter().chain(inherited).cloned().collect()
}

/// What the process gets: `PATH`, `HOSTNAME`, with a terminal `TERM`, overridden and followed by the container's
/// variables, and `HOME` when it would be missing or empty.
///
/// A bare name takes a default away. Of several values for a name the last counts, at the place of the first; an entry
/// with an empty name is dropped, since no program could read it.
pub(crate) fn process_environment(container: &[String], hostname: &str, terminal: bool, home: &str) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if terminal {
        env.push("TERM=xterm".to_owned());
    }
    for entry in container {
        let wanted = name(entry);
        let place = env.iter().position(|known| name(known) == wanted);
        match (place, entry.contains('=') && !wanted.is_empty()) {
            (Some(place), true) => env[place].clone_from(entry),
            (Some(place), false) => drop(env.remove(place)),
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    match env.iter().position(|entry| name(entry) == "HOME") {
        Some(place) if env[place] == "HOME=" => env[place] = format!("HOME={home}"),
        Some(_) => {}
        None => env.push(format!("HOME={home}")),
    }
    env
}

/// The part before the first `=`.
fn name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_users_variables_come_first_and_hide_the_images() {
        for (image, user, want) in [
            ("A=1 B=2", "", "A=1 B=2"),
            ("", "A=1", "A=1"),
            ("A=1 B=2", "B=3 C=4", "B=3 C=4 A=1"),
            ("A=1 B=2", "A", "A B=2"),
            ("A=1", "A=", "A="),
            ("AB=1", "A=2", "A=2 AB=1"),
            ("A=x=y", "B=a=b", "B=a=b A=x=y"),
        ] {
            assert_eq!(merge(&words(image), &words(user)), words(want), "{image:?} {user:?}");
        }
    }

    #[test]
    fn the_process_gets_dockers_defaults() {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        for (container, terminal, want) in [
            ("", false, format!("{path} HOSTNAME=h HOME=/root")),
            ("", true, format!("{path} HOSTNAME=h TERM=xterm HOME=/root")),
            ("PATH=/bin A=1", false, "PATH=/bin HOSTNAME=h A=1 HOME=/root".to_owned()),
            ("HOME=/x TERM=vt100", true, format!("{path} HOSTNAME=h TERM=vt100 HOME=/x")),
            ("HOME=", false, format!("{path} HOSTNAME=h HOME=/root")),
            ("PATH", false, "HOSTNAME=h HOME=/root".to_owned()),
            ("A=1 B=2 A=3", false, format!("{path} HOSTNAME=h A=3 B=2 HOME=/root")),
            ("=x A", false, format!("{path} HOSTNAME=h HOME=/root")),
            ("PATH=", false, "PATH= HOSTNAME=h HOME=/root".to_owned()),
        ] {
            assert_eq!(process_environment(&words(container), "h", terminal, "/root"), words(&want), "{container:?}");
        }
    }
}
