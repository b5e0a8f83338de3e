//! What was typed after `rbuild build`, turned into what it means.

use std::path::PathBuf;
use std::time::Duration;

use rbuild_container::{parse_bytes, parse_ulimit};

use super::{AllowArg, BuildArgs, NetworkArg, attestation_spec, cache_spec, output_spec};
use crate::cli::report::Failure;
use crate::config::{Settings, parse_age};
use crate::image_names;
use crate::request::{
    BuildNetwork, BuildRequest, CacheChoice, ContextInput, DockerfileInput, Entitlement, Explain, HOST_GATEWAY,
    SecretInput, SecretSource, SshInput, SshSource,
};

/// Makes a request of the arguments.
pub(in crate::cli) fn request(args: &BuildArgs, settings: &Settings) -> Result<BuildRequest, Failure> {
    let (context, dockerfile) = inputs(args, settings)?;
    let network = match args.network {
        NetworkArg::Default => BuildNetwork::Default,
        NetworkArg::None => BuildNetwork::None,
        NetworkArg::Host => BuildNetwork::Host,
    };
    let cache = match (args.no_cache, args.no_cache_filter.is_empty()) {
        (true, _) => CacheChoice::Ignore,
        (false, true) => CacheChoice::Use,
        (false, false) => CacheChoice::IgnoreStages(args.no_cache_filter.clone()),
    };
    let allow = args.allow.iter().filter_map(|allow| match allow {
        AllowArg::NetworkHost => Some(Entitlement::NetworkHost),
        AllowArg::SecurityInsecure => Some(Entitlement::SecurityInsecure),
        // About an output, not about steps.
        AllowArg::LocalDelete => None,
    });
    args.tags.iter().try_for_each(image_names::check_new).map_err(|failure| failure.within("--tag"))?;
    let mut build_args = build_args(&args.build_arg, settings);
    if args.reproducible && !build_args.iter().any(|(name, value)| name == "SOURCE_DATE_EPOCH" && !value.is_empty()) {
        build_args.push(("SOURCE_DATE_EPOCH".to_owned(), "0".to_owned()));
    }
    let attested = attestation_spec::attestations(args)?;
    let cache_to = cache_spec::exports(&args.cache_to, &build_args, settings)?;
    Ok(BuildRequest {
        context,
        dockerfile,
        named_contexts: pairs("--build-context", &args.build_context)?,
        tags: args.tags.iter().map(rbuild_image::ImageRef::tag_or_latest).collect(),
        build_args,
        labels: args.label.iter().map(|text| split(text)).collect(),
        target: args.target.clone(),
        platforms: args.platform.clone(),
        cache,
        cache_from: cache_spec::imports(&args.cache_from, settings)?,
        cache_to,
        no_cache_steps: args.no_cache_step.clone(),
        cache_max_age: args.cache_max_age.as_deref().map(max_age).transpose()?,
        pull: args.pull,
        network,
        allow: allow.collect(),
        extra_hosts: args.add_host.iter().map(|text| add_host(text)).collect::<Result<_, _>>()?,
        shm_size: args.shm_size.as_deref().map(|text| size("--shm-size", text)).transpose()?,
        ulimits: args.ulimit.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?,
        resources: args.limits.resources()?,
        secrets: args.secret.iter().map(|text| secret(text, settings)).collect::<Result<_, _>>()?,
        ssh: args.ssh.iter().map(|text| ssh(text, settings)).collect::<Result<_, _>>()?,
        outputs: output_spec::outputs(args, settings)?,
        annotations: output_spec::annotations(&args.annotation)?,
        provenance: attested.provenance,
        sbom: attested.sbom,
        reproducible: args.reproducible,
        jobs: args.jobs.map(|jobs| jobs as usize),
        show_cached_logs: args.show_cached_logs,
        explain: if args.explain { Explain::AtEnd } else { Explain::Later },
        show_timings: args.timings,
        trace: args.trace.as_ref().map(|file| settings.absolute(file)),
        log_file: args.log_file.as_ref().map(|path| settings.absolute(path)),
        annotate: args.annotate.clone(),
        hints: match (args.hints, args.no_hints) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        },
    })
}

fn max_age(text: &str) -> Result<Duration, Failure> {
    parse_age(text).map_err(|error| Failure::usage(format!("--cache-max-age: {error}"), "e.g. 12h or 7d"))
}

