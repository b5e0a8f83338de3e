//! Packages of Java's world: what Gradle pinned, what a project for Maven asks for in so many words, and what an unpacked
//! library says that it is.

use super::lock::Found;

/// `group:name:version=configurations`.
pub(super) fn gradle(text: &str) -> Vec<Found> {
    let one = |line: &str| {
        let mut parts = line.split('=').next()?.split(':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(group), Some(name), Some(version)) if !line.starts_with('#') => Some(found(group, name, version)),
            _ => None,
        }
    };
    text.lines().filter_map(one).collect()
}

/// The dependencies whose versions are written down; those that follow from elsewhere (`${…}`, a parent) are not pinned.
pub(super) fn pom(text: &str) -> Vec<Found> {
    let text = without_comments(text);
    let mut out = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once("<dependency>") {
        let Some((inside, behind)) = after.split_once("</dependency>") else { break };
        // What is excluded has names of its own.
        let own = inside.split("<exclusions>").next().unwrap_or_default();
        let behind_exclusions = inside.split_once("</exclusions>").map_or("", |(_, behind)| behind);
        let value = |tag: &str| element(own, tag).or_else(|| element(behind_exclusions, tag)).unwrap_or_default();
        let (group, name, version) = (value("groupId"), value("artifactId"), value("version"));
        if ![group, name, version].iter().any(|text| text.is_empty() || text.contains(['$', '[', '(', '<'])) {
            out.push(found(group, name, version));
        }
        rest = behind;
    }
    out
}

/// `META-INF/maven/…/pom.properties` of a library.
pub(super) fn properties(text: &str) -> Vec<Found> {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim()
    };
    match (value("groupId"), value("artifactId"), value("version")) {
        ("", ..) | (_, "", _) => Vec::new(),
        (group, name, version) => vec![found(group, name, version)],
    }
}

fn found(group: &str, name: &str, version: &str) -> Found {
    ("maven", format!("{}/{}", group.trim(), name.trim()), version.trim().to_owned(), String::new())
}

fn element<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("<{tag}>"))?;
    Some(after.split_once(&format!("</{tag}>"))?.0.trim())
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!--") {
        out.push_str(before);
        rest = after.split_once("-->").map_or("", |(_, behind)| behind);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_asks_for_libraries() {
        let text = "<project><groupId>me</groupId><version>9</version><dependencies>\n\
            <dependency>\n <groupId>org.x</groupId> <artifactId>lib</artifactId>\n\
              <exclusions><exclusion><groupId>no</groupId><artifactId>no</artifactId></exclusion></exclusions>\n\
              <version> 1.0 </version></dependency>\n\
            <!-- <dependency><groupId>gone</groupId><artifactId>a</artifactId><version>1</version></dependency> -->\n\
            <dependency><groupId>org.x</groupId><artifactId>other</artifactId><version>${v}</version></dependency>\n\
            <dependency><groupId>org.x</groupId><artifactId>managed</artifactId></dependency>\n\
            <dependency><groupId>org.y</groupId><artifactId>b</artifactId><version>2</version>";
        let want = ("maven", "org.x/lib".to_owned(), "1.0".to_owned(), String::new());
        assert_eq!(pom(text), [want]);
        assert_eq!(pom("<!-- never ends"), []);
        assert_eq!(properties("version=1"), []);
    }
}
