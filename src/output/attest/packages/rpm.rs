//! RPM's packages, from its databases: SQLite, `ndb` (SUSE), and Berkeley DB (before 2020). All keep one header a package,
//! in the format of package files.

use std::io;
use std::path::PathBuf;

use rbuild_cache::view::View;
use rusqlite::{Connection, OpenFlags};

use super::berkeley::large_values;
use super::{Distribution, MAX_BYTES, Package};
use crate::cli::report::Failure;

/// Directories that the database may be in.
const DIRECTORIES: [&str; 3] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm", "/usr/share/rpm"];

/// A header's tags (rpm's `rpmtag.h`).
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const VENDOR: u32 = 1011;
const LICENSE: u32 = 1014;
const ARCH: u32 = 1022;
const SOURCE: u32 = 1044;

/// The packages of an image; `scratch` names files that may be made for a while.
pub(super) fn packages(
    view: &View,
    distribution: &Distribution,
    scratch: &dyn Fn() -> io::Result<PathBuf>,
) -> Result<Vec<Package>, Failure> {
    for directory in DIRECTORIES {
        let broken = |file: &str, error: &(dyn std::error::Error + 'static)| {
            Failure::from_error(&format!("--sbom: cannot read the rpm database {file}"), error)
        };
        let file = format!("{directory}/rpmdb.sqlite");
        if let Some(bytes) = view.read_regular(&file, MAX_BYTES)? {
            let headers = sqlite_headers(&bytes, scratch).map_err(|error| broken(&file, &error))?;
            return Ok(headers.iter().filter_map(|header| package(header, distribution, &file)).collect());
        }
        let file = format!("{directory}/Packages.db");
        if let Some(bytes) = view.read_regular(&file, MAX_BYTES)? {
            let headers = ndb_headers(&bytes)
                .ok_or_else(|| Failure::new(format!("--sbom: {file} is not an ndb database of rpm's")))?;
            return Ok(headers.iter().filter_map(|header| package(header, distribution, &file)).collect());
        }
        let file = format!("{directory}/Packages");
        if let Some(bytes) = view.read_regular(&file, MAX_BYTES)? {
            let headers = large_values(&bytes)
                .ok_or_else(|| Failure::new(format!("--sbom: {file} is not a hash database of Berkeley DB")))?;
            return Ok(headers.iter().filter_map(|header| package(header, distribution, &file)).collect());
        }
    }
    Ok(Vec::new())
}

/// The headers of an SQLite database: it is read from a copy, as it stands.
fn sqlite_headers(bytes: &[u8], scratch: &dyn Fn() -> io::Result<PathBuf>) -> Result<Vec<Vec<u8>>, rusqlite::Error> {
    let unusable = |error: io::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(error));
    let path = scratch().map_err(unusable)?;
    std::fs::write(&path, bytes).map_err(unusable)?;
    let read = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let uri = format!("file:{}?immutable=1", super::super::escape(&path.to_string_lossy(), b"/"));
        let database = Connection::open_with_flags(uri, flags)?;
        let mut statement = database.prepare("SELECT blob FROM Packages ORDER BY hnum")?;
        let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        rows.collect()
    };
    let headers = read();
    // It goes with the lease at the latest.
    let _gone = std::fs::remove_file(&path);
    headers
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The headers of an `ndb` database. After 32 bytes (magic, version, generation, pages of slots) come slots of 16 bytes:
/// magic, package, offset and length of a blob in units of 16; a blob has 16 bytes of its own first (magic, package,
/// generation, length).
fn ndb_headers(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    const MAGIC: u32 = u32::from_le_bytes(*b"RpmP");
    const SLOT: u32 = u32::from_le_bytes(*b"Slot");
    const BLOB: u32 = u32::from_le_bytes(*b"BlbS");
    if number(bytes, 0)? != MAGIC || number(bytes, 4)? != 0 {
        return None;
    }
    let pages = usize::try_from(number(bytes, 12)?).ok()?;
    let end = pages.checked_mul(4096)?.min(bytes.len());
    let mut headers = Vec::new();
    // The first two slots are the file's own head.
    for at in (32..end).step_by(16) {
        if number(bytes, at) != Some(SLOT) {
            return None;
        }
        let (package, offset) = (number(bytes, at + 4)?, usize::try_from(number(bytes, at + 8)?).ok()?);
        if offset == 0 {
            continue;
        }
        let begin = offset.checked_mul(16)?;
        if number(bytes, begin)? != BLOB || number(bytes, begin + 4)? != package {
            return None;
        }
        let length = usize::try_from(number(bytes, begin + 12)?).ok()?;
        headers.push(bytes.get(begin + 16..(begin + 16).checked_add(length)?)?.to_vec());
    }
    Some(headers)
}

