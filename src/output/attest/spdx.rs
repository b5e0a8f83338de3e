//! An image's packages as an SPDX document, version 2.3 in JSON. Equal packages give equal bytes: the document has the
//! image's time, and its name space follows from what it lists.

use rbuild_image::Digest;
use serde_json::{Value, json};

use super::packages::Package;

/// The predicate's type.
pub(super) const PREDICATE_TYPE: &str = "https://spdx.dev/Document";

/// The document about an image. `created` is when its config says that it was made.
pub(super) fn document(name: &str, created: &str, packages: &[Package]) -> Value {
    let root = "SPDXRef-DocumentRoot-Image";
    let mut listed = vec![json!({
        "name": name,
        "SPDXID": root,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": "CONTAINER",
    })];
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", root)];
    for package in packages {
        let url = package.url();
        // Two files may name the same package: each is listed with its place.
        let digest = Digest::sha256(format!("{url}\0{}", package.found_in)).hex();
        let id = format!("SPDXRef-Package-{}-{}-{}", package.kind, id_text(&package.name), &digest[..16]);
        let full = if package.namespace.is_empty() || !is_scoped(package) {
            package.name.clone()
        } else {
            format!("{}/{}", package.namespace, package.name)
        };
        listed.push(json!({
            "name": full,
            "SPDXID": id,
            "versionInfo": package.version,
            "supplier": supplier(&package.supplier),
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "sourceInfo": format!("acquired package info from {}", package.found_in),
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": licence(&package.licence),
            "copyrightText": "NOASSERTION",
            "externalRefs": [{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url }],
        }));
        relations.push(relation(root, "CONTAINS", &id));
    }
    let identity = Digest::sha256(format!("{name}\0{created}\0{}", Value::Array(listed.clone()))).hex();
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("https://github.com/rbuild/rbuild/spdx/{identity}"),
        "creationInfo": {
            "created": created,
            "creators": [format!("Tool: rbuild-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": listed,
        "relationships": relations,
    })
}

/// Whether a namespace is part of the name that people use.
fn is_scoped(package: &Package) -> bool {
    matches!(package.kind, "npm" | "golang" | "composer")
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// The part of a text that may be in an SPDX id.
fn id_text(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

/// `Organization: NAME (MAIL)`, as SPDX wants it.
fn supplier(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    match text.split_once('<') {
        _ if text.is_empty() => "NOASSERTION".to_owned(),
        Some((name, mail)) => format!("Organization: {} ({})", name.trim(), mail.trim_end_matches('>').trim()),
        None => format!("Organization: {}", text.trim()),
    }
}

/// A licence, where it is an expression of SPDX identifiers by its form.
fn licence(text: &str) -> String {
    let word = |word: &str| {
        let bare = word.trim_matches(['(', ')']);
        !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.+".contains(&b))
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let operator = |word: &&str| ["AND", "OR", "WITH"].contains(word);
    let fine = words.len() % 2 == 1
        && words
            .iter()
            .enumerate()
            .all(|(at, one)| if at % 2 == 0 { word(one) && !operator(one) } else { operator(one) });
    if fine { text.to_owned() } else { "NOASSERTION".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_expressions_or_not_asserted() {
        for (text, want) in [
            ("MIT", "MIT"),
            ("MIT AND BSD-2-Clause", "MIT AND BSD-2-Clause"),
            ("(MIT OR Apache-2.0)", "(MIT OR Apache-2.0)"),
            ("GPL v2", "NOASSERTION"),
            ("", "NOASSERTION"),
            ("MIT AND", "NOASSERTION"),
        ] {
            assert_eq!(licence(text), want, "{text:?}");
        }
        assert_eq!(supplier("A B <a@b>"), "Organization: A B (a@b)");
    }

    #[test]
    fn a_document_depends_on_its_packages_only() {
        let package = |name: &str| Package {
            name: name.to_owned(),
            version: "1".to_owned(),
            kind: "npm",
            namespace: "@s".to_owned(),
            found_in: "/f".to_owned(),
            ..Package::default()
        };
        let one = document("app", "1970-01-01T00:00:00Z", &[package("a")]);
        assert_eq!(one, document("app", "1970-01-01T00:00:00Z", &[package("a")]));
        assert_ne!(
            one["documentNamespace"],
            document("app", "1970-01-01T00:00:00Z", &[package("b")])["documentNamespace"]
        );
        assert_eq!(one["packages"][1]["name"], "@s/a");
        assert_eq!(one["relationships"][1]["relationshipType"], "CONTAINS");
    }
}
