//! The tree of a template. `Display` gives back what Go's error messages quote.

use std::fmt;

/// What a template does, in order.
pub(super) type Block = Vec<Node>;

/// One part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Text as it is.
    Text(String),
    /// `{{pipeline}}`
    Action(Pipeline),
    /// `{{if}}…{{else}}…{{end}}`
    If { test: Pipeline, then: Block, otherwise: Block },
    /// `{{with}}…{{else}}…{{end}}`
    With { value: Pipeline, then: Block, otherwise: Block },
    /// `{{range}}…{{else}}…{{end}}`
    Range { over: Pipeline, body: Block, otherwise: Block },
    /// `{{break}}`
    Break,
    /// `{{continue}}`
    Continue,
    /// `{{template "name" pipeline}}`
    Template { name: String, at: usize, value: Option<Pipeline> },
}

/// `$a, $b := command | command`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pipeline {
    pub(super) at: usize,
    pub(super) variables: Vec<String>,
    /// `=` rather than `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

/// Operands, the first of which may be a function.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    pub(super) at: usize,
    pub(super) operands: Vec<Operand>,
}

/// One operand and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) term: Term,
}

/// What an operand is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    /// `.`
    Dot,
    /// `nil`
    Nil,
    /// `true`
    Bool(bool),
    /// A number, and how it was written.
    Integer(i64, String),
    /// A number with a fraction, and how it was written.
    Float(f64, String),
    /// A string, and how it was written.
    Text(String, String),
    /// A function.
    Function(String),
    /// `.A.B`
    Field(Vec<String>),
    /// `$name.A.B`; the name with its mark.
    Variable(String, Vec<String>),
    /// `(pipeline)`
    Nested(Box<Pipeline>),
    /// `(pipeline).A.B`
    Chain(Box<Operand>, Vec<String>),
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            let sign = if self.assigns { "=" } else { ":=" };
            write!(f, "{} {sign} ", self.variables.join(", "))?;
        }
        join(f, &self.commands, " | ")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        join(f, &self.operands, " ")
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields =
            |f: &mut fmt::Formatter<'_>, names: &[String]| names.iter().try_for_each(|name| write!(f, ".{name}"));
        match &self.term {
            Term::Dot => f.write_str("."),
            Term::Nil => f.write_str("nil"),
            Term::Bool(value) => write!(f, "{value}"),
            Term::Integer(_, written) | Term::Float(_, written) | Term::Text(_, written) => f.write_str(written),
            Term::Function(name) => f.write_str(name),
            Term::Field(names) => fields(f, names),
            Term::Variable(name, names) => {
                f.write_str(name)?;
                fields(f, names)
            }
            Term::Nested(pipeline) => write!(f, "({pipeline})"),
            Term::Chain(operand, names) => {
                operand.fmt(f)?;
                fields(f, names)
            }
        }
    }
}

fn join<T: fmt::Display>(f: &mut fmt::Formatter<'_>, parts: &[T], separator: &str) -> fmt::Result {
    for (position, part) in parts.iter().enumerate() {
        if position > 0 {
            f.write_str(separator)?;
        }
        part.fmt(f)?;
    }
    Ok(())
}
