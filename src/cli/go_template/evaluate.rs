//! Fills a template: the walk of `text/template/exec.go`, with its messages.

use std::fmt::Write as _;
use std::rc::Rc;

use super::functions;
use super::node::{Block, Command, Node, Operand, Pipeline, Term};
use super::parser::Trees;
use super::shape::json_key;
use super::value::{LABELS, Value};

/// What a template gives at most: a runaway template ends, rather than the machine.
const MOST_BYTES: usize = 64 << 20;
/// Blocks may be nested this deep, templates that call each other included.
const DEEPEST: usize = 300;

/// Why a template cannot be filled, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: :{line}:{column}: executing {template:?} at <{quoted}>: {message}")]
pub(super) struct ExecError {
    line: usize,
    column: usize,
    template: String,
    quoted: String,
    message: String,
}

/// What a template is filled with.
#[derive(Clone, Copy)]
pub(super) enum Filling<'a> {
    /// Values of declared types; a key that a map lacks gives `<no value>`.
    Declared,
    /// A document; a key that it lacks is an error.
    Document,
    /// The headings of a table: every field gives what this makes of its name, and functions change nothing.
    Headings(&'a dyn Fn(&str) -> String),
}

/// Fills a template with `data`.
pub(super) fn execute(text: &str, trees: &Trees, data: &Value, filling: Filling<'_>) -> Result<String, ExecError> {
    let mut state = State {
        text,
        trees,
        filling,
        out: String::new(),
        variables: vec![("$".to_owned(), data.clone())],
        template: String::new(),
        depth: 0,
    };
    state.block(data, &trees.main)?;
    Ok(state.out)
}

struct State<'a> {
    text: &'a str,
    trees: &'a Trees,
    filling: Filling<'a>,
    out: String,
    variables: Vec<(String, Value)>,
    /// The name of the template that is being filled.
    template: String,
    depth: usize,
}

type Executed<T> = Result<T, ExecError>;

/// How a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

