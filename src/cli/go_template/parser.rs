//! Tokens → the tree of a template, with the messages of `text/template/parse`.

use std::collections::BTreeMap;

use super::functions;
use super::lexer::{Kind, Token, tokens};
use super::literal;
use super::node::{Block, Command, Node, Operand, Pipeline, Term};

/// Actions may be nested this deep: what follows is recursion.
const DEEPEST: usize = 100;

/// Why a template makes no sense, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: :{line}: {message}")]
pub(super) struct ParseError {
    line: usize,
    message: String,
}

impl ParseError {
    /// An error at a byte of the template.
    pub(super) fn at(text: &str, at: usize, message: impl Into<String>) -> Self {
        Self { line: 1 + text[..at.min(text.len())].matches('\n').count(), message: message.into() }
    }
}

/// A template's own tree, and those that it defines.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Trees {
    pub(super) main: Block,
    pub(super) defined: BTreeMap<String, Block>,
}

/// Parses a template.
pub(super) fn parse(text: &str) -> Result<Trees, ParseError> {
    let mut parser = Parser {
        text,
        tokens: tokens(text),
        next: 0,
        variables: vec!["$".to_owned()],
        loops: 0,
        depth: 0,
        defined: BTreeMap::new(),
    };
    let (main, end) = parser.block(true)?;
    match end {
        BlockEnd::Text => Ok(Trees { main, defined: parser.defined }),
        BlockEnd::End => Err(parser.fail("unexpected {{end}}")),
        BlockEnd::Else => Err(parser.fail("unexpected {{else}}")),
    }
}

/// What ended a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockEnd {
    Text,
    End,
    Else,
}

/// Which control structure is being parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    If,
    With,
    Range,
}

impl Control {
    fn word(self) -> &'static str {
        match self {
            Self::If => "if",
            Self::With => "with",
            Self::Range => "range",
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    next: usize,
    /// Variables that are declared here, innermost last.
    variables: Vec<String>,
    /// How many `range` are around.
    loops: usize,
    depth: usize,
    defined: BTreeMap<String, Block>,
}

type Parsed<T> = Result<T, ParseError>;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn skip_space(&mut self) {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
    }

    fn fail(&self, message: impl Into<String>) -> ParseError {
        let last = self.next.saturating_sub(1).min(self.tokens.len() - 1);
        ParseError::at(self.text, self.tokens[last].at, message)
    }

    fn unexpected(&self, token: &Token, context: &str) -> ParseError {
        let shown = match token.kind {
            Kind::Wrong => return ParseError::at(self.text, token.at, token.text.clone()),
            Kind::End => "EOF".to_owned(),
            Kind::Dot => "<.>".to_owned(),
            Kind::Word if is_keyword(&token.text) => format!("<{}>", token.text),
            _ if token.text.chars().count() > 10 => {
                format!("{:?}...", token.text.chars().take(10).collect::<String>())
            }
            _ => format!("{:?}", token.text),
        };
        self.fail(format!("unexpected {shown} in {context}"))
    }

