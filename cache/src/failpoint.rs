//! Named points in front of and behind each durable step, where a test can let this process die or an operation fail.
//!
//! They exist in this crate's own tests and with the feature `failpoints`; elsewhere [`hit`] is nothing. Armed with
//! `NAME=ACTION[;NAME=ACTION…]`, where the action is `abort`, `sleep:MILLISECONDS`, or an errno's number. With the
//! feature, the variable `RBUILD_FAILPOINTS` arms them, so that child processes inherit it.

#[cfg(not(any(test, feature = "failpoints")))]
#[inline(always)]
pub(crate) fn hit(_: &'static str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(any(test, feature = "failpoints"))]
pub(crate) use armed::hit;

#[cfg(any(test, feature = "failpoints"))]
pub(crate) mod armed {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::OnceLock;
    use std::time::Duration;

    static ARMED: OnceLock<BTreeMap<String, Action>> = OnceLock::new();

    #[derive(Clone, Debug)]
    enum Action {
        Abort,
        Sleep(Duration),
        Errno(i32),
    }

    /// Arms points for the rest of this process's life; only the first call counts.
    #[cfg(test)]
    pub(crate) fn arm(text: &str) {
        ARMED.get_or_init(|| parse(text));
    }

    /// Does what was armed for `name`.
    pub(crate) fn hit(name: &'static str) -> io::Result<()> {
        match ARMED.get_or_init(from_environment).get(name) {
            None => Ok(()),
            Some(Action::Abort) => std::process::abort(),
            Some(Action::Sleep(time)) => {
                std::thread::sleep(*time);
                Ok(())
            }
            Some(Action::Errno(errno)) => Err(io::Error::from_raw_os_error(*errno)),
        }
    }

    #[cfg(feature = "failpoints")]
    fn from_environment() -> BTreeMap<String, Action> {
        #[expect(clippy::disallowed_methods, reason = "a test build that must reach every child process")]
        parse(&std::env::var("RBUILD_FAILPOINTS").unwrap_or_default())
    }

    #[cfg(not(feature = "failpoints"))]
    fn from_environment() -> BTreeMap<String, Action> {
        BTreeMap::new()
    }

    fn parse(text: &str) -> BTreeMap<String, Action> {
        let points = text.split(';').filter_map(|part| part.split_once('='));
        let action = |text: &str| match text.split_once(':') {
            Some(("sleep", time)) => time.parse().ok().map(|time| Action::Sleep(Duration::from_millis(time))),
            _ if text == "abort" => Some(Action::Abort),
            _ => text.parse().ok().map(Action::Errno),
        };
        points.filter_map(|(name, text)| Some((name.to_owned(), action(text)?))).collect()
    }
}
