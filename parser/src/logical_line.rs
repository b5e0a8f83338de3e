//! Physical lines to logical ones: continuations joined, comments and blank lines dropped, byte order mark and line ends gone.
//! A logical line knows where each of its bytes came from.

use std::borrow::Cow;
use std::ops::Range;

use crate::directive::Header;
use crate::{Diagnostic, Span};

/// The longest physical line that BuildKit reads, its end included.
const MAX_LINE: usize = 64 * 1024;
/// How much room is made for what continues a line, to begin with.
const TYPICAL_CONTINUATION: usize = 192;

/// Where the bytes of a joined text came from.
#[derive(Clone, Debug)]
pub(crate) enum Map {
    /// One run of source text.
    Run(usize),
    /// Several: offset in the joined text, offset in the source. The first starts at 0.
    Pieces(Vec<(usize, usize)>),
    /// All of it stands for one place elsewhere.
    Fixed(Span),
}

impl Map {
    /// The place of a range of the joined text.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        match self {
            Self::Run(start) => Span::new(start + range.start, start + range.end),
            Self::Fixed(span) => *span,
            Self::Pieces(pieces) => {
                let place = |offset: usize| {
                    let (joined, source) = pieces[pieces.partition_point(|(joined, _)| *joined <= offset) - 1];
                    source + offset - joined
                };
                let start = place(range.start);
                // The end belongs to the piece of the last byte, not to the next one.
                let end = if range.is_empty() { start } else { place(range.end - 1) + 1 };
                Span::new(start, end)
            }
        }
    }

    /// Whether a place is on the first physical line.
    pub(crate) fn is_on_first_line(&self, span: Span) -> bool {
        match self {
            Self::Run(_) | Self::Fixed(_) => true,
            Self::Pieces(pieces) => pieces.get(1).is_none_or(|(_, second)| span.start() < *second),
        }
    }

    /// The map for the part of the text that starts at `offset`.
    pub(crate) fn tail(&self, offset: usize) -> Self {
        match self {
            Self::Run(start) => Self::Run(start + offset),
            Self::Fixed(span) => Self::Fixed(*span),
            Self::Pieces(pieces) => {
                let first = pieces.partition_point(|(joined, _)| *joined <= offset) - 1;
                let shifted = pieces[first..]
                    .iter()
                    .map(|(joined, source)| (joined.saturating_sub(offset), source + offset.saturating_sub(*joined)));
                Self::Pieces(shifted.collect())
            }
        }
    }
}

/// A logical line.
#[derive(Debug)]
pub(crate) struct LogicalLine<'s> {
    /// The joined text; never empty but for a lone continuation at the end of the file.
    pub(crate) text: Cow<'s, str>,
    /// Where it came from.
    pub(crate) map: Map,
    /// The whole place: from the first byte to the end of the last physical line.
    pub(crate) span: Span,
    /// The last physical line, if one between the first and it was blank.
    pub(crate) blank_inside: Option<Span>,
    /// The comments directly above, without `#` and blanks around.
    pub(crate) comments: Vec<&'s str>,
}

/// Reads a text line by line.
#[derive(Debug)]
pub(crate) struct Reader<'s> {
    text: &'s str,
    at: usize,
    previous: Span,
    pub(crate) header: Header,
    comments: Vec<&'s str>,
    /// Faults of the text itself. After one, reading is over.
    pub(crate) faults: Vec<Diagnostic>,
    /// A place that stands for every place in the text.
    fixed: Option<Span>,
}

/// A physical line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhysicalLine<'s> {
    /// The offset of its first byte.
    pub(crate) start: usize,
    /// The line with its end.
    pub(crate) raw: &'s str,
}

impl<'s> PhysicalLine<'s> {
    fn body(&self) -> &'s str {
        self.raw.trim_end_matches(['\r', '\n'])
    }

    fn span(&self) -> Span {
        Span::new(self.start, self.start + self.body().len())
    }
}

