//! What fixed workloads ask of the kernel, counted by strace and compared with `costs.txt`: never time, which tells of the machine.
//!
//! A count that outgrew its bound is either a mistake, or the price of something worth it; then the bound is raised in the commit
//! that raises the count. Calls that depend on how threads meet, or on the allocator, are not counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::bench::Bench;

/// Calls whose number is up to the scheduler or the allocator, and `fcntl`, which debug builds ask about every descriptor.
const UNCOUNTED: &[&str] = &[
    "brk",
    "clock_nanosleep",
    "epoll_wait",
    "exit",
    "fcntl",
    "futex",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "poll",
    "ppoll",
    "read",
    "recvmsg",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigtimedwait",
    "sched_yield",
    "sigaltstack",
    "wait4",
    "write",
];

/// What is counted of a workload.
#[derive(Debug, Default, PartialEq, Eq)]
struct Costs {
    /// All counted calls.
    calls: u64,
    /// Those that wait for a disk.
    syncs: u64,
    /// Processes and threads that were started, and programs.
    starts: u64,
    by_name: BTreeMap<String, u64>,
}

impl Costs {
    /// From the table that `strace -c` writes: share, seconds, microseconds, calls, errors if any, name.
    fn parse(table: &str) -> Self {
        let mut costs = Self::default();
        for line in table.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(calls), Some(name)) = (words.get(3).and_then(|word| word.parse().ok()), words.last()) else {
                continue;
            };
            if *name == "total" || UNCOUNTED.contains(name) {
                continue;
            }
            costs.calls += calls;
            match *name {
                "fsync" | "fdatasync" | "syncfs" | "sync" | "sync_file_range" => costs.syncs += calls,
                "clone" | "clone3" | "fork" | "vfork" | "execve" | "execveat" => costs.starts += calls,
                _ => {}
            }
            costs.by_name.insert((*name).to_owned(), calls);
        }
        costs
    }

    fn most(&self) -> String {
        let mut names: Vec<_> = self.by_name.iter().collect();
        names.sort_by(|a, b| b.1.cmp(a.1));
        names.iter().take(12).map(|(name, calls)| format!("{name} {calls}")).collect::<Vec<_>>().join(", ")
    }
}

/// Bounds of one workload: calls, syncs, starts.
fn bounds(workload: &str) -> [u64; 3] {
    let text = include_str!("costs.txt");
    let line = text.lines().find_map(|line| line.strip_prefix(workload)?.strip_prefix(' '));
    let numbers: Vec<u64> = line.unwrap_or_default().split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("costs.txt has no three bounds of {workload}"))
}

/// Now and then a checkpoint of the database falls due, which costs two syncs more: the least of three runs counts.
fn check<const N: usize>(bench: &Bench, workload: &str, args: [&str; N]) {
    let mut exceeded = Vec::new();
    for _ in 0..3 {
        match count(bench, workload, args) {
            Ok(()) => return,
            Err(found) => exceeded.push(found),
        }
    }
    panic!("{}", exceeded.join("\n"));
}

/// What was more than is allowed.
fn count<const N: usize>(bench: &Bench, workload: &str, args: [&str; N]) -> Result<(), String> {
    let table = bench.path(format!("{workload}.calls"));
    let by = ["strace", "-f", "-c", "-o", table.to_str().unwrap()];
    let _ran = bench.through(by, args).run().ok();
    let costs = Costs::parse(&fs::read_to_string(&table).unwrap());
    assert!(costs.calls > 100, "strace counted nothing: {costs:?}");
    let found = [("calls", costs.calls), ("syncs", costs.syncs), ("starts", costs.starts)];
    eprintln!("{workload} {} {} {}", costs.calls, costs.syncs, costs.starts);
    for ((what, found), bound) in found.into_iter().zip(bounds(workload)) {
        if found > bound {
            let most = costs.most();
            return Err(format!(
                "{workload}: {found} {what}, and tests/end_to_end/costs.txt allows {bound}; the most frequent calls: {most}"
            ));
        }
    }
    Ok(())
}

fn steps(count: usize) -> String {
    (0..count).fold("FROM busybox\n".to_owned(), |text, step| text + &format!("RUN echo {step} > /file{step}\n"))
}

fn has_strace() -> bool {
    ["/usr/bin/strace", "/bin/strace"].iter().any(|path| Path::new(path).exists())
}

#[test]
fn fixed_workloads_ask_no_more_of_the_kernel_than_they_did() {
    let Some(bench) = Bench::with_busybox() else { return };
    assert!(has_strace(), "strace is installed (./dev test does it)");
    let (few, many, fifty) = (steps(10), steps(20), steps(50));
    let few = bench.context("few", [("Dockerfile", &few)]);
    let many = bench.context("many", [("Dockerfile", &many)]);
    let fifty = bench.context("fifty", [("Dockerfile", &fifty)]);
    let files = bench.context("files", [("Dockerfile", "FROM busybox\nCOPY . /files\n")]);
    for number in 0..5000 {
        let directory = files.join(format!("directory{}", number % 50));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(number.to_string()), number.to_string()).unwrap();
    }
    let build = ["build", "--quiet", "--network=none", "-t", "app"];
    let of = |context: &Path| context.to_str().unwrap().to_owned();
    let with = |context: &str| {
        let [build, quiet, network, t, name] = build;
        [build, quiet, network, t, name, context].map(str::to_owned)
    };
    let run = |context: &Path| {
        let args = with(&of(context));
        bench.rbuild(args).run().ok()
    };
    let (_many, _files) = (run(&many), run(&files));
    // A file that changed in the last moments could change again in the same tick, and is read again.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let _files = run(&files);
    let workloads = [("noop20", &many), ("context5000", &files)];
    for (workload, context) in workloads {
        let args = with(&of(context));
        check(&bench, workload, args.each_ref().map(String::as_str));
    }
    // The longer the chain, the more there is to ask of its layers.
    for (workload, context) in [("run10", &few), ("run50", &fifty)] {
        let context = of(context);
        check(&bench, workload, ["build", "--quiet", "--network=none", "--no-cache", "-t", workload, &context]);
    }
    check(&bench, "container", ["run", "--rm", "--network=none", "busybox", "true"]);
}

#[test]
fn a_table_of_strace_is_understood() {
    let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                 ------ ----------- ----------- --------- --------- ----------------\n\
                 \x2043.08    0.371149        1302       285        17 futex\n\
                 \x20 1.15    0.009914           5      1814           close\n\
                 \x20 0.10    0.000100           5        12         2 fsync\n\
                 \x20 0.10    0.000100           5         3           clone3\n\
                 100.00    0.382163         180      2114        19 total\n";
    let costs = Costs::parse(table);
    assert_eq!((costs.calls, costs.syncs, costs.starts), (1829, 12, 3));
    assert_eq!(costs.most(), "close 1814, fsync 12, clone3 3");
}
