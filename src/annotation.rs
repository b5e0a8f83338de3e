//! Failures and findings of build checks as a forge shows them beside the lines of a Dockerfile (`--annotate`).
//!
//! GitHub reads workflow commands from the log of a step: one line each, on standard error. GitLab reads no log lines; it
//! shows the findings of a *Code Quality* report, a JSON file that the job keeps as an artifact. Both want paths relative
//! to the repository's root.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rbuild_image::Digest;
use rbuild_parser::{Diagnostic, Severity, Source, Span};
use serde_json::json;

use crate::cli::report::{Failure, printable, story};
use crate::config::Settings;
use crate::request::BuildRequest;

/// Where GitLab's documentation has its report.
const REPORT: &str = "gl-code-quality-report.json";

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Annotate {
    /// GitHub Actions: commands on standard error.
    Github,
    /// GitLab: a report in a file.
    Gitlab {
        /// The file.
        dest: PathBuf,
    },
}

/// What was given to `--annotate` means nothing.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is neither github nor gitlab[,dest=FILE]")]
pub struct InvalidAnnotate {
    given: String,
}

impl FromStr for Annotate {
    type Err = InvalidAnnotate;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(',') {
            None if text == "github" => Ok(Self::Github),
            None if text == "gitlab" => Ok(Self::Gitlab { dest: REPORT.into() }),
            Some(("gitlab", option)) => match option.strip_prefix("dest=").filter(|dest| !dest.is_empty()) {
                Some(dest) => Ok(Self::Gitlab { dest: dest.into() }),
                None => Err(InvalidAnnotate { given: text.to_owned() }),
            },
            _ => Err(InvalidAnnotate { given: text.to_owned() }),
        }
    }
}

/// Something to be shown beside lines of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Annotation {
    severity: Severity,
    /// The build check, or what failed.
    title: String,
    message: String,
    /// First and last line; `None` concerns the file.
    lines: Option<(usize, usize)>,
}

impl Annotation {
    /// A finding.
    pub(crate) fn of(source: &Source, found: &Diagnostic) -> Self {
        let title = found.rule.map_or("rbuild", |rule| rule.name);
        let message = with_help(&found.message, found.help.as_deref());
        let lines = found.span.map(|span| lines(source, span));
        Self { severity: found.severity, title: title.to_owned(), message, lines }
    }

    /// A build that failed.
    pub(crate) fn failure(message: &str, help: Option<&str>, place: Option<(&Source, Span)>) -> Self {
        Self {
            severity: Severity::Error,
            title: "build failed".to_owned(),
            message: with_help(message, help),
            lines: place.map(|(source, span)| lines(source, span)),
        }
    }

    /// As a workflow command of GitHub.
    fn command(&self, file: &str) -> String {
        let level = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let lines = self.lines.map_or_else(String::new, |(first, last)| format!(",line={first},endLine={last}"));
        format!("::{level} file={}{lines},title={}::{}\n", property(file), property(&self.title), data(&self.message))
    }

    /// As an entry of GitLab's report.
    fn finding(&self, file: &str) -> serde_json::Value {
        let (begin, end) = self.lines.unwrap_or((1, 1));
        // The same finding keeps its identity when lines above it come and go.
        let fingerprint = Digest::sha256(format!("{file}\n{}\n{}", self.title, self.message)).to_string();
        json!({
            "description": self.message,
            "check_name": self.title,
            "fingerprint": fingerprint.trim_start_matches("sha256:"),
            "severity": match self.severity { Severity::Error => "blocker", Severity::Warning => "minor" },
            "location": { "path": file, "lines": { "begin": begin, "end": end } },
        })
    }
}

fn with_help(message: &str, help: Option<&str>) -> String {
    let text = help.map_or_else(|| message.to_owned(), |help| format!("{message}\n{help}"));
    printable(&text)
}

fn lines(source: &Source, span: Span) -> (usize, usize) {
    let text = source.slice(span).trim_end_matches(['\n', '\r']);
    let first = source.position(span.start()).line as usize;
    (first, first + text.matches('\n').count())
}

