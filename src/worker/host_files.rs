//! `/etc/hosts` as a `RUN` step sees it. It is mounted for the step and never in its layer.

/// Makes `/etc/hosts` as BuildKit does, with the step's host name and `--add-host` entries.
pub(super) fn hosts(hostname: &str, extra: &[(String, String)]) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    );
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_hosts_come_last() {
        let text = hosts("buildkitsandbox", &[("db".to_owned(), "10.1.2.3".to_owned())]);
        assert!(text.starts_with("127.0.0.1\tlocalhost buildkitsandbox\n"));
        assert!(text.ends_with("\n10.1.2.3\tdb\n"));
    }
}
