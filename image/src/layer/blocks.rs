//! Compression on all processors, with the same bytes whatever their number.
//!
//! ```text
//! input    |---- block ----|---- block ----|-- rest --|
//! output   |    members    |    members    | members  |     gzip members of 1 MiB at most, or zstd frames of 2 MiB
//! ```
//!
//! Blocks begin at fixed offsets of the input, however it was written. Each becomes a stream of its own (or, as gzip,
//! [a few](super::deflate)), and the streams follow each other, which both formats define as one (RFC 1952 section 2.2, RFC 8878 section 3.1). What blocks lose
//! by not knowing each other is less than a hundredth; what is won is a compressor that gets the whole block at once
//! (libdeflate, two to four times as fast as zlib for the same size) and memory that depends on the number of threads only.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::deflate::Gzip;

/// Names the way from input to gzip; changes whenever the same input would become other bytes. For cache keys.
pub const GZIP_ALGORITHM: &str = "gzip-libdeflate-1.26-members-1m-v2";
/// The same for zstd.
pub const ZSTD_ALGORITHM: &str = "zstd-1.5.7-frames-2m-v1";

/// What blocks become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockCodec {
    /// At a level from 0, stored, and 1, fast, to 12, small.
    Gzip { level: i32 },
    /// At a level from 1, fast, to 22, small.
    Zstd { level: i32 },
}

impl BlockCodec {
    fn block(self) -> usize {
        match self {
            Self::Gzip { .. } => 1 << 20,
            Self::Zstd { .. } => 2 << 20,
        }
    }

    fn worker(self) -> io::Result<Worker> {
        Ok(match self {
            Self::Gzip { level } => Worker::Gzip(Box::new(Gzip::new(level)?)),
            Self::Zstd { level } => {
                let mut compressor = zstd::bulk::Compressor::new(level)?;
                compressor.include_checksum(true)?;
                Worker::Zstd(compressor)
            }
        })
    }
}

/// Compresses one block after the other. What becomes of a block does not depend on those before.
enum Worker {
    Gzip(Box<Gzip>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Worker {
    fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
        output.clear();
        match self {
            Self::Gzip(gzip) => gzip.compress(input, output),
            Self::Zstd(compressor) => {
                output.reserve(zstd::zstd_safe::compress_bound(input.len()));
                compressor.compress_to_buffer(input, output).map(drop)
            }
        }
    }
}

/// What blocks are made with, used again by later ones: new memory is slow to get.
struct Shop {
    codec: BlockCodec,
    workers: Mutex<Vec<Worker>>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Shop {
    fn new(codec: BlockCodec) -> Self {
        Self { codec, workers: Mutex::default(), buffers: Mutex::default() }
    }

    fn compress(&self, input: Vec<u8>) -> io::Result<Vec<u8>> {
        let idle = lock(&self.workers).pop();
        let mut worker = idle.map_or_else(|| self.codec.worker(), Ok)?;
        let mut output = self.buffer();
        worker.compress(&input, &mut output)?;
        self.give_back(input);
        lock(&self.workers).push(worker);
        Ok(output)
    }

    fn buffer(&self) -> Vec<u8> {
        lock(&self.buffers).pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut spare = lock(&self.buffers);
        if spare.len() <= rayon::current_num_threads() {
            spare.push(buffer);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compresses what is written to it, block by block.
pub(super) struct BlockWriter<W: Write> {
    inner: W,
    shop: Arc<Shop>,
    /// Input of the block that is being filled.
    current: Vec<u8>,
    /// Blocks on their way, oldest first.
    blocks: VecDeque<Arc<Block>>,
    in_flight: usize,
    started: bool,
}

/// A block that is compressed by whoever comes first: a thread of the pool, or the writer when it needs the result.
/// So the writer never waits for work that nobody has begun, even when it runs on the pool's only thread.
struct Block {
    shop: Arc<Shop>,
    state: Mutex<State>,
    changed: Condvar,
}

enum State {
    Waiting(Vec<u8>),
    Running,
    Done(io::Result<Vec<u8>>),
    Taken,
}

impl<W: Write> BlockWriter<W> {
    /// Compresses into `inner`.
    pub(super) fn new(inner: W, codec: BlockCodec) -> Self {
        let in_flight = 2 * rayon::current_num_threads() + 1;
        Self {
            inner,
            shop: Arc::new(Shop::new(codec)),
            current: Vec::new(),
            blocks: VecDeque::new(),
            in_flight,
            started: false,
        }
    }

    /// Ends the stream and gives the inner writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.current.is_empty() || !self.started {
            self.dispatch()?;
        }
        while !self.blocks.is_empty() {
            self.drain_one()?;
        }
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn dispatch(&mut self) -> io::Result<()> {
        self.started = true;
        let state = Mutex::new(State::Waiting(std::mem::replace(&mut self.current, self.shop.buffer())));
        let block = Arc::new(Block { shop: Arc::clone(&self.shop), state, changed: Condvar::new() });
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
        self.inner.write_all(&output)?;
        self.shop.give_back(output);
        Ok(())
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let block = self.shop.codec.block();
        if self.current.len() == block {
            self.dispatch()?;
        }
        self.current.reserve_exact(block - self.current.len());
        let n = buf.len().min(block - self.current.len());
        self.current.extend_from_slice(&buf[..n]);
        Ok(n)
    }

    /// Does nothing: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> std::fmt::Debug for BlockWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockWriter").field("codec", &self.shop.codec).field("blocks", &self.blocks.len()).finish()
    }
}

impl Block {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn is_done(&self) -> bool {
        matches!(*self.lock(), State::Done(_))
    }

    /// Compresses the block unless somebody else has begun.
    fn run(&self) {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Running) {
            State::Waiting(input) => {
                drop(state);
                let output = self.shop.compress(input);
                *self.lock() = State::Done(output);
                self.changed.notify_all();
            }
            other => *state = other,
        }
    }

    /// The compressed block, compressed here if need be.
    fn take(&self) -> io::Result<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::layer::Decoder;
    use std::io::Read;
    use std::process::{Command, Stdio};

    const GZIP: BlockCodec = BlockCodec::Gzip { level: 2 };
    const ZSTD: BlockCodec = BlockCodec::Zstd { level: 3 };

    /// Text, numbers and noise, more than three blocks of it.
    fn mixed() -> Vec<u8> {
        let mut seed = 1u32;
        let mut out = Vec::new();
        while out.len() < 3 * ZSTD.block() + 12_345 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match seed >> 29 {
                0..4 => out.extend_from_slice(b"the quick brown fox jumps over the lazy dog\n"),
                4..7 => out.extend_from_slice(format!("{}\n", seed % 1000).as_bytes()),
                _ => out.extend_from_slice(&seed.to_le_bytes()),
            }
        }
        out
    }

