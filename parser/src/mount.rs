//! `RUN --mount`: a flag as written, and the mount it means once its values are expanded. Which keys a value may come from is
//! known early, but nearly every value may hold variables, so almost all checking waits until then; only `from` decides the
//! shape of the build graph and must be constant.

use crate::grammar::mount::{CsvError, fields};
use crate::quote::Quoted;
use crate::suggest::suggestion;
use crate::word::Escape;
use crate::{ExpandError, Span, Word};

/// A `--mount` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlag {
    raw: String,
    fields: Vec<String>,
    from: Option<String>,
    span: Span,
    escape: Escape,
}

/// A mount of a `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `type`; `bind` when not given.
    pub kind: MountKind,
    /// `from`: a stage, an image or a named context.
    pub from: Option<String>,
    /// `source`.
    pub source: Option<String>,
    /// `target`.
    pub target: Option<String>,
    /// Whether it is read-only: as told, else all but `cache` and `tmpfs` are.
    pub read_only: bool,
    /// `id` of a cache, a secret or an agent.
    pub id: Option<String>,
    /// `sharing` of a cache.
    pub sharing: Sharing,
    /// `required` of a secret or an agent.
    pub required: bool,
    /// `env` of a secret: the variable that holds it.
    pub env: Option<String>,
    /// `mode`.
    pub mode: Option<u32>,
    /// `uid`.
    pub uid: Option<u32>,
    /// `gid`.
    pub gid: Option<u32>,
    /// `size` of a tmpfs in bytes; 0 is unlimited.
    pub size: i64,
}

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret file.
    Secret,
    /// An agent's socket.
    Ssh,
}

