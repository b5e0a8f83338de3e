//! `--mount type=…,source=…,target=…[,…]`.

use std::path::Path;

use rbuild_executor::{Access, BindManner, MountsBelow, Propagation, TmpfsOptions};

use super::tmpfs_flag::{DEFAULT_MODE, octal_mode};
use super::{CopyUp, InvalidMount, MissingSource, MountRequest, MountRequestSource, propagation, target};
use crate::quantity;

/// Reads one `--mount`. A relative `source` of a bind mount counts from `cwd`.
pub fn parse(text: &str, cwd: &Path) -> Result<MountRequest, InvalidMount> {
    let fields = Fields::read(text)?;
    let target = target(fields.target.as_deref().ok_or(InvalidMount::Missing { field: "target" })?)?;
    let source = match fields.kind.as_deref().unwrap_or("volume") {
        "volume" => fields.volume()?,
        "bind" => fields.bind(cwd)?,
        "tmpfs" => fields.tmpfs()?,
        other => return Err(InvalidMount::Value { key: "type".to_owned(), value: other.to_owned() }),
    };
    Ok(MountRequest { target, source, access: fields.access })
}

/// The fields of a `--mount`, before the type says which of them belong.
struct Fields {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    access: Access,
    copy: Option<CopyUp>,
    propagation: Option<Propagation>,
    below: Option<MountsBelow>,
    labels: Vec<(String, String)>,
    size: Option<u64>,
    mode: Option<u32>,
}

