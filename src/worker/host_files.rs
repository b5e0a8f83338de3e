//! `/etc/hosts` as a `RUN` step sees it. It is mounted for the step and never in its layer.

use std::net::IpAddr;

use crate::request::HOST_GATEWAY;

/// Makes `/etc/hosts` as BuildKit does, with the step's host name and `--add-host` entries; `here` is this machine's address.
/// `None` when an entry wants that and there is none.
pub(super) fn hosts(hostname: &str, extra: &[(String, String)], here: Option<IpAddr>) -> Option<String> {
    let mut text = format!(
        "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    );
    for (name, address) in extra {
        let address = if address == HOST_GATEWAY { here?.to_string() } else { address.clone() };
        text.push_str(&format!("{address}\t{name}\n"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_hosts_come_last() {
        let extra = [("db", "10.1.2.3"), ("me", HOST_GATEWAY)].map(|(name, at)| (name.to_owned(), at.to_owned()));
        let text = hosts("buildkitsandbox", &extra, Some(IpAddr::from([172, 17, 0, 1]))).unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost buildkitsandbox\n"));
        assert!(text.ends_with("\n10.1.2.3\tdb\n172.17.0.1\tme\n"));
        assert_eq!(hosts("buildkitsandbox", &extra, None), None);
        assert!(hosts("buildkitsandbox", &extra[..1], None).is_some());
    }
}
