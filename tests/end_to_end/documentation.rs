//! The documentation's commands, run as they stand: each page in a directory and a store of its own, in one shell, in order.
//!
//! What is a command is said by the word after a block's fence, visibly in the page's source:
//! - `sh`: run; `sh exit=N`: ends with that code. `sh skip=REASON`: not run here; the reasons are in `REASONS`.
//! - `console`: lines that begin with `$ ` are run; what stands below them must be said, whatever its numbers.
//! - Other languages are never run and must not hide commands; a block without a word is a mistake.
//! - Comments, which readers do not see: `<!-- before … -->` are commands that prepare what a page takes for granted,
//!   `<!-- says TEXT -->` is what the block above must have printed.
//!
//! `registry.example` is a registry on loopback, `busybox` an image in the store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::bench::Bench;
use crate::peers::has;
use crate::registry::Registry;

/// Why a block of commands is not run here.
const REASONS: [(&str, &str); 4] = [
    ("installs", "`./dev first-minute` follows it in an empty Debian root"),
    ("compiles", "it compiles the program: CI does that first"),
    ("measures", "it takes minutes and measures"),
    ("needs-an-account", "it logs in somewhere, or names what only the reader has"),
];

/// Languages of blocks that are no commands.
const LANGUAGES: [&str; 8] = ["text", "toml", "yaml", "json", "rust", "dockerfile", "diff", "mermaid"];

/// A part of a page.
#[derive(Debug)]
enum Part<'a> {
    /// Commands, the code they end with, and what is printed.
    Commands { line: usize, script: String, code: u8, says: Vec<&'a str> },
    /// What the commands before must have printed.
    Says(&'a str),
}

/// Reads a page, or says what is wrong with it.
fn parts(page: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let at = at + 1;
        if let Some(text) = line.strip_prefix("<!-- says ") {
            parts.push(Part::Says(text.strip_suffix(" -->").ok_or(format!("line {at}: the comment does not end"))?));
        } else if line == "<!-- before" {
            let script: String =
                lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "-->").fold(String::new(), join);
            parts.push(Part::Commands { line: at, script, code: 0, says: Vec::new() });
        } else if let Some(info) = line.trim_start().strip_prefix("```") {
            let body: Vec<&str> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
            parts.extend(block(at, info, &body)?);
        }
    }
    Ok(parts)
}

fn block<'a>(line: usize, info: &str, body: &[&'a str]) -> Result<Option<Part<'a>>, String> {
    let mut words = info.split(' ');
    let language = words.next().unwrap_or_default();
    let mut code = 0;
    for word in words {
        match word.split_once('=') {
            Some(("skip", reason)) if REASONS.iter().any(|(known, _)| *known == reason) => return Ok(None),
            Some(("exit", number)) => code = number.parse().map_err(|_| format!("line {line}: {word:?}"))?,
            _ => return Err(format!("line {line}: {word:?} is not known")),
        }
    }
    match language {
        "sh" => {
            let script = body.iter().copied().fold(String::new(), join);
            Ok(Some(Part::Commands { line, script, code, says: Vec::new() }))
        }
        "console" => {
            let script = body.iter().filter_map(|line| line.strip_prefix("$ ")).fold(String::new(), join);
            let says = body.iter().copied().filter(|line| !line.starts_with("$ ") && !line.is_empty()).collect();
            Ok(Some(Part::Commands { line, script, code, says }))
        }
        _ if LANGUAGES.contains(&language) => {
            let hides = |line: &&&str| ["rbuild ", "$ ", "./dev "].iter().any(|start| line.starts_with(start));
            match body.iter().find(hides) {
                Some(hidden) => Err(format!("line {line}: {hidden:?} is a command in a block that is never run")),
                None => Ok(None),
            }
        }
        _ => Err(format!("line {line}: a block of {language:?}: say sh, console, or one of {LANGUAGES:?}")),
    }
}

fn join(all: String, line: &str) -> String {
    all + line + "\n"
}

/// Numbers and ids differ from run to run.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        let shape: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        let mut last = None;
        out.extend(shape.chars().filter(|c| last.replace(*c) != Some(*c) || *c != '0'));
        out.push(' ');
    }
    out
}

/// Runs a page's commands in a directory of its own.
fn run(page: &str) {
    let Some(bench) = Bench::with_busybox() else { return };
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let needs_registry = text.contains("=registry.example");
    if needs_registry && !has("docker-registry") {
        return;
    }
    let registry = needs_registry.then(|| Registry::start(&bench.path("registry")));
    let host = registry.as_ref().map(|registry| registry.name("")).unwrap_or_default();
    let text = text.replace("registry.example", host.trim_end_matches('/'));
    let parts = parts(&text).unwrap_or_else(|wrong| panic!("{page}: {wrong}"));
    let mut script = String::from("exec 2>&1\n");
    for (number, part) in parts.iter().enumerate() {
        if let Part::Commands { script: commands, code, .. } = part {
            let _infallible = match code {
                0 => write!(script, "printf '\\n@@%s\\n' {number}\n{commands}"),
                code => write!(
                    script,
                    "printf '\\n@@%s\\n' {number}\nended=0\n(\n{commands}) || ended=$?\n[ $ended = {code} ]\n"
                ),
            };
        }
    }
    let place = bench.path("page");
    std::fs::create_dir(&place).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_rbuild")).parent().unwrap();
    let out = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(&place)
        .env_clear()
        .env("PATH", format!("{}:{}", program.display(), std::env::var("PATH").unwrap()))
        .env("HOME", bench.path("home"))
        .env("RBUILD_ROOT", bench.store())
        .env("RBUILD_NETWORK_LINGER", "1s")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    let by_part: BTreeMap<usize, &str> = said
        .split("\n@@")
        .skip(1)
        .filter_map(|piece| piece.split_once('\n'))
        .filter_map(|(number, said)| Some((number.parse().ok()?, said)))
        .collect();
    let reached = by_part.last_key_value().and_then(|(number, _)| match &parts[*number] {
        Part::Commands { line, .. } => Some(*line),
        Part::Says(_) => None,
    });
    assert!(out.status.success(), "{page}: the commands at line {reached:?} failed\n{said}");
    let mut above = "";
    for (number, part) in parts.iter().enumerate() {
        match part {
            Part::Commands { line, says, .. } => {
                above = by_part[&number];
                let shape = without_numbers(above);
                for expected in says {
                    let expected = without_numbers(expected);
                    assert!(shape.contains(&expected), "{page}, line {line}: nobody said {expected:?}\n{above}");
                }
            }
            Part::Says(expected) => assert!(above.contains(expected), "{page}: nobody said {expected:?}\n{above}"),
        }
    }
}