fn inputs(args: &BuildArgs, settings: &Settings) -> Result<(ContextInput, DockerfileInput), Failure> {
    let Some(context) = args.context.as_deref() else {
        return Err(Failure::usage("no build context was given", "name a directory, e.g. `rbuild -t hello:0.1 .`"));
    };
    let dockerfile = match args.file.as_deref() {
        None => DockerfileInput::Default,
        Some(path) if path.as_os_str() == "-" => DockerfileInput::Stdin,
        Some(path) if is_url(path) => DockerfileInput::Url(path.to_string_lossy().into_owned()),
        Some(path) => DockerfileInput::Path(path.to_owned()),
    };
    let remote = ["http://", "https://", "git://", "ssh://", "git@", "github.com/"];
    let context = match context {
        "-" if dockerfile == DockerfileInput::Stdin => {
            return Err(Failure::usage(
                "standard input cannot be both the context and the Dockerfile",
                "give one of them as a path",
            ));
        }
        "-" => ContextInput::Stdin,
        url if remote.iter().any(|scheme| url.starts_with(scheme)) => ContextInput::Url(url.to_owned()),
        path => ContextInput::Directory(settings.absolute(path)),
    };
    Ok((context, dockerfile))
}

fn is_url(path: &std::path::Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with("http://") || text.starts_with("https://"))
}

fn build_args(given: &[String], settings: &Settings) -> Vec<(String, String)> {
    let from_environment = |name: &str| Settings::user_variable(name).and_then(|value| value.into_string().ok());
    let mut out: Vec<(String, String)> = Vec::new();
    for text in given {
        match text.split_once('=') {
            Some((name, value)) => out.push((name.to_owned(), value.to_owned())),
            None => out.extend(from_environment(text).map(|value| (text.clone(), value))),
        }
    }
    if let Some(epoch) = &settings.source_date_epoch
        && !out.iter().any(|(name, _)| name == "SOURCE_DATE_EPOCH")
    {
        out.push(("SOURCE_DATE_EPOCH".to_owned(), epoch.clone()));
    }
    out
}

fn split(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

fn pairs(flag: &str, given: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("{flag} {text:?}: not NAME=SOURCE"), "e.g. --build-context assets=../assets")),
    };
    given.iter().map(pair).collect()
}

fn add_host(text: &str) -> Result<(String, String), Failure> {
    let cut = text.find('=').or_else(|| text.find(':'));
    match cut.map(|at| (&text[..at], &text[at + 1..])) {
        Some((host, address)) if !host.is_empty() => {
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            if bare != HOST_GATEWAY && bare.parse::<std::net::IpAddr>().is_err() {
                return Err(Failure::usage(
                    format!("--add-host {text:?}: {address:?} is not an IP address"),
                    "e.g. --add-host db:10.0.0.7",
                ));
            }
            Ok((host.to_owned(), bare.to_owned()))
        }
        _ => Err(Failure::usage(format!("--add-host {text:?}: not HOST:IP"), "e.g. --add-host db:10.0.0.7")),
    }
}

/// Reads a size such as `64m`, as `run` does.
pub(crate) fn size(flag: &str, text: &str) -> Result<u64, Failure> {
    parse_bytes(text).map_err(|error| Failure::usage(format!("{flag}: {error}"), "e.g. 64m or 1g"))
}

/// Reads a limit such as `nofile=1024:2048`, as `run` does.
fn ulimit(text: &str) -> Result<(String, u64, u64), Failure> {
    let limit = parse_ulimit(text)
        .map_err(|error| Failure::usage(format!("--ulimit: {error}"), "e.g. --ulimit nofile=1024:2048"))?;
    Ok((limit.name.to_ascii_lowercase(), limit.soft, limit.hard))
}

