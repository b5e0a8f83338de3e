//! Exit codes, as Docker's users know them. `docs/ci.md` promises them: they do not change.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything asked for was done.
    Success,
    /// 1: a build or another command failed, or a command of Docker's had words too few or too many.
    Failure,
    /// 2: the command line was wrong, that of a build or of a command that Docker does not have.
    Usage,
    /// 125: `run` could not start a container, or a command of Docker's had a wrong flag.
    Engine,
    /// The container's own status, 126 (cannot execute) and 127 (not found) included.
    Container(u8),
    /// 130: interrupted by the user.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Engine => 125,
            Exit::Container(code) => code,
            Exit::Interrupted => 130,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the document promises.
    fn documented() -> Vec<u8> {
        let page = include_str!("../docs/ci.md");
        let (_, table) = page.split_once("## Exit codes").expect("the page has the section");
        let rows = table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        let codes = rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split(','));
        codes.filter_map(|code| code.trim().parse().ok()).collect()
    }

    #[test]
    fn the_document_has_every_code() {
        // A match, so that a new variant is met here.
        let code = |exit: Exit| match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Engine => 125,
            Exit::Interrupted => 130,
            Exit::Container(code) => code,
        };
        let all = [
            Exit::Success,
            Exit::Failure,
            Exit::Usage,
            Exit::Engine,
            Exit::Container(126),
            Exit::Container(127),
            Exit::Interrupted,
        ];
        assert_eq!(documented(), all.map(code));
        for exit in all {
            assert_eq!(ExitCode::from(exit), ExitCode::from(code(exit)), "{exit:?}");
        }
    }
}
