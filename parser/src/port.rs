//! Ports of `EXPOSE`: `8080`, `8000-8010/udp`, and the forms with host parts that are read but mean nothing.

use std::net::IpAddr;

use crate::quote::Quoted;

/// A port that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// As written, expanded.
    pub raw: String,
    /// Every port of the range as `port/protocol`, ascending.
    pub ports: Vec<String>,
    /// Whether the protocol has capitals.
    pub protocol_has_capitals: bool,
    /// Whether an address or a host port is given.
    pub names_a_host: bool,
}

/// A text that is no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PortError {
    #[error("invalid port: {}: no port specified", Quoted(.raw))]
    NoPort { raw: String },
    #[error("invalid port: {}: invalid proto: {protocol}", Quoted(.raw))]
    Protocol { raw: String, protocol: String },
    #[error("invalid IP address: {0}")]
    Address(String),
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges { container: String, host: String },
}

/// Reads one expanded word of an `EXPOSE`.
pub fn parse(raw: &str) -> Result<PortSpec, PortError> {
    let (address, host, container) = split(raw);
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(PortError::NoPort { raw: raw.to_owned() });
    }
    let lower = match protocol.to_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return Err(PortError::Protocol { raw: raw.to_owned(), protocol: protocol.to_owned() }),
    };
    check_address(address)?;
    let (first, last) = range(port).ok_or_else(|| PortError::ContainerPort(port.to_owned()))?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host).ok_or_else(|| PortError::HostPort(host.to_owned()))?;
        // A single container port may be given a range of host ports to choose from.
        if last - first != host_last - host_first && last != first {
            return Err(PortError::Ranges { container: port.to_owned(), host: host.to_owned() });
        }
    }
    Ok(PortSpec {
        raw: raw.to_owned(),
        ports: (first..=last).map(|port| format!("{port}/{lower}")).collect(),
        protocol_has_capitals: protocol != protocol.to_lowercase(),
        names_a_host: !address.is_empty() || !host.is_empty(),
    })
}

/// `[[address:]host:]container`; an address may hold colons itself.
fn split(raw: &str) -> (&str, &str, &str) {
    match raw.rsplit_once(':') {
        None => ("", "", raw),
        Some((rest, container)) => match rest.rsplit_once(':') {
            None => ("", rest, container),
            Some((address, host)) => (address, host, container),
        },
    }
}

fn check_address(address: &str) -> Result<(), PortError> {
    let bare = address.strip_prefix('[').map_or(address, |rest| rest.strip_suffix(']').unwrap_or(rest));
    if address.is_empty() || bare.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(PortError::Address(bare.to_owned()))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) if first != last => (number(first)?, number(last)?),
        Some((first, _)) => (number(first)?, number(first)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some((first, last))
}

fn number(text: &str) -> Option<u16> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        for (raw, ports, capitals, host) in [
            ("80", vec!["80/tcp"], false, false),
            ("80/udp", vec!["80/udp"], false, false),
            ("80/TcP", vec!["80/tcp"], true, false),
            ("80/", vec!["80/tcp"], false, false),
            ("8000-8002/sctp", vec!["8000/sctp", "8001/sctp", "8002/sctp"], false, false),
            ("0", vec!["0/tcp"], false, false),
            ("80-80", vec!["80/tcp"], false, false),
            ("8080:80", vec!["80/tcp"], false, true),
            ("8080-8090:80", vec!["80/tcp"], false, true),
            ("127.0.0.1:80:80", vec!["80/tcp"], false, true),
            ("[::1]:80:80", vec!["80/tcp"], false, true),
            ("::1:80:80", vec!["80/tcp"], false, true),
            ("127.0.0.1::80", vec!["80/tcp"], false, true),
        ] {
            let spec = parse(raw).unwrap();
            assert_eq!(
                (spec.ports, spec.protocol_has_capitals, spec.names_a_host),
                (ports.into_iter().map(str::to_owned).collect(), capitals, host),
                "{raw}"
            );
        }
    }

    #[test]
    fn faults_are_told_in_buildkits_words() {
        for (raw, message) in [
            ("web", "invalid containerPort: web"),
            ("70000", "invalid containerPort: 70000"),
            ("90-80", "invalid containerPort: 90-80"),
            ("80/http", "invalid port: \"80/http\": invalid proto: http"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("80:", "invalid port: \"80:\": no port specified"),
            ("x:80:80", "invalid IP address: x"),
            ("x:80", "invalid hostPort: x"),
            ("80-81:80-82", "invalid ranges specified for container and host Ports: 80-82 and 80-81"),
        ] {
            assert_eq!(parse(raw).unwrap_err().to_string(), message, "{raw}");
        }
    }
}
