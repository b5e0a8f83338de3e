//! Containers that run, looked into and changed: `pause`, `unpause`, `top`, `stats`, `update`, `rename`.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use rbuild_container::{ContainerChange, ContainerName, ContainerRecord, Containers, RestartPolicy};
use rbuild_executor::LiveUsage;
use serde_json::{Map, Value, json};

use super::containers::for_each;
use super::containers_of;
use crate::cli::limits::LimitArgs;
use crate::cli::list_format::{Format, Rows, render_as};
use crate::cli::report::{self, Failure, printable};
use crate::cli::table::{Table, binary_size, size};
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Arguments of commands that take containers and nothing else.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct NamesArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs `pause`.
pub(in crate::cli) fn pause(args: &NamesArgs, engine: &Engine) -> Result<Exit, Failure> {
    for_each(&args.containers, engine, |containers, text| Ok(containers.pause(&containers.find(text)?)?))
}

/// Runs `unpause`.
pub(in crate::cli) fn unpause(args: &NamesArgs, engine: &Engine) -> Result<Exit, Failure> {
    for_each(&args.containers, engine, |containers, text| Ok(containers.unpause(&containers.find(text)?)?))
}

/// Arguments of `rename`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RenameArgs {
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    name: ContainerName,
}

/// Runs `rename`.
pub(in crate::cli) fn rename(args: &RenameArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    containers.rename(&containers.find(&args.container)?, &args.name)?;
    Ok(Exit::Success)
}

/// Arguments of `update`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct UpdateArgs {
    #[command(flatten)]
    limits: LimitArgs,
    /// When it is started again: no, on-failure[:MAX], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<RestartPolicy>,
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs `update`.
pub(in crate::cli) fn update(args: &UpdateArgs, engine: &Engine) -> Result<Exit, Failure> {
    let change = ContainerChange { resources: args.limits.of_container()?, restart: args.restart };
    if change == ContainerChange::default() {
        return Err(
            Failure::new("you must provide one or more flags when using this command").with_help("see update --help")
        );
    }
    for_each(&args.containers, engine, |containers, text| Ok(containers.change(&containers.find(text)?, &change)?))
}

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TopArgs {
    /// Name, id, or beginning of an id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Options for this machine's `ps` [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<String>,
}

