//! What the text of a failed instruction itself explains: variables that are empty because their `ARG` stands before the
//! first `FROM`, and sources that `..` was to lead out of the context to.

use rbuild_parser::{Source, Span};
use rbuild_solver::Op;

/// What to do about an instruction that failed.
pub(crate) fn of_instruction(source: &Source, span: Span, op: &Op) -> Option<String> {
    match op {
        Op::Run(run) => undeclared(source, span, &run.env),
        Op::File(_) => leads_outside(source.slice(span)).or_else(|| is_absolute(source.slice(span))),
        Op::Source(_) => None,
    }
}

/// The words of a `COPY` from the context.
fn copied(text: &str) -> Option<Vec<&str>> {
    let mut words = text.split_whitespace();
    let copies = words.next().is_some_and(|word| word.eq_ignore_ascii_case("COPY") || word.eq_ignore_ascii_case("ADD"));
    let words: Vec<&str> = words.collect();
    (copies && !words.iter().any(|word| word.starts_with("--from="))).then_some(words)
}

/// A source that is written as a path of this machine.
fn is_absolute(text: &str) -> Option<String> {
    let words = copied(text)?;
    let (_, sources) = words.split_last()?;
    let absolute = sources.iter().find(|word| word.starts_with('/') && word.len() > 1)?;
    Some(format!(
        "/ in a source is the top of the context, not of this machine: copy the file into the context and write {}",
        absolute.trim_start_matches('/')
    ))
}

/// A `COPY` from beyond the context; `..` stops at its top.
fn leads_outside(text: &str) -> Option<String> {
    let words = copied(text)?;
    let outside = words.iter().find(|word| word.starts_with("../"))?;
    Some(format!(
        "{outside} lies outside of the context, of which nothing else is seen: build with a directory above as the context \
         (`rbuild -f DIR/Dockerfile ..`), or name that one with --build-context"
    ))
}

/// Says which variable of a failed step is empty where its author may think it is not: a fact, whatever made the step
/// fail. `env` is what the step has.
fn undeclared(source: &Source, span: Span, env: &[String]) -> Option<String> {
    let file = rbuild_parser::parse(source).value;
    let text = source.slice(span);
    let names = file.global_args.iter().flat_map(|arg| &arg.args).map(|argument| argument.name.value.as_str());
    let mut empty = names.filter(|name| {
        let is_set = env.iter().any(|entry| entry.split_once('=').is_some_and(|(known, _)| known == *name));
        !is_set && mentions(text, name)
    });
    empty.next().map(|name| {
        format!("${name} is empty here: an ARG before the first FROM holds for FROM lines only; write `ARG {name}` after FROM, too")
    })
}

/// Whether a shell would expand the variable: `$NAME` or `${NAME`, whole.
fn mentions(text: &str, name: &str) -> bool {
    text.match_indices('$').any(|(at, _)| {
        let rest = &text[at + 1..];
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.strip_prefix(name).is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_of_the_context_is_named() {
        assert!(leads_outside("COPY ../x a /").unwrap().starts_with("../x lies outside"));
        assert_eq!(leads_outside("COPY --from=a ../x /"), None);
        assert_eq!(leads_outside("COPY a ..b /"), None);
    }

    #[test]
    fn a_path_of_this_machine_is_no_source() {
        assert!(is_absolute("COPY /etc/passwd /").unwrap().ends_with("write etc/passwd"));
        assert_eq!(is_absolute("COPY a /b"), None);
        assert_eq!(is_absolute("COPY / /b"), None);
        assert_eq!(is_absolute("COPY --from=x /a /b"), None);
    }

    #[test]
    fn only_what_is_empty_and_used_is_named() {
        let text = "ARG VERSION=1 OTHER\nFROM a\nRUN fetch-$VERSION ${OTHER:-x} $VERSIONS\n";
        let source = Source::new("Dockerfile", text.to_owned());
        let line = |from: &str| Span::new(text.find(from).unwrap(), text.len() - 1);
        let told =
            |env: &[&str]| undeclared(&source, line("RUN"), &env.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
        assert_eq!(
            told(&[]).unwrap(),
            "$VERSION is empty here: an ARG before the first FROM holds for FROM lines only; write `ARG VERSION` after FROM, too"
        );
        assert!(told(&["VERSION=2"]).unwrap().contains("`ARG OTHER`"));
        assert_eq!(told(&["VERSION=2", "OTHER="]), None);
        assert!(!mentions("$VERSIONS ${VERSION_2} VERSION", "VERSION") && mentions("a${VERSION}b", "VERSION"));
    }
}