/// What follows `::` of a command (actions/toolkit, `escapeData`).
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A value among its properties (`escapeProperty`).
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The path of a Dockerfile as the forge knows it: from the top of the repository, which the job's environment names, else
/// from the working directory.
fn file_name(dockerfile: &Path, settings: &Settings) -> String {
    let path = settings.absolute(dockerfile);
    let mut tops = settings.workspace.iter().chain([&settings.cwd]);
    let inside = tops.find_map(|top| path.strip_prefix(top).ok()).unwrap_or(&path);
    inside.components().collect::<PathBuf>().to_string_lossy().into_owned()
}

/// Tells a forge; an empty report is written, too: GitLab then shows that what was found before is mended.
pub(crate) fn tell(
    to: &Annotate,
    request: &BuildRequest,
    settings: &Settings,
    annotations: &[Annotation],
) -> Result<(), Failure> {
    let file = &file_name(Path::new(&request.project(settings)), settings);
    match to {
        Annotate::Github => {
            story(&annotations.iter().map(|annotation| annotation.command(file)).collect::<String>());
            Ok(())
        }
        Annotate::Gitlab { dest } => {
            let report: Vec<_> = annotations.iter().map(|annotation| annotation.finding(file)).collect();
            let text = serde_json::to_vec_pretty(&report).expect("a JSON value is always JSON");
            crate::output::write_whole_file(&settings.absolute(dest), &text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forges_are_named() {
        let dest = |text: &str| text.parse::<Annotate>().map_err(|error| error.to_string());
        assert_eq!(dest("github"), Ok(Annotate::Github));
        assert_eq!(dest("gitlab"), Ok(Annotate::Gitlab { dest: REPORT.into() }));
        assert_eq!(dest("gitlab,dest=a/b.json"), Ok(Annotate::Gitlab { dest: "a/b.json".into() }));
        for wrong in ["", "Github", "gitlab,dest=", "gitlab,src=a", "github,dest=a"] {
            assert!(dest(wrong).unwrap_err().contains("gitlab[,dest=FILE]"), "{wrong}");
        }
    }

    #[test]
    fn commands_are_one_line_each_whatever_the_text() {
        let source = Source::new("Dockerfile", "FROM a\nRUN x \\\n  y\n".to_owned());
        let place = Some((&source, Span::new(7, 18)));
        let failure = Annotation::failure("100% wrong:\na, b\r\u{1b}[2J", Some("do this"), place);
        insta::assert_snapshot!(failure.command("a,b:c/Dockerfile"), @r"::error file=a%2Cb%3Ac/Dockerfile,line=2,endLine=3,title=build failed::100%25 wrong:%0Aa, b\u{d}\u{1b}[2J%0Ado this");
        let whole = Annotation::failure("no such stage", None, None);
        insta::assert_snapshot!(whole.command("Dockerfile"), @"::error file=Dockerfile,title=build failed::no such stage");
    }

    #[test]
    fn paths_begin_at_the_top_of_the_repository() {
        let mut settings = Settings::from_environment();
        settings.cwd = "/repo/services/app".into();
        let name = |settings: &Settings| file_name(Path::new("/repo/services/app/./Dockerfile"), settings);
        settings.workspace = Some("/repo".into());
        assert_eq!(name(&settings), "services/app/Dockerfile");
        settings.workspace = Some("/elsewhere".into());
        assert_eq!(name(&settings), "Dockerfile");
        settings.cwd = "/nowhere".into();
        assert_eq!(name(&settings), "/repo/services/app/Dockerfile");
    }

    #[test]
    fn a_finding_keeps_its_identity_when_its_line_moves() {
        let one =
            Annotation { severity: Severity::Warning, title: "A".into(), message: "b".into(), lines: Some((2, 2)) };
        let moved = Annotation { lines: Some((9, 9)), ..one.clone() };
        let (one, moved) = (one.finding("Dockerfile"), moved.finding("Dockerfile"));
        assert_eq!(one["fingerprint"], moved["fingerprint"]);
        assert_eq!(one["fingerprint"].as_str().unwrap().len(), 64);
        assert_eq!((&one["severity"], &moved["location"]["lines"]["begin"]), (&json!("minor"), &json!(9)));
    }
}
