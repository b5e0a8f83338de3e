//! Builds the Dockerfile of the working directory, as `rbuild -t hello:0.1 --build-arg GREETING=Hello .` does.

#![expect(clippy::print_stdout, reason = "the image's id is this program's answer")]

use rbuild::{BuildRequest, Engine, progress::Mode};

fn main() -> Result<(), rbuild::Error> {
    rbuild::init()?; // first of all: steps are started by this program itself
    let engine = Engine::from_environment()?;
    let request = BuildRequest::directory(".").tag("hello:0.1")?.build_arg("GREETING", "Hello");
    let built = engine.build(&request, Mode::Plain)?;
    println!("{}", built.image_id.expect("an image was asked for"));
    Ok(())
}
