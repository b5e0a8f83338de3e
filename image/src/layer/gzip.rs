//! Gzip on all processors, with the same bytes whatever their number.
//!
//! ```text
//! input    |---- 1 MiB ----|---- 1 MiB ----|-- rest --|
//! deflate  |  block, sync  |  block, sync  |  final   |     one member: header, blocks, CRC-32, length
//! knows    nothing         last 32 KiB     last 32 KiB      of what precedes it
//! ```
//!
//! Blocks begin at fixed offsets of the input, however it was written. Each is deflated by a fresh compressor that knows
//! the 32 KiB before it as its dictionary, so little is lost at the joins, and ends on a byte (sync flush), so that the
//! blocks can simply follow each other. Fresh, because a compressor that was reset gave other bytes now and then.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use flate2::{Compress, Crc, FlushCompress, Status};

/// Names the way from input to output bytes; changes whenever the same input would become other bytes. For cache keys.
pub const GZIP_ALGORITHM: &str = "gzip-zlib-rs-0.6-blocks-1m-v1";

const BLOCK: usize = 1 << 20;
const WINDOW: usize = 32 << 10;
/// Deflate, no name, no time, unknown system: as Go writes it.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses what is written to it into one gzip member.
pub struct GzipWriter<W: Write> {
    inner: W,
    level: u32,
    /// Input of the block that is being filled.
    current: Vec<u8>,
    /// Input of the block before it.
    previous: Option<Arc<Vec<u8>>>,
    /// Blocks on their way, oldest first.
    blocks: VecDeque<Arc<Block>>,
    in_flight: usize,
    crc: Crc,
    started: bool,
}

/// A block that is compressed by whoever comes first: a thread of the pool, or the writer when it needs the result.
/// So the writer never waits for work that nobody has begun, even when it runs on the pool's only thread.
struct Block {
    state: Mutex<State>,
    changed: Condvar,
}

enum State {
    Waiting(Job),
    Running,
    Done(io::Result<Output>),
    Taken,
}

struct Job {
    input: Arc<Vec<u8>>,
    previous: Option<Arc<Vec<u8>>>,
    level: u32,
    last: bool,
}

struct Output {
    deflated: Vec<u8>,
    crc: Crc,
}

impl<W: Write> GzipWriter<W> {
    /// Compresses into `inner` at a level from 1, fast, to 9, small.
    pub fn new(inner: W, level: u32) -> Self {
        Self {
            inner,
            level: level.clamp(1, 9),
            current: Vec::new(),
            previous: None,
            blocks: VecDeque::new(),
            in_flight: 2 * rayon::current_num_threads() + 1,
            crc: Crc::new(),
            started: false,
        }
    }

    /// Ends the member and gives the inner writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.dispatch(true)?;
        while !self.blocks.is_empty() {
            self.drain_one()?;
        }
        self.inner.write_all(&self.crc.sum().to_le_bytes())?;
        self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn dispatch(&mut self, last: bool) -> io::Result<()> {
        let input = Arc::new(std::mem::take(&mut self.current));
        let previous = self.previous.replace(Arc::clone(&input));
        let job = Job { input, previous, level: self.level, last };
        let block = Arc::new(Block { state: Mutex::new(State::Waiting(job)), changed: Condvar::new() });
        self.blocks.push_back(Arc::clone(&block));
        rayon::spawn(move || block.run());
        while self.blocks.len() > self.in_flight || self.blocks.front().is_some_and(|block| block.is_done()) {
            self.drain_one()?;
        }
        Ok(())
    }

    fn drain_one(&mut self) -> io::Result<()> {
        let Some(block) = self.blocks.pop_front() else { return Ok(()) };
        let output = block.take()?;
        if !self.started {
            self.inner.write_all(&HEADER)?;
            self.started = true;
        }
        self.crc.combine(&output.crc);
        self.inner.write_all(&output.deflated)
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        // A full block waits for the next byte: only then it is known not to be the last.
        if self.current.len() == BLOCK {
            self.dispatch(false)?;
        }
        let n = buf.len().min(BLOCK - self.current.len());
        self.current.extend_from_slice(&buf[..n]);
        Ok(n)
    }

    /// Does nothing: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> std::fmt::Debug for GzipWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GzipWriter").field("level", &self.level).field("blocks", &self.blocks.len()).finish()
    }
}