/// Runs `top`: what this machine's `ps` says about the container's processes, as in Docker.
pub(in crate::cli) fn top(args: &TopArgs, engine: &Engine) -> Result<Exit, Failure> {
    let containers = containers_of(engine)?;
    let record = containers.find(&args.container)?;
    let processes = containers.processes(&record)?;
    let mut command = Command::new("ps");
    if args.options.is_empty() {
        command.arg("-ef");
    }
    let output = command
        .args(&args.options)
        .output()
        .map_err(|error| Failure::from_error("cannot run ps", &error).with_help("it comes with the package procps"))?;
    if !output.status.success() {
        return Err(Failure::new(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    containers.tell(&record, "top", &[]);
    report::answer(&printable(&of_processes(&String::from_utf8_lossy(&output.stdout), &processes)?))?;
    Ok(Exit::Success)
}

/// The lines of `ps` about some processes, in columns.
fn of_processes(listed: &str, processes: &[u32]) -> Result<String, Failure> {
    let mut lines = listed.lines();
    let titles: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let pid = titles.iter().position(|title| *title == "PID");
    let pid = pid.ok_or_else(|| Failure::new("ps shows no PID").with_help("let its options show that column"))?;
    let mut rows = vec![titles.iter().map(|title| (*title).to_owned()).collect::<Vec<String>>()];
    for line in lines {
        let mut cells: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if !cells.get(pid).and_then(|cell| cell.parse().ok()).is_some_and(|cell| processes.contains(&cell)) {
            continue;
        }
        if cells.len() > titles.len() {
            let command = cells.split_off(titles.len() - 1).join(" ");
            cells.push(command);
        }
        rows.push(cells);
    }
    Ok(Table::of(rows).at_least(20).render())
}

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct StatsArgs {
    /// Also containers that do not run
    #[arg(short, long)]
    all: bool,
    /// Once, not again and again
    #[arg(long)]
    no_stream: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// table, json, or what a Go template makes of each: '{{.Name}} {{.CPUPerc}}'
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Names, ids, or beginnings of ids [default: all that run]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Between two measurements.
const INTERVAL: Duration = Duration::from_secs(1);
const STATS: Rows = Rows {
    row_type: "*container.statsContext",
    headings: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};

/// Runs `stats`.
pub(in crate::cli) fn stats(args: &StatsArgs, engine: &Engine) -> Result<Exit, Failure> {
    let format: Format = args.format.parse()?;
    let containers = containers_of(engine)?;
    let mut before = measured(args, &containers)?;
    loop {
        std::thread::sleep(INTERVAL);
        let now = measured(args, &containers)?;
        let rows: Vec<Map<String, Value>> = now
            .iter()
            .map(|sample| row(args, sample, before.iter().find(|other| other.record.id == sample.record.id)))
            .collect();
        let out = render_as(&format, &STATS, &rows, || table(&rows))?;
        let redraw = engine.settings().stdout_is_terminal && !args.no_stream;
        report::answer(&if redraw { format!("\x1b[2J\x1b[H{}", printable(&out)) } else { printable(&out) })?;
        std::io::stdout().flush()?;
        if args.no_stream {
            return Ok(Exit::Success);
        }
        before = now;
    }
}

struct Sample {
    record: ContainerRecord,
    usage: LiveUsage,
    at: Instant,
}

fn measured(args: &StatsArgs, containers: &Containers) -> Result<Vec<Sample>, Failure> {
    let records = if args.containers.is_empty() {
        let mut records = containers.list()?.containers;
        records.retain(|record| args.all || record.state.status.is_live());
        records
    } else {
        args.containers.iter().map(|text| containers.find(text)).collect::<Result<_, _>>()?
    };
    let measure = |record: ContainerRecord| -> Result<Sample, Failure> {
        Ok(Sample { usage: containers.usage(&record)?, record, at: Instant::now() })
    };
    records.into_iter().map(measure).collect()
}

fn row(args: &StatsArgs, sample: &Sample, before: Option<&Sample>) -> Map<String, Value> {
    let Sample { record, usage, at } = sample;
    let busy = before.map_or(0.0, |before| {
        let elapsed = at.duration_since(before.at).as_secs_f64();
        usage.cpu.saturating_sub(before.usage.cpu).as_secs_f64() / elapsed.max(0.001) * 100.0
    });
    let filled = if usage.memory_limit == 0 { 0.0 } else { usage.memory as f64 / usage.memory_limit as f64 * 100.0 };
    let row = json!({
        "BlockIO": format!("{} / {}", size(usage.read), size(usage.written)),
        "CPUPerc": format!("{busy:.2}%"),
        "Container": record.id.short(),
        "ID": if args.no_trunc { record.id.as_str() } else { record.id.short() },
        "MemPerc": format!("{filled:.2}%"),
        "MemUsage": format!("{} / {}", binary_size(usage.memory), binary_size(usage.memory_limit)),
        "Name": record.name.as_str(),
        "NetIO": format!("{} / {}", size(usage.received), size(usage.sent)),
        "PIDs": usage.pids.to_string(),
    });
    match row {
        Value::Object(row) => row,
        _ => unreachable!("written as an object just now"),
    }
}

fn table(rows: &[Map<String, Value>]) -> String {
    let columns = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];
    let mut table =
        Table::new(["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"])
            .docker();
    for row in rows {
        table.row(columns.map(|column| row[column].as_str().unwrap_or_default().to_owned()));
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes_are_shown() {
        let listed = "UID PID PPID CMD\nroot 1 0 /sbin/init splash\nroot 42 1 sleep 10  20\nroot 43 1 cat\n";
        assert_eq!(
            of_processes(listed, &[42, 43]).unwrap(),
            "UID                 PID                 PPID                CMD\n\
             root                42                  1                   sleep 10 20\n\
             root                43                  1                   cat\n"
        );
        assert!(of_processes("UID CMD\n", &[]).is_err());
    }
}
