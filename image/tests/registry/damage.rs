//! A thousand random damages of manifests, configs and layers on their way from a registry: cut short, with and without
//! saying so, or with bits turned over. None is kept, whatever is kept is whole, and the next pull that meets no damage
//! goes on from there. `./dev damage` tries more of them, and others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild_image::pull::pull;
use rbuild_image::registry::{Client, ClientOptions, RetryPolicy, Silent};
use rbuild_image::{Digest, ImageRef, MediaType, Platform};

use crate::memory::{MemoryStore, TestImage};
use crate::server::{Answer, Request, Server};

/// What happens to the bytes of one answer.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Bits are turned over.
    Flip { at: usize, mask: u8 },
    /// There is less, and the headers say so.
    Short { left: usize },
    /// The connection ends early.
    Cut { left: usize },
}

/// Numbers that are the same every time.
struct Numbers(Digest, usize);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.1 += 1;
        let block = Digest::sha256(format!("{}{}", self.0, self.1));
        let bytes: [u8; 8] = block.as_bytes()[..8].try_into().unwrap();
        usize::try_from(u64::from_le_bytes(bytes) % below as u64).unwrap()
    }
}

fn serve(image: &TestImage, damage: Option<&(String, Damage)>, request: &Request) -> Answer {
    let is_manifest = request.path.contains("/manifests/");
    let digest = request.path.rsplit('/').next().unwrap().parse().ok();
    let Some(whole) = digest.and_then(|digest| image.store.get(&digest)) else { return Answer::new(404) };
    let from = request.range().unwrap_or(0);
    let mut bytes = whole[from..].to_vec();
    let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
    let with = |answer: Answer| match (is_manifest, from) {
        (true, _) => answer.with("Content-Type", MediaType::OciManifest.as_str()),
        (false, 0) => answer,
        (false, _) => answer.with("Content-Range", range.clone()),
    };
    let status = if from == 0 { 200 } else { 206 };
    match damage.filter(|(path, _)| request.path.contains(path.as_str())).map(|(_, damage)| *damage) {
        None => with(Answer::body(status, bytes)),
        Some(Damage::Flip { at, mask }) => {
            // Always the same byte of the blob, wherever the answer begins.
            if let Some(byte) = (at % whole.len()).checked_sub(from).and_then(|at| bytes.get_mut(at)) {
                *byte ^= mask;
            }
            with(Answer::body(status, bytes))
        }
        Some(Damage::Short { left }) => {
            bytes.truncate(left % bytes.len());
            with(Answer::body(status, bytes))
        }
        Some(Damage::Cut { left }) => {
            let left = (left % whole.len()).saturating_sub(from);
            Answer::Cut(status, bytes, left)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "tests are told by the environment how much to try")]
fn given(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn a_thousand_damages_are_refused_and_leave_nothing_wrong() {
    let image = Arc::new(TestImage::new("damages", &[5_000, 300, 70_000]));
    let damage: Arc<Mutex<Option<(String, Damage)>>> = Arc::default();
    let (served, current) = (image.clone(), damage.clone());
    let server = Server::start(move |request| serve(&served, current.lock().unwrap().as_ref(), request));
    let pinned: ImageRef = format!("{}/app", server.host).parse::<ImageRef>().unwrap().with_digest(image.digest());
    let client = || {
        let retry = RetryPolicy { first_pause: Duration::from_millis(1), attempts: 2, ..RetryPolicy::default() };
        Client::new(ClientOptions { retry, ..ClientOptions::default() })
    };
    let targets = image.digests();
    let seed = given("RBUILD_TEST_DAMAGE_SEED").map_or("seed".to_owned(), |seed| format!("seed {seed}"));
    let mut numbers = Numbers(Digest::sha256(seed), 0);
    for case in 0..given("RBUILD_TEST_DAMAGES").unwrap_or(1000) {
        let target = targets[numbers.next(targets.len())];
        let spoil = match numbers.next(3) {
            0 => Damage::Flip { at: numbers.next(1 << 20), mask: 1 << numbers.next(8) },
            1 => Damage::Short { left: numbers.next(1 << 20) },
            _ => Damage::Cut { left: numbers.next(1 << 20) },
        };
        *damage.lock().unwrap() = Some((target.to_string(), spoil));
        let store = MemoryStore::default();
        let result = pull(&client(), &pinned, &Platform::host(), &store, &Silent);
        assert!(result.is_err(), "case {case}: {target} with {spoil:?} was taken");
        for digest in store.digests() {
            assert_eq!(Digest::sha256(store.get(&digest).unwrap()), digest, "case {case}: {spoil:?}");
        }
        assert!(
            store.get(&target).is_none() && store.get(&image.digest()).is_none(),
            "case {case}: {target} {spoil:?}"
        );
        if case % 50 == 0 {
            // What was left of it does no harm to the next pull.
            *damage.lock().unwrap() = None;
            pull(&client(), &pinned, &Platform::host(), &store, &Silent).unwrap();
            assert_eq!(store.digests().len(), targets.len(), "case {case}");
        }
    }
}
