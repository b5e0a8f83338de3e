//! Values of secrets in the output of steps become `****`, before anything shows or stores them.
//!
//! What a step was given is learned when it is given. A value is masked as a whole, without the line end of its file,
//! and, where it has several lines (a key), also line by line. Values and lines shorter than [`SHORTEST`] bytes are
//! left alone: masking them would garble output and hide nothing. A value may be cut in two by a read: bytes that may
//! begin one are held back until it is decided.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use rbuild_solver::{LogStream, VertexId};

/// Values shorter than this are not masked.
const SHORTEST: usize = 4;
/// Lines of a longer value that are shorter than this are not masked by themselves.
const SHORTEST_LINE: usize = 8;
/// What is shown instead.
const SHOWN: &[u8] = b"****";

/// Secrets that were given to steps. Clones share what they know.
#[derive(Clone, Default)]
pub(crate) struct Mask {
    /// Longest first, so that a value is not masked by a part of it.
    values: Arc<RwLock<Vec<Vec<u8>>>>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask(****)")
    }
}

impl Mask {
    /// Masks a value from now on.
    pub(crate) fn learn(&self, value: &[u8]) {
        let whole = value.trim_ascii_end();
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let lines = lines.filter(|line| line.len() >= SHORTEST_LINE);
        for one in std::iter::once(whole).filter(|whole| whole.len() >= SHORTEST).chain(lines) {
            if !values.iter().any(|known| known == one) {
                values.push(one.to_owned());
            }
        }
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    fn is_empty(&self) -> bool {
        self.values.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// A text with all values masked.
    pub(crate) fn text(&self, text: &str) -> String {
        if self.is_empty() {
            return text.to_owned();
        }
        let mut stream = Stream::default();
        let mut out = stream.take(self, text.as_bytes());
        out.extend(stream.rest(self));
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// The output of all steps, masked.
#[derive(Debug, Default)]
pub(super) struct Masked {
    streams: BTreeMap<(VertexId, bool), Stream>,
}

impl Masked {
    /// Takes output; gives what may be shown of it by now.
    pub(super) fn take(&mut self, mask: &Mask, vertex: VertexId, stream: LogStream, data: Vec<u8>) -> Vec<u8> {
        if mask.is_empty() {
            return data;
        }
        self.streams.entry((vertex, stream == LogStream::Stderr)).or_default().take(mask, &data)
    }

    /// What was held back of a step that has ended.
    pub(super) fn end(&mut self, mask: &Mask, vertex: VertexId) -> Vec<(LogStream, Vec<u8>)> {
        let mut out = Vec::new();
        for (stderr, stream) in [(false, LogStream::Stdout), (true, LogStream::Stderr)] {
            let rest = self.streams.remove(&(vertex, stderr)).map(|mut held| held.rest(mask)).unwrap_or_default();
            if !rest.is_empty() {
                out.push((stream, rest));
            }
        }
        out
    }
}

/// One stream.
#[derive(Debug, Default)]
struct Stream {
    held: Vec<u8>,
}

impl Stream {
    fn take(&mut self, mask: &Mask, data: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(data);
        let values = mask.values.read().unwrap_or_else(PoisonError::into_inner);
        let mut out = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            // A longer value that may still begin here is waited for.
            let begins = |value: &&Vec<u8>| value.starts_with(rest) && value.len() > rest.len();
            if let Some(value) = values.iter().find(|value| rest.starts_with(value)) {
                if values.iter().take_while(|longer| longer.len() > value.len()).any(|longer| begins(&longer)) {
                    break;
                }
                out.extend_from_slice(SHOWN);
                at += value.len();
            } else if values.iter().any(|value| begins(&value)) {
                break;
            } else {
                out.push(rest[0]);
                at += 1;
            }
        }
        self.held.drain(..at);
        out
    }

    /// Nothing follows: what was held back is decided.
    fn rest(&mut self, mask: &Mask) -> Vec<u8> {
        let values = mask.values.read().unwrap_or_else(PoisonError::into_inner);
        let (mut out, mut at) = (Vec::new(), 0);
        while at < self.held.len() {
            let rest = &self.held[at..];
            match values.iter().find(|value| rest.starts_with(value)) {
                Some(value) => {
                    out.extend_from_slice(SHOWN);
                    at += value.len();
                }
                None => {
                    out.push(rest[0]);
                    at += 1;
                }
            }
        }
        self.held.clear();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(values: &[&str], chunks: &[&str]) -> Vec<String> {
        let mask = Mask::default();
        values.iter().for_each(|value| mask.learn(value.as_bytes()));
        let mut stream = Stream::default();
        let mut out: Vec<Vec<u8>> = chunks.iter().map(|chunk| stream.take(&mask, chunk.as_bytes())).collect();
        out.push(stream.rest(&mask));
        out.into_iter().map(|part| String::from_utf8(part).unwrap()).collect()
    }

    #[test]
    fn values_are_masked_wherever_reads_cut_them() {
        assert_eq!(masked(&["hunter2\n"], &["a hunter2 b\n"]), ["a **** b\n", ""]);
        assert_eq!(masked(&["hunter2"], &["a hun", "ter2", " b"]), ["a ", "****", " b", ""]);
        assert_eq!(masked(&["hunter2"], &["a hun", "ting"]), ["a ", "hunting", ""]);
        assert_eq!(masked(&["hunter2"], &["end: hunt"]), ["end: ", "hunt"]);
    }

    #[test]
    fn the_longest_value_wins() {
        assert_eq!(masked(&["secret", "secretary"], &["secretary secret x"]), ["**** **** x", ""]);
        assert_eq!(masked(&["secret", "secretary"], &["secret", "ary"]), ["", "****", ""]);
        assert_eq!(masked(&["secret", "secretary"], &["secret", "s"]), ["", "****", "s"]);
    }

    #[test]
    fn lines_of_a_key_are_masked_and_short_values_are_not() {
        let key = "-----BEGIN KEY-----\nabcdefghijkl\nxy\n-----END KEY-----\n";
        assert_eq!(masked(&[key], &["abcdefghijkl\nxy\n"]).concat(), "****\nxy\n");
        assert_eq!(masked(&["a", "1"], &["a1"]).concat(), "a1");
    }
}
