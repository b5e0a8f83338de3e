//! Real containers, as root, on an image with a static busybox.
//!
//! A harness of its own, because `main` has to call [`reexec_entry`] before any thread exists, and because a census of
//! mounts, cgroups, processes and files is taken before and after each test. Prints what libtest would.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it is a test and its runner")]

mod census;
mod foreground;
mod life;
mod storage;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use rbuild_executor::reexec_entry;

use census::Census;
use world::{Test, World};

fn main() -> ExitCode {
    reexec_entry();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, root, id] = arguments.as_slice()
        && first == "--monitor"
    {
        world::monitor(Path::new(root), id);
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let tests: Vec<Test> = [foreground::TESTS, storage::TESTS, life::TESTS].concat();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let wanted: Vec<Test> = tests.into_iter().filter(|(name, _)| wanted(name)).collect();
    if arguments.iter().any(|a| a == "--list") {
        wanted.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", wanted.len());
    if let Some(missing) = world::missing() {
        println!("SKIPPED, every one of them: {missing}");
        println!("\ntest result: ok. 0 passed; 0 failed; {} ignored; 0 measured; 0 filtered out", wanted.len());
        return ExitCode::SUCCESS;
    }
    let world = World::new();
    let mut failed = Vec::new();
    for (name, test) in &wanted {
        let before = Census::take(&world);
        let ok = catch_unwind(AssertUnwindSafe(|| {
            test(&world);
            before.assert_unchanged(&world);
        }))
        .is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if !ok {
            failed.push(*name);
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
        wanted.len() - failed.len(),
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
