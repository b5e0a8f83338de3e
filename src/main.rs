//! The `rbuild` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    rbuild_executor::reexec_entry();
    rbuild_executor::raise_open_files();
    rbuild::cli::main(std::env::args_os().collect()).into()
}
