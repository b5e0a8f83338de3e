//! What shells and `man` make of what is generated for them: completions asked of bash, zsh and fish themselves, and manual pages
//! read by the tools that show them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::Bench;
use crate::peers::has;
use crate::terminal::Terminal;

/// A command line that is typed as far as this, and some of what must be offered then.
const TYPED: [(&[&str], &[&str]); 7] = [
    (&[""], &["build", "run", "images", "network", "doctor"]),
    (&["bu"], &["build", "builder"]),
    (&["image", ""], &["diff", "inspect", "prune"]),
    (&["cache", "mounts", ""], &["ls", "rm", "tar", "untar"]),
    (&["build", "--no-ca"], &["--no-cache", "--no-cache-filter", "--no-cache-step"]),
    (&["network", "create", "--sub"], &["--subnet"]),
    (&["run", "--restart"], &["--restart"]),
];

/// Writes a shell's completions; gives the file.
fn written(bench: &Bench, shell: &str, name: &str) -> PathBuf {
    let file = bench.path(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, bench.rbuild(["completion", shell]).run().ok().stdout).unwrap();
    file
}

/// What a program prints that must not complain.
fn quietly(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && said.is_empty(), "{command:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}

fn offers(shell: &str, typed: &[&str], offered: &str, wanted: &[&str]) {
    let offered: Vec<&str> = offered.lines().map(|line| line.split('\t').next().unwrap().trim()).collect();
    for word in wanted {
        assert!(offered.contains(word), "{shell} does not offer {word} behind {typed:?}: {offered:?}");
    }
    let hidden = offered.iter().find(|word| word.starts_with("container-monitor") || word.starts_with("__"));
    assert_eq!(hidden, None, "{shell} offers what nobody types");
}

#[test]
fn bash_completes() {
    let Some(bench) = Bench::new() else { return };
    let file = written(&bench, "bash", "rbuild.bash");
    for (typed, wanted) in TYPED {
        let script = "set -u; source \"$1\"; shift; COMP_WORDS=(rbuild \"$@\"); COMP_CWORD=$#; COMP_LINE=\"rbuild $*\"; COMP_POINT=${#COMP_LINE}
            before=rbuild; [ $# -lt 2 ] || before=${COMP_WORDS[$#-1]}
            complete -p rbuild >/dev/null; _rbuild rbuild \"${COMP_WORDS[$#]}\" \"$before\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut bash = Command::new("bash");
        let offered = quietly(bash.args(["--norc", "-c", script, "bash"]).arg(&file).args(typed));
        offers("bash", typed, &offered, wanted);
    }
}

#[test]
fn fish_completes() {
    let Some(bench) = Bench::new() else { return };
    if !has("fish") {
        return;
    }
    let file = written(&bench, "fish", "rbuild.fish");
    for (typed, wanted) in TYPED {
        let script = format!("source {}; complete -C \"rbuild {}\"", file.display(), typed.join(" "));
        let mut fish = Command::new("fish");
        let offered = quietly(fish.args(["--no-config", "-c", &script]).env("HOME", bench.path("home")));
        offers("fish", typed, &offered, wanted);
    }
}

#[test]
fn zsh_completes() {
    let Some(bench) = Bench::new() else { return };
    if !has("zsh") || !has("tmux") {
        return;
    }
    let file = written(&bench, "zsh", "functions/_rbuild");
    let directory = file.parent().unwrap().display();
    // An empty line is a prompt that stays at the top; lists come below what is typed.
    let setup = format!(
        "fpath=({directory} $fpath); PS1='> '; autoload -Uz compinit; compinit -u -D; setopt no_beep; LISTMAX=1000"
    );
    std::fs::write(bench.path(".zshrc"), format!("{setup}\n")).unwrap();
    let script = format!("ZDOTDIR={} exec zsh -d -i", bench.path("").display());
    let terminal = Terminal::start(&bench, 150, 150, &script);
    terminal.screen(">");
    for (typed, wanted) in TYPED.into_iter().filter(|(typed, _)| typed.last() != Some(&"--restart")) {
        // The line is emptied, the screen is cleared, and what is typed is completed: its one end, or a list of all.
        terminal.tmux(&["send-keys", "C-u", "C-l"]);
        terminal.tmux(&["send-keys", "-l", &format!("rbuild {}", typed.join(" "))]);
        terminal.tmux(&["send-keys", "Tab", "Tab"]);
        for word in wanted {
            terminal.screen(word);
        }
    }
}

/// The pages, each a file.
fn pages(bench: &Bench) -> Vec<PathBuf> {
    let directory = bench.path("man");
    let _written = bench.rbuild(["man"]).arg(&directory).run().ok();
    let mut pages: Vec<PathBuf> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    assert!(pages.len() > 100, "{}", pages.len());
    pages
}

#[test]
fn manual_pages_are_read_without_complaint() {
    let Some(bench) = Bench::new() else { return };
    for page in pages(&bench) {
        let name = |page: &Path| page.file_stem().unwrap().to_str().unwrap().to_owned();
        if has("man") && has("groff") {
            let mut man = Command::new("man");
            man.args(["--warnings", "-E", "UTF-8", "-Tutf8", "-Z", "-l"]).arg(&page).env("LC_ALL", "C.UTF-8");
            assert!(quietly(&mut man).contains("x T utf8"), "{}", page.display());
        }
        if has("mandoc") {
            let out = Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(&page).output().unwrap();
            let said = String::from_utf8(out.stdout).unwrap();
            // A page that is the same whenever it is made has no date.
            let known = ["skipping paragraph macro", "missing date"];
            let wrong: Vec<&str> =
                said.lines().filter(|line| !known.iter().any(|known| line.contains(known))).collect();
            assert_eq!(wrong, Vec::<&str>::new());
        }
        let text = std::fs::read_to_string(&page).unwrap();
        let title = format!(".TH {} 1 \"\" \"rbuild ", name(&page));
        assert!(text.contains(&title), "{}: no {title:?}", page.display());
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
            assert!(text.contains(section), "{}: no {section}", page.display());
        }
        assert!(text.contains("Example"), "{}: no example", page.display());
    }
}
