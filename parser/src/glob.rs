//! Patterns and paths as Go's `path/filepath` has them on Unix: `Match` decides which files a `COPY` wildcard names, `Clean`
//! tidies paths. Names are bytes, since files may be called anything.

/// A pattern that cannot be read: an unfinished class, range or escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether a text has characters that mean something in a pattern; without any it only matches itself.
pub fn has_wildcards(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

/// Whether a pattern matches a whole name. `*` and `?` do not cross slashes, `[^…]` negates, `[!…]` does not, and `**` is `*`.
/// A bad pattern is an error only where Go finds out.
pub fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    let (mut pattern, mut name) = (pattern, name);
    while !pattern.is_empty() {
        let (star, chunk, rest) = split_chunk(pattern);
        pattern = rest;
        if star && chunk.is_empty() {
            return Ok(!name.contains(&b'/'));
        }
        let is_last = pattern.is_empty();
        if let Some(after) = match_chunk(chunk, name)?
            && (after.is_empty() || !is_last)
        {
            name = after;
            continue;
        }
        let skipped = if star { skip_to(chunk, name, is_last)? } else { None };
        match skipped {
            Some(after) => name = after,
            None => return check_rest(pattern).map(|()| false),
        }
    }
    Ok(name.is_empty())
}

/// Whether a pattern can be read at all.
pub fn check(pattern: &[u8]) -> Result<(), BadPattern> {
    matches(pattern, b".").map(drop)
}

/// Skips what a star may skip until the chunk matches.
fn skip_to<'n>(chunk: &[u8], name: &'n [u8], is_last: bool) -> Result<Option<&'n [u8]>, BadPattern> {
    for (at, byte) in name.iter().enumerate() {
        if *byte == b'/' {
            break;
        }
        if let Some(after) = match_chunk(chunk, &name[at + 1..])?
            && (after.is_empty() || !is_last)
        {
            return Ok(Some(after));
        }
    }
    Ok(None)
}

/// A failed match is only reported as such if the rest of the pattern is in order.
fn check_rest(mut pattern: &[u8]) -> Result<(), BadPattern> {
    while !pattern.is_empty() {
        let (_, chunk, rest) = split_chunk(pattern);
        match_chunk(chunk, b"")?;
        pattern = rest;
    }
    Ok(())
}

/// Splits off leading stars and what follows up to the next star.
fn split_chunk(pattern: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = pattern.iter().take_while(|byte| **byte == b'*').count();
    let body = &pattern[stars..];
    let mut in_class = false;
    let mut at = 0;
    while at < body.len() {
        match body[at] {
            b'\\' if at + 1 < body.len() => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => break,
            _ => {}
        }
        at += 1;
    }
    (stars > 0, &body[..at], &body[at..])
}

/// Matches a chunk without stars at the start of a name; gives the rest of the name. After a mismatch the chunk is still read to
/// its end, to see whether it is well formed.
fn match_chunk<'n>(mut chunk: &[u8], mut name: &'n [u8]) -> Result<Option<&'n [u8]>, BadPattern> {
    let mut failed = false;
    while let Some(&first) = chunk.first() {
        failed |= name.is_empty();
        match first {
            b'[' => {
                let (c, width) = if failed { (0, 0) } else { decode(name) };
                name = &name[width..];
                let (matched, rest) = match_class(&chunk[1..], c)?;
                failed |= !matched;
                chunk = rest;
            }
            b'?' => {
                if !failed {
                    failed = name[0] == b'/';
                    name = &name[decode(name).1..];
                }
                chunk = &chunk[1..];
            }
            _ => {
                if first == b'\\' {
                    chunk = &chunk[1..];
                }
                let literal = chunk.first().ok_or(BadPattern)?;
                if !failed {
                    failed = name[0] != *literal;
                    name = &name[1..];
                }
                chunk = &chunk[1..];
            }
        }
    }
    Ok((!failed).then_some(name))
}

