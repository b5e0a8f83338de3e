//! `--chmod`: an octal number, or symbolic changes as `chmod(1)` has them (`dchapes/mode`).

/// Why a mode is none, in BuildKit's words.
pub(super) fn check(mode: &str) -> Result<(), String> {
    let numeric =
        |mode: &str| format!("invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777");
    match u32::from_str_radix(mode, 8) {
        Ok(number) if !mode.starts_with('+') => {
            return if number <= 0o7777 { Ok(()) } else { Err(numeric(mode)) };
        }
        _ if mode.starts_with(|c: char| c.is_ascii_digit()) => return Err(numeric(mode)),
        _ => {}
    }
    if mode.split(',').all(is_clause) {
        Ok(())
    } else {
        Err(format!("invalid chmod parameter: '{mode}': invalid syntax"))
    }
}

/// `[ugoa…][[+-=][perms…]…]`
fn is_clause(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if !actions.starts_with(['+', '-', '=']) {
        return false;
    }
    actions.split(['+', '-', '=']).skip(1).all(|permissions| permissions.chars().all(|c| "rwxXstugo".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_symbolic() {
        for good in
            ["0", "644", "07777", "u+x", "+x", "a=rX,u+w", "go-rwx", "u=g", "ug+s,+t", "u=rw-x", "o=", "u=gr", "+"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["789", "10000", "99999999999", "rw", "u", "x+r", "u+q", "", "u+x,"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