    /// Parses until `{{end}}`, `{{else}}` or the end of the text. `{{else` is left with its pipeline to be read.
    fn block(&mut self, top: bool) -> Parsed<(Block, BlockEnd)> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.fail("actions are nested too deep"));
        }
        let scope = self.variables.len();
        let mut nodes = Block::new();
        let end = loop {
            let token = self.take();
            match token.kind {
                Kind::Text => nodes.push(Node::Text(token.text)),
                Kind::End if top => break BlockEnd::Text,
                Kind::End => return Err(self.fail("unexpected EOF")),
                Kind::Wrong => return Err(self.unexpected(&token, "input")),
                _ => match self.action(&mut nodes, top)? {
                    Some(end) => break end,
                    None => continue,
                },
            }
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok((nodes, end))
    }

    fn action(&mut self, nodes: &mut Block, top: bool) -> Parsed<Option<BlockEnd>> {
        self.skip_space();
        let token = self.peek().clone();
        if token.kind == Kind::Word {
            self.next += 1;
            match token.text.as_str() {
                "if" => nodes.push(self.control(Control::If)?),
                "with" => nodes.push(self.control(Control::With)?),
                "range" => nodes.push(self.control(Control::Range)?),
                "end" => {
                    self.close("end")?;
                    return Ok(Some(BlockEnd::End));
                }
                "else" => return Ok(Some(BlockEnd::Else)),
                "break" | "continue" => {
                    if self.loops == 0 {
                        return Err(self.fail(format!("{{{{{}}}}} outside {{{{range}}}}", token.text)));
                    }
                    self.close(&format!("{{{{{}}}}}", token.text))?;
                    nodes.push(if token.text == "break" { Node::Break } else { Node::Continue });
                }
                "template" => nodes.push(self.template()?),
                "define" if top && self.depth == 1 => self.define()?,
                "define" => return Err(self.unexpected(&token, "command")),
                "block" => nodes.push(self.inline_block()?),
                _ => {
                    self.next -= 1;
                    nodes.push(Node::Action(self.pipeline("command", Kind::Close)?));
                }
            }
            return Ok(None);
        }
        nodes.push(Node::Action(self.pipeline("command", Kind::Close)?));
        Ok(None)
    }

    fn close(&mut self, context: &str) -> Parsed<()> {
        self.skip_space();
        let token = self.take();
        if token.kind == Kind::Close { Ok(()) } else { Err(self.unexpected(&token, context)) }
    }

    fn control(&mut self, control: Control) -> Parsed<Node> {
        let scope = self.variables.len();
        let pipeline = self.pipeline(control.word(), Kind::Close)?;
        self.loops += usize::from(control == Control::Range);
        let (body, end) = self.block(false)?;
        self.loops -= usize::from(control == Control::Range);
        let otherwise = if end == BlockEnd::Else { self.otherwise(control)? } else { Block::new() };
        self.variables.truncate(scope);
        Ok(match control {
            Control::If => Node::If { test: pipeline, then: body, otherwise },
            Control::With => Node::With { value: pipeline, then: body, otherwise },
            Control::Range => Node::Range { over: pipeline, body, otherwise },
        })
    }

    /// What follows `{{else`: nothing, or another `if` or `with` that shares the `{{end}}`.
    fn otherwise(&mut self, control: Control) -> Parsed<Block> {
        self.skip_space();
        let token = self.peek().clone();
        let chained = match (control, token.text.as_str()) {
            (Control::If, "if") => Some(Control::If),
            (Control::With, "with") => Some(Control::With),
            _ => None,
        };
        if let (Kind::Word, Some(chained)) = (token.kind, chained) {
            self.next += 1;
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err(self.fail("actions are nested too deep"));
            }
            let node = self.control(chained)?;
            self.depth -= 1;
            return Ok(vec![node]);
        }
        self.close("else")?;
        let (otherwise, end) = self.block(false)?;
        if end == BlockEnd::Else {
            return Err(self.fail("expected end; found {{else}}"));
        }
        Ok(otherwise)
    }

    fn name(&mut self, context: &str) -> Parsed<(String, usize)> {
        self.skip_space();
        let token = self.take();
        if token.kind != Kind::Quoted {
            return Err(self.unexpected(&token, context));
        }
        let name = literal::string(&token.text).ok_or_else(|| self.fail("invalid syntax"))?;
        Ok((name, token.at))
    }

    fn template(&mut self) -> Parsed<Node> {
        let (name, at) = self.name("template clause")?;
        self.skip_space();
        let value = if self.peek().kind == Kind::Close {
            self.next += 1;
            None
        } else {
            Some(self.pipeline("template clause", Kind::Close)?)
        };
        Ok(Node::Template { name, at, value })
    }

    fn define(&mut self) -> Parsed<()> {
        let (name, _) = self.name("define clause")?;
        self.close("define clause")?;
        let body = self.separate()?;
        self.defined.insert(name, body);
        Ok(())
    }

    fn inline_block(&mut self) -> Parsed<Node> {
        let (name, at) = self.name("block clause")?;
        let value = self.pipeline("block clause", Kind::Close)?;
        let body = self.separate()?;
        self.defined.insert(name.clone(), body);
        Ok(Node::Template { name, at, value: Some(value) })
    }

    /// The body of a template of its own: it sees no variables or loops from outside.
    fn separate(&mut self) -> Parsed<Block> {
        let outside = (std::mem::replace(&mut self.variables, vec!["$".to_owned()]), std::mem::take(&mut self.loops));
        let (body, end) = self.block(false)?;
        if end == BlockEnd::Else {
            return Err(self.fail("unexpected {{else}} in define clause"));
        }
        (self.variables, self.loops) = outside;
        Ok(body)
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Parsed<Pipeline> {
        self.skip_space();
        let mut pipeline = Pipeline { at: self.peek().at, variables: Vec::new(), assigns: false, commands: Vec::new() };
        self.declarations(&mut pipeline, context)?;
        loop {
            self.skip_space();
            let token = self.take();
            match token.kind {
                _ if token.kind == end => break,
                Kind::Dot
                | Kind::Field
                | Kind::Variable
                | Kind::Number
                | Kind::Quoted
                | Kind::OpenParen
                | Kind::Word => {
                    if token.kind == Kind::Word && is_keyword(&token.text) {
                        return Err(self.unexpected(&token, context));
                    }
                    self.next -= 1;
                    pipeline.commands.push(self.command()?);
                }
                _ => return Err(self.unexpected(&token, context)),
            }
        }
        if pipeline.commands.is_empty() {
            return Err(self.fail(format!("missing value for {context}")));
        }
        for (stage, command) in pipeline.commands.iter().enumerate().skip(1) {
            let first = &command.operands[0].term;
            if matches!(
                first,
                Term::Bool(_) | Term::Dot | Term::Nil | Term::Integer(..) | Term::Float(..) | Term::Text(..)
            ) {
                return Err(self.fail(format!("non executable command in pipeline stage {}", stage + 1)));
            }
        }
        Ok(pipeline)
    }

    fn declarations(&mut self, pipeline: &mut Pipeline, context: &str) -> Parsed<()> {
        loop {
            self.skip_space();
            if self.peek().kind != Kind::Variable {
                return Ok(());
            }
            let begin = self.next;
            let variable = self.take().text;
            self.skip_space();
            match self.peek().kind {
                kind @ (Kind::Assign | Kind::Declare) => {
                    self.next += 1;
                    pipeline.assigns = kind == Kind::Assign;
                    pipeline.variables.push(variable.clone());
                    if !pipeline.assigns {
                        self.variables.push(variable);
                    }
                    return Ok(());
                }
                Kind::Comma => {
                    self.next += 1;
                    if context != "range" || !pipeline.variables.is_empty() {
                        return Err(self.fail(format!("too many declarations in {context}")));
                    }
                    pipeline.variables.push(variable.clone());
                    self.variables.push(variable);
                    self.skip_space();
                    if self.peek().kind != Kind::Variable {
                        return Err(self.fail("range can only initialize variables"));
                    }
                }
                _ => {
                    self.next = begin;
                    return Ok(());
                }
            }
        }
    }

    fn command(&mut self) -> Parsed<Command> {
        let mut command = Command { at: self.peek().at, operands: Vec::new() };
        loop {
            self.skip_space();
            if let Some(operand) = self.operand()? {
                command.operands.push(operand);
            }
            let token = self.take();
            match token.kind {
                Kind::Space => {}
                Kind::Close | Kind::CloseParen => {
                    self.next -= 1;
                    break;
                }
                Kind::Pipe => break,
                _ => return Err(self.unexpected(&token, "operand")),
            }
        }
        if command.operands.is_empty() {
            return Err(self.fail("empty command"));
        }
        Ok(command)
    }

    fn operand(&mut self) -> Parsed<Option<Operand>> {
        let Some(mut operand) = self.term()? else { return Ok(None) };
        if self.peek().kind != Kind::Field {
            return Ok(Some(operand));
        }
        let at = self.peek().at;
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(self.take().text[1..].to_owned());
        }
        operand = match operand.term {
            Term::Field(mut own) => {
                own.append(&mut names);
                Operand { at, term: Term::Field(own) }
            }
            Term::Variable(name, _) => Operand { at, term: Term::Variable(name, names) },
            Term::Nested(_) | Term::Function(_) => Operand { at, term: Term::Chain(Box::new(operand), names) },
            _ => return Err(self.fail(format!("unexpected . after term {:?}", operand.to_string()))),
        };
        Ok(Some(operand))
    }

    fn term(&mut self) -> Parsed<Option<Operand>> {
        let token = self.take();
        let term = match token.kind {
            Kind::Dot => Term::Dot,
            Kind::Field => Term::Field(vec![token.text[1..].to_owned()]),
            Kind::Variable => {
                if !self.variables.contains(&token.text) {
                    return Err(self.fail(format!("undefined variable {:?}", token.text)));
                }
                Term::Variable(token.text, Vec::new())
            }
            Kind::Number => {
                literal::number(&token.text).ok_or_else(|| self.fail(format!("bad number syntax: {:?}", token.text)))?
            }
            Kind::Quoted => match literal::string(&token.text) {
                Some(text) => Term::Text(text, token.text),
                None => return Err(self.fail("invalid syntax")),
            },
            Kind::OpenParen => {
                self.depth += 1;
                if self.depth > DEEPEST {
                    return Err(self.fail("actions are nested too deep"));
                }
                let nested = self.pipeline("parenthesized pipeline", Kind::CloseParen)?;
                self.depth -= 1;
                Term::Nested(Box::new(nested))
            }
            Kind::Word => match token.text.as_str() {
                "nil" => Term::Nil,
                "true" => Term::Bool(true),
                "false" => Term::Bool(false),
                name if is_keyword(name) => {
                    self.next -= 1;
                    return Ok(None);
                }
                name if functions::exists(name) => Term::Function(token.text),
                name => return Err(self.fail(format!("function {name:?} not defined"))),
            },
            _ => {
                self.next -= 1;
                return Ok(None);
            }
        };
        Ok(Some(Operand { at: token.at, term }))
    }
}

fn is_keyword(word: &str) -> bool {
    matches!(word, "block" | "break" | "continue" | "define" | "else" | "end" | "if" | "range" | "template" | "with")
}
