//! The `rbuild` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    rbuild_executor::reexec_entry();
    rbuild::cli::main(std::env::args_os().collect()).into()
}
