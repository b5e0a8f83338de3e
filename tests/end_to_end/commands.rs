//! What is made from the definitions of the command line: completions and manual pages.

use std::process::{Command, Stdio};

use crate::bench::Bench;

#[test]
fn completions_are_programs_of_their_shells_and_know_the_default_command() {
    let Some(bench) = Bench::new() else { return };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = bench.rbuild(["completion", shell]).run().ok().stdout;
        assert!(text.contains("no-cache-filter") && text.contains("prune"), "{shell}");
    }
    let file = bench.path("rbuild.bash");
    std::fs::write(&file, bench.rbuild(["completion", "bash"]).run().ok().stdout).unwrap();
    for (typed, offered) in [("rbuild --no-cache-f", "--no-cache-filter"), ("rbuild cache pru", "prune")] {
        let words: Vec<&str> = typed.split(' ').collect();
        let script = format!(
            ". {}; COMP_WORDS=({typed}); COMP_CWORD={}; _rbuild rbuild '{}' '{}'; echo \"${{COMPREPLY[*]}}\"",
            file.display(),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let out = Command::new("bash").args(["-c", &script]).stderr(Stdio::inherit()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), offered, "{typed}");
    }
    let _refused = bench.rbuild(["completion", "tcsh"]).run().fails(2);
    assert!(!bench.store().exists(), "no store is made for that");
}

#[test]
fn every_command_has_a_manual_page() {
    let Some(bench) = Bench::new() else { return };
    let pages = bench.path("man");
    let _written = bench.rbuild(["man"]).arg(&pages).run().ok();
    for name in ["rbuild", "rbuild-build", "rbuild-run", "rbuild-cache-why", "rbuild-history-logs"] {
        let page = std::fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".TH ") && page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(!pages.join("rbuild-help.1").exists());
}