impl MountKind {
    const ALL: [(&'static str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
        ("tmpfs", Self::Tmpfs),
    ];

    /// As written in a Dockerfile.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// How steps that run at once use one cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}

impl Sharing {
    const ALL: [(&'static str, Self); 3] =
        [("locked", Self::Locked), ("private", Self::Private), ("shared", Self::Shared)];
}

/// All keys, for suggestions.
const KEYS: [&str; 19] = [
    "destination",
    "dst",
    "env",
    "from",
    "gid",
    "id",
    "mode",
    "readonly",
    "readwrite",
    "required",
    "ro",
    "rw",
    "sharing",
    "size",
    "source",
    "src",
    "target",
    "type",
    "uid",
];

/// A `--mount` that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum MountError {
    #[error("failed to parse csv mounts: {0}")]
    Csv(CsvError),
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    VariableInFrom,
    #[error(transparent)]
    Expand(#[from] ExpandError),
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    Misplaced { key: String, kind: &'static str },
    #[error("invalid field '{0}' must be a key=value pair")]
    NoValue(String),
    #[error("unsupported mount type {}{}", Quoted(.value), did_you_mean(.suggestion))]
    Kind { value: String, suggestion: Option<String> },
    #[error("unsupported sharing value {}{}", Quoted(.value), did_you_mean(.suggestion))]
    Sharing { value: String, suggestion: Option<String> },
    #[error("invalid value for {key}: {value}")]
    Value { key: String, value: String },
    #[error("invalid value {value} for {key}")]
    Number { key: &'static str, value: String },
    #[error("unexpected key '{key}' in '{field}'{}", did_you_mean(.suggestion))]
    Key { key: String, field: String, suggestion: Option<String> },
    #[error("{key} not allowed for {} type mounts", Quoted(.kind))]
    NotAllowed { key: &'static str, kind: &'static str },
    #[error("secret mount should not have a from")]
    SecretFrom,
    #[error("secret mount should not define sharing")]
    SecretSharing,
    #[error("invalid secret mount. one of source, target required")]
    SecretName,
    #[error("both source and id can't be set")]
    SourceAndId,
    #[error("invalid cache sharing set for {0} mount")]
    SharingKind(&'static str),
}

fn did_you_mean(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

impl MountFlag {
    /// Reads a flag's value as far as that is possible without values of variables.
    pub(crate) fn parse(raw: &str, span: Span, escape: Escape) -> Result<Self, MountError> {
        let fields = fields(raw).map_err(MountError::Csv)?;
        let mut from = None;
        for field in &fields {
            if let Some((key, value)) = field.split_once('=')
                && key.eq_ignore_ascii_case("from")
            {
                // A lone dollar at the end is no reference.
                if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                    return Err(MountError::VariableInFrom);
                }
                from = Some(value.to_owned());
            }
        }
        Ok(Self { raw: raw.to_owned(), fields, from, span, escape })
    }

    /// The value as written.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Its place.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The stage, image or named context it takes files from; known before anything is expanded. An empty one counts as none.
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref().filter(|from| !from.is_empty())
    }

    /// The words that expansion will see, in order; for the lints and for keys.
    pub fn words(&self) -> impl Iterator<Item = Word> + '_ {
        let values = self.fields.iter().filter_map(|field| field.split_once('=').map(|(_, value)| value));
        values.map(|value| Word::new(value, self.span, self.escape))
    }

    /// Finishes the mount, each value expanded by `expand`.
    pub fn resolve<E>(&self, mut expand: impl FnMut(&Word) -> Result<String, E>) -> Result<Mount, MountError>
    where
        MountError: From<E>,
    {
        let mut draft = Draft::default();
        for field in &self.fields {
            match field.split_once('=') {
                None => draft.set_bare(field)?,
                Some((key, value)) => {
                    let value = expand(&Word::new(value, self.span, self.escape))?;
                    draft.set(&key.to_lowercase(), value, field)?;
                }
            }
        }
        draft.finish()
    }
}

struct Draft {
    mount: Mount,
    access_given: bool,
    sharing_given: bool,
}

impl Default for Draft {
    fn default() -> Self {
        let mount = Mount {
            kind: MountKind::Bind,
            from: None,
            source: None,
            target: None,
            read_only: true,
            id: None,
            sharing: Sharing::Shared,
            required: false,
            env: None,
            mode: None,
            uid: None,
            gid: None,
            size: 0,
        };
        Self { mount, access_given: false, sharing_given: false }
    }
}

impl Draft {
    /// A key without value.
    fn set_bare(&mut self, field: &str) -> Result<(), MountError> {
        let key = field.to_lowercase();
        match key.as_str() {
            "readonly" | "ro" => self.set_read_only(true),
            "readwrite" | "rw" => self.set_read_only(false),
            "required" => {
                self.must_be(&key, &[MountKind::Secret, MountKind::Ssh])?;
                self.mount.required = true;
            }
            _ => return Err(MountError::NoValue(field.to_owned())),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: String, field: &str) -> Result<(), MountError> {
        let mount = &mut self.mount;
        let invalid = |value: String| MountError::Value { key: key.to_owned(), value };
        match key {
            "type" => {
                mount.kind = choose(&MountKind::ALL, value, |value, suggestion| MountError::Kind { value, suggestion })?
            }
            "from" => mount.from = non_empty(value),
            "source" | "src" => mount.source = non_empty(value),
            "target" | "dst" | "destination" => mount.target = non_empty(value),
            "readonly" | "ro" => {
                let on = parse_bool(&value).ok_or_else(|| invalid(value))?;
                self.set_read_only(on);
            }
            "readwrite" | "rw" => {
                let on = parse_bool(&value).ok_or_else(|| invalid(value))?;
                self.set_read_only(!on);
            }
            "required" => {
                self.must_be(key, &[MountKind::Secret, MountKind::Ssh])?;
                self.mount.required = parse_bool(&value).ok_or_else(|| invalid(value))?;
            }
            "size" => {
                self.must_be(key, &[MountKind::Tmpfs])?;
                self.mount.size = crate::size::parse(&value).ok_or_else(|| invalid(value))?;
            }
            "id" => mount.id = non_empty(value),
            "env" => mount.env = Some(value),
            "sharing" => {
                let refuse = |value, suggestion| MountError::Sharing { value, suggestion };
                mount.sharing = choose(&Sharing::ALL, value, refuse)?;
                self.sharing_given = true;
            }
            "mode" => mount.mode = Some(number("mode", &value, 8)?),
            "uid" => mount.uid = Some(number("uid", &value, 10)?),
            "gid" => mount.gid = Some(number("gid", &value, 10)?),
            _ => {
                let suggestion = suggestion(key, KEYS);
                return Err(MountError::Key { key: key.to_owned(), field: field.to_owned(), suggestion });
            }
        }
        Ok(())
    }

    fn set_read_only(&mut self, on: bool) {
        self.mount.read_only = on;
        self.access_given = true;
    }

    /// Some keys go with some kinds, and the kind must come first.
    fn must_be(&self, key: &str, kinds: &[MountKind]) -> Result<(), MountError> {
        let kind = self.mount.kind;
        if kinds.contains(&kind) {
            return Ok(());
        }
        Err(MountError::Misplaced { key: key.to_owned(), kind: kind.as_str() })
    }

    fn finish(self) -> Result<Mount, MountError> {
        let Self { mut mount, access_given, sharing_given } = self;
        let kind = mount.kind;
        if matches!(kind, MountKind::Bind | MountKind::Tmpfs) {
            for (key, value) in [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)] {
                if value.is_some() {
                    return Err(MountError::NotAllowed { key, kind: kind.as_str() });
                }
            }
        }
        if !access_given {
            mount.read_only = !matches!(kind, MountKind::Cache | MountKind::Tmpfs);
        }
        if kind == MountKind::Secret {
            if mount.from.is_some() {
                return Err(MountError::SecretFrom);
            }
            if sharing_given {
                return Err(MountError::SecretSharing);
            }
            if mount.source.is_none() && mount.target.is_none() && mount.id.is_none() {
                return Err(MountError::SecretName);
            }
            if mount.source.is_some() && mount.id.is_some() {
                return Err(MountError::SourceAndId);
            }
        }
        if sharing_given && kind != MountKind::Cache {
            return Err(MountError::SharingKind(kind.as_str()));
        }
        Ok(mount)
    }
}

fn non_empty(value: String) -> Option<String> {
    Some(value).filter(|value| !value.is_empty())
}

/// Picks by name, whatever its case.
fn choose<T: Copy>(
    all: &[(&'static str, T)],
    value: String,
    refuse: impl FnOnce(String, Option<String>) -> MountError,
) -> Result<T, MountError> {
    let lower = value.to_lowercase();
    if let Some((_, found)) = all.iter().find(|(name, _)| *name == lower) {
        return Ok(*found);
    }
    let suggestion = suggestion(&value, all.iter().map(|(name, _)| *name));
    Err(refuse(value, suggestion))
}

fn number(key: &'static str, value: &str, radix: u32) -> Result<u32, MountError> {
    let digits = !value.is_empty() && value.chars().all(|c| c.is_digit(radix));
    let number = digits.then(|| u32::from_str_radix(value, radix).ok()).flatten();
    number.ok_or_else(|| MountError::Number { key, value: value.to_owned() })
}

/// Truth values as Go reads them.
pub fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::NoVariables;

    fn mount(raw: &str) -> Result<Mount, String> {
        let flag = MountFlag::parse(raw, Span::default(), Escape::Backslash).map_err(|error| error.to_string())?;
        flag.resolve(|word| word.expand(&NoVariables).map(|expanded| expanded.text)).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_follow_the_kind() {
        for (raw, read_only) in [
            ("target=/x", true),
            ("type=bind,target=/x,rw", false),
            ("type=cache,target=/x", false),
            ("type=CACHE,target=/x,ro=true", true),
            ("type=tmpfs,target=/x", false),
            ("type=secret,id=a", true),
            ("type=ssh", true),
            ("rw=0,target=/x", true),
        ] {
            assert_eq!(mount(raw).map(|mount| mount.read_only), Ok(read_only), "{raw}");
        }
    }

    #[test]
    fn values_are_typed() {
        let cache = mount("type=cache,dst=/c,id=i,sharing=Locked,mode=0755,uid=7,gid=8,from=s,src=d").unwrap();
        assert_eq!((cache.mode, cache.uid, cache.gid, cache.sharing), (Some(0o755), Some(7), Some(8), Sharing::Locked));
        assert_eq!((cache.from.as_deref(), cache.source.as_deref()), (Some("s"), Some("d")));
        assert_eq!(mount("type=tmpfs,target=/t,size=64m").unwrap().size, 64 << 20);
        let secret = mount("type=secret,id=a,env=TOKEN,required").unwrap();
        assert_eq!((secret.env.as_deref(), secret.required), (Some("TOKEN"), true));
    }

    #[test]
    fn faults_are_told_in_buildkits_words() {
        for (raw, message) in [
            ("type=bnd,target=/x", "unsupported mount type \"bnd\" (did you mean bind?)"),
            ("type=cache,colour=red,target=/x", "unexpected key 'colour' in 'colour=red'"),
            ("type=cache,taget=/x", "unexpected key 'taget' in 'taget=/x' (did you mean target?)"),
            ("type=bind,sharing=locked,target=/x", "invalid cache sharing set for bind mount"),
            ("type=cache,sharing=share", "unsupported sharing value \"share\" (did you mean shared?)"),
            ("required,type=secret,id=x", "unexpected key 'required' for mount type 'bind'"),
            ("size=1,target=/x", "unexpected key 'size' for mount type 'bind'"),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("type=cache,uid=-1", "invalid value -1 for uid"),
            ("ro=maybe", "invalid value for ro: maybe"),
            ("mode=1,target=/x", "mode not allowed for \"bind\" type mounts"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,src=a,id=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
            ("from=$A", "'from' doesn't support variable expansion, define alias stage instead"),
            ("a\"b", "failed to parse csv mounts: parse error on line 1, column 2: bare \" in non-quoted-field"),
            ("", "failed to parse csv mounts: EOF"),
        ] {
            assert_eq!(mount(raw), Err(message.to_owned()), "{raw}");
        }
    }
}