/// Matches a character against a class, standing after its `[`; gives what follows the class.
fn match_class(mut class: &[u8], c: u32) -> Result<(bool, &[u8]), BadPattern> {
    let negated = class.first() == Some(&b'^');
    if negated {
        class = &class[1..];
    }
    let mut matched = false;
    let mut ranges = 0;
    loop {
        if class.first() == Some(&b']') && ranges > 0 {
            return Ok((matched != negated, &class[1..]));
        }
        let (low, rest) = class_char(class)?;
        let (high, rest) = if rest[0] == b'-' { class_char(&rest[1..])? } else { (low, rest) };
        matched |= (low..=high).contains(&c);
        class = rest;
        ranges += 1;
    }
}

/// One end of a range; something must follow it.
fn class_char(class: &[u8]) -> Result<(u32, &[u8]), BadPattern> {
    let class = match class.first() {
        None | Some(b'-' | b']') => return Err(BadPattern),
        Some(b'\\') => &class[1..],
        Some(_) => class,
    };
    if class.is_empty() {
        return Err(BadPattern);
    }
    let (c, width) = decode(class);
    if width >= class.len() || (c == 0xfffd && width == 1) {
        return Err(BadPattern);
    }
    Ok((c, &class[width..]))
}

/// The first character; a byte that is no UTF-8 counts as U+FFFD.
fn decode(bytes: &[u8]) -> (u32, usize) {
    let window = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid.chars().next().map_or((0xfffd, 1), |c| (c as u32, c.len_utf8()))
}

/// The shortest path that is the same by its text alone: no empty, `.` or inner `..` parts, no slash at the end; `.` if nothing is
/// left.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", Ok(true)),
            ("*", "abc", Ok(true)),
            ("*c", "abc", Ok(true)),
            ("a*", "a", Ok(true)),
            ("a*", "ab/c", Ok(false)),
            ("a*/b", "abc/b", Ok(true)),
            ("a*/b", "a/c/b", Ok(false)),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Ok(true)),
            ("a*b?c*x", "abxbbxdbxebxczzx", Ok(true)),
            ("a*b?c*x", "abxbbxdbxebxczzy", Ok(false)),
            ("ab[c]", "abc", Ok(true)),
            ("ab[b-d]", "abc", Ok(true)),
            ("ab[^c]", "abc", Ok(false)),
            ("ab[^e-g]", "abc", Ok(true)),
            ("[!a]", "b", Ok(false)),
            ("[!a]", "!", Ok(true)),
            ("a\\*b", "a*b", Ok(true)),
            ("a\\*b", "ab", Ok(false)),
            ("a?b", "a☺b", Ok(true)),
            ("a[^a]b", "a☺b", Ok(true)),
            ("a???b", "a☺b", Ok(false)),
            ("[a-ζ]*", "α", Ok(true)),
            ("*[a-ζ]", "A", Ok(false)),
            ("a?b", "a/b", Ok(false)),
            ("a*b", "a/b", Ok(false)),
            ("[\\]a]", "]", Ok(true)),
            ("[\\-]", "-", Ok(true)),
            ("[x\\-]", "z", Ok(false)),
            ("[]a]", "]", Err(BadPattern)),
            ("[-]", "-", Err(BadPattern)),
            ("[x-]", "x", Err(BadPattern)),
            ("[-x]", "x", Err(BadPattern)),
            ("\\", "a", Err(BadPattern)),
            ("[a-b-c]", "a", Err(BadPattern)),
            ("[", "a", Err(BadPattern)),
            ("[^", "a", Err(BadPattern)),
            ("[^bc", "a", Err(BadPattern)),
            ("a[", "a", Err(BadPattern)),
            ("a[", "ab", Err(BadPattern)),
            ("a[", "x", Err(BadPattern)),
            ("a/b[", "x", Err(BadPattern)),
            ("*x", "xxx", Ok(true)),
            ("**", "ab", Ok(true)),
            ("**/a", "b/c/a", Ok(false)),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        assert_eq!(matches(b"a?", b"a\xff"), Ok(true));
    }

    #[test]
    fn paths_are_cleaned_as_in_go() {
        for (path, expected) in [
            ("", "."),
            ("a//b/", "a/b"),
            ("./a/./b", "a/b"),
            ("a/../b", "b"),
            ("../a/../..", "../.."),
            ("/../a", "/a"),
            ("/", "/"),
            ("a/..", "."),
            ("!/a/", "!/a"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }
}
