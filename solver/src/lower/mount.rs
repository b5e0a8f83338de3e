//! `RUN --mount`: what each mount shows, and from where.

use std::collections::BTreeSet;

use rbuild_image::ContainerPath;
use rbuild_parser::instruction::Run;
use rbuild_parser::{Mount, MountError, MountFlag, MountKind, Sharing};

use super::stage::{StageId, StageStep};
use super::{Fault, Lowering, all, fault};
use crate::op::{CacheSharing, RunMount, RunMountKind};
use crate::vertex::VertexId;

/// The agent that `--ssh default` gives.
const DEFAULT_AGENT: &str = "default";

impl Lowering<'_> {
    /// Lowers all mounts of a `RUN`; what they read is added to `inputs`, which follow the root file system.
    pub(super) fn lower_mounts(
        &mut self,
        id: StageId,
        step: &StageStep<'_>,
        run: &Run,
        inputs: &mut Vec<Option<VertexId>>,
    ) -> Result<Vec<RunMount>, Fault> {
        let mut agents = 0;
        let mut one = |at: usize, flag: &MountFlag| {
            let wrong = |message: String| Box::new(self.step_error(step, flag.span(), message));
            let variables = &self.stages[id].state.variables;
            let mut unset = BTreeSet::new();
            let mount = flag.resolve(|word| {
                word.expand(variables).map(|expanded| {
                    unset.extend(expanded.unmatched);
                    expanded.text
                })
            });
            self.check_unset(id, step, &unset);
            let mount = mount.map_err(|error: MountError| match &error {
                MountError::Expand(error) => self.expansion_fault(step, flag.span(), error),
                _ => wrong(error.to_string()),
            })?;
            Ok(match mount.kind {
                MountKind::Secret => {
                    let directory = self.working_directory(id);
                    secret(&mount, &directory).map_err(|message| wrong(message.to_owned()))?
                }
                MountKind::Ssh => {
                    agents += 1;
                    let directory = self.working_directory(id);
                    agent(&mount, agents - 1, &directory).map_err(|message| wrong(message.to_owned()))?
                }
                MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => {
                    let target = self.mount_target(id, &mount).map_err(wrong)?;
                    let kind = match mount.kind {
                        MountKind::Tmpfs => {
                            RunMountKind::Tmpfs { size: u64::try_from(mount.size).ok().filter(|size| *size > 0) }
                        }
                        MountKind::Cache => {
                            let input = match &mount.from {
                                Some(_) => self.mount_source(step, at, &mount, inputs)?,
                                None => None,
                            };
                            self.cache(&mount, input)
                        }
                        _ => RunMountKind::Bind {
                            input: match &mount.from {
                                Some(_) => self.mount_source(step, at, &mount, inputs)?,
                                None => {
                                    let context = self.context("");
                                    Some(position(inputs, context))
                                }
                            },
                            source: ContainerPath::new(mount.source.as_deref().unwrap_or_default()),
                            writable: !mount.read_only,
                        },
                    };
                    RunMount { target: Some(target), kind }
                }
            })
        };
        let results: Vec<_> = run.mounts.iter().enumerate().map(|(at, flag)| one(at, flag)).collect();
        all(&self.beside, results)
    }

    /// Where relative targets start.
    fn working_directory(&self, id: StageId) -> ContainerPath {
        ContainerPath::new(&self.stages[id].state.image.config.working_dir)
    }

    fn mount_target(&self, id: StageId, mount: &Mount) -> Result<ContainerPath, String> {
        let target = self.working_directory(id).join(mount.target.as_deref().unwrap_or_default());
        // An absolute `/` is as wrong as a missing target in the root.
        if target.is_root() { Err(format!("invalid mount target {:?}", "/")) } else { Ok(target) }
    }

    /// What mount number `at` is from; `None` is an empty tree.
    fn mount_source(
        &self,
        step: &StageStep<'_>,
        at: usize,
        mount: &Mount,
        inputs: &mut Vec<Option<VertexId>>,
    ) -> Result<Option<usize>, Fault> {
        let Some(source) = step.sources.get(at).copied().flatten() else { return Ok(None) };
        let from = &self.stages[source];
        if !from.lowered {
            let message = format!(
                "cannot mount from stage {:?} to {:?}, stage needs to be defined before current command",
                mount.from.as_deref().unwrap_or_default(),
                mount.target.as_deref().unwrap_or_default()
            );
            return Err(fault(step.span, message));
        }
        Ok(from.state.rootfs.map(|rootfs| position(inputs, rootfs)))
    }

    /// As told, or as the build argument says that BuildKit has for it.
    fn cache_namespace(&self) -> &str {
        let argument = self.goal.build_args.get("BUILDKIT_CACHE_MOUNT_NS").map_or("", String::as_str);
        if self.goal.cache_namespace.is_empty() { argument } else { &self.goal.cache_namespace }
    }

    fn cache(&self, mount: &Mount, input: Option<usize>) -> RunMountKind {
        let target = mount.target.as_deref().unwrap_or_default();
        let id = mount.id.clone().unwrap_or_else(|| clean(target));
        let source = ContainerPath::new(mount.source.as_deref().unwrap_or_default());
        // A part of something brings its own owner and mode; a cache that is given one starts empty, as in BuildKit.
        let own = source.is_root();
        let is_given = mount.mode.or(mount.uid).or(mount.gid).is_some();
        let input = input.filter(|_| !(own && is_given));
        RunMountKind::Cache {
            id: match self.cache_namespace() {
                "" => id,
                namespace => format!("{namespace}/{id}"),
            },
            sharing: match mount.sharing {
                Sharing::Shared => CacheSharing::Shared,
                Sharing::Private => CacheSharing::Private,
                Sharing::Locked => CacheSharing::Locked,
            },
            input,
            source,
            writable: !mount.read_only,
            mode: mount.mode.filter(|_| own).unwrap_or(0o755),
            uid: mount.uid.filter(|_| own).unwrap_or(0),
            gid: mount.gid.filter(|_| own).unwrap_or(0),
        }
    }
}

