//! The program as people use it: every test drives the binary through one `Bench` with a store of its own, and checks
//! afterwards that nothing is left on the host (rule R-45).
//!
//! Needs root, busybox-static, and for some tests a peer (skopeo, umoci, podman, docker-registry); `./dev test` installs
//! them. Without root the tests say so and end; with RBUILD_TEST_ROOT_REQUIRED set, as in CI, they fail instead.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails, and says what it skips"
)]

mod annotations;
mod archives;
mod attestations;
mod bench;
mod boot;
mod builds;
mod cache_commands;
mod caching;
mod census;
mod collection;
mod commands;
mod commonest_failures;
mod completions;
mod confinement;
mod container_commands;
mod container_mounts;
mod container_networks;
mod containers;
mod containers_stress;
mod contexts;
mod copies;
mod costs;
mod course;
mod cut_short;
mod damaged_archives;
mod damaged_pulls;
mod degraded;
mod docker_words;
mod documentation;
mod equality;
mod errors;
mod evaluation;
mod exec;
mod failure_help;
mod flags;
mod foreign;
mod health;
mod history;
mod hits;
mod image_commands;
mod images;
mod interop;
mod interrupt;
mod kept_layers;
mod keyboard;
mod layer_blobs;
mod layers;
mod leaks;
mod library;
mod life;
mod machine_output;
mod many_layers;
mod mistakes;
mod mistakes_in_commands;
mod mistakes_in_dockerfiles;
mod monitors;
mod mounts;
mod network_commands;
mod networks;
mod outputs;
mod overlays;
mod peers;
mod processes;
mod pulls;
mod registries;
mod registry;
mod registry_logins;
mod registry_trust;
mod remote;
mod remote_caches;
mod report;
mod rootless;
mod scale;
#[expect(dead_code, reason = "what the tests of the registry client need besides")]
#[path = "../../image/tests/registry/server.rs"]
mod server;
mod sharing;
mod snapshotters;
mod stress;
mod terminal;
mod transfers;
mod volumes;
mod waits;
mod web_server;
mod why;
