//! Asking before something is removed for good, as Docker's `prune` commands do.

use std::io::{BufRead, IsTerminal};

use super::report::{self, Failure};

/// Whether `y` is answered to what would happen. `force` is a yes; a reader that says nothing is a no.
pub(super) fn confirmed(force: bool, warning: &str) -> Result<bool, Failure> {
    if force {
        return Ok(true);
    }
    report::answer(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let stdin = std::io::stdin();
    let mut said = String::new();
    stdin.lock().read_line(&mut said)?;
    let yes = is_yes(&said);
    if !stdin.is_terminal() {
        report::answer("\n")?;
        if !yes {
            report::story("Nothing was removed: nobody said yes; with -f nobody is asked.\n");
        }
    }
    Ok(yes)
}

fn is_yes(said: &str) -> bool {
    matches!(said.trim(), "y" | "Y")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_y_is_a_yes() {
        for (said, yes) in
            [("y\n", true), (" Y \n", true), ("", false), ("\n", false), ("yes\n", false), ("n\n", false)]
        {
            assert_eq!(is_yes(said), yes, "{said:?}");
        }
    }
}
