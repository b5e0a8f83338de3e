//! Finds what a missed key is compared with, and says what differs.
//!
//! Nearest is, in this order: the same op with the same command or sources, the same line, the most words in common,
//! the fewest differences, the latest. First among the same stage of the same Dockerfile, then anywhere in that file,
//! then among equal steps of other ones. What another vertex of this build is, is not an earlier form of this one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rbuild_cache::{Among, CacheKey, Candidate, Fate, StepDescription};
use rbuild_image::Digest;

use super::compare::{Comparison, Facts};
use super::{Change, Earlier, MissReason};
use crate::records::{About, Past, RecordFailure};
use crate::vertex::VertexId;

/// How many descriptions are chosen from.
const CANDIDATES: usize = 128;
/// How many of them are looked at closely.
const FINALISTS: usize = 8;
/// Of the words of two commands, how many per thousand must be the same for one to be an earlier form of the other.
const ALIKE: usize = 400;

/// A miss that wants an explanation.
pub(crate) struct Miss<'a> {
    /// What is remembered.
    pub(crate) past: &'a dyn Past,
    /// What became of the definition key, as it was before the step was recorded.
    pub(crate) fate: &'a Fate,
    /// What the step is made of.
    pub(crate) about: &'a About,
    /// Keys of the ops of all steps of this build.
    pub(crate) siblings: &'a BTreeSet<Digest>,
    /// Inputs that ran in this build, by position.
    pub(crate) ran: &'a BTreeMap<usize, VertexId>,
    /// Whether records under the definition key would have answered.
    pub(crate) trusted: bool,
}

impl Miss<'_> {
    /// Why it missed.
    pub(crate) fn explain(&self) -> Result<MissReason, RecordFailure> {
        let after = Facts { text: &self.about.text, reads: &self.about.reads };
        let comparison = Comparison::new(self.past, self.ran);
        if let Some((rule, at)) = &self.fate.evicted {
            return Ok(MissReason::Evicted { rule: rule.clone(), at: *at });
        }
        if let Some(same) = &self.fate.description {
            if self.trusted {
                return Ok(MissReason::Lost);
            }
            let changes = comparison.rerun(&Facts::from(same), &after)?;
            return Ok(MissReason::InputsDiffer { changes });
        }
        let Some((nearest, changes)) = self.nearest(&comparison, &after)? else {
            return Ok(MissReason::NothingRecorded);
        };
        let (was, is) = (&nearest.place, &self.about.place);
        let is_elsewhere = (&was.stage, was.line) != (&is.stage, is.line);
        let earlier = Earlier {
            step: nearest.subject,
            line: Some(nearest.place.line).filter(|_| is_elsewhere),
            at: nearest.recorded_at,
            build: nearest.build,
        };
        Ok(MissReason::Changed { earlier, changes })
    }

    fn nearest(
        &self,
        comparison: &Comparison<'_>,
        after: &Facts<'_>,
    ) -> Result<Option<(StepDescription, Vec<Change>)>, RecordFailure> {
        let (place, step) = (&self.about.place, CacheKey::new(self.about.step));
        for among in [Among::Stage(place), Among::Project(place), Among::Step(&step, place)] {
            let mut candidates = self.past.candidates(among, CANDIDATES)?;
            candidates.retain(|candidate| self.may_be_earlier(candidate));
            // Stable: of equal ones the latest stays first.
            candidates.sort_by_key(|candidate| {
                (candidate.step != step, candidate.stage != place.stage, candidate.line.abs_diff(place.line))
            });
            let mut best: Option<(Score, StepDescription, Vec<Change>)> = None;
            for candidate in candidates.iter().take(FINALISTS) {
                let Some(description) = self.past.find(candidate.definition.digest())? else { continue };
                let core = likeness(&core(&description.text), &core(after.text));
                let (is_same, is_here) = (candidate.step == step, candidate.line == place.line);
                if !(is_same || is_here || core >= ALIKE) {
                    continue;
                }
                let changes = comparison.changes(&Facts::from(&description), after)?;
                let score = (is_same, core == 1000, is_here, core, Reverse(changes.len()));
                if best.as_ref().is_none_or(|(best, ..)| score > *best) {
                    best = Some((score, description, changes));
                }
            }
            if let Some((_, description, changes)) = best {
                return Ok(Some((description, changes)));
            }
        }
        Ok(None)
    }

    fn may_be_earlier(&self, candidate: &Candidate) -> bool {
        let is_itself = *candidate.definition.digest() == self.about.definition.digest;
        let is_equal = *candidate.step.digest() == self.about.step;
        !is_itself && (is_equal || !self.siblings.contains(candidate.step.digest()))
    }
}

type Score = (bool, bool, bool, usize, Reverse<usize>);

/// What makes a step this step for people: its command, or what it copies where.
fn core(text: &str) -> BTreeSet<&str> {
    let is_core = |name: &str| {
        name.starts_with("argv.")
            || (name.starts_with("action.")
                && [".source", ".dest", ".mkdir", ".write"].iter().any(|end| name.ends_with(end)))
            || name == "http.url"
            || name == "git.remote"
    };
    let fields = text.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| is_core(name));
    fields.flat_map(|(_, value)| value.split([' ', '/']).filter(|word| !word.is_empty())).collect()
}

/// How many of the words are the same, per thousand.
fn likeness(a: &BTreeSet<&str>, b: &BTreeSet<&str>) -> usize {
    match a.union(b).count() {
        0 => 1000,
        all => a.intersection(b).count() * 1000 / all,
    }
}