impl<'s> Reader<'s> {
    pub(crate) fn new(text: &'s str, fixed: Option<Span>) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self {
            text,
            at,
            previous: Span::default(),
            header: Header::default(),
            comments: Vec::new(),
            faults: Vec::new(),
            fixed,
        }
    }

    /// The next physical line, whatever it is.
    pub(crate) fn physical(&mut self) -> Option<PhysicalLine<'s>> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let (length, ended) = match rest.find('\n') {
            Some(end) => (end + 1, true),
            None => (rest.len(), false),
        };
        let line = PhysicalLine { start: self.at, raw: &rest[..length] };
        if length + usize::from(!ended) > MAX_LINE {
            let message = format!("dockerfile line greater than max allowed size of {}", MAX_LINE - 1);
            self.faults.push(Diagnostic::error(Span::new(self.at, self.at + 1), message));
            self.at = self.text.len();
            return None;
        }
        self.at += length;
        Some(line)
    }

    /// The place of the file's last line, for what is missing there.
    pub(crate) fn end(&self) -> Span {
        let body = self.text.trim_end_matches(['\r', '\n']);
        let start = body.rfind('\n').map_or(0, |at| at + 1);
        self.place(Span::new(start, body.len()))
    }

    /// A place in this text, or the one that stands for it.
    pub(crate) fn place(&self, span: Span) -> Span {
        self.fixed.unwrap_or(span)
    }

    /// The next logical line.
    pub(crate) fn next(&mut self) -> Option<LogicalLine<'s>> {
        loop {
            let line = self.physical()?;
            let body = line.body();
            let trimmed = body.trim_start();
            let is_comment = trimmed.starts_with('#');
            if is_comment {
                self.note_comment(body);
            }
            let start = line.start + body.len() - trimmed.len();
            if !self.header.is_over() {
                let previous = std::mem::replace(&mut self.previous, line.span());
                let (place, previous) = (self.place(Span::new(start, start + trimmed.len())), self.place(previous));
                match self.header.line(trimmed, place, previous) {
                    // What stands in a directive describes no instruction.
                    Ok(true) => drop(self.comments.pop()),
                    Ok(false) => {}
                    Err(fault) => {
                        self.faults.push(fault);
                        self.comments.pop();
                    }
                }
            }
            if is_comment {
                continue;
            }
            let (content, continues) = self.cut_continuation(trimmed);
            if content.is_empty() && !continues {
                continue;
            }
            return Some(self.joined(line, start, content, continues));
        }
    }

    /// Keeps a comment for the next instruction; an empty one parts it from those above.
    fn note_comment(&mut self, body: &'s str) {
        // As BuildKit: one byte is taken for the sign, even if blanks come first.
        let first = body.chars().next().map_or(0, char::len_utf8);
        match body[first..].trim() {
            "" => self.comments.clear(),
            comment => self.comments.push(comment),
        }
    }

    /// Takes off the escape character and the blanks at a line's end, unless another one stands before it.
    fn cut_continuation(&self, line: &'s str) -> (&'s str, bool) {
        let escape = self.header.escape.char();
        match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(rest) if !rest.ends_with(escape) => (rest, true),
            _ => (line, false),
        }
    }

    fn joined(
        &mut self,
        first: PhysicalLine<'s>,
        start: usize,
        content: &'s str,
        mut continues: bool,
    ) -> LogicalLine<'s> {
        let mut text = Cow::Borrowed(content);
        let mut pieces = vec![];
        let mut blank = false;
        let mut last = first;
        while continues {
            let Some(line) = self.physical() else { break };
            last = line;
            let body = line.body();
            match body.trim_start().as_bytes().first() {
                Some(b'#') => continue,
                Some(_) => {}
                None => {
                    blank = true;
                    continue;
                }
            }
            let (content, more) = self.cut_continuation(body);
            continues = more;
            if pieces.is_empty() {
                pieces.push((0, start));
                // Where there is one more line there are often several.
                text.to_mut().reserve(content.len() + TYPICAL_CONTINUATION);
            }
            pieces.push((text.len(), line.start));
            text.to_mut().push_str(content);
        }
        self.previous = last.span();
        let map = match (self.fixed, pieces.is_empty()) {
            (Some(span), _) => Map::Fixed(span),
            (None, true) => Map::Run(start),
            (None, false) => {
                // Of pieces that start at the same offset only the last has bytes.
                pieces.dedup_by(|later, earlier| {
                    let same = later.0 == earlier.0;
                    if same {
                        earlier.1 = later.1;
                    }
                    same
                });
                Map::Pieces(pieces)
            }
        };
        LogicalLine {
            text,
            map,
            span: self.place(Span::new(start, last.span().end().max(start))),
            blank_inside: blank.then(|| self.place(last.span())),
            comments: std::mem::take(&mut self.comments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(String, Vec<String>)> {
        let mut reader = Reader::new(text, None);
        let mut lines = Vec::new();
        while let Some(line) = reader.next() {
            let comments = line.comments.iter().map(|comment| (*comment).to_owned()).collect();
            lines.push((line.text.into_owned(), comments));
        }
        lines
    }

    fn texts(text: &str) -> Vec<String> {
        lines(text).into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn lines_are_joined() {
        for (text, expected) in [
            ("A b\nC d\n", vec!["A b", "C d"]),
            ("  A b", vec!["A b"]),
            ("A \\\n b\n", vec!["A  b"]),
            ("A \\ \t\n b\n", vec!["A  b"]),
            ("A \\\r\n b\r\n", vec!["A  b"]),
            ("A \\\n# no\n\n  # no\n b\n", vec!["A  b"]),
            ("A \\\\\nB", vec!["A \\\\", "B"]),
            ("A \\", vec!["A "]),
            ("\\\nA", vec!["A"]),
            ("# c \\\nA", vec!["A"]),
            ("\u{feff}A", vec!["A"]),
            ("# escape=`\nA `\n b \\\nB", vec!["A  b \\", "B"]),
            ("\n# escape=`\nA `\nB", vec!["A `", "B"]),
            ("A b # c", vec!["A b # c"]),
            ("\\", vec![""]),
        ] {
            assert_eq!(texts(text), expected, "{text:?}");
        }
    }

    #[test]
    fn comments_go_to_the_next_instruction() {
        let text = "# syntax=x\n# one\nA\n# two\n#\n# three\n\nB\nC";
        let comments: Vec<_> = lines(text).into_iter().map(|(_, comments)| comments).collect();
        assert_eq!(comments, [vec!["one"], vec!["three"], vec![]]);
    }

    #[test]
    fn places_survive_joining() {
        let text = "RUN a \\\n# c\n  bc \\\n\\\n d\n";
        let mut reader = Reader::new(text, None);
        let line = reader.next().unwrap();
        assert_eq!(line.text, "RUN a   bc  d");
        let place = |part: &str| {
            let at = line.text.find(part).unwrap();
            let span = line.map.span(at..at + part.len());
            &text[span.start()..span.end()]
        };
        assert_eq!((place("RUN"), place("bc"), place("d")), ("RUN", "bc", "d"));
        assert_eq!(place("a   bc"), "a \\\n# c\n  bc");
        let tail = line.map.tail(8);
        assert_eq!(tail.span(0..2), line.map.span(8..10));
        assert_eq!(tail.span(4..5), line.map.span(12..13));
        assert_eq!(line.span, Span::new(0, text.len() - 1));
    }

    #[test]
    fn overlong_lines_are_refused() {
        let fits = "A".repeat(MAX_LINE - 1);
        assert_eq!(texts(&format!("{fits}\nB")).len(), 2);
        let mut reader = Reader::new("", None);
        assert!(reader.next().is_none());
        let long = "A".repeat(MAX_LINE);
        let mut reader = Reader::new(&long, None);
        assert!(reader.next().is_none());
        assert_eq!(reader.faults[0].message, "dockerfile line greater than max allowed size of 65535");
    }
}
