//! `COPY` and `ADD`.

use super::flags::Takes;
use super::{Converter, origin, take_plain, text};
use crate::ast::{Argument, Node};
use crate::heredoc::{Opener, strip_tabs};
use crate::instruction::{Add, Copy, InlineFile, SourcesAndDest};
use crate::word::{Lookup, Style, Word, expand_text};
use crate::{ExpandError, Expanded, Span};

impl Converter<'_> {
    pub(super) fn copy(&self, node: &mut Node) -> Option<Copy> {
        let ends = self.two(node, "COPY");
        let declared = [
            ("chmod", Takes::One),
            ("chown", Takes::One),
            ("exclude", Takes::Many),
            ("from", Takes::One),
            ("link", Takes::Switch),
            ("parents", Takes::Switch),
        ];
        let mut flags = self.flags(node, &declared);
        let (sources, dest) = ends?;
        Some(Copy {
            paths: self.paths(node, sources, dest, "COPY")?,
            from: flags.take_some("from").map(text),
            chown: self.optional(flags.take_some("chown")),
            chmod: self.optional(flags.take_some("chmod")),
            link: flags.switch("link").unwrap_or(false),
            parents: flags.switch("parents").unwrap_or(false),
            exclude: self.words(flags.take_all("exclude")),
            origin: origin(node),
        })
    }

    pub(super) fn add(&self, node: &mut Node) -> Option<Add> {
        let ends = self.two(node, "ADD");
        let declared = [
            ("checksum", Takes::One),
            ("chmod", Takes::One),
            ("chown", Takes::One),
            ("exclude", Takes::Many),
            ("keep-git-dir", Takes::Switch),
            ("link", Takes::Switch),
            ("unpack", Takes::Switch),
        ];
        let mut flags = self.flags(node, &declared);
        let (sources, dest) = ends?;
        Some(Add {
            paths: self.paths(node, sources, dest, "ADD")?,
            chown: self.optional(flags.take_some("chown")),
            chmod: self.optional(flags.take_some("chmod")),
            link: flags.switch("link").unwrap_or(false),
            exclude: self.words(flags.take_all("exclude")),
            checksum: self.optional(flags.take_some("checksum")),
            keep_git_dir: flags.switch("keep-git-dir"),
            unpack: flags.switch("unpack"),
            origin: origin(node),
        })
    }

    fn optional(&self, value: Option<Argument>) -> Option<Word> {
        value.map(|value| self.word(value))
    }

    fn two(&self, node: &mut Node, name: &str) -> Option<(Vec<Argument>, Argument)> {
        let mut arguments = take_plain(node);
        match arguments.pop() {
            Some(dest) if !arguments.is_empty() => Some((arguments, dest)),
            _ => {
                let message = format!(
                    "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
                );
                let help = format!("write `{name} source… destination`");
                self.refuse(self.error_at_keyword(node, message).with_help(help))
            }
        }
    }

    fn paths(&self, node: &Node, arguments: Vec<Argument>, dest: Argument, name: &str) -> Option<SourcesAndDest> {
        if Opener::parse(&dest.text).is_some() {
            return self.refuse(self.error(
                node,
                dest.span,
                format!("{name} cannot accept a heredoc as a destination"),
            ));
        }
        let mut sources = Vec::new();
        let mut contents = Vec::new();
        for argument in arguments {
            match Opener::parse(&argument.text) {
                None => sources.push(self.word(argument)),
                Some(opener) => contents.push(inline_file(node, opener, argument.span)),
            }
        }
        Some(SourcesAndDest { sources, contents, dest: self.word(dest) })
    }
}

/// The file that a here-document makes. Of several with one delimiter the last counts, for each of them; an opener without a
/// body (in a JSON array) makes an empty file. Both as in BuildKit.
fn inline_file(node: &Node, opener: Opener, at: Span) -> InlineFile {
    let body = node.heredocs.iter().rev().find(|heredoc| heredoc.opener.name == opener.name);
    let content = body.map_or("", |heredoc| heredoc.content.as_str());
    InlineFile {
        name: opener.name,
        content: if opener.strips_tabs { strip_tabs(content) } else { content.to_owned() },
        expands: opener.expands,
        span: body.map_or(at, |heredoc| heredoc.span),
    }
}

impl InlineFile {
    /// The content with variables replaced, if they are to be.
    pub fn expand(&self, lookup: &dyn Lookup) -> Result<Expanded, ExpandError> {
        match self.expands {
            true => expand_text(&self.content, &Style::heredoc_body(), lookup),
            false => Ok(Expanded { text: self.content.clone(), ..Expanded::default() }),
        }
    }
}