impl Block {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self) -> bool {
        matches!(*self.lock(), State::Done(_))
    }

    /// Compresses the block unless somebody else has begun.
    fn run(&self) {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Running) {
            State::Waiting(job) => {
                drop(state);
                let output = job.run();
                *self.lock() = State::Done(output);
                self.changed.notify_all();
            }
            other => *state = other,
        }
    }

    /// The compressed block, compressed here if need be.
    fn take(&self) -> io::Result<Output> {
        self.run();
        let mut state = self.lock();
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Done(output) => return output,
                other => *state = other,
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Job {
    fn run(&self) -> io::Result<Output> {
        let mut compress = Compress::new(flate2::Compression::new(self.level), false);
        if let Some(previous) = &self.previous {
            let window = &previous[previous.len().saturating_sub(WINDOW)..];
            compress.set_dictionary(window).map_err(io::Error::other)?;
        }
        // Room for the worst case, so that it is one call and nothing depends on how the room grows.
        let mut deflated = Vec::with_capacity(self.input.len() + self.input.len() / 8 + 1024);
        let flush = if self.last { FlushCompress::Finish } else { FlushCompress::Sync };
        let status = compress.compress_vec(&self.input, &mut deflated, flush).map_err(io::Error::other)?;
        let whole = compress.total_in() == self.input.len() as u64 && deflated.len() < deflated.capacity();
        if !whole || (self.last && status != Status::StreamEnd) {
            return Err(io::Error::other("the compressor needs more room than its worst case"));
        }
        deflated.shrink_to_fit();
        let mut crc = Crc::new();
        crc.update(&self.input);
        Ok(Output { deflated, crc })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use std::io::Read;

    /// Text, numbers and noise, more than three blocks of it.
    fn mixed() -> Vec<u8> {
        let mut seed = 1u32;
        let mut out = Vec::new();
        while out.len() < 3 * BLOCK + 12_345 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match seed >> 29 {
                0..4 => out.extend_from_slice(b"the quick brown fox jumps over the lazy dog\n"),
                4..7 => out.extend_from_slice(format!("{}\n", seed % 1000).as_bytes()),
                _ => out.extend_from_slice(&seed.to_le_bytes()),
            }
        }
        out
    }

    fn gzip(data: &[u8], chunk: usize, level: u32) -> Vec<u8> {
        let mut writer = GzipWriter::new(Vec::new(), level);
        for piece in data.chunks(chunk) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    fn gunzip(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(data).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn any_length_comes_back_as_one_member() {
        let data = mixed();
        for length in [0, 1, WINDOW, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, data.len()] {
            let packed = gzip(&data[..length], 100_000, 6);
            assert!(gunzip(&packed) == data[..length], "{length} bytes");
            assert_eq!(packed[..10], HEADER);
        }
    }

    #[test]
    fn threads_and_write_sizes_do_not_change_the_bytes() {
        let data = mixed();
        for level in [1, 6, 9] {
            let want = gzip(&data, data.len(), level);
            for threads in [1, 2, 4] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                for chunk in [4096, 777_777] {
                    let got = pool.install(|| gzip(&data, chunk, level));
                    assert!(got == want, "level {level}, {threads} threads, writes of {chunk}");
                }
            }
        }
    }

    #[test]
    fn the_bytes_belong_to_the_algorithms_name() {
        assert_eq!(GZIP_ALGORITHM, "gzip-zlib-rs-0.6-blocks-1m-v1");
        insta::assert_snapshot!(Digest::sha256(gzip(&mixed(), 10_000, 6)), @"sha256:62d55d23db5704eca6587a3442fabe1636f63fe6b8772e473685c349c25c133c");
    }

    #[test]
    fn other_programs_accept_it() {
        let packed = gzip(&mixed(), 10_000, 6);
        let child = std::process::Command::new("gzip")
            .arg("-dc")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("SKIPPED: this check needs the gzip program");
            return;
        };
        let mut stdin = child.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || stdin.write_all(&packed));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap().unwrap();
        assert!(output.status.success() && output.stdout == mixed());
    }

    #[test]
    fn a_writer_that_fails_ends_the_work() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = GzipWriter::new(Full, 1);
        let written = writer.write_all(&vec![0; 64 * BLOCK]);
        let error = written.and_then(|()| writer.finish().map(drop)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
