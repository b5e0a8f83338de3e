//! Template text → tokens, as `text/template/parse` cuts it: text between actions, `{{- -}}` trimming, comments.

/// A token, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) text: String,
    /// Byte offset in the template.
    pub(super) at: usize,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text outside of actions.
    Text,
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// White space inside an action: it separates arguments.
    Space,
    /// `.`
    Dot,
    /// `.Name`
    Field,
    /// `$` or `$name`
    Variable,
    /// A function, a keyword, `nil`, `true` or `false`.
    Word,
    /// A number or a character constant.
    Number,
    /// A string, quoted as it was written.
    Quoted,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `|`
    Pipe,
    /// `(`
    OpenParen,
    /// `)`
    CloseParen,
    /// `,`
    Comma,
    /// Any other printable character.
    Other,
    /// The end of the template.
    End,
    /// What cannot be read; its text is the message.
    Wrong,
}

/// Cuts a template into tokens; the last one is [`Kind::End`] or [`Kind::Wrong`].
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new() };
    if let Err(Wrong(message)) = lexer.outside() {
        // What the parser finds wrong before it is said first.
        lexer.tokens.push(Token { kind: Kind::Wrong, text: message, at: lexer.at });
    }
    lexer.tokens
}

/// What cannot be cut into tokens.
struct Wrong(String);

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn fail(&self, message: impl Into<String>) -> Wrong {
        Wrong(message.into())
    }

    fn push(&mut self, kind: Kind, length: usize) {
        let text = self.text[self.at..self.at + length].to_owned();
        self.tokens.push(Token { kind, text, at: self.at });
        self.at += length;
    }

    fn outside(&mut self) -> Result<(), Wrong> {
        let mut trim_left = false;
        loop {
            let begin = self.at;
            let open = self.rest().find("{{").map(|offset| begin + offset);
            let end = open.unwrap_or(self.text.len());
            let trims_right = open.is_some_and(|open| {
                self.text[open + 2..].starts_with('-') && self.text[open + 3..].starts_with(BLANKS)
            });
            let mut piece = &self.text[begin..end];
            if trim_left {
                piece = piece.trim_start_matches(BLANKS);
            }
            let from = end - piece.len();
            if trims_right {
                piece = piece.trim_end_matches(BLANKS);
            }
            if !piece.is_empty() {
                self.tokens.push(Token { kind: Kind::Text, text: piece.to_owned(), at: from });
            }
            self.at = end;
            let Some(_) = open else {
                self.push(Kind::End, 0);
                return Ok(());
            };
            let marker = if trims_right { 4 } else { 2 };
            trim_left = if self.text[self.at + marker..].starts_with("/*") {
                self.at += marker;
                self.comment()?
            } else {
                let at = self.at;
                self.tokens.push(Token { kind: Kind::Open, text: "{{".to_owned(), at });
                self.at += marker;
                self.inside()?
            };
        }
    }

    /// Skips a comment; says whether the text after it is to be trimmed.
    fn comment(&mut self) -> Result<bool, Wrong> {
        let Some(end) = self.rest().find("*/") else { return Err(self.fail("unclosed comment")) };
        self.at += end + 2;
        match self.closing() {
            Some((length, trims)) => {
                self.at += length;
                Ok(trims)
            }
            None => Err(self.fail("comment ends before closing delimiter")),
        }
    }

    /// The length of a closing delimiter here, and whether it trims.
    fn closing(&self) -> Option<(usize, bool)> {
        let rest = self.rest();
        if rest.starts_with("}}") {
            return Some((2, false));
        }
        (rest.starts_with(BLANKS) && rest[1..].starts_with("-}}")).then_some((4, true))
    }

    /// Cuts one action; says whether the text after it is to be trimmed.
    fn inside(&mut self) -> Result<bool, Wrong> {
        let mut depth = 0_usize;
        loop {
            if let Some((length, trims)) = self.closing() {
                if depth > 0 {
                    return Err(self.fail("unclosed left paren"));
                }
                let at = self.at;
                self.tokens.push(Token { kind: Kind::Close, text: "}}".to_owned(), at });
                self.at += length;
                return Ok(trims);
            }
            let Some(c) = self.rest().chars().next() else { return Err(self.fail("unclosed action")) };
            match c {
                _ if BLANKS.contains(&c) => {
                    // A blank before `-}}` belongs to the delimiter.
                    let blank = self.rest().find(|c| !BLANKS.contains(&c)).unwrap_or(self.rest().len());
                    let trims = self.rest()[blank..].starts_with("-}}");
                    let length = if trims { blank - 1 } else { blank };
                    if length > 0 {
                        self.push(Kind::Space, length);
                    }
                }
                '=' => self.push(Kind::Assign, 1),
                ':' if self.rest()[1..].starts_with('=') => self.push(Kind::Declare, 2),
                ':' => return Err(self.fail("expected :=")),
                '|' => self.push(Kind::Pipe, 1),
                '"' => self.quoted('"', "unterminated quoted string", Kind::Quoted)?,
                '\'' => self.quoted('\'', "unterminated character constant", Kind::Number)?,
                '`' => {
                    let Some(end) = self.rest()[1..].find('`') else {
                        return Err(self.fail("unterminated raw quoted string"));
                    };
                    self.push(Kind::Quoted, end + 2);
                }
                '$' => self.named(Kind::Variable)?,
                '.' if !self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => self.named(Kind::Field)?,
                '.' | '+' | '-' | '0'..='9' => self.number()?,
                _ if is_name(c) => self.named(Kind::Word)?,
                '(' => {
                    depth += 1;
                    self.push(Kind::OpenParen, 1);
                }
                ')' => {
                    if depth == 0 {
                        return Err(self.fail("unexpected right paren"));
                    }
                    depth -= 1;
                    self.push(Kind::CloseParen, 1);
                }
                ',' => self.push(Kind::Comma, 1),
                _ if c.is_ascii_graphic() => self.push(Kind::Other, 1),
                _ => return Err(self.fail(format!("unrecognized character in action: {}", code_point(c)))),
            }
        }
    }

    fn quoted(&mut self, quote: char, unterminated: &str, kind: Kind) -> Result<(), Wrong> {
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '\\' if chars.next().is_none_or(|(_, c)| c == '\n') => break,
                '\\' => {}
                '\n' => break,
                _ if c == quote => {
                    self.push(kind, offset + 1);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(self.fail(unterminated))
    }

    /// A field, a variable or a word: a mark, then letters, digits and underscores.
    fn named(&mut self, kind: Kind) -> Result<(), Wrong> {
        let skip = usize::from(kind != Kind::Word);
        let name = &self.rest()[skip..];
        let length = skip + name.find(|c| !is_name(c)).unwrap_or(name.len());
        let next = self.rest()[length..].chars().next();
        let ends = next.is_none_or(|c| BLANKS.contains(&c) || matches!(c, '.' | ',' | '|' | ':' | ')' | '('))
            || self.rest()[length..].starts_with("}}");
        if let (false, Some(c)) = (ends, next) {
            return Err(self.fail(format!("bad character {}", code_point(c))));
        }
        self.push(if kind == Kind::Field && length == 1 { Kind::Dot } else { kind }, length);
        Ok(())
    }

    fn number(&mut self) -> Result<(), Wrong> {
        let rest = self.rest();
        let in_number = |(at, c): (usize, char)| {
            c.is_ascii_alphanumeric()
                || matches!(c, '.' | '_')
                || (matches!(c, '+' | '-') && (at == 0 || rest[..at].ends_with(['e', 'E', 'p', 'P'])))
        };
        let length = rest.char_indices().find(|part| !in_number(*part)).map_or(rest.len(), |(at, _)| at);
        self.push(Kind::Number, length);
        Ok(())
    }
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// A character as Go's `%#U` shows it.
fn code_point(c: char) -> String {
    format!("U+{:04X} '{c}'", u32::from(c))
}
