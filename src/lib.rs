//! `rbuild` as a library: builds images from Dockerfiles.
