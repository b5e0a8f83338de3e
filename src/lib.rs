//! `rbuild` as a library: builds images from Dockerfiles.

pub mod worker {
    //! The machine behind the plan.

    pub mod file;
}