impl State<'_> {
    fn fail(&self, at: usize, quoted: &dyn std::fmt::Display, message: impl Into<String>) -> ExecError {
        let before = &self.text[..at];
        ExecError {
            line: 1 + before.matches('\n').count(),
            column: before.rfind('\n').map_or(at, |end| at - end - 1),
            template: self.template.clone(),
            quoted: quoted.to_string(),
            message: message.into(),
        }
    }

    fn block(&mut self, dot: &Value, block: &Block) -> Executed<Flow> {
        self.depth += 1;
        let flow = self.nodes(dot, block);
        self.depth -= 1;
        flow
    }

    fn nodes(&mut self, dot: &Value, block: &Block) -> Executed<Flow> {
        for node in block {
            let flow = self.node(dot, node)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// A block with variables of its own.
    fn scope(&mut self, dot: &Value, block: &Block) -> Executed<Flow> {
        let outside = self.variables.len();
        let flow = self.block(dot, block);
        self.variables.truncate(outside);
        flow
    }

    fn node(&mut self, dot: &Value, node: &Node) -> Executed<Flow> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipeline) => {
                let value = self.pipeline(dot, pipeline)?;
                if pipeline.variables.is_empty() {
                    self.out.push_str(&value.print_action());
                }
                if self.out.len() > MOST_BYTES {
                    return Err(self.fail(pipeline.at, pipeline, "the output is too long"));
                }
            }
            Node::If { test, then, otherwise } | Node::With { value: test, then, otherwise } => {
                let outside = self.variables.len();
                let value = self.pipeline(dot, test)?;
                let dot = if matches!(node, Node::With { .. }) && value.is_true() { &value } else { dot };
                let flow = self.scope(dot, if value.is_true() { then } else { otherwise });
                self.variables.truncate(outside);
                return flow;
            }
            Node::Range { over, body, otherwise } => return self.range(dot, over, body, otherwise),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::Template { name, at, value } => {
                let clause = value.as_ref().map_or_else(String::new, |value| format!(" {value}"));
                let quoted = format!("{{{{template {name:?}{clause}}}}}");
                let Some(block) = self.trees.defined.get(name) else {
                    return Err(self.fail(*at, &quoted, format!("template {name:?} not defined")));
                };
                let dot = match value {
                    Some(pipeline) => self.pipeline(dot, pipeline)?,
                    None => Value::Missing,
                };
                if self.depth >= DEEPEST {
                    return Err(self.fail(*at, &quoted, "exceeded maximum template depth"));
                }
                let outside = std::mem::replace(&mut self.variables, vec![("$".to_owned(), dot.clone())]);
                let caller = std::mem::replace(&mut self.template, name.clone());
                self.block(&dot, block)?;
                self.variables = outside;
                self.template = caller;
            }
        }
        Ok(Flow::Next)
    }

    fn range(&mut self, dot: &Value, over: &Pipeline, body: &Block, otherwise: &Block) -> Executed<Flow> {
        let outside = self.variables.len();
        let value = self.pipeline(dot, over)?;
        let declared = self.variables.len();
        let mut any = false;
        let mut turn = |state: &mut Self, key: Value, element: Value| -> Executed<Flow> {
            any = true;
            let mut set = |position: usize, value: Value| {
                if over.assigns {
                    let _parsed = state.assign(&over.variables[position], value);
                } else {
                    state.variables[declared - over.variables.len() + position].1 = value;
                }
            };
            match over.variables.len() {
                1 => set(0, element.clone()),
                2 => {
                    set(0, key);
                    set(1, element.clone());
                }
                _ => {}
            }
            let flow = state.block(&element, body);
            state.variables.truncate(declared);
            flow
        };
        let mut each = |state: &mut Self, items: &mut dyn Iterator<Item = (Value, Value)>| -> Executed<()> {
            for (key, element) in items {
                if turn(state, key, element)? == Flow::Break {
                    break;
                }
            }
            Ok(())
        };
        let counted = |items: &Rc<Vec<Value>>| {
            let items = Rc::clone(items);
            (0..items.len()).map(move |at| (Value::Integer(at as i64), items[at].clone()))
        };
        match &value {
            Value::List(items) => each(self, &mut counted(items))?,
            Value::Map(entries) => {
                let pairs = entries.values.iter().map(|(key, value)| (Value::text(key.as_str()), value.clone()));
                each(self, &mut pairs.collect::<Vec<_>>().into_iter())?;
            }
            Value::Integer(count) => {
                if over.variables.len() > 1 {
                    let message = format!("can't use {count} to iterate over more than one variable");
                    let last = last_of(over);
                    return Err(self.fail(last.at, last, message));
                }
                each(self, &mut (0..*count).map(|at| (Value::Integer(at), Value::Integer(at))))?;
            }
            Value::Missing | Value::NilList => {}
            other => {
                let last = last_of(over);
                return Err(self.fail(last.at, last, format!("range can't iterate over {}", other.print())));
            }
        }
        let flow = if any { Flow::Next } else { self.scope(dot, otherwise)? };
        self.variables.truncate(outside);
        Ok(flow)
    }

    /// Sets a variable; says whether there is one.
    fn assign(&mut self, name: &str, value: Value) -> bool {
        let known = self.variables.iter_mut().rev().find(|(own, _)| own == name);
        known.map(|variable| variable.1 = value).is_some()
    }

    fn pipeline(&mut self, dot: &Value, pipeline: &Pipeline) -> Executed<Value> {
        let mut value = None;
        for command in &pipeline.commands {
            value = Some(self.command(dot, command, value)?);
        }
        let value = value.unwrap_or(Value::Missing);
        for name in &pipeline.variables {
            if pipeline.assigns {
                if !self.assign(name, value.clone()) {
                    let last = last_of(pipeline);
                    return Err(self.fail(last.at, last, format!("undefined variable: {name}")));
                }
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Value, command: &Command, piped: Option<Value>) -> Executed<Value> {
        let first = &command.operands[0];
        if let Term::Function(name) = &first.term {
            return self.call(dot, command, name, piped);
        }
        if let Some(label) = self.label(dot, command, piped.as_ref())? {
            return Ok(label);
        }
        if command.operands.len() > 1 || piped.is_some() {
            let message = match &first.term {
                Term::Field(names) | Term::Variable(_, names) | Term::Chain(_, names) if !names.is_empty() => {
                    // The field is looked up first, so what is wrong there is said first.
                    let value = self.operand(dot, first)?;
                    let name = &names[names.len() - 1];
                    drop(value);
                    format!("{name} is not a method but has arguments")
                }
                _ => format!("can't give argument to non-function {first}"),
            };
            return Err(self.fail(first.at, first, message));
        }
        if first.term == Term::Nil {
            return Err(self.fail(first.at, first, "nil is not a command"));
        }
        self.operand(dot, first)
    }

    /// The one method that rows of Docker's lists have: `.Label "name"`. Its heading is the last part of the name.
    fn label(&mut self, dot: &Value, command: &Command, piped: Option<&Value>) -> Executed<Option<Value>> {
        let Term::Field(names) = &command.operands[0].term else { return Ok(None) };
        let ([method], None) = (names.as_slice(), piped) else { return Ok(None) };
        let (LABELS, [_, name]) = (method.as_str(), command.operands.as_slice()) else { return Ok(None) };
        let has_method = match (self.filling, dot) {
            (Filling::Headings(_), _) => true,
            (_, Value::Struct(fields)) => fields.labels.is_some(),
            _ => false,
        };
        let Value::Text(name) = self.argument(dot, name)? else { return Ok(None) };
        Ok(match (self.filling, dot) {
            _ if !has_method => None,
            (Filling::Headings(_), _) => {
                Some(Value::text(name.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ")))
            }
            (_, Value::Struct(fields)) => {
                let label = fields.labels.as_ref().and_then(|labels| labels.get(name.as_ref()));
                Some(Value::text(label.map_or("", String::as_str)))
            }
            _ => None,
        })
    }

    fn call(&mut self, dot: &Value, command: &Command, name: &str, piped: Option<Value>) -> Executed<Value> {
        let given = &command.operands[1..];
        let count = given.len() + usize::from(piped.is_some());
        // `and` and `or` evaluate no more than they need.
        if let "and" | "or" = name {
            if count == 0 {
                return Err(self.fail(
                    command.at,
                    command,
                    format!("wrong number of args for {name}: want at least 1 got 0"),
                ));
            }
            let mut value = Value::Missing;
            for operand in given {
                value = self.argument(dot, operand)?;
                if value.is_true() == (name == "or") {
                    return Ok(value);
                }
            }
            return Ok(piped.unwrap_or(value));
        }
        functions::check_count(name, count).map_err(|message| self.fail(command.at, &name, message))?;
        let mut arguments = Vec::with_capacity(count);
        for (position, operand) in given.iter().enumerate() {
            let value = self.argument(dot, operand)?;
            let value = if name == "json" { value } else { value.without_nil() };
            functions::check_kind(name, position, &value, operand)
                .map_err(|message| self.fail(operand.at, operand, message))?;
            arguments.push(value);
        }
        if let Some(value) = piped {
            let value = if name == "json" { value } else { value.without_nil() };
            let position = arguments.len();
            functions::check_piped(name, position, &value)
                .map_err(|message| self.fail(command.at, command, message))?;
            arguments.push(value);
        }
        if matches!(self.filling, Filling::Headings(_)) && functions::keeps_headings(name) {
            return Ok(arguments.swap_remove(0));
        }
        functions::call(name, &arguments)
            .map_err(|message| self.fail(command.at, command, format!("error calling {name}: {message}")))
    }

    fn argument(&mut self, dot: &Value, operand: &Operand) -> Executed<Value> {
        if let Term::Function(name) = &operand.term {
            let command = Command { at: operand.at, operands: vec![operand.clone()] };
            return self.call(dot, &command, name, None);
        }
        self.operand(dot, operand)
    }

    fn operand(&mut self, dot: &Value, operand: &Operand) -> Executed<Value> {
        match &operand.term {
            Term::Dot => Ok(dot.clone()),
            Term::Nil => Ok(Value::Missing),
            Term::Bool(value) => Ok(Value::Bool(*value)),
            Term::Integer(value, _) => Ok(Value::Integer(*value)),
            Term::Float(value, _) => Ok(Value::Float(*value)),
            Term::Text(text, _) => Ok(Value::text(text.as_str())),
            Term::Field(names) => self.fields(dot.clone(), names, operand),
            Term::Variable(name, names) => {
                let value = self.variables.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.clone());
                self.fields(value.unwrap_or(Value::Missing), names, operand)
            }
            Term::Nested(pipeline) => self.pipeline(dot, pipeline),
            Term::Chain(inner, names) => {
                let value = self.argument(dot, inner)?;
                self.fields(value, names, operand)
            }
            Term::Function(_) => self.argument(dot, operand),
        }
    }

    fn fields(&self, mut value: Value, names: &[String], operand: &Operand) -> Executed<Value> {
        for (position, name) in names.iter().enumerate() {
            value = self.field(&value, name, position, operand)?;
        }
        Ok(value)
    }

    fn field(&self, of: &Value, name: &str, position: usize, operand: &Operand) -> Executed<Value> {
        // As in Go, what follows a parenthesis is blamed on the last operand inside it.
        let blamed = if let Term::Chain(inner, _) = &operand.term { last_operand(inner) } else { operand };
        let fail = |message: String| Err(self.fail(blamed.at, blamed, message));
        if let Filling::Headings(heading) = self.filling {
            return Ok(Value::text(heading(name)));
        }
        let strict = matches!(self.filling, Filling::Document);
        // Within a document without declared types, everything below the top is an interface.
        let type_name = |value: &Value| match (self.filling, position) {
            (Filling::Document, 1..) => "interface {}",
            _ => value.type_name(),
        };
        match of {
            Value::Struct(fields) => match fields.get(name) {
                Some(value) => Ok(value.clone()),
                None => fail(format!("can't evaluate field {name} in type {}", fields.name)),
            },
            Value::Map(entries) => match entries.values.get(name) {
                Some(value) => Ok(value.clone()),
                None if strict => match json_key(name).and_then(|key| entries.values.get(key)) {
                    Some(value) => Ok(value.clone()),
                    None => fail(format!("map has no entry for key {name:?}")),
                },
                None => Ok(Value::Missing),
            },
            Value::NilPointer(pointer) => fail(format!("nil pointer evaluating {pointer}.{name}")),
            Value::Missing if strict => {
                let mut message = String::new();
                let _infallible = match position {
                    0 => write!(message, "nil data; no entry for key {name:?}"),
                    _ => write!(message, "nil pointer evaluating interface {{}}.{name}"),
                };
                fail(message)
            }
            Value::Missing => Ok(Value::Missing),
            other => fail(format!("can't evaluate field {name} in type {}", type_name(other))),
        }
    }
}

/// The operand of a pipeline that is evaluated last.
fn last_of(pipeline: &Pipeline) -> &Operand {
    let command = &pipeline.commands[pipeline.commands.len() - 1];
    last_operand(&command.operands[command.operands.len() - 1])
}

fn last_operand(operand: &Operand) -> &Operand {
    match &operand.term {
        Term::Nested(pipeline) => last_of(pipeline),
        Term::Chain(inner, _) => last_operand(inner),
        _ => operand,
    }
}
