//! Tests that the documentation speaks of flags that exist, and that the tables for those who come from other tools forget none.

use clap::CommandFactory;

use super::Cli;

/// `docker build` of Docker 20.10, and `docker buildx build` of buildx 0.30 with what its help hides.
const DOCKER: &str = "--add-host --allow --annotation --attest --build-arg --build-context --builder --cache-from --cache-to --call \
    --cgroup-parent --check --compress --cpu-period --cpu-quota --cpu-shares --cpuset-cpus --cpuset-mems --debug \
    --disable-content-trust --file --force-rm --iidfile --invoke --isolation --label --load --memory --memory-swap --metadata-file \
    --network --no-cache --no-cache-filter --output --platform --policy --print --progress --provenance --pull --push --quiet --rm \
    --sbom --secret --security-opt --shm-size --squash --ssh --tag --target --ulimit";

/// `buildah build` of buildah 1.28.
const BUILDAH: &str = "--add-host --all-platforms --annotation --arch --authfile --build-arg --build-context --cache-from --cache-to \
    --cache-ttl --cap-add --cap-drop --cert-dir --cgroup-parent --cgroupns --compress --cpp-flag --cpu-period --cpu-quota --cpu-shares \
    --cpuset-cpus --cpuset-mems --creds --decryption-key --device --disable-compression --disable-content-trust --dns --dns-option \
    --dns-search --env --file --force-rm --format --from --hooks-dir --http-proxy --identity-label --ignorefile --iidfile --ipc \
    --isolation --jobs --label --layers --logfile --logsplit --manifest --memory --memory-swap --network --no-cache --no-hosts \
    --omit-history --os --os-feature --os-version --output --pid --platform --pull --pull-always --pull-never --quiet --retry \
    --retry-delay --rm --runtime --runtime-flag --secret --security-opt --shm-size --sign-by --skip-unused-stages --squash --ssh --stdin \
    --tag --target --timestamp --tls-verify --ulimit --unsetenv --userns --userns-gid-map --userns-gid-map-group --userns-uid-map \
    --userns-uid-map-user --uts --variant --volume";

/// The executor of kaniko 1.24.
const KANIKO: &str = "--bucket --build-arg --cache --cache-copy-layers --cache-dir --cache-repo --cache-run-layers --cache-ttl --cleanup \
    --compressed-caching --compression --compression-level --context --context-sub-path --credential-helpers --custom-platform \
    --customPlatform --destination --digest-file --dockerfile --force --force-build-metadata --git --ignore-path --ignore-var-run \
    --image-download-retry --image-fs-extract-retry --image-name-tag-with-digest-file --image-name-with-digest-file --insecure \
    --insecure-pull --insecure-registry --kaniko-dir --label --log-format --log-timestamp --no-push --no-push-cache --oci-layout-path \
    --push-ignore-immutable-tag-errors --push-retry --registry-certificate --registry-client-cert --registry-map --registry-mirror \
    --reproducible --single-snapshot --skip-default-registry-fallback --skip-push-permission-check --skip-tls-verify \
    --skip-tls-verify-pull --skip-tls-verify-registry --skip-unused-stages --snapshot-mode --snapshotMode --tar-path --tarPath --target \
    --use-new-run --verbosity --whitelist-var-run";

const MIGRATING: &str = include_str!("../../docs/migrating.md");

/// What stands between backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The flags in a text, without values: `-o type=x` is `-o`. Those of instructions (`COPY --from`) are another matter.
fn flags(text: &str) -> Vec<&str> {
    let commands = spans(text).filter(|span| !span.starts_with(char::is_uppercase));
    let words = commands.flat_map(|span| span.split([' ', '=', '…']));
    words
        .filter(|word| {
            word.starts_with('-') && word.len() > 1 && word.trim_start_matches('-').starts_with(char::is_alphabetic)
        })
        .collect()
}

fn has(command: &clap::Command, flag: &str, hidden: bool) -> bool {
    command.get_arguments().filter(|known| hidden || !known.is_hide_set()).any(|known| match flag.strip_prefix("--") {
        Some(long) => known.get_long() == Some(long) || known.get_all_aliases().unwrap_or_default().contains(&long),
        None => flag.chars().nth(1).is_some_and(|short| known.get_short() == Some(short)),
    })
}

/// The rows of the table with this heading, as (their tool's flags, ours).
fn table<'a>(heading: &str) -> Vec<(&'a str, &'a str)> {
    let rows = MIGRATING.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split_once(" | ").expect("a row has two cells"))
        .collect()
}

#[test]
fn the_tables_for_other_tools_are_whole_and_true() {
    let cli = Cli::command();
    let build = cli.find_subcommand("build").expect("it exists");
    let tools = [("| `docker build`", DOCKER), ("| `buildah build`", BUILDAH), ("| kaniko's", KANIKO)];
    for (heading, known) in tools {
        let rows = table(heading);
        assert!(!rows.is_empty(), "{heading}");
        for flag in known.split_whitespace() {
            let found = rows.iter().filter(|(theirs, _)| flags(theirs).contains(&flag)).count();
            assert_ne!(found, 0, "{heading} … has no row for {flag}");
        }
        for (theirs, ours) in rows {
            for flag in flags(ours) {
                assert!(has(build, flag, true) || has(&cli, flag, true), "{heading} … {ours}: rbuild has no {flag}");
            }
            for flag in flags(theirs) {
                if ours.starts_with("the same") {
                    assert!(has(build, flag, false) || flag == "--print", "{heading} …: {flag} is not the same here");
                } else if ours.starts_with("accepted") {
                    assert!(has(build, flag, true), "{heading} …: {flag} is not accepted");
                } else if ours.starts_with("refused") {
                    assert!(!has(build, flag, false), "{heading} …: {flag} is not refused");
                }
            }
        }
    }
}

#[test]
fn the_flags_that_pages_name_exist() {
    let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let docs = pages.join("docs").read_dir().expect("docs").map(|entry| entry.expect("an entry").path());
    for page in docs.chain([pages.join("README.md")]).filter(|page| page.extension().is_some_and(|end| end == "md")) {
        let text = std::fs::read_to_string(&page).expect("a page");
        // Blocks are run by tests of their own.
        let prose = text.split("```").step_by(2).collect::<String>();
        for span in spans(&prose).filter(|span| span.starts_with("rbuild ")) {
            wrong.extend(unknown_flags(span).into_iter().map(|flag| format!("{}: {span}: {flag}", page.display())));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The flags of a command line that no command on its way has.
fn unknown_flags(line: &str) -> Vec<String> {
    let cli = Cli::command();
    let mut way = vec![&cli];
    let mut unknown = Vec::new();
    for word in line.split_whitespace().skip(1) {
        let last = way.last().expect("it begins with rbuild itself");
        // What follows belongs to a program in a container, or is a list of what there is.
        if word == "sh" || word.contains('|') {
            break;
        }
        if let Some(sub) = last
            .get_subcommands()
            .find(|sub| sub.get_name() == word || sub.get_all_aliases().any(|other| other == word))
        {
            way.push(sub);
        } else if word.starts_with("--") {
            let flag = word.split('=').next().unwrap_or(word).trim_end_matches(['.', ',', '…']);
            let build = cli.find_subcommand("build").filter(|_| way.len() == 1);
            if !way.iter().copied().chain(build).any(|command| has(command, flag, true)) {
                unknown.push(flag.to_owned());
            }
        }
    }
    unknown
}
