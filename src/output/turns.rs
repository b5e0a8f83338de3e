//! Layers that have to come one after the other, while the next one is compressed already.
//!
//! ```text
//! lower   | compressed and written ......|
//! upper           | compressed, waits    | written, compressed further ......|
//! ```
//!
//! Who compresses the upper layer has begun when the lower one ends, so that no processor is idle from the last block of
//! one to the first of the other. It holds no more than the blocks that are on their way in any case: its first write
//! waits until it is its turn.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rbuild_image::{BlobSource, Descriptor, Digest};

use super::growing::GrowingLayer;
use super::pack::Packed;
use super::stage::{LayerPlace, Outlet};
use crate::cli::report::Failure;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The layer whose turn it is.
    now: usize,
    /// One failed: nobody else has a turn.
    over: bool,
}

impl Turns {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a layer's turn.
    fn wait_for(&self, layer: usize) -> io::Result<()> {
        let waiting = |state: &mut State| state.now < layer && !state.over;
        let state = self.changed.wait_while(self.state(), waiting).unwrap_or_else(PoisonError::into_inner);
        match state.now < layer {
            true => Err(io::Error::other("a lower layer could not be written")),
            false => Ok(()),
        }
    }

    /// Ends a layer's turn.
    fn end(&self, layer: usize, fate: Fate) {
        let mut state = self.state();
        match fate {
            Fate::Done => state.now = state.now.max(layer + 1),
            Fate::Failed => state.over = true,
        }
        drop(state);
        self.changed.notify_all();
    }
}

enum Fate {
    Done,
    Failed,
}

/// One layer's way to an outlet that wants order.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    layer: usize,
    outlet: &'a dyn Outlet,
}

impl<'a> Turn<'a> {
    /// Of the `layer`th from the lowest.
    pub(super) fn new(turns: &'a Turns, layer: usize, outlet: &'a dyn Outlet) -> Self {
        Self { turns, layer, outlet }
    }

    /// Has a layer packed, and tells the outlet of it when it is its turn. The next one's begins when this is over.
    pub(super) fn take(&self, pack: impl FnOnce(&dyn Outlet) -> Result<Packed, Failure>) -> Result<Packed, Failure> {
        // A panic is a failure, too: nobody waits for who does not come.
        let mut over = Over { turn: self, fate: Fate::Failed };
        let packed = pack(self)?;
        self.turns.wait_for(self.layer)?;
        self.outlet.ready(&packed)?;
        over.fate = Fate::Done;
        Ok(packed)
    }
}

struct Over<'a> {
    turn: &'a Turn<'a>,
    fate: Fate,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let fate = std::mem::replace(&mut self.fate, Fate::Failed);
        self.turn.turns.end(self.turn.layer, fate);
    }
}

impl Outlet for Turn<'_> {
    fn begun(&self, layer: &Arc<GrowingLayer>) {
        self.outlet.begun(layer);
    }

    fn ready(&self, packed: &Packed) -> Result<(), Failure> {
        self.turns.wait_for(self.layer)?;
        self.outlet.ready(packed)
    }

    fn place(&self) -> io::Result<Option<Box<dyn LayerPlace + '_>>> {
        Ok(Some(Box::new(Later { turn: self, place: None })))
    }

    fn comes_whole(&self, root: &Descriptor, blobs: &dyn BlobSource) -> Result<(), Failure> {
        self.outlet.comes_whole(root, blobs)
    }
}

/// A place that is there when it is first written to.
struct Later<'a> {
    turn: &'a Turn<'a>,
    place: Option<Box<dyn LayerPlace + 'a>>,
}

impl Later<'_> {
    fn place(&mut self) -> io::Result<&mut (dyn LayerPlace + '_)> {
        if self.place.is_none() {
            self.turn.turns.wait_for(self.turn.layer)?;
            self.place = self.turn.outlet.place()?;
        }
        match &mut self.place {
            Some(place) => Ok(&mut **place),
            None => Err(io::Error::other("who wants layers in order has no place for them")),
        }
    }
}

impl Write for Later<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.place()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.place.as_mut().map_or(Ok(()), |place| place.flush())
    }
}

impl LayerPlace for Later<'_> {
    fn whole(&mut self, digest: &Digest, size: u64) -> io::Result<()> {
        self.place()?.whole(digest, size)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use rbuild_image::{DiffId, MediaType};

    use super::super::pack::PackedBytes;
    use super::*;

    /// Notes what is written, and of which layers it is told.
    #[derive(Default)]
    struct Notes(Mutex<String>);

    impl Notes {
        fn add(&self, text: &str) {
            self.0.lock().unwrap().push_str(text);
        }
    }

    struct Place<'a>(&'a Notes);

    impl Write for Place<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.add(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl LayerPlace for Place<'_> {
        fn whole(&mut self, _: &Digest, size: u64) -> io::Result<()> {
            self.0.add(&format!("={size} "));
            Ok(())
        }
    }

    impl Outlet for Notes {
        fn ready(&self, packed: &Packed) -> Result<(), Failure> {
            self.add(&format!("ready {} ", packed.descriptor.size));
            Ok(())
        }

        fn place(&self) -> io::Result<Option<Box<dyn LayerPlace + '_>>> {
            Ok(Some(Box::new(Place(self))))
        }
    }

    fn pack(outlet: &dyn Outlet, text: &str) -> Result<Packed, Failure> {
        let descriptor = Descriptor::of(MediaType::OciLayerGzip, text.as_bytes());
        let mut place = outlet.place()?.unwrap();
        place.write_all(text.as_bytes())?;
        place.whole(&descriptor.digest, descriptor.size)?;
        let bytes = PackedBytes::Placed(descriptor.size);
        Ok(Packed { descriptor, diff_id: DiffId::new(Digest::sha256(text)), bytes })
    }

    #[test]
    fn layers_come_in_order_whoever_begins() {
        let (notes, turns) = (Notes::default(), Turns::default());
        let (begun, upper_began) = channel();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let upper = Turn::new(&turns, 1, &notes).take(|outlet| {
                    begun.send(()).unwrap();
                    pack(outlet, "upper")
                });
                upper.unwrap();
            });
            upper_began.recv().unwrap();
            Turn::new(&turns, 0, &notes).take(|outlet| pack(outlet, "low")).unwrap();
        });
        assert_eq!(*notes.0.lock().unwrap(), "low=3 ready 3 upper=5 ready 5 ");
    }

    #[test]
    fn nobody_waits_for_a_layer_that_failed() {
        let (notes, turns) = (Notes::default(), Turns::default());
        std::thread::scope(|threads| {
            let upper = threads.spawn(|| Turn::new(&turns, 1, &notes).take(|outlet| pack(outlet, "upper")));
            let failed = Turn::new(&turns, 0, &notes).take(|_| Err(Failure::new("broken")));
            assert_eq!(failed.unwrap_err().message(), "broken");
            assert!(upper.join().unwrap().is_err());
        });
        assert_eq!(*notes.0.lock().unwrap(), "");
    }
}