/// Splits `a=b,c="d,e"` as Go's CSV reader does, one record.
pub(super) fn fields(text: &str) -> Vec<String> {
    let (mut out, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    out.push(field);
    out
}

fn secret(text: &str, settings: &Settings) -> Result<SecretInput, Failure> {
    let wrong =
        |why: String| Failure::usage(format!("--secret {text:?}: {why}"), "e.g. --secret id=token,src=token.txt");
    let (mut id, mut file, mut variable, mut kind) = (None, None, None, None);
    for field in fields(text) {
        match field.split_once('=') {
            Some(("id", value)) => id = Some(value.to_owned()),
            Some(("src" | "source", value)) => file = Some(value.to_owned()),
            Some(("env", value)) => variable = Some(value.to_owned()),
            Some(("type", value @ ("file" | "env"))) => kind = Some(value.to_owned()),
            _ => return Err(wrong(format!("unexpected field {field:?}; known are id, src, env and type"))),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("id is missing".to_owned()))?;
    let file_source = |path: String| SecretSource::File(settings.absolute(path));
    let source = match (kind.as_deref(), file, variable) {
        (_, Some(_), Some(_)) => return Err(wrong("src and env exclude each other".to_owned())),
        (Some("env"), name, None) | (_, None, name @ Some(_)) => {
            SecretSource::Variable(name.unwrap_or_else(|| id.clone()))
        }
        (Some("file"), path, None) => file_source(path.unwrap_or_else(|| id.clone())),
        (_, Some(path), None) => file_source(path),
        (_, None, None) if Settings::user_variable(&id).is_some() => SecretSource::Variable(id.clone()),
        (_, None, None) => file_source(id.clone()),
    };
    if let SecretSource::File(path) = &source
        && !path.is_file()
    {
        return Err(Failure::new(format!("--secret {text:?}: {} is not a readable file", path.display()))
            .with_help("name an existing file with src=, or a variable with env="));
    }
    Ok(SecretInput { id, source })
}

/// `ID[=SOCKET|KEY[,KEY]]`: an agent's socket, or files with private keys.
fn ssh(text: &str, settings: &Settings) -> Result<SshInput, Failure> {
    let (id, places) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { "default" } else { id };
    let input = |source| Ok(SshInput { id: id.to_owned(), source });
    if places.is_empty() {
        return match &settings.ssh_auth_sock {
            Some(socket) => input(SshSource::Socket(socket.clone())),
            None => Err(Failure::new(format!("--ssh {text}: SSH_AUTH_SOCK is not set"))
                .with_help("start an agent, or use --ssh ID=SOCKET or --ssh ID=KEYFILE")),
        };
    }
    let paths: Vec<PathBuf> = places.split(',').map(|path| settings.absolute(path)).collect();
    let mut sockets = 0;
    for path in &paths {
        let found = std::fs::metadata(path)
            .map_err(|error| Failure::new(format!("--ssh {text}: cannot use {}: {error}", path.display())))?;
        if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) {
            sockets += 1;
        } else if !found.is_file() {
            let message = format!("--ssh {text}: {} is neither a socket nor a file with a key", path.display());
            return Err(Failure::usage(message, "name an agent's socket, or private keys"));
        }
    }
    match (paths.as_slice(), sockets) {
        (_, 0) => input(SshSource::Keys(paths)),
        ([socket], 1) => input(SshSource::Socket(socket.clone())),
        _ => Err(Failure::usage(
            format!("--ssh {text}: a socket cannot be combined with other sockets or keys"),
            "give each id one socket, or key files only",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_follow_csv_quoting() {
        assert_eq!(fields("a=b,c"), ["a=b", "c"]);
        assert_eq!(fields("type=oci,\"name=x,y\",dest=z"), ["type=oci", "name=x,y", "dest=z"]);
        assert_eq!(fields("\"a\"\"b\""), ["a\"b"]);
    }

    #[test]
    fn ulimits_have_known_names_and_ordered_limits() {
        assert_eq!(ulimit("nofile=10:20").unwrap(), ("nofile".to_owned(), 10, 20));
        assert_eq!(ulimit("core=-1").unwrap(), ("core".to_owned(), u64::MAX, u64::MAX));
        for bad in ["nofile", "nonsense=1", "nofile=3:2", "nofile=x"] {
            assert!(ulimit(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hosts_take_both_separators() {
        assert_eq!(add_host("db:10.0.0.7").unwrap(), ("db".to_owned(), "10.0.0.7".to_owned()));
        assert_eq!(add_host("db=::1").unwrap(), ("db".to_owned(), "::1".to_owned()));
        assert_eq!(add_host("db:[::1]").unwrap(), ("db".to_owned(), "::1".to_owned()));
        assert_eq!(add_host("me:host-gateway").unwrap(), ("me".to_owned(), "host-gateway".to_owned()));
        assert!(add_host("db:nowhere").is_err());
        assert!(add_host("db").is_err());
    }
}
