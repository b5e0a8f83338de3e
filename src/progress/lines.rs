//! Output of steps as lines that are safe to show, and times as people read them.

/// Cuts a stream into whole lines with control characters escaped; a carriage return starts its line again.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

/// A line longer than this is cut into several.
const LONGEST_LINE: usize = 16 * 1024;

impl Lines {
    /// Takes bytes; gives the lines that are whole now.
    pub(crate) fn take(&mut self, data: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in data {
            if *byte == b'\n' || self.rest.len() >= LONGEST_LINE {
                lines.push(line(&self.rest));
                self.rest.clear();
            }
            if *byte != b'\n' {
                self.rest.push(*byte);
            }
        }
        lines
    }

    /// The last line, when it had no end.
    pub(crate) fn finish(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| line(&rest))
    }
}

fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\r');
    let shown = text.rsplit('\r').next().unwrap_or(text);
    crate::cli::report::printable(&strip_colours(shown))
}

/// Drops SGR sequences (`ESC [ … m`), which only colour; every other sequence is left to be escaped.
fn strip_colours(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let body = &rest[at + 2..];
        let end = body.find(|c: char| !(c.is_ascii_digit() || c == ';' || c == ':')).unwrap_or(body.len());
        out.push_str(&rest[..at]);
        if body[end..].starts_with('m') {
            rest = &body[end + 1..];
        } else {
            out.push_str("\u{1b}[");
            rest = body;
        }
    }
    out.push_str(rest);
    out
}

/// A time as steps show it: `0.3s`, `12.0s`, `2m05s`.
pub(crate) fn seconds(nanoseconds: u64) -> String {
    let whole = nanoseconds / 1_000_000_000;
    if whole >= 60 {
        return format!("{}m{:02}s", whole / 60, whole % 60);
    }
    format!("{whole}.{}s", nanoseconds / 100_000_000 % 10)
}

/// The heading of an earlier run's log.
pub(crate) fn recalled(build: &str, began: i64) -> String {
    let when = jiff::Timestamp::from_second(began).map_or_else(|_| String::new(), |time| format!(" of {time}"));
    format!("log of the run that made it, in build {build}{when}:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_harmless() {
        let mut lines = Lines::default();
        assert!(lines.take(b"one").is_empty());
        assert_eq!(lines.take(b" line\ntwo\r\n 10%\r 100%\nrest"), ["one line", "two", " 100%"]);
        assert_eq!(lines.take(b"\x1b[31mred\x1b[0m \x1b[2J\n"), ["restred \\u{1b}[2J"]);
        assert_eq!(lines.take(b"\xff\n"), ["\u{fffd}"]);
        lines.take(b"end");
        assert_eq!(lines.finish().as_deref(), Some("end"));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn long_lines_are_cut() {
        let mut lines = Lines::default();
        let got = lines.take(&vec![b'x'; 40_000]);
        assert_eq!(got.len(), 2);
        assert!(got.iter().all(|line| line.len() <= LONGEST_LINE));
    }

    #[test]
    fn times_are_short() {
        assert_eq!(seconds(340_000_000), "0.3s");
        assert_eq!(seconds(12_000_000_000), "12.0s");
        assert_eq!(seconds(125_000_000_000), "2m05s");
    }
}
