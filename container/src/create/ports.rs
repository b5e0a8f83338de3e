//! Ports that an image (`EXPOSE`) or its user (`--expose`) declares; documentation only, nothing is opened.

use std::collections::BTreeSet;

use rbuild_image::RuntimeConfig;

/// A port that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid range format for --expose: {text}")]
pub struct InvalidPort {
    /// What was given.
    pub text: String,
}

/// The image's ports as they are and the user's, ranges taken apart.
pub(super) fn merge(image: &RuntimeConfig, expose: &[String]) -> Result<BTreeSet<String>, InvalidPort> {
    let mut ports: BTreeSet<String> = image.exposed_ports.keys().cloned().collect();
    for text in expose {
        let invalid = || InvalidPort { text: text.clone() };
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
            return Err(invalid());
        }
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(invalid);
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(invalid());
        }
        ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_a_protocol_and_ranges_are_taken_apart() {
        let image = RuntimeConfig {
            exposed_ports: [("80/tcp".to_owned(), Default::default())].into(),
            ..RuntimeConfig::default()
        };
        let merged = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
            merge(&image, &texts).map(|ports| ports.into_iter().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(
            merged(&["443", "53/UDP", "7000-7002"]).unwrap(),
            "443/tcp 53/udp 7000/tcp 7001/tcp 7002/tcp 80/tcp"
        );
        for bad in ["", "0", "65536", "a", "2-1", "80/icmp", "80-", "80:80"] {
            let error = merged(&[bad]).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid range format for --expose: {bad}"));
        }
    }
}
