//! Tables in the manner of BuildKit's own `lex_test.go` data: text, what becomes of it, or the error.

use std::collections::BTreeMap;

use super::*;
use crate::Span;
use crate::word::{NoVariables, Word};

fn variables() -> BTreeMap<String, String> {
    [
        ("PWD", "/home"),
        ("SHELL", "bash"),
        ("KOREAN", "한국어"),
        ("NULL", ""),
        ("FOO", "foo.bar.foo"),
        ("S", "a b"),
        ("é", "1"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

fn word(raw: &str) -> Word {
    Word::new(raw, Span::default(), Escape::Backslash)
}

#[test]
fn words_expand() {
    for (raw, expected) in [
        ("hello", "hello"),
        ("he'll'o", "hello"),
        ("he\\'llo", "he'llo"),
        ("abc\\tdef", "abctdef"),
        ("\"abc\\tdef\"", "abc\\tdef"),
        ("\"abc\\\\tdef\"", "abc\\tdef"),
        ("'abc\\tdef'", "abc\\tdef"),
        ("hello\\", "hello"),
        ("hello\\\\", "hello\\"),
        ("\"hello\\\"\"", "hello\""),
        ("$PWD", "/home"),
        ("h${PWD}x", "h/homex"),
        ("$", "$"),
        ("$ x", "$ x"),
        ("hello $ there", "hello $ there"),
        ("\\$PWD", "$PWD"),
        ("'$PWD'", "$PWD"),
        ("\"$PWD\"", "/home"),
        ("\"\\$PWD\"", "$PWD"),
        ("$1x", "x"),
        ("$12x", "x"),
        ("$@|$*|$-|$!", "|||"),
        ("$PWDx", ""),
        ("$é$KOREAN", "1한국어"),
        ("${NONE-d}|${NONE:-d}|${NULL-d}|${NULL:-d}", "d|d||d"),
        ("${PWD+x}|${PWD:+x}|${NULL+x}|${NULL:+x}|${NONE+x}", "x|x|x||"),
        ("${PWD?e}|${PWD:?e}|${NULL?e}", "/home|/home|"),
        ("${NONE:-${PWD}/a}", "/home/a"),
        ("${NONE:-'}'}", "}"),
        ("${NONE:-\\}}", "}"),
        ("${NONE:-\"a b\"}", "a b"),
        ("${FOO#*.}|${FOO##*.}|${FOO%.*}|${FOO%%.*}", "bar.foo|foo|foo.bar|foo"),
        (
            "${FOO/foo/X}|${FOO//foo/X}|${FOO//./-}|${FOO/o*b/_}|${FOO/none/X}",
            "X.bar.foo|X.bar.X|foo-bar-foo|f_ar.foo|foo.bar.foo",
        ),
        ("${FOO//?/#}", "###########"),
        ("${PWD/\\//:}", ":home"),
        ("${FOO/$SHELL/x}${FOO/foo/$SHELL}", "foo.bar.foobash.bar.foo"),
        ("${NONE#x}${NONE/a/b}", ""),
        ("\u{feff}x", "x"),
    ] {
        assert_eq!(word(raw).expand(&variables()).unwrap().text, expected, "{raw}");
    }
}

#[test]
fn the_backtick_can_be_the_escape() {
    for (raw, expected) in
        [("a`$PWD", "a$PWD"), ("c:\\dir\\$SHELL", "c:\\dir\\bash"), ("\"a\\`\"b\"", "a\\\"b"), ("x``", "x`")]
    {
        let word = Word::new(raw, Span::default(), Escape::Backtick);
        assert_eq!(word.expand(&variables()).unwrap().text, expected, "{raw}");
    }
}

#[test]
fn faults_are_told_in_buildkits_words() {
    for (raw, expected) in [
        (
            "\"open",
            r#"failed to process "\"open": unexpected end of statement while looking for matching double-quote"#,
        ),
        ("'open", r#"failed to process "'open": unexpected end of statement while looking for matching single-quote"#),
        ("${", r#"failed to process "${": syntax error: missing '}'"#),
        ("${}", r#"failed to process "${}": syntax error: bad substitution"#),
        ("${:x}", r#"failed to process "${:x}": syntax error: bad substitution"#),
        ("/x/${A", "failed to process \"/x/${A\": unsupported modifier (\u{fffd}) in substitution"),
        ("${A:-x", r#"failed to process "${A:-x": syntax error: missing '}'"#),
        ("${A:", r#"failed to process "${A:": syntax error: missing '}'"#),
        ("${A:-\"x}", r#"failed to process "${A:-\"x}": syntax error: missing '}'"#),
        ("${A/x", r#"failed to process "${A/x": syntax error: missing '/' in ${}"#),
        ("${A/x/y", r#"failed to process "${A/x/y": syntax error: missing '}'"#),
        ("${A:=x}", r#"failed to process "${A:=x}": unsupported modifier (:=) in substitution"#),
        ("${A^}", r#"failed to process "${A^}": unsupported modifier (^) in substitution"#),
        ("${PWD:#x}", r#"failed to process "${PWD:#x}": unsupported modifier (:#) in substitution"#),
        ("${NONE?}", r#"failed to process "${NONE?}": NONE: is not allowed to be unset"#),
        ("${NULL:?}", r#"failed to process "${NULL:?}": NULL: is not allowed to be empty"#),
        ("${NULL:?say why}", r#"failed to process "${NULL:?say why}": NULL: say why"#),
        ("${PWD#\\a}", r#"failed to process "${PWD#\\a}": invalid pattern (\a) in substitution: invalid escape '\a'"#),
    ] {
        assert_eq!(word(raw).expand(&variables()).unwrap_err().to_string(), expected, "{raw}");
    }
}

#[test]
fn splitting_respects_quotes_and_splits_values() {
    for (raw, expected) in [
        ("a b", vec!["a", "b"]),
        ("  a\t b  ", vec!["a", "b"]),
        ("'a b' \"c d\"", vec!["a b", "c d"]),
        ("a\\ b", vec!["a b"]),
        ("$S", vec!["a", "b"]),
        ("\"$S\"", vec!["a b"]),
        ("x$S", vec!["xa", "b"]),
        ("''", vec![]),
        ("$NULL $NONE", vec![]),
        ("<< EOF x", vec!["<< EOF", "x"]),
        ("a < b", vec!["a", "<", "b"]),
    ] {
        assert_eq!(word(raw).expand_words(&variables()).unwrap().words, expected, "{raw}");
    }
}

#[test]
fn names_that_were_asked_for_are_told() {
    let expanded = word("$PWD ${NONE:-$SHELL} ${NULL:+$X}").expand(&variables()).unwrap();
    assert_eq!(expanded.matched.into_iter().collect::<Vec<_>>(), ["NULL", "PWD", "SHELL"]);
    assert_eq!(expanded.unmatched.into_iter().collect::<Vec<_>>(), ["NONE", "X"]);
}

#[test]
fn styles_keep_what_they_promise() {
    let text = "a '$PWD' \"$PWD\" \\$x $NONE ${NONE:-d} ${NONE/a/b} ${NONE}";
    let shown = expand(text, &Style::display(Escape::Backslash), &variables()).unwrap().text;
    assert_eq!(shown, "a '$PWD' \"/home\" $x $NONE ${NONE:-d} ${NONE/a/b} ${NONE}");
    let body = expand("it's \"$PWD\" \\$PWD '$PWD'", &Style::heredoc_body(), &variables()).unwrap().text;
    assert_eq!(body, "it's \"/home\" $PWD '/home'");
}

#[test]
fn expansion_is_bounded() {
    let mut value = "x".to_owned();
    let mut refused = None;
    for round in 0..40 {
        let variables = BTreeMap::from([("A".to_owned(), value.clone())]);
        match word("$A$A").expand(&variables) {
            Ok(expanded) => value = expanded.text,
            Err(error) => {
                refused = Some((round, error.fault));
                break;
            }
        }
    }
    assert_eq!(refused, Some((19, ExpandFault::TooLarge)));

    let deep = |levels| "${A:-".repeat(levels) + &"}".repeat(levels);
    assert!(word(&deep(16)).expand(&NoVariables).is_ok());
    assert_eq!(word(&deep(17)).expand(&NoVariables).unwrap_err().fault, ExpandFault::TooDeep);
    assert_eq!(word(&deep(1_000_000)).expand(&NoVariables).unwrap_err().fault, ExpandFault::TooDeep);
    assert_eq!(word(&"$A".repeat(100_001)).expand(&NoVariables).unwrap_err().fault, ExpandFault::TooMuchWork);

    let large = BTreeMap::from([("A".to_owned(), "ab".repeat(1 << 18))]);
    let hostile = "${A//a/bbbbbbbbbb}";
    assert_eq!(word(hostile).expand(&large).unwrap_err().fault, ExpandFault::TooLarge);
    let patterns = "${A#c}".repeat(1000);
    assert!(matches!(
        word(&patterns).expand(&large).unwrap_err().fault,
        ExpandFault::TooLarge | ExpandFault::TooMuchWork
    ));
}

#[test]
fn patterns_work_on_values() {
    for (raw, value, other, expected) in [
        (r"${V#()[]{\}^$.\*\?|\\}", r"()[]{}^$.*?|\x", "", "x"),
        (r"${V%%\**}", "xx**", "", "xx"),
        ("${V#*x*y}", "xxyy", "", "y"),
        ("${V#*}", "xxyy", "", "xxyy"),
        ("${V##*}", "xxyy", "", ""),
        ("${V#$W}", "xxyy", "x", "xyy"),
        ("${V#$W}", "xxyy", "", "xxyy"),
        ("${V#}|${V##}|${V%}|${V%%}", "xxyy", "", "xxyy|xxyy|xxyy|xxyy"),
        ("${V##*x}", "xxyy", "", "yy"),
        (r"${V#?\?}", "???y", "", "?y"),
        ("${V%y*}|${V%%y*}", "xxyy", "", "xxy|xx"),
        (r"${V%%\**\*}", "a***yy*", "", "a"),
        ("${V/$W/.}|${V//$W/.}", "/foo*/*/*.txt", "\\*/", "/foo.*/*.txt|/foo..*.txt"),
        ("${V/$W/}|${V//$W/}", "/tmp/tmp/bar.txt", "/tmp", "/tmp/bar.txt|/bar.txt"),
        ("${V/?/$W}|${V//?/$W}", "ab", "-", "-b|--"),
        (r"${V//\//\/}", "/tmp/foo.txt", "", r"\/tmp\/foo.txt"),
        ("${V/$W/ww}", "xxyy", "", "wwxxyy"),
        ("${V///}", "xxyy", "", "xxyy"),
        ("${V//x/'$1'}|${V/x/'$1'}", "xy", "", "y|$1y"),
        ("${V%.*}-${V##*.}", "한국.어", "", "한국-어"),
    ] {
        let variables = BTreeMap::from([("V".to_owned(), value.to_owned()), ("W".to_owned(), other.to_owned())]);
        assert_eq!(word(raw).expand(&variables).unwrap().text, expected, "{raw} of {value}");
    }
    for raw in ["${V=a}", "${V=:a}", "${V:#}", "${V:%%}", "${V//w}", "${V//}", "${V#\\}"] {
        assert!(word(raw).expand(&NoVariables).is_err(), "{raw}");
    }
}