impl Fields {
    fn read(text: &str) -> Result<Self, InvalidMount> {
        let mut fields = Self {
            kind: None,
            source: None,
            target: None,
            access: Access::ReadWrite,
            copy: None,
            propagation: None,
            below: None,
            labels: Vec::new(),
            size: None,
            mode: None,
        };
        for field in csv_fields(text).ok_or_else(|| InvalidMount::Specification { text: text.to_owned() })? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
                None => (field.to_ascii_lowercase(), None),
            };
            fields.set(&key, value, text)?;
        }
        Ok(fields)
    }

    fn set(&mut self, key: &str, value: Option<String>, text: &str) -> Result<(), InvalidMount> {
        if let "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive" = key {
            let yes = flag_value(key, value.as_deref())?;
            match key {
                "bind-nonrecursive" => self.below = Some(if yes { MountsBelow::Hidden } else { MountsBelow::Shown }),
                "volume-nocopy" => self.copy = Some(if yes { CopyUp::Nothing } else { CopyUp::Content }),
                _ => self.access = if yes { Access::ReadOnly } else { Access::ReadWrite },
            }
            return Ok(());
        }
        let unexpected = || InvalidMount::Key { key: key.to_owned(), text: text.to_owned() };
        let value = value.ok_or_else(unexpected)?;
        let wrong = || InvalidMount::Value { key: key.to_owned(), value: value.clone() };
        match key {
            "type" => self.kind = Some(value.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(value),
            "target" | "dst" | "destination" => self.target = Some(value),
            "bind-propagation" => self.propagation = Some(propagation(&value).ok_or_else(wrong)?),
            "bind-recursive" => match value.as_str() {
                "enabled" | "readonly" => self.below = Some(MountsBelow::Shown),
                "disabled" => self.below = Some(MountsBelow::Hidden),
                "writable" => {
                    return Err(InvalidMount::NotServed {
                        what: format!("{key}={value}"),
                        instead: "what is mounted below a read-only mount is read-only, too",
                    });
                }
                _ => return Err(wrong()),
            },
            "consistency" => match value.as_str() {
                "consistent" | "cached" | "delegated" | "default" => {}
                _ => return Err(wrong()),
            },
            "volume-label" => {
                let (name, value) = value.split_once('=').unwrap_or((&value, ""));
                self.labels.push((name.to_owned(), value.to_owned()));
            }
            "volume-driver" if value == "local" => {}
            "volume-driver" | "volume-opt" | "volume-subpath" => {
                return Err(InvalidMount::NotServed {
                    what: format!("{key}={value}"),
                    instead: "only local volumes without options are served",
                });
            }
            "tmpfs-size" => self.size = Some(quantity::bytes(&value)?),
            "tmpfs-mode" => self.mode = Some(octal_mode(key, &value)?),
            _ => return Err(unexpected()),
        }
        Ok(())
    }

    fn volume(&self) -> Result<MountRequestSource, InvalidMount> {
        self.refuse_tmpfs_fields("volume")?;
        self.refuse_bind_fields("volume")?;
        let name = self.source.as_deref().filter(|name| !name.is_empty()).map(str::parse).transpose()?;
        Ok(MountRequestSource::Volume { name, copy: self.copy.unwrap_or(CopyUp::Content), labels: self.labels.clone() })
    }

    fn bind(&self, cwd: &Path) -> Result<MountRequestSource, InvalidMount> {
        self.refuse_tmpfs_fields("bind")?;
        self.refuse_volume_fields("bind")?;
        let source = self.source.as_deref().ok_or(InvalidMount::Missing { field: "source" })?;
        let manner =
            BindManner { propagation: self.propagation.unwrap_or_default(), below: self.below.unwrap_or_default() };
        Ok(MountRequestSource::Bind { path: cwd.join(source), missing: MissingSource::Refuse, manner })
    }

    fn tmpfs(&self) -> Result<MountRequestSource, InvalidMount> {
        self.refuse_volume_fields("tmpfs")?;
        self.refuse_bind_fields("tmpfs")?;
        if self.source.is_some() {
            return Err(InvalidMount::WrongKind { key: "source".to_owned(), kind: "tmpfs" });
        }
        let mode = self.mode.unwrap_or(DEFAULT_MODE);
        Ok(MountRequestSource::Tmpfs { size: self.size, mode, options: TmpfsOptions::default(), typed: None })
    }

    fn refuse_tmpfs_fields(&self, kind: &'static str) -> Result<(), InvalidMount> {
        let key = if self.size.is_some() {
            "tmpfs-size"
        } else if self.mode.is_some() {
            "tmpfs-mode"
        } else {
            return Ok(());
        };
        Err(InvalidMount::WrongKind { key: key.to_owned(), kind })
    }

    fn refuse_bind_fields(&self, kind: &'static str) -> Result<(), InvalidMount> {
        let key = if self.propagation.is_some() {
            "bind-propagation"
        } else if self.below.is_some() {
            "bind-recursive"
        } else {
            return Ok(());
        };
        Err(InvalidMount::WrongKind { key: key.to_owned(), kind })
    }

    fn refuse_volume_fields(&self, kind: &'static str) -> Result<(), InvalidMount> {
        let key = if self.copy.is_some() {
            "volume-nocopy"
        } else if !self.labels.is_empty() {
            "volume-label"
        } else {
            return Ok(());
        };
        Err(InvalidMount::WrongKind { key: key.to_owned(), kind })
    }
}

/// Reads a field that is a question: absent value, `true` and `1` say yes, `false` and `0` no.
fn flag_value(key: &str, value: Option<&str>) -> Result<bool, InvalidMount> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(InvalidMount::Value { key: key.to_owned(), value: other.to_owned() }),
    }
}

