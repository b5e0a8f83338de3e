//! Bytes that an image carries and nobody sees: files that one step adds and a later one deletes or writes again.

use std::collections::BTreeMap;

use rbuild_cache::Store;
use rbuild_cache::view::Hidden;

use super::rules::named;
use super::{Hint, Saves};
use crate::build_record::{BuildInfo, RecordedStep};
use crate::cli::report::Failure;

/// Fewer bytes are not worth a word.
const WORTH: u64 = 20_000_000;

/// What the layers of a build's image hide of each other. Nothing is said of images that are gone, and of builds for
/// several platforms.
pub(super) fn hidden_files(store: &Store, build: &BuildInfo, steps: &[RecordedStep]) -> Result<Vec<Hint>, Failure> {
    let (Some(id), Some(made)) = (build.image, layer_makers(steps)) else { return Ok(Vec::new()) };
    let lease = store.lease("hints")?;
    let Ok(image) = store.images().acquire(&id.to_string(), None, &lease) else { return Ok(Vec::new()) };
    // Nothing is unpacked for a hint.
    let Some(snapshot) = image.record.snapshot else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    store.snapshots().hidden(snapshot, made.len(), &mut |file| files.push(file))?;
    Ok(hints(&files, &made))
}

/// The steps that made the image's own layers, the topmost first; `None` where that cannot be told.
fn layer_makers(steps: &[RecordedStep]) -> Option<Vec<&RecordedStep>> {
    let is_read = |at: usize| steps.iter().any(|step| step.detail.inputs.contains(&at));
    let mut ends = (0..steps.len()).filter(|at| !is_read(*at));
    let (mut at, None) = (ends.next()?, ends.next()) else { return None };
    let mut made = Vec::new();
    loop {
        let step = steps.get(at)?;
        let makes =
            ["RUN ", "COPY ", "ADD ", "WORKDIR "].iter().any(|word| super::rules::instruction(step).starts_with(word));
        // A base image, or nothing: what is below is not this Dockerfile's.
        let (true, Some(below)) = (makes, step.detail.inputs.first()) else { return Some(made) };
        made.push(step);
        if *below >= at {
            return None;
        }
        at = *below;
    }
}

fn hints(files: &[Hidden], made: &[&RecordedStep]) -> Vec<Hint> {
    let mut sums: BTreeMap<(usize, usize, bool), u64> = BTreeMap::new();
    for file in files {
        *sums.entry((file.by, file.layer, file.replaced)).or_default() += file.size;
    }
    let worth = sums.into_iter().filter(|(_, bytes)| *bytes >= WORTH);
    let hint = |((by, layer, replaced), bytes)| {
        let (later, earlier) = (*made.get(by)?, *made.get(layer)?);
        let (later_text, earlier_text) = (named(later), named(earlier));
        let text = if replaced {
            format!(
                "{later_text} writes files again that are in the layer of {earlier_text}, where they stay: give them owner and \
                 mode there (COPY --chown, --chmod), or do both in one step"
            )
        } else {
            format!(
                "{later_text} deletes files that stay in the layer of {earlier_text}: delete them in the step that makes them, \
                 or COPY --from another stage what is needed"
            )
        };
        Some(Hint { step: later.detail.number, text, saves: Saves::Bytes(bytes) })
    };
    worth.filter_map(hint).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::step;
    use super::*;

    #[test]
    fn what_is_deleted_later_is_told_with_its_bytes() {
        let mut steps = [
            step("[app 1/4] FROM node", 1, "app"),
            step("[app 2/4] COPY . .", 2, "app"),
            step("[app 3/4] RUN chown -R app .", 3, "app"),
            step("[app 4/4] RUN rm -rf src", 4, "app"),
        ];
        for (below, step) in steps[1..].iter_mut().enumerate() {
            step.detail.inputs = vec![below];
        }
        let made = layer_makers(&steps).unwrap();
        assert_eq!(made.iter().map(|step| step.detail.line).collect::<Vec<_>>(), [4, 3, 2]);
        let file = |layer, by, replaced, size| Hidden { path: b"x".to_vec(), size, layer, by, replaced };
        let files = [
            file(1, 0, false, 30_000_000),
            file(2, 1, true, 30_000_000),
            file(2, 1, true, 40_000_000),
            file(2, 0, false, 1),
        ];
        let told: String = hints(&files, &made).iter().map(|hint| format!("{hint}\n")).collect();
        insta::assert_snapshot!(told, @r"
        line 4: RUN rm -rf src deletes files that stay in the layer of line 3: RUN chown -R app .: delete them in the step that makes them, or COPY --from another stage what is needed (about 30MB)
        line 3: RUN chown -R app . writes files again that are in the layer of line 2: COPY . ., where they stay: give them owner and mode there (COPY --chown, --chmod), or do both in one step (about 70MB)
        ");
    }

    #[test]
    fn several_results_are_not_looked_into() {
        let steps = [step("[a 1/1] RUN a", 1, "a"), step("[b 1/1] RUN b", 2, "b")];
        assert!(layer_makers(&steps).is_none());
    }
}
