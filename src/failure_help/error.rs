//! Help with errors that have a type: what registries answer, and what the file system of this machine refuses.

use std::error::Error;
use std::io;

use rbuild_container::{FindError, InvalidMount, NetworkError, NoCommand, PortTaken, VolumeError};
use rbuild_image::registry::{Action, Cause, RegistryError, ResolveError};
use rbuild_image::{ImageRef, InvalidReference};

/// What to do about an error, from its type or that of one of its causes.
pub(crate) fn of_error(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(one) = next {
        let known = match one.downcast_ref::<RegistryError>() {
            Some(error) => of_registry(error),
            None => one.downcast_ref::<io::Error>().and_then(of_machine).or_else(|| of_name(one)),
        };
        if known.is_some() {
            return known;
        }
        next = one.source();
    }
    None
}

/// Names that are not there, and ports that are taken.
fn of_name(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(invalid) = error.downcast_ref::<InvalidReference>() {
        let lower = invalid.text.to_lowercase();
        return (lower != invalid.text && lower.parse::<ImageRef>().is_ok()).then(|| format!("write {lower}"));
    }
    let known = if let Some(FindError::NotFound { .. }) = error.downcast_ref() {
        "`rbuild ps -a` lists all containers, stopped ones too"
    } else if let Some(VolumeError::NotFound { .. }) = error.downcast_ref() {
        "`rbuild volume ls` lists them"
    } else if let Some(NetworkError::NotFound { .. }) = error.downcast_ref() {
        "`rbuild network ls` lists them"
    } else if error.is::<NoCommand>() {
        "the image names no program: name one behind the image, `rbuild run IMAGE PROGRAM`, or give it a CMD"
    } else if let Some(InvalidMount::RelativeTarget { .. }) = error.downcast_ref() {
        "the container's side begins with /: -v ./data:/data, or -v /data for a volume of its own"
    } else if let Some(InvalidMount::Specification { .. }) = error.downcast_ref() {
        "write -v HOST-DIRECTORY-OR-VOLUME:CONTAINER-DIRECTORY[:ro]"
    } else if let Some(PortTaken::InUse { .. } | PortTaken::RangeInUse { .. }) = error.downcast_ref() {
        "`rbuild ps` shows the ports of containers, `ss -ltnp` those of programs; or publish another one (-p PORT:80)"
    } else {
        return None;
    };
    Some(known.to_owned())
}

fn of_machine(error: &io::Error) -> Option<String> {
    let known = match error.kind() {
        io::ErrorKind::StorageFull => {
            "the disk is full: `rbuild cache prune` frees what builds left, `rbuild cache du` says what takes it"
        }
        io::ErrorKind::QuotaExceeded => "the user's disk quota is used up: `rbuild cache prune` frees what builds left",
        io::ErrorKind::ReadOnlyFilesystem => {
            "that file system is mounted read-only: --root names another place for the store"
        }
        _ => return None,
    };
    Some(known.to_owned())
}

/// Docker Hub, as references name it: it says "unauthorized" of what does not exist, too.
const HUB: &str = "docker.io";

fn of_registry(error: &RegistryError) -> Option<String> {
    let host = &error.target.registry;
    let pushes = matches!(error.action, Action::PushBlob | Action::PushManifest);
    Some(match &*error.cause {
        Cause::Unauthorized { .. } | Cause::Status { status: 401, .. } if host == HUB && !pushes => {
            "Docker Hub answers so where an image does not exist, too: check its name; if it is private, \
             `rbuild login docker.io`"
                .to_owned()
        }
        Cause::Unauthorized { .. } | Cause::Status { status: 401, .. } => {
            format!("`rbuild login {host}`, with an account that may {}", if pushes { "push there" } else { "read it" })
        }
        Cause::Status { status: 403, .. } => format!(
            "{host} knows who asks and does not allow it: `rbuild login {host}` with an account that may {}",
            if pushes { "push there" } else { "read it" }
        ),
        Cause::Status { status: 404, .. } if pushes => {
            format!("{host} has no such repository and makes none by itself: create it there first")
        }
        Cause::Status { status: 404, .. } => match &error.target.item {
            Some(item) => format!("{host} has no {item:?} there: check the spelling of name and tag"),
            None => format!("{host} has nothing of that name: check its spelling"),
        },
        Cause::Status { status: 429, .. } | Cause::RetryAfterTooLong { status: 429, .. } => {
            let hub = if host == HUB { ", or name a mirror in the configuration file" } else { "" };
            format!(
                "{host} limits how much each client may ask: `rbuild login {host}` raises the limit{hub}; or try again later"
            )
        }
        Cause::Status { status: 500.., .. } | Cause::RetryAfterTooLong { .. } => {
            format!("the fault is at {host}: try again later")
        }
        Cause::Resolve(ResolveError::NotFound { host }) => {
            let subject = if error.target.registry == HUB {
                "Docker Hub cannot be looked up: is a name server set".to_owned()
            } else {
                format!("{host:?} has no address: is it spelt right")
            };
            format!("{subject}, and has this machine a network? What is stored needs none: `rbuild images`")
        }
        Cause::Resolve(ResolveError::NoAnswer { .. }) => {
            "no name server answers: look at /etc/resolv.conf, `rbuild doctor` examines it".to_owned()
        }
        Cause::Network(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            format!("nothing listens at {host}: is the registry running, and the port right?")
        }
        Cause::Network(_) | Cause::Timeout(_) => {
            format!("{host} cannot be reached from here: is a proxy needed (HTTPS_PROXY), or a firewall in between?")
        }
        Cause::Blocked { .. } | Cause::NoPush { .. } => {
            let registry = &error.target.registry;
            format!("if that is not meant for rbuild, name [registry.\"{registry}\"] in its configuration file")
        }
        Cause::Proxy(_) => "look at HTTPS_PROXY and NO_PROXY".to_owned(),
        Cause::Tls(error) => of_tls(&error.to_string(), host)?,
        _ => return None,
    })
}