/// What a header says. It begins with the number of its entries and of its data's bytes, all numbers big-endian; an
/// entry is tag, type, offset into the data, and count.
fn package(header: &[u8], distribution: &Distribution, file: &str) -> Option<Package> {
    let big = |at: usize| Some(u32::from_be_bytes(header.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let entries = usize::try_from(big(0)?).ok()?;
    let data = header.get(8usize.checked_add(entries.checked_mul(16)?)?..)?;
    let find = |tag: u32| {
        let at = (0..entries).map(|entry| 8 + entry * 16).find(|at| big(*at) == Some(tag))?;
        data.get(usize::try_from(big(at + 8)?).ok()?..)
    };
    let text = |tag: u32| {
        let bytes = find(tag).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let (name, version, release) = (text(NAME), text(VERSION), text(RELEASE));
    // Keys that signatures are checked with are kept among the packages.
    if name.is_empty() || name == "gpg-pubkey" {
        return None;
    }
    let epoch = find(EPOCH).and_then(|bytes| Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?)));
    Some(Package {
        namespace: distribution.id.clone(),
        qualifiers: vec![
            ("arch", text(ARCH)),
            ("epoch", epoch.map(|epoch| epoch.to_string()).unwrap_or_default()),
            ("distro", distribution.label()),
            ("upstream", text(SOURCE)),
        ],
        licence: text(LICENSE),
        supplier: text(VENDOR),
        ..Package::new("rpm", name, format!("{version}-{release}"), file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with texts, and an epoch of 2.
    fn header(texts: &[(u32, &str)]) -> Vec<u8> {
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        let mut entry = |tag: u32, kind: u32, offset: usize| {
            for number in [tag, kind, u32::try_from(offset).unwrap(), 1] {
                entries.extend(number.to_be_bytes());
            }
        };
        entry(EPOCH, 4, 0);
        data.extend(2u32.to_be_bytes());
        for (tag, text) in texts {
            entry(*tag, 6, data.len());
            data.extend(text.as_bytes());
            data.push(0);
        }
        let count = |n: usize| u32::try_from(n).unwrap().to_be_bytes();
        [&count(texts.len() + 1)[..], &count(data.len()), &entries, &data].concat()
    }

    fn distribution() -> Distribution {
        Distribution { id: "fedora".to_owned(), version: "40".to_owned() }
    }

    const TEXTS: [(u32, &str); 4] = [(NAME, "bash"), (VERSION, "5.2"), (RELEASE, "3.fc40"), (ARCH, "x86_64")];
    const URL: &str = "pkg:rpm/fedora/bash@5.2-3.fc40?arch=x86_64&distro=fedora-40&epoch=2";

    #[test]
    fn headers_name_packages() {
        assert_eq!(package(&header(&TEXTS), &distribution(), "f").unwrap().url(), URL);
        assert_eq!(package(&header(&[(NAME, "gpg-pubkey")]), &distribution(), "f"), None);
        for cut in 0..header(&TEXTS).len() {
            // Whatever is missing, nothing panics.
            drop(package(&header(&TEXTS)[..cut], &distribution(), "f"));
        }
    }

    #[test]
    fn ndb_databases_are_read() {
        let header = header(&TEXTS);
        let mut file = vec![0u8; 4096];
        let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(&mut file, 0, b"RpmP");
        put(&mut file, 12, &1u32.to_le_bytes());
        for at in (32..4096).step_by(16) {
            put(&mut file, at, b"Slot");
        }
        put(&mut file, 36, &7u32.to_le_bytes());
        put(&mut file, 40, &256u32.to_le_bytes());
        file.extend(b"BlbS");
        for number in [7u32, 0, u32::try_from(header.len()).unwrap()] {
            file.extend(number.to_le_bytes());
        }
        file.extend(&header);
        let headers = ndb_headers(&file).unwrap();
        assert_eq!(package(&headers[0], &distribution(), "f").unwrap().url(), URL);
        assert_eq!(headers.len(), 1);
        assert_eq!(ndb_headers(b"not a database"), None);
        assert_eq!(ndb_headers(&file[..5000.min(file.len() - 9)]), None);
    }

    #[test]
    fn databases_of_berkeley_db_are_read() {
        let file = include_bytes!("../../../../testdata/rpm/Packages");
        let headers = large_values(file).unwrap();
        let mut found: Vec<_> = headers
            .iter()
            .filter_map(|header| package(header, &distribution(), "f"))
            .map(|found| found.url())
            .collect();
        found.sort();
        assert_eq!(found, [URL.to_owned(), URL.replace("bash", "glibc")]);
    }

    #[test]
    fn sqlite_databases_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made");
        let database = Connection::open(&path).unwrap();
        database.execute_batch("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)").unwrap();
        database.execute("INSERT INTO Packages (blob) VALUES (?1)", [header(&TEXTS)]).unwrap();
        drop(database);
        let bytes = std::fs::read(&path).unwrap();
        let headers = sqlite_headers(&bytes, &|| Ok(dir.path().join("copy"))).unwrap();
        assert_eq!(package(&headers[0], &distribution(), "f").unwrap().url(), URL);
        assert!(sqlite_headers(b"nonsense", &|| Ok(dir.path().join("copy"))).is_err());
        assert!(!dir.path().join("copy").exists());
    }
}
