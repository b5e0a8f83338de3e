//! What people can do about a failure: the cause where there is evidence for it, and one action.
//!
//! Evidence is an exit code together with the words of a shell, what the kernel counted, a file as it stands in the
//! image, an error's type. Where there is none, nothing is guessed: the output itself is the best help then.
//!
//! [`step`] knows failed `RUN` steps, [`program`] files that cannot be executed, [`error`] what registries and the disk
//! refuse, [`instruction`] what the Dockerfile's own text explains.

mod error;
mod instruction;
mod program;
mod step;

pub(crate) use error::of_error;
pub(crate) use instruction::of_instruction;
/// What is said of a file that is not there when nothing is known.
pub(crate) const NOT_THERE: &str =
    "sources are looked up in the context or stage they come from: is it misspelt, or in another directory?";

pub(crate) use program::not_started;
pub(crate) use step::{FailedStep, SEE_OUTPUT, Space, Tail, of_step};
