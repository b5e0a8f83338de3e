//! `COPY` and `ADD`: one vertex with an action for each source, in order; here-documents after paths.

use rbuild_image::ContainerPath;
use rbuild_parser::Diagnostic;
use rbuild_parser::instruction::{Add, Copy, SourcesAndDest};

use super::git_ref::GitRef;
use super::history::Effect;
use super::metadata::Named;
use super::mount::position;
use super::name::Shown;
use super::remote::{Remote, is_http};
use super::stage::{StageId, StageStep};
use super::{Fault, Lowering, chmod, fault, redacted};
use crate::op::{CopyAction, FileAction, FileOp, Linking, Op, Unpack, WriteAction};
use crate::vertex::VertexId;

/// What `COPY` and `ADD` have in common, expanded.
struct Transfer<'a> {
    keyword: &'static str,
    text: &'a str,
    sources: Vec<String>,
    /// Names, contents.
    documents: Vec<(String, String)>,
    dest: String,
    chown: Option<String>,
    chmod: Option<String>,
    exclude: Vec<String>,
    link: bool,
    parents: bool,
    unpack: Option<bool>,
}

impl Lowering<'_> {
    pub(super) fn lower_copy(&mut self, id: StageId, step: &StageStep<'_>, copy: &Copy) -> Result<(), Fault> {
        let (sources, documents, dest) = self.expand_paths(id, step, &copy.paths)?;
        let optional = |word: &Option<_>| word.as_ref().map(|word| self.expand(id, word, step)).transpose();
        let transfer = Transfer {
            keyword: "COPY",
            text: &copy.origin.text,
            sources,
            documents,
            dest,
            chown: optional(&copy.chown)?.filter(|chown| !chown.is_empty()),
            chmod: optional(&copy.chmod)?.filter(|chmod| !chmod.is_empty()),
            exclude: self.expand_all(id, &copy.exclude, step)?,
            link: copy.link,
            parents: copy.parents,
            unpack: Some(false),
        };
        let from = match step.sources.first().copied().flatten() {
            Some(source) => {
                let stage = &self.stages[source];
                if !stage.lowered {
                    let from = copy.from.as_ref().map_or("", |from| from.value.as_str());
                    let message = format!(
                        "cannot copy from stage {from:?}, it needs to be defined before current stage {:?}",
                        self.stages[id].shown
                    );
                    return Err(fault(step.span, message));
                }
                stage.state.rootfs
            }
            // Documents alone need no context.
            None if transfer.sources.is_empty() => None,
            None => Some(self.context("")),
        };
        for source in &transfer.sources {
            let git = GitRef::parse(source).map_err(|message| fault(step.span, message))?;
            if git.is_some() {
                return Err(only_add(step, "source can't be a git ref for COPY"));
            }
            if is_http(source) {
                return Err(only_add(step, "source can't be a URL for COPY"));
            }
        }
        if step.sources.iter().all(Option::is_none) {
            transfer.sources.iter().for_each(|source| self.check_ignored(step, source));
        }
        let mut inputs = Vec::new();
        let input = from.map(|from| position(&mut inputs, from));
        let actions = transfer.sources.iter().map(|source| local(&transfer, source, input)).collect();
        self.add_transfer(id, step, transfer, actions, inputs)
    }

    pub(super) fn lower_add(&mut self, id: StageId, step: &StageStep<'_>, add: &Add) -> Result<(), Fault> {
        let (sources, documents, dest) = self.expand_paths(id, step, &add.paths)?;
        let optional = |word: &Option<_>| word.as_ref().map(|word| self.expand(id, word, step)).transpose();
        let checksum = optional(&add.checksum)?.filter(|checksum| !checksum.is_empty());
        let transfer = Transfer {
            keyword: "ADD",
            text: &add.origin.text,
            sources,
            documents,
            dest,
            chown: optional(&add.chown)?.filter(|chown| !chown.is_empty()),
            chmod: optional(&add.chmod)?.filter(|chmod| !chmod.is_empty()),
            exclude: self.expand_all(id, &add.exclude, step)?,
            link: add.link,
            parents: false,
            unpack: add.unpack,
        };
        if checksum.is_some() && transfer.sources.len() != 1 {
            return Err(fault(step.span, "checksum can't be specified for multiple sources"));
        }
        let text = self.shown_text(transfer.text, Shown::Words, &self.stages[id].state.variables);
        let mut inputs = Vec::new();
        let mut actions = Vec::with_capacity(transfer.sources.len());
        for source in &transfer.sources {
            let remote = Remote { source, checksum: checksum.as_deref(), keep_git_dir: add.keep_git_dir };
            actions.push(match self.lower_remote(id, step, &remote, &text)? {
                Some(found) => {
                    let input = Some(position(&mut inputs, found.vertex));
                    let unpack = found.filename.is_some() && transfer.unpack == Some(true);
                    CopyAction {
                        source: found.filename.clone().unwrap_or_else(|| "/".to_owned()),
                        unpack: if unpack { Unpack::Archives } else { Unpack::Never },
                        default_mode: found.filename.is_some().then_some(0o600),
                        // The directory that a repository becomes has its metadata.
                        contents: found.filename.is_some(),
                        ..local(&transfer, source, input)
                    }
                }
                None if checksum.is_some() => {
                    return Err(fault(step.span, "checksum requires HTTP(S) or Git sources"));
                }
                None => {
                    self.check_ignored(step, source);
                    let context = self.context("");
                    local(&transfer, source, Some(position(&mut inputs, context)))
                }
            });
        }
        self.add_transfer(id, step, transfer, actions, inputs)
    }

    /// Sources, documents and destination, expanded.
    fn expand_paths(&self, id: StageId, step: &StageStep<'_>, paths: &SourcesAndDest) -> Result<Paths, Fault> {
        let sources = self.expand_all(id, &paths.sources, step)?;
        let mut documents = Vec::with_capacity(paths.contents.len());
        for document in &paths.contents {
            let content = document.expand(&self.stages[id].state.variables);
            let content = content.map_err(|error| self.expansion_fault(step, document.span, &error))?;
            self.check_unset(id, step, &content.unmatched);
            documents.push((document.name.clone(), content.text));
        }
        Ok((sources, documents, self.expand(id, &paths.dest, step)?))
    }

    fn add_transfer(
        &mut self,
        id: StageId,
        step: &StageStep<'_>,
        transfer: Transfer<'_>,
        actions: Vec<CopyAction>,
        inputs: Vec<Option<VertexId>>,
    ) -> Result<(), Fault> {
        if let Some(mode) = &transfer.chmod {
            chmod::check(mode).map_err(|message| fault(step.span, message))?;
        }
        let dest = self.destination(id, &transfer.dest);
        let mut all: Vec<FileAction> =
            actions.into_iter().map(|action| FileAction::Copy(CopyAction { dest: dest.clone(), ..action })).collect();
        all.extend(transfer.documents.iter().map(|(name, content)| {
            FileAction::Write(WriteAction {
                name: name.clone(),
                dest: dest.clone(),
                content: content.clone().into_bytes(),
                chown: transfer.chown.clone(),
                chmod: transfer.chmod.clone(),
            })
        }));
        // As in BuildKit a mode makes the layer depend on what it is put on.
        let independent = transfer.link && transfer.chmod.is_none();
        let linking = if independent { Linking::Independent } else { Linking::Dependent };
        let created_by = redacted(&created_by(&transfer));
        let stage = &self.stages[id];
        let text = self.shown_text(transfer.text, Shown::Words, &stage.state.variables);
        let name = self.name_vertex(id, &text, step.is_trigger);
        let cache_use = self.cache_use(id, step);
        let op = Op::File(FileOp { actions: all, linking });
        self.add_layer(id, step, op, inputs, Named { name, text }, cache_use);
        self.commit(id, created_by, Effect::Layer);
        Ok(())
    }

    /// Where files go, absolute. A slash at the end stays: it says that this is a directory.
    fn destination(&self, id: StageId, dest: &str) -> String {
        let directory = ContainerPath::new(&self.stages[id].state.image.config.working_dir);
        let is_directory = dest.is_empty() || dest == "." || dest.ends_with('/') || dest.ends_with("/.");
        let path = directory.join(dest);
        if is_directory && !path.is_root() { format!("{path}/") } else { path.to_string() }
    }
}

