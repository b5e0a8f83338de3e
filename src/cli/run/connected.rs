//! This process and a container: started, connected, followed to its end.

use std::os::fd::AsFd;

use rbuild_container::{
    AnonymousVolumes, Arrival, AttachRequest, Bond, Caller, CallerStreams, Console, ContainerId, ContainerRecord,
    Containers, DetachKeys, ExecRequest, Followed, Lifetime, LinkError, MonitorLink, RemoveOptions, SignalInbox,
    terminal_size,
};

use rbuild_executor::WindowSize;

use super::monitor;
use crate::cli::report::{self, Failure};
use crate::config::Settings;
use crate::engine::Engine;
use crate::exit_code::Exit;

/// Flags of `run` that say how this process is connected.
#[derive(Debug, clap::Args)]
pub(super) struct ConnectionArgs {
    /// Keys that leave the container running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Connect only these: stdin, stdout, stderr
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
    /// Pass signals on; with false they end this process, and the container goes on
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    sig_proxy: bool,
}

/// How this process is connected to a container.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) input: bool,
    pub(super) output: bool,
    pub(super) error: bool,
    pub(super) bond: Bond,
    pub(super) sig_proxy: bool,
    pub(super) keys: DetachKeys,
}

impl ConnectionArgs {
    pub(super) fn connection(
        &self,
        detach: bool,
        console: Console,
        settings: &Settings,
    ) -> Result<Connection, Failure> {
        if detach {
            if !self.attach.is_empty() {
                return Err(Failure::new("conflicting options: -a and -d"));
            }
            return Ok(Connection::detached());
        }
        let mut chosen = [self.attach.is_empty(); 3];
        for stream in &self.attach {
            let index = match stream.to_lowercase().as_str() {
                "stdin" => 0,
                "stdout" => 1,
                "stderr" => 2,
                _ => {
                    return Err(Failure::new(format!("invalid argument {stream:?} for --attach"))
                        .with_help("valid streams are stdin, stdout and stderr"));
                }
            };
            chosen[index] = true;
        }
        Ok(Connection {
            input: chosen[0] && console.interactive,
            output: chosen[1],
            error: chosen[2],
            bond: if self.sig_proxy { Bond::Bound } else { Bond::Loose },
            sig_proxy: self.sig_proxy,
            keys: detach_keys(self.detach_keys.as_ref(), settings)?,
        })
    }
}

/// The keys that were asked for, else those of Docker's configuration, else its default.
pub(super) fn detach_keys(given: Option<&DetachKeys>, settings: &Settings) -> Result<DetachKeys, Failure> {
    if let Some(given) = given {
        return Ok(given.clone());
    }
    let configured = settings.detach_keys()?.map(|keys| keys.parse::<DetachKeys>()).transpose();
    Ok(configured
        .map_err(|error| Failure::from(error).with_help("detachKeys in Docker's config.json"))?
        .unwrap_or_default())
}

impl Connection {
    /// Not connected: the container runs in the background.
    pub(super) fn detached() -> Self {
        Self {
            input: false,
            output: false,
            error: false,
            bond: Bond::Loose,
            sig_proxy: false,
            keys: DetachKeys::default(),
        }
    }

    fn is_detached(&self) -> bool {
        !self.input && !self.output && !self.error && self.bond == Bond::Loose
    }

    /// The signals that are to be passed on.
    pub(super) fn signals(&self) -> Result<Option<SignalInbox>, Failure> {
        Ok(self.sig_proxy.then(SignalInbox::open).transpose()?)
    }

    fn request(&self, streams: Option<&CallerStreams>) -> AttachRequest {
        AttachRequest {
            input: self.input,
            output: self.output,
            error: self.error,
            bond: self.bond,
            window: streams.and_then(|streams| terminal_size(&streams.output)),
        }
    }
}

/// Starts a container in a process of its own. In the background, this returns when it runs; connected, when it has ended,
/// with its exit code.
pub(super) fn start(
    containers: &Containers,
    record: &ContainerRecord,
    connection: &Connection,
    signals: Option<&mut SignalInbox>,
    engine: &Engine,
) -> Result<Exit, Failure> {
    let (link, theirs) = MonitorLink::pair()?;
    let streams = if connection.is_detached() { None } else { Some(own_streams()?) };
    link.attach(connection.request(streams.as_ref()), streams.as_ref())?;
    if streams.is_some() {
        containers.tell(record, "attach", &[]);
    }
    monitor::start(&record.id, theirs, engine)?;
    let result = follow(
        link,
        connection,
        streams,
        signals,
        &Telling { arrival: Arrival::First, of: Some((containers, record)) },
    );
    if let Err(LinkError::Died) = &result
        && record.config.lifetime == Lifetime::Process
    {
        // Nobody else will.
        let lease = engine.store()?.lease("rm")?;
        let options = RemoveOptions { volumes: AnonymousVolumes::Remove, ..RemoveOptions::default() };
        containers.remove(&record.id, options, &lease)?;
    }
    tell_of_detachment(containers, record, &result);
    outcome(result)
}

