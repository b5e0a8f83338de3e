//! Tables after moby/patternmatcher's own, and what a walk must agree on with single questions.

use proptest::prelude::*;

use super::*;

fn ignored(patterns: &[&str], path: &str) -> bool {
    Ignore::new(patterns).unwrap().matches(path)
}

#[test]
fn single_patterns_match_as_in_moby() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir", false),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dirx/file", false),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**/file", "file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file", "dir/xfile", false),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[^b-d]e", "aze", true),
        ("a[\\^b]e", "a^e", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abc/def", false),
        ("a\\*b", "a*b", true),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/foo/bar", true),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
        ("foo", "foo/bar/baz", true),
        ("*", "a/b", true),
        ("[!a]", "b", false),
        ("[!a]", "!", true),
        ("a^*", "a^b", false),
        ("a^b", "a^b", true),
        ("x\\dy*", "x1yz", true),
    ] {
        assert_eq!(ignored(&[pattern], path), expected, "{pattern} {path}");
    }
}

#[test]
fn the_last_match_decides() {
    for (patterns, path, expected) in [
        (vec!["**", "!util/docker/web"], "util/docker/web/foo", false),
        (vec!["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
        (vec!["**", "!dist/proxy.py"], "dist/proxy.py", false),
        (vec!["!fileutils.go", "*.go"], "fileutils.go", true),
        (vec!["*.go", "!fileutils.go"], "fileutils.go", false),
        (vec!["docs", "!docs/README.md"], "docs/README.md", false),
        (vec!["docs", "!docs/README.md"], "docs/other", true),
        (vec!["docs", "!docs"], "docs/x", false),
        (vec!["a*", "!*b"], "ab/c", false),
    ] {
        assert_eq!(ignored(&patterns, path), expected, "{patterns:?} {path}");
    }
}

#[test]
fn files_are_normalised() {
    let patterns = |text: &str| text.lines().filter_map(normalize).collect::<Vec<_>>();
    let text = "test1\n/test2\n/a/file/here\n\n# comment\n  # pattern \nlastfile\n! \t/inverted/abs/path\n!\n! \t\n  x/ \n/../y\n/";
    let expected =
        ["test1", "test2", "a/file/here", "# pattern", "lastfile", "!inverted/abs/path", "!", "!", "x", "y", "/"];
    assert_eq!(patterns(text), expected);
    let file = b"\xef\xbb\xbf# first\r\nsecret.txt\r\n\r\n!keep\r\n";
    let ignore = Ignore::parse(file).unwrap();
    assert!(ignore.matches("secret.txt") && ignore.has_exceptions() && ignore.patterns.len() == 2);
}

#[test]
fn bad_patterns_are_refused() {
    for (patterns, message) in [
        ("!", "illegal exclusion pattern: \"!\""),
        ("[", "syntax error in pattern: ["),
        ("a[-x]", "syntax error in pattern: a[-x]"),
        ("[b-a]*", "syntax error in pattern: [b-a]*"),
        ("a\\", "syntax error in pattern: a\\"),
        ("\\y*", "syntax error in pattern: \\y*"),
    ] {
        assert_eq!(Ignore::parse(patterns.as_bytes()).unwrap_err().to_string(), message);
    }
}

/// Walks down to a path as a directory walk does, leaving out directories that need no look.
fn walk(ignore: &Ignore, path: &str) -> bool {
    let mut state = MatchState::default();
    for parent in parents(path) {
        let (ignored, next) = ignore.step(&state, parent);
        if ignored && !ignore.may_restore_below(parent) {
            return true;
        }
        state = next;
    }
    ignore.step(&state, path).0
}

fn component() -> impl Strategy<Value = String> {
    prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("ab".to_owned()), Just("a.b".to_owned())]
}

fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        component(),
        Just("*".to_owned()),
        Just("**".to_owned()),
        Just("?".to_owned()),
        Just("[a-b]*".to_owned()),
        Just("*b".to_owned()),
    ];
    (any::<bool>(), prop::collection::vec(part, 1..4))
        .prop_map(|(restores, parts)| format!("{}{}", if restores { "!" } else { "" }, parts.join("/")))
}

proptest! {
    #[test]
    fn walking_and_asking_agree(
        patterns in prop::collection::vec(pattern(), 0..6),
        path in prop::collection::vec(component(), 1..5),
    ) {
        let ignore = Ignore::new(&patterns).unwrap();
        let path = path.join("/");
        // A directory walk remembers only patterns that were asked; that is BuildKit's own reading, and the two differ where a
        // pattern was skipped above. Without exceptions they cannot.
        if !ignore.has_exceptions() {
            prop_assert_eq!(walk(&ignore, &path), ignore.matches(&path));
        }
        let mut state = MatchState::default();
        for parent in parents(&path) {
            state = ignore.step(&state, parent).1;
        }
        prop_assert_eq!(walk(&ignore, &path), ignore.step(&state, &path).0);
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200), path in "[a-c/*.]{0,12}") {
        if let Ok(ignore) = Ignore::parse(&bytes) {
            ignore.matches(&path);
            ignore.step(&MatchState::default(), &path);
        }
    }

    #[test]
    fn no_pattern_breaks_the_matcher(pattern in "[-a-c*?!^\\[\\]\\\\/.]{0,12}", path in "[a-c/]{0,12}") {
        if let Ok(ignore) = Ignore::new([&pattern]) {
            ignore.matches(&path);
        }
    }
}
