//! Life after the build: containers.