type Paths = (Vec<String>, Vec<(String, String)>, String);

/// An action on files of a context, a stage or an image; the destination follows.
fn local(transfer: &Transfer<'_>, source: &str, input: Option<usize>) -> CopyAction {
    CopyAction {
        input,
        // Nothing names the root, as an unset variable does.
        source: if source.is_empty() { "/" } else { source }.to_owned(),
        dest: String::new(),
        chown: transfer.chown.clone(),
        chmod: transfer.chmod.clone(),
        exclude: transfer.exclude.clone(),
        parents: transfer.parents,
        unpack: if transfer.unpack == Some(false) { Unpack::Never } else { Unpack::Archives },
        required: true,
        mtime: None,
        default_mode: None,
        contents: true,
    }
}

fn only_add(step: &StageStep<'_>, message: &str) -> Fault {
    Box::new(Diagnostic::error(step.span, message).with_help("use ADD"))
}

fn created_by(transfer: &Transfer<'_>) -> String {
    let mut text = transfer.keyword.to_owned();
    if transfer.parents {
        text.push_str(" --parents");
    }
    for (flag, value) in [("chown", &transfer.chown), ("chmod", &transfer.chmod)] {
        if let Some(value) = value {
            text.push_str(&format!(" --{flag}={value}"));
        }
    }
    for source in &transfer.sources {
        text.push(' ');
        text.push_str(source);
    }
    for (name, _) in &transfer.documents {
        text.push_str(" <<");
        text.push_str(name);
    }
    text + " " + &transfer.dest + " # buildkit"
}