/// Runs a command with a terminal in a container, in a process of its own; returns when it has ended, with its exit code, or when
/// the keys were typed.
pub(super) fn execute(
    id: &ContainerId,
    request: &ExecRequest,
    keys: DetachKeys,
    engine: &Engine,
) -> Result<Exit, Failure> {
    let connection = Connection { input: true, output: true, error: true, bond: Bond::Bound, sig_proxy: true, keys };
    let (link, theirs) = MonitorLink::pair()?;
    let streams = own_streams()?;
    let mut signals = connection.signals()?;
    link.execute(request)?;
    link.attach(connection.request(Some(&streams)), Some(&streams))?;
    monitor::start_attendant(id, theirs, engine)?;
    command_outcome(follow(link, &connection, Some(streams), signals.as_mut(), &Telling::NOTHING))
}

/// Runs a command that nobody is connected to in a container, in a process of its own; returns when it runs.
pub(super) fn execute_detached(id: &ContainerId, request: &ExecRequest, engine: &Engine) -> Result<Exit, Failure> {
    let connection = Connection::detached();
    let (link, theirs) = MonitorLink::pair()?;
    link.execute(request)?;
    link.attach(connection.request(None), None)?;
    monitor::start_attendant(id, theirs, engine)?;
    command_outcome(follow(link, &connection, None, None, &Telling::NOTHING))
}

fn command_outcome(result: Result<Option<Followed>, LinkError>) -> Result<Exit, Failure> {
    match result {
        Err(LinkError::Died) => {
            Err(Failure::new("the process that ran the command was killed, and the command with it")
                .with_exit(Exit::Engine))
        }
        result => outcome(result),
    }
}

/// Connects to a container that runs; returns when it has ended, with its exit code.
pub(super) fn attach(
    containers: &Containers,
    record: &ContainerRecord,
    link: MonitorLink,
    connection: &Connection,
    signals: Option<&mut SignalInbox>,
) -> Result<Exit, Failure> {
    let streams = own_streams()?;
    link.attach(connection.request(Some(&streams)), Some(&streams))?;
    containers.tell(record, "attach", &[]);
    let telling = Telling { arrival: Arrival::Later, of: Some((containers, record)) };
    let result = follow(link, connection, Some(streams), signals, &telling);
    tell_of_detachment(containers, record, &result);
    outcome(result)
}

fn tell_of_detachment(containers: &Containers, record: &ContainerRecord, result: &Result<Option<Followed>, LinkError>) {
    if let Ok(Some(Followed::Detached)) = result {
        containers.tell(record, "detach", &[]);
    }
}

/// How a terminal is found, and of what its sizes are told: as in Docker of containers, not of commands in them.
struct Telling<'a> {
    arrival: Arrival,
    of: Option<(&'a Containers, &'a ContainerRecord)>,
}

impl Telling<'_> {
    /// A command's terminal, which was made for it.
    const NOTHING: Self = Self { arrival: Arrival::First, of: None };

    fn resized(&self, size: WindowSize) {
        if let Some((containers, record)) = self.of {
            let (height, width) = (size.rows.to_string(), size.columns.to_string());
            containers.tell(record, "resize", &[("height", &height), ("width", &width)]);
        }
    }
}

fn follow(
    link: MonitorLink,
    connection: &Connection,
    streams: Option<CallerStreams>,
    mut signals: Option<&mut SignalInbox>,
    telling: &Telling<'_>,
) -> Result<Option<Followed>, LinkError> {
    let mut warn = |warning: &str| report::story(&format!("warning: {}\n", report::printable(warning)));
    let attached = link.running(signals.as_deref_mut(), &mut warn)?;
    let Some(streams) = streams else { return Ok(None) };
    let mut resized = |size| telling.resized(size);
    let (keys, arrival) = (connection.keys.clone(), telling.arrival);
    let caller = Caller { streams, signals, keys, arrival, resized: &mut resized };
    attached.follow(caller, connection.input).map(Some)
}

fn outcome(result: Result<Option<Followed>, LinkError>) -> Result<Exit, Failure> {
    match result {
        Ok(None | Some(Followed::Detached)) => Ok(Exit::Success),
        Ok(Some(Followed::Ended { code, lost_output: None })) => Ok(Exit::Container(code)),
        Ok(Some(Followed::Ended { code, lost_output: Some(reason) })) => {
            let exit = if code == 0 { Exit::Engine } else { Exit::Container(code) };
            Err(Failure::new(format!("part of the container's output was lost: {reason}")).with_exit(exit))
        }
        Err(LinkError::NotStarted(failure)) => {
            let shown = Failure::new(failure.message).with_exit(Exit::Container(failure.code));
            Err(match failure.help {
                Some(help) => shown.with_help(help),
                None => shown,
            })
        }
        Err(LinkError::Interrupted { signal }) => {
            let code = u8::try_from(128 + signal.number()).unwrap_or(u8::MAX);
            Err(Failure::from(LinkError::Interrupted { signal }).with_exit(Exit::Container(code)))
        }
        Err(error) => Err(Failure::from(error).with_exit(Exit::Engine)),
    }
}

/// This process's standard streams.
pub(super) fn own_streams() -> Result<CallerStreams, Failure> {
    Ok(CallerStreams {
        input: std::io::stdin().as_fd().try_clone_to_owned()?,
        output: std::io::stdout().as_fd().try_clone_to_owned()?,
        error: std::io::stderr().as_fd().try_clone_to_owned()?,
    })
}