/// Splits one line of comma-separated values; a field in double quotes may hold commas, `""` inside it is a quote.
/// `None` when a quote is not closed or stands in the middle of a field.
fn csv_fields(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let end = quoted.find('"')?;
                field.push_str(&quoted[..end]);
                quoted = &quoted[end + 1..];
                let Some(more) = quoted.strip_prefix('"') else { break };
                field.push('"');
                quoted = more;
            }
            rest = quoted;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return None;
            }
            field.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        fields.push(field);
        if rest.is_empty() {
            return Some(fields);
        }
        rest = rest.strip_prefix(',')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rbuild_image::ContainerPath;

    fn read(text: &str) -> Result<MountRequest, InvalidMount> {
        parse(text, Path::new("/here"))
    }

    #[test]
    fn each_type_takes_its_fields() {
        let bind = |path: &str, access| MountRequest {
            target: ContainerPath::new("/c"),
            source: MountRequestSource::Bind {
                path: path.into(),
                missing: MissingSource::Refuse,
                manner: BindManner::default(),
            },
            access,
        };
        assert_eq!(read("type=bind,source=/h,target=/c"), Ok(bind("/h", Access::ReadWrite)));
        assert_eq!(read("type=bind,src=/h,dst=/c,readonly"), Ok(bind("/h", Access::ReadOnly)));
        assert_eq!(read("TYPE=BIND,src=h,destination=/c,ro=true"), Ok(bind("/here/h", Access::ReadOnly)));
        assert_eq!(read("type=bind,src=/h,dst=/c,ro=0,bind-propagation=rprivate"), Ok(bind("/h", Access::ReadWrite)));
        assert_eq!(read("type=bind,\"src=/a,b\",dst=/c"), Ok(bind("/a,b", Access::ReadWrite)));
        let volume = |name: Option<&str>, copy, labels: &[(&str, &str)]| MountRequest {
            target: ContainerPath::new("/c"),
            source: MountRequestSource::Volume {
                name: name.map(|n| n.parse().unwrap()),
                copy,
                labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            },
            access: Access::ReadWrite,
        };
        assert_eq!(read("source=data,target=/c"), Ok(volume(Some("data"), CopyUp::Content, &[])));
        assert_eq!(read("type=volume,target=/c"), Ok(volume(None, CopyUp::Content, &[])));
        assert_eq!(
            read("src=data,dst=/c,volume-nocopy,volume-label=a=b,volume-driver=local"),
            Ok(volume(Some("data"), CopyUp::Nothing, &[("a", "b")]))
        );
        assert_eq!(
            read("type=tmpfs,target=/c,tmpfs-size=1m,tmpfs-mode=700").unwrap().source,
            MountRequestSource::Tmpfs {
                size: Some(1 << 20),
                mode: 0o700,
                options: TmpfsOptions::default(),
                typed: None
            }
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, want) in [
            ("type=bind,source=/h", "target is required"),
            ("type=bind,target=/c", "source is required"),
            ("type=cifs,target=/c", "invalid value for type: cifs"),
            ("type=bind,src=/h,target=c", "invalid mount path: 'c': mount path must be absolute"),
            ("type=bind,src=/h,target=/", "invalid specification: destination can't be '/'"),
            ("type=bind,src=/h,dst=/c,color=red", "unexpected key 'color' in 'type=bind,src=/h,dst=/c,color=red'"),
            ("type=bind,src=/h,dst=/c,ro=maybe", "invalid value for ro: maybe"),
            ("type=bind,src=/h,dst=/c,tmpfs-size=1m", "cannot use 'tmpfs-size' with a mount of type 'bind'"),
            ("type=bind,src=/h,dst=/c,volume-nocopy", "cannot use 'volume-nocopy' with a mount of type 'bind'"),
            ("type=tmpfs,src=/h,dst=/c", "cannot use 'source' with a mount of type 'tmpfs'"),
            ("type=bind,\"src=/h,dst=/c", "invalid volume specification: 'type=bind,\"src=/h,dst=/c'"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), want, "{text:?}");
        }
        let tied = |text: &str| match read(text).unwrap().source {
            MountRequestSource::Bind { manner, .. } => (manner.propagation, manner.below),
            other => panic!("{other:?}"),
        };
        for (text, want) in [
            ("bind-propagation=rshared", (Propagation::Shared, MountsBelow::Shown)),
            ("bind-propagation=rslave,bind-nonrecursive", (Propagation::Slave, MountsBelow::Hidden)),
            ("bind-nonrecursive=false", (Propagation::Private, MountsBelow::Shown)),
            ("bind-recursive=disabled", (Propagation::Private, MountsBelow::Hidden)),
        ] {
            assert_eq!(tied(&format!("type=bind,src=/h,dst=/c,{text}")), want, "{text}");
        }
        let elsewhere = read("type=tmpfs,dst=/c,bind-propagation=rslave").unwrap_err().to_string();
        assert_eq!(elsewhere, "cannot use 'bind-propagation' with a mount of type 'tmpfs'");
        for refused in ["src=data,dst=/c,volume-opt=o=x", "type=bind,src=/h,dst=/c,bind-recursive=writable"] {
            assert!(read(refused).unwrap_err().to_string().contains("is not supported"), "{refused}");
        }
    }
}
