//! Named points in front of and behind each durable step, where a test can let this process die or an operation fail.
//!
//! They exist in this crate's own tests and with the feature `failpoints`; elsewhere [`hit`] is nothing. Armed with
//! `NAME=ACTION[@N][;NAME=ACTION…]`, where the action is `abort`, `sleep:MILLISECONDS`, or an errno's number; with `@N`
//! only the Nth hit counts. `tests/failpoints.rs` finds all points by itself and tries each. With the feature, the variable `RBUILD_FAILPOINTS` arms them, so that child processes inherit it.

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
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Duration;

    static ARMED: OnceLock<BTreeMap<String, (Action, Option<usize>)>> = OnceLock::new();
    static HITS: Mutex<BTreeMap<&'static str, usize>> = Mutex::new(BTreeMap::new());

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

    /// How often each point was hit.
    #[cfg(test)]
    pub(crate) fn hits() -> BTreeMap<&'static str, usize> {
        HITS.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does what was armed for `name`.
    pub(crate) fn hit(name: &'static str) -> io::Result<()> {
        let count = {
            let mut hits = HITS.lock().unwrap_or_else(PoisonError::into_inner);
            let count = hits.entry(name).or_default();
            *count += 1;
            *count
        };
        match ARMED.get_or_init(from_environment).get(name) {
            None => Ok(()),
            Some((_, Some(only))) if *only != count => Ok(()),
            Some((Action::Abort, _)) => std::process::abort(),
            Some((Action::Sleep(time), _)) => {
                std::thread::sleep(*time);
                Ok(())
            }
            Some((Action::Errno(errno), _)) => Err(io::Error::from_raw_os_error(*errno)),
        }
    }

    #[cfg(feature = "failpoints")]
    fn from_environment() -> BTreeMap<String, (Action, Option<usize>)> {
        #[expect(clippy::disallowed_methods, reason = "a test build that must reach every child process")]
        parse(&std::env::var("RBUILD_FAILPOINTS").unwrap_or_default())
    }

    #[cfg(not(feature = "failpoints"))]
    fn from_environment() -> BTreeMap<String, (Action, Option<usize>)> {
        BTreeMap::new()
    }

    fn parse(text: &str) -> BTreeMap<String, (Action, Option<usize>)> {
        let points = text.split(';').filter_map(|part| part.split_once('='));
        let action = |text: &str| match text.split_once(':') {
            Some(("sleep", time)) => time.parse().ok().map(|time| Action::Sleep(Duration::from_millis(time))),
            _ if text == "abort" => Some(Action::Abort),
            _ => text.parse().ok().map(Action::Errno),
        };
        let armed = |(name, text): (&str, &str)| {
            let (text, only) = match text.split_once('@') {
                Some((text, number)) => (text, Some(number.parse().ok()?)),
                None => (text, None),
            };
            Some((name.to_owned(), (action(text)?, only)))
        };
        points.filter_map(armed).collect()
    }
}