/// By the words of the TLS library: its types are no dependency of ours.
fn of_tls(said: &str, host: &str) -> Option<String> {
    let known = [
        ("UnknownIssuer", format!("put the certificate of its authority into /etc/docker/certs.d/{host}/ca.crt")),
        ("Expired", "the certificate has expired, or this machine's clock is wrong".to_owned()),
        ("NotValidYet", "this machine's clock is behind, or the certificate is new: look at `date`".to_owned()),
        ("NotValidForName", format!("the certificate is for another name than {host}: use the name that it is for")),
        (
            "corrupt message",
            format!(
                "it does not speak TLS at that port: if it is meant to be plain HTTP, mark {host} insecure in the configuration file"
            ),
        ),
    ];
    known.into_iter().find(|(words, _)| said.contains(words)).map(|(_, help)| help)
}

#[cfg(test)]
mod tests {
    use rbuild_image::registry::Target;

    use super::*;
    use crate::cli::report::Failure;

    fn told(action: Action, registry: &str, cause: Cause) -> String {
        let target =
            Target { registry: registry.to_owned(), repository: "team/app".to_owned(), item: Some("1".to_owned()) };
        let error = RegistryError { action, target: Box::new(target), attempts: 1, cause: Box::new(cause) };
        Failure::from(error).help().unwrap_or("-").to_owned()
    }

    #[test]
    fn every_refusal_of_a_registry_has_one_action() {
        let status = |status| Cause::Status { status, detail: String::new(), retry_after: None };
        let unauthorized = || Cause::Unauthorized { detail: String::new() };
        let resolve = || Cause::Resolve(ResolveError::NotFound { host: "r.example".to_owned() });
        let refused = || Cause::Network(io::ErrorKind::ConnectionRefused.into());
        let read = Action::FetchManifest;
        let all: Vec<String> = [
            ("401", told(read, "r.example", unauthorized())),
            ("401 hub", told(read, HUB, unauthorized())),
            ("401 push", told(Action::PushBlob, HUB, unauthorized())),
            ("403", told(read, "r.example", status(403))),
            ("404", told(read, "r.example", status(404))),
            ("404 push", told(Action::PushManifest, "r.example", status(404))),
            ("429", told(read, HUB, status(429))),
            ("503", told(read, "r.example", status(503))),
            ("418", told(read, "r.example", status(418))),
            ("name", told(read, "r.example", resolve())),
            ("refused", told(read, "r.example:5000", refused())),
            ("proxy", told(read, "r.example", Cause::Proxy(String::new()))),
        ]
        .iter()
        .map(|(what, help)| format!("{what}: {help}\n"))
        .collect();
        insta::assert_snapshot!(all.concat(), @r#"
        401: `rbuild login r.example`, with an account that may read it
        401 hub: Docker Hub answers so where an image does not exist, too: check its name; if it is private, `rbuild login docker.io`
        401 push: `rbuild login docker.io`, with an account that may push there
        403: r.example knows who asks and does not allow it: `rbuild login r.example` with an account that may read it
        404: r.example has no "1" there: check the spelling of name and tag
        404 push: r.example has no such repository and makes none by itself: create it there first
        429: docker.io limits how much each client may ask: `rbuild login docker.io` raises the limit, or name a mirror in the configuration file; or try again later
        503: the fault is at r.example: try again later
        418: -
        name: "r.example" has no address: is it spelt right, and has this machine a network? What is stored needs none: `rbuild images`
        refused: nothing listens at r.example:5000: is the registry running, and the port right?
        proxy: look at HTTPS_PROXY and NO_PROXY
        "#);
    }

    #[test]
    fn certificates_are_told_apart() {
        let help = |said: &str| of_tls(said, "r.example");
        assert!(
            help("invalid peer certificate: UnknownIssuer").unwrap().contains("/etc/docker/certs.d/r.example/ca.crt")
        );
        assert!(help("invalid peer certificate: Expired").unwrap().contains("clock"));
        assert!(help("received corrupt message of type InvalidContentType").unwrap().contains("plain HTTP"));
        assert_eq!(help("peer misbehaved"), None);
    }

    #[test]
    fn a_full_disk_is_told_from_anything_else() {
        let help = |kind: io::ErrorKind| of_error(&io::Error::from(kind));
        assert!(help(io::ErrorKind::StorageFull).unwrap().contains("rbuild cache prune"));
        assert!(help(io::ErrorKind::ReadOnlyFilesystem).unwrap().contains("--root"));
        assert_eq!(help(io::ErrorKind::NotFound), None);
    }
}