/// One test for each page, so that they run side by side.
macro_rules! pages {
    ($($name:ident: $page:literal),* $(,)?) => {
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $name() {
                run($page);
            }
        )*
    };
}

pages! {
    readme: "README.md",
    contributing: "CONTRIBUTING.md",
    architecture: "docs/architecture.md",
    attestations: "docs/attestations.md",
    cache: "docs/cache.md",
    cache_keys: "docs/cache-keys.md",
    ci: "docs/ci.md",
    collection: "docs/gc.md",
    getting_started: "docs/getting-started.md",
    history: "docs/history.md",
    images: "docs/images.md",
    layers: "docs/layers.md",
    migrating: "docs/migrating.md",
    networks: "docs/networks.md",
    registries: "docs/registries.md",
    remote_cache: "docs/remote-cache.md",
    report: "docs/report.md",
    rootless: "docs/rootless.md",
    security: "docs/security.md",
    store_format: "docs/store-format.md",
    troubleshooting: "docs/troubleshooting.md",
}

/// All pages there are.
fn pages() -> Vec<String> {
    let docs = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
    let docs = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()));
    let mut pages: Vec<String> = docs.filter(|page| page.ends_with(".md")).collect();
    pages.extend(["README.md", "CONTRIBUTING.md"].map(str::to_owned));
    pages.sort();
    pages
}

#[test]
fn pages_without_a_test_of_their_own_are_run_as_well() {
    for page in pages().iter().filter(|page| !PAGES.contains(&page.as_str())) {
        run(page);
    }
}

#[test]
fn every_block_says_what_it_is() {
    let wrong = pages().into_iter().filter_map(|page| {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&page)).unwrap();
        parts(&text).err().map(|wrong| format!("{page}, {wrong}"))
    });
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn what_is_no_command_is_told_from_what_is() {
    let wrong = |page: &str| parts(page).map(|parts| parts.len()).unwrap_err();
    assert_eq!(
        wrong("```\nrbuild .\n```\n"),
        "line 1: a block of \"\": say sh, console, or one of [\"text\", \"toml\", \"yaml\", \"json\", \"rust\", \
         \"dockerfile\", \"diff\", \"mermaid\"]"
    );
    assert_eq!(wrong("a\n```text\nrbuild .\n```\n"), "line 2: \"rbuild .\" is a command in a block that is never run");
    assert_eq!(wrong("```sh skip=laziness\n```\n"), "line 1: \"skip=laziness\" is not known");
    let page = "<!-- before\nmkdir app\n-->\n```sh exit=1\nfalse\n```\n<!-- says x -->\n```console\n$ ls\na 12\n```\n```sh skip=compiles\nmake\n```\n";
    let read = parts(page).unwrap();
    let told: Vec<String> = read
        .iter()
        .map(|part| match part {
            Part::Commands { line, script, code, says } => format!("{line} {script:?} {code} {says:?}"),
            Part::Says(text) => format!("says {text}"),
        })
        .collect();
    assert_eq!(told, ["1 \"mkdir app\\n\" 0 []", "4 \"false\\n\" 1 []", "says x", "8 \"ls\\n\" 0 [\"a 12\"]"]);
    assert_eq!(without_numbers("took 12.5 s,  id 3"), without_numbers("took 1.75 s, id 44"));
}

/// The flags that a program's help names.
fn flags_of_help(program: &str, args: &[&str]) -> Vec<String> {
    let out = Command::new(program).args(args).output().unwrap();
    let help = String::from_utf8(out.stdout).unwrap();
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags = lines.flat_map(|line| line.split([' ', ',', '=']).filter(|word| word.starts_with("--")));
    flags.map(str::to_owned).collect()
}

#[test]
fn who_comes_from_the_tools_of_this_machine_finds_each_of_their_flags() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrating.md")).unwrap();
    let tools: [(&str, &[&str], &str); 2] = [
        ("docker", &["build", "--help"], "## docker build and buildx"),
        ("buildah", &["build", "--help"], "## buildah"),
    ];
    for (program, args, heading) in tools {
        if !has(program) {
            continue;
        }
        let section = page.split_once(heading).unwrap().1.split("\n## ").next().unwrap();
        let named: Vec<&str> = section.split(['`', ' ', '=', ',', '|', '\\']).collect();
        let flags = flags_of_help(program, args);
        assert!(flags.len() > 20, "{program}: {flags:?}");
        let missing: Vec<&String> =
            flags.iter().filter(|flag| *flag != "--help" && !named.contains(&flag.as_str())).collect();
        assert_eq!(missing, Vec::<&String>::new(), "{program}: flags without a row");
    }
}