    /// That, and now and then something without matches: noise, and skewed bytes.
    fn varied() -> Vec<u8> {
        let noise = |from: u64| (from..from + 150_000).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 37) as u8);
        let mut out = Vec::new();
        for (at, piece) in mixed().chunks(200_000).enumerate() {
            out.extend_from_slice(piece);
            let pairs = noise(at as u64).zip(noise(77));
            out.extend(pairs.map(|(a, b)| if at % 2 == 0 { a } else { a & b & 0x3f }));
        }
        out
    }

    fn pack(codec: BlockCodec, data: &[u8], chunk: usize) -> Vec<u8> {
        let mut writer = BlockWriter::new(Vec::new(), codec);
        for piece in data.chunks(chunk) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    fn unpack(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Decoder::new(data).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn any_length_comes_back() {
        let data = varied();
        for codec in [GZIP, ZSTD, BlockCodec::Gzip { level: 9 }, BlockCodec::Zstd { level: 1 }] {
            let block = codec.block();
            for length in [0, 1, block - 1, block, block + 1, 2 * block, data.len()] {
                let packed = pack(codec, &data[..length], 100_000);
                assert!(unpack(&packed) == data[..length], "{codec:?}: {length} bytes");
            }
        }
    }

    #[test]
    fn threads_and_write_sizes_do_not_change_the_bytes() {
        let data = varied();
        for codec in [GZIP, ZSTD] {
            let want = pack(codec, &data, data.len());
            for threads in [1, 2, 4] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                for chunk in [4096, 777_777] {
                    let got = pool.install(|| pack(codec, &data, chunk));
                    assert!(got == want, "{codec:?}, {threads} threads, writes of {chunk}");
                }
            }
        }
    }

    #[test]
    fn the_bytes_belong_to_the_algorithms_name() {
        let digests =
            [(GZIP, varied()), (ZSTD, mixed())].map(|(codec, data)| Digest::sha256(pack(codec, &data, 10_000)));
        assert_eq!([GZIP_ALGORITHM, ZSTD_ALGORITHM], ["gzip-libdeflate-1.26-members-1m-v2", "zstd-1.5.7-frames-2m-v1"]);
        insta::assert_snapshot!(digests[0], @"sha256:db4d1ec871737c346d37e1efb4f42f13f3bfdbf34ea34d0b7d7373c330a967c4");
        insta::assert_snapshot!(digests[1], @"sha256:248f252e3363a861afa01d39328e32f121f3187b8324f6eeb7fdc82c5658414c");
    }

    #[test]
    fn other_programs_accept_it() {
        let data = varied();
        for (codec, program) in [(GZIP, "gzip"), (ZSTD, "zstd")] {
            let packed = pack(codec, &data, 10_000);
            let child = Command::new(program).arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let Ok(mut child) = child else {
                eprintln!("SKIPPED: this check needs the {program} program");
                continue;
            };
            let mut stdin = child.stdin.take().unwrap();
            let feeder = std::thread::spawn(move || stdin.write_all(&packed));
            let output = child.wait_with_output().unwrap();
            feeder.join().unwrap().unwrap();
            assert!(output.status.success() && output.stdout == data, "{program}");
        }
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
        let mut writer = BlockWriter::new(Full, GZIP);
        let written = writer.write_all(&vec![0; 64 * GZIP.block()]);
        let error = written.and_then(|()| writer.finish().map(drop)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