/// The position that an input has, or gets, after the root file system.
pub(super) fn position(inputs: &mut Vec<Option<VertexId>>, input: VertexId) -> usize {
    let known = inputs.iter().position(|known| *known == Some(input));
    1 + known.unwrap_or_else(|| {
        inputs.push(Some(input));
        inputs.len() - 1
    })
}

fn secret(mount: &Mount, directory: &ContainerPath) -> Result<RunMount, &'static str> {
    let name = |path: &str| path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path).to_owned();
    let named = mount.source.clone().or_else(|| mount.id.clone());
    let id = named.or_else(|| mount.target.as_deref().map(name)).ok_or("one of source, target required")?;
    let default = mount.env.is_none().then(|| ContainerPath::new("/run/secrets").join(name(&id)));
    let target = mount.target.as_deref().map(|target| directory.join(target)).or(default);
    Ok(RunMount {
        target,
        kind: RunMountKind::Secret {
            id,
            env: mount.env.clone(),
            required: mount.required,
            mode: mount.mode.unwrap_or(0o400),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
        },
    })
}

fn agent(mount: &Mount, number: usize, directory: &ContainerPath) -> Result<RunMount, &'static str> {
    if mount.source.is_some() {
        return Err("ssh does not support source");
    }
    let default = || ContainerPath::new(format!("/run/buildkit/ssh_agent.{number}"));
    Ok(RunMount {
        target: Some(mount.target.as_deref().map_or_else(default, |target| directory.join(target))),
        kind: RunMountKind::Ssh {
            id: mount.id.clone().unwrap_or_else(|| DEFAULT_AGENT.to_owned()),
            required: mount.required,
            mode: mount.mode.unwrap_or(0o600),
            uid: mount.uid.unwrap_or(0),
            gid: mount.gid.unwrap_or(0),
        },
    })
}

/// Go's `path.Clean`: a relative path stays one.
fn clean(path: &str) -> String {
    if path.starts_with('/') {
        return ContainerPath::new(path).to_string();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_in_go() {
        for (path, want) in [("", "."), ("/a/../b/", "/b"), ("a//b/.", "a/b"), ("../a/../..", "../.."), ("a/..", ".")] {
            assert_eq!(clean(path), want, "{path:?}");
        }
    }
}
